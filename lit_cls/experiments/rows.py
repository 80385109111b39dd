"""The published table (rasbt/LLMs-from-scratch, ch06/02_bonus_additional-experiments): 19 design choices.

The configuration file of a row says what it is; here are the figures that were published for it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import lit_cls
from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.experiments.finished_run import Count

_PACKAGE = Path(lit_cls.__file__).parent
# In an installed package the files are inside it, in a checkout beside it.
_CONFIGS = next((f for f in (_PACKAGE / "configs" / "rows", _PACKAGE.parent / "configs" / "rows") if f.is_dir()), None)

# The published loader drops the last, incomplete batch of the train split: 1,040 of its 1,045 texts
# are trained on and evaluated, all of them where a batch is one text.
_N_TRAIN, _N_VALIDATION, _N_TEST = 1040, 149, 300


@dataclass(frozen=True)
class TableRow:
    """One row: its number, its title, and its published figures."""

    number: int
    title: str
    train: int
    """Correct predictions: the whole numbers that the published percentages stand for."""
    validation: int | None
    """None where the published percentage is impossible."""
    test: int
    minutes: float
    """Training on one A100."""
    n_train: int = _N_TRAIN

    @cached_property
    def config(self) -> Path:
        """Its file in configs/rows."""
        found = sorted(_CONFIGS.glob(f"{self.number:02d}_*.yaml")) if _CONFIGS else []
        if len(found) != 1:
            raise UserError(f"the configuration of row {self.number} is not in {_CONFIGS}: install lit_cls again")
        return found[0]

    @cached_property
    def model(self) -> dict[str, Any]:
        """The options of the model in its file."""
        settings: dict[str, Any] = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        return settings.get("model", {})

    @property
    def published(self) -> dict[SplitName, Count]:
        """Its counts by split; a split whose figure is impossible is left out."""
        counts: dict[SplitName, Count] = {"train": (self.train, self.n_train), "test": (self.test, _N_TEST)}
        if self.validation is not None:
            counts["validation"] = (self.validation, _N_VALIDATION)
        return counts


ROWS: dict[int, TableRow] = {
    row.number: row
    for row in (
        TableRow(1, "last block, last position", 1005, 148, 285, 0.28),
        TableRow(2, "first position", 816, 120, 225, 0.28),
        TableRow(3, "head alone", 818, 119, 216, 0.25),
        TableRow(4, "last two blocks", 1028, 147, 295, 0.33),
        TableRow(5, "all layers", 1036, 144, 290, 0.69),
        TableRow(6, "medium", 910, 136, 254, 0.75),
        TableRow(7, "large", 1035, 147, 290, 1.50),
        TableRow(8, "XL", 1038, None, 295, 2.83),
        TableRow(9, "XL, all layers", 1040, 147, 296, 8.12),
        TableRow(10, "random weights, all layers", 1040, 144, 281, 0.69),
        TableRow(11, "LoRA", 1040, 145, 290, 0.75),
        TableRow(12, "XL, LoRA", 1040, 147, 295, 5.79),
        TableRow(13, "padded to 1,024 tokens", 864, 131, 235, 2.46),
        TableRow(14, "no padding, steps of 1", 1045, 147, 294, 1.75, n_train=1045),
        TableRow(15, "no padding, steps of 8", 1038, 147, 295, 1.70, n_train=1045),
        TableRow(16, "last real token", 1034, 147, 295, 0.30),
        TableRow(17, "no causal mask", 1032, 147, 286, 0.29),
        TableRow(18, "ignore_index (is row 1)", 1005, 148, 285, 0.28),
        TableRow(19, "mean over positions", 1017, 148, 289, 0.32),
    )
}


def choose_rows(given: str) -> list[TableRow]:
    """Rows by their numbers, in the order of the table.

    Args:
        given: `all`, or numbers and ranges such as `1,2,16-19`.

    Raises:
        UserError: a word that is no row.
    """
    if given == "all":
        return list(ROWS.values())
    chosen: set[int] = set()
    for word in given.split(","):
        first, dash, last = word.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or int(last or first) < int(first):
            raise UserError(f"--rows {given}: {word.strip()!r} is no row: give all, or numbers such as 1,2,16-19")
        for number in (int(first), int(last or first)):
            if number not in ROWS:
                raise UserError(f"--rows {given}: the table has the rows 1 to {len(ROWS)}, not {number}")
        chosen.update(range(int(first), int(last or first) + 1))
    return [ROWS[number] for number in sorted(chosen)]
