"""The published table (rasbt/LLMs-from-scratch, ch06/02_bonus_additional-experiments): 19 design choices.

The configuration file of a row says what it is; published_rows.csv has the numbers of correct predictions that the
published percentages stand for, without one that is impossible. The published loader drops the last, incomplete batch
of the train split: 1,040 of its 1,045 texts are trained on and evaluated, all of them where a batch is one text.
"""

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import lit_cls
from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.errors import UserError
from lit_cls.experiments.counts import Count

_PACKAGE = Path(lit_cls.__file__).parent
# In an installed package the files are inside it, in a checkout beside it.
_CONFIGS = next((f for f in (_PACKAGE / "configs" / "rows", _PACKAGE.parent / "configs" / "rows") if f.is_dir()), None)


@dataclass(frozen=True)
class TableRow:
    """One row of the table, with its published figures."""

    number: int
    title: str
    published: dict[SplitName, Count]
    """A split whose figure is impossible is left out."""
    minutes: float
    """Training on one A100."""

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


def _read_rows() -> dict[int, TableRow]:
    rows = {}
    with Path(__file__).with_name("published_rows.csv").open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            counts = {split: (int(line[split]), int(line[f"{split}_texts"])) for split in SPLIT_NAMES if line[split]}
            number = int(line["row"])
            rows[number] = TableRow(number, line["title"], counts, float(line["minutes_a100"]))
    return rows


ROWS = _read_rows()


def choose_rows(given: str) -> list[TableRow]:
    """Rows in the order of the table: `all`, or numbers and ranges such as `1,2,16-19`; a UserError for others."""
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
