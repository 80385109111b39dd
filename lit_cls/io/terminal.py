"""Standard output of a command that also writes a file: whoever closes the one keeps the other from nobody."""

from contextlib import suppress
from typing import NoReturn

from rich.console import Console


class _Terminal(Console):
    """A console that leaves to `cli.main` what a closed pipe means: rich would end the process, with an error."""

    def on_broken_pipe(self) -> NoReturn:
        """Raises what is being handled.

        Raises:
            BrokenPipeError: always.
        """
        raise  # noqa: PLE0704


def tell(line: str) -> None:
    """Prints a line before or during the work, which goes on where the line cannot be written.

    `cli.main` says at the end what there is to say about that.
    """
    with suppress(OSError):
        print(line, flush=True)


def standard_output(plain: bool = False) -> Console:
    """As wide as a terminal, elsewhere 120 columns.

    Args:
        plain: whether everything is printed as it is, and of any width.
    """
    if plain:
        return _Terminal(highlight=False, markup=False, emoji=False)
    console = _Terminal()
    return console if console.is_terminal else _Terminal(width=120)
