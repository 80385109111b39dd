"""The blocks that a page consists of; `markdown` and `html` render them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Heading:
    """Heading of a section; with level 1, of the page."""

    text: str
    level: Literal[1, 2] = 2


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """Cells are plain text: nothing in them is markup."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """Number of columns, from the left, that hold words and not numbers."""


@dataclass(frozen=True)
class Image:
    """A plot in the report's folder."""

    file: str
    title: str


Block = Heading | Paragraph | Table | Image
