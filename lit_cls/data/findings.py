"""Findings: what is wrong, or worth knowing, about a file or its rows.

`fit` refuses the first one (`refuse`), `predict` raises it where it occurs, `lit_cls data check` lists them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lit_cls.errors import UserError


@dataclass(frozen=True)
class Finding:
    """One thing to know about a file or its rows."""

    kind: str
    """A word for machines."""
    message: str
    """What it is and, where a person has to act, the hint."""
    rows: list[int] = field(default_factory=list)
    """All rows that show it, numbered from 1 without header and blank lines."""
    refuses: bool = True
    """Whether `fit` would refuse the data."""
    options: tuple[str, ...] = ()
    """Command-line options that deal with it; for a refusal, those that are enough."""
    lines: list[int] = field(default_factory=list)
    """Lines of the file, where there is no row to number."""


Findings = list[Finding]


class RowFaults:
    """Collects the rows and lines of a file or pipe that cannot be read; with `at_once`, raises the first one."""

    def __init__(self, name: str, at_once: bool = False) -> None:
        self.name, self.at_once = name, at_once
        self._faults: dict[str, tuple[str, str, str, list[int]]] = {}

    def add(self, kind: str, unit: str, number: int, message: str, hint: str = "") -> None:
        """Adds the fault of one `row` or `line` (the unit).

        What follows a blank in `kind` distinguishes faults of one kind. Only the first message of a kind is shown, then
        the numbers of the other rows, then the hint.
        """
        self._faults.setdefault(kind, (unit, message, hint, []))[-1].append(number)
        if self.at_once:
            refuse(self.findings())

    def findings(self) -> Findings:
        """One finding per kind, in the order of their first rows or lines."""
        found = []
        for kind, (unit, message, hint, numbers) in self._faults.items():
            text = f"{self.name}: {message}{and_more(numbers, unit)}{hint}"
            rows, lines = (numbers.copy(), []) if unit == "row" else ([], numbers.copy())
            found.append(Finding(kind.split(" ")[0], text, rows, lines=lines))
        return found


def refuse(found: Findings) -> None:
    """Raises the first finding that `fit` cannot start with, as a UserError."""
    for finding in found:
        if finding.refuses:
            raise UserError(finding.message)


def rows_named(numbers: Sequence[int]) -> str:
    """Rows as the subject of a sentence: `row 3 has`, or `12 rows (row 1, 2, …) have`."""
    if len(numbers) == 1:
        return f"row {numbers[0]} has"
    return f"{len(numbers):,} rows ({first_ten(numbers)}) have"


def first_ten(numbers: Sequence[int]) -> str:
    """The first ten rows, and whether there are more."""
    return f"row {', '.join(map(str, numbers[:10]))}{', …' if len(numbers) > 10 else ''}"


def and_more(numbers: Sequence[int], unit: str) -> str:
    """The numbers of the rows or lines after the first."""
    others = f"{', '.join(map(str, numbers[1:10]))}{', …' if len(numbers) > 10 else ''}"
    return f"; likewise {len(numbers) - 1:,} more ({unit} {others})" if others else ""
