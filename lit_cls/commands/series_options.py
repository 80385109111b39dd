"""Options of the commands that run several fits; every other option goes to each fit."""

import argparse
from collections.abc import Sequence

from lit_cls.commands.parser import CommandParser
from lit_cls.errors import UserError


class SeriesParser(CommandParser):
    """Parses the options of a series and passes on those of `fit`.

    Of the latter, those in `fixed`, options or groups of them, are refused with a hint, except those in `free`.
    """

    def __init__(self, command: str, description: str, fixed: dict[str, str], free: Sequence[str] = ()) -> None:
        others = "Every other option goes to each fit: --data.path FILE, --trainer.precision bf16-mixed, "
        others += "--trainer.accelerator cpu, …; lit_cls fit --help lists them."
        super().__init__(command, description, others)
        self.fixed, self.free = fixed, free

    def split(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Own options, and those of `fit`; a UserError refuses those that the series sets itself."""
        own, others = self.parse_known_args(list(words))
        for word in others:
            name = "--config" if word.startswith("-c") else word.split("=")[0]
            hint = self.fixed.get(name) or self.fixed.get(name.split(".")[0])
            hidden = [option for option in self.fixed if option.startswith(f"{name}.")]
            if hidden:
                hint = f"give its options one by one, without {hidden[0]}"
            if hint and name not in self.free:
                raise UserError(f"{name} is no option of {self.prog}: {hint}")
            if name.startswith("--print_config"):
                raise UserError(f"{name} is an option of lit_cls fit: a series has many configurations")
        return own, others


def whole_numbers(option: str, given: str) -> list[int]:
    """Different whole numbers, separated by commas; a UserError for anything else."""
    words = [word.strip() for word in given.split(",")]
    if not all(word.isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise UserError(f"{option} {given}: different whole numbers separated by commas are needed, such as 123,1,2")
    return [int(word) for word in words]
