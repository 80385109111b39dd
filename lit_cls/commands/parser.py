"""The parser of the subcommands that do not go through LightningCLI."""

import argparse
import os
from pathlib import Path
from typing import NoReturn

from lit_cls.errors import UserError


def user_path(given: str) -> Path:
    """The value of an option that names a file or folder; `~` is expanded."""
    return Path(os.path.expanduser(given))


class CommandParser(argparse.ArgumentParser):
    """The options of one command; line breaks of its description and epilog are kept."""

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"lit_cls {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raises a UserError, instead of printing a usage that hides the mistake."""
        raise UserError(f"{message}; {self.prog} --help lists the options")
