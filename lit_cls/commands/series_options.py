"""The options of a series itself; every other one goes to each of its fits."""

import argparse
from collections.abc import Sequence

from lit_cls.commands.parser import CommandParser
from lit_cls.errors import UserError


class SeriesParser(CommandParser):
    """Own options are parsed, others handed on.

    Args:
        verb: of the command.
        description: what it does.
        fixed: options of `fit`, or groups of them, that are no options of the series; with the way out.
        free: options of such a group that are.
    """

    def __init__(self, verb: str, description: str, fixed: dict[str, str], free: Sequence[str] = ()) -> None:
        super().__init__(
            verb,
            description,
            "Every other option goes to each fit: --data.path FILE, --trainer.precision bf16-mixed, "
            "--trainer.accelerator cpu, …; lit_cls fit --help lists them.",
        )
        self.fixed = fixed
        self.free = free

    def split(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Own options, and those of `fit`.

        Raises:
            UserError: a wrong value, or an option of `fit` that the series sets itself.
        """
        own, others = self.parse_known_args(list(words))
        for word in others:
            name = "--config" if word.startswith("-c") else word.split("=")[0]
            way_out = self.fixed.get(name) or self.fixed.get(name.split(".")[0])
            hidden = [option for option in self.fixed if option.startswith(f"{name}.")]
            if hidden:
                way_out = f"give its options one by one, without {hidden[0]}"
            if way_out and name not in self.free:
                raise UserError(f"{name} is no option of {self.prog}: {way_out}")
            if name.startswith("--print_config"):
                raise UserError(f"{name} is an option of lit_cls fit: a series has many configurations")
        return own, others


def whole_numbers(option: str, given: str) -> list[int]:
    """Different whole numbers, separated by commas.

    Raises:
        UserError: something else.
    """
    words = [word.strip() for word in given.split(",")]
    if not all(word.isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise UserError(f"{option} {given}: different whole numbers separated by commas are needed, such as 123,1,2")
    return [int(word) for word in words]
