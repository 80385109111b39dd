"""Texts to classify, from files and pipes of any length: rows one after the other, never all at once.

Files are read as training reads them (`sources.py`), but that labels may be missing and that an empty text is one.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from lit_cls.data.files import as_text
from lit_cls.data.formats import (
    Format,
    Record,
    Values,
    encoding_of,
    format_of,
    parquet_columns,
    parquet_records,
    records_of,
)
from lit_cls.data.lines import Lines
from lit_cls.data.sources import Column, column_index
from lit_cls.errors import UserError, quote

PIPE = "standard input"
_FIRST_ROWS, _MOST_ROWS = 16, 1024
_MOST_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Row:
    """One row as it was read; None is a missing value."""

    values: Values
    text: str | None
    label: str | None
    size: int
    """Characters, about, that it takes."""


@dataclass(frozen=True)
class Wanted:
    """The columns that were asked for, and those that are tried in turn where none was."""

    text: Column | None = None
    label: Column | None = None
    header: bool = True
    usual_texts: tuple[Column, ...] = ("text",)
    usual_labels: tuple[Column, ...] = ("label",)


@dataclass(frozen=True)
class TextStream:
    """Rows to classify, and what is known of them before they are read."""

    kind: Format
    columns: list[str]
    """Of JSON lines from a pipe, those of the first one."""
    label_column: str | None
    rows: Callable[[], Iterator[Row]]
    total: int | None = None
    at_hand: Callable[[], bool] = lambda: True
    """Whether the next row is there without being waited for."""
    notes: list[str] = field(default_factory=list)
    text_column: str = "text"


def given_texts(texts: Sequence[str]) -> TextStream:
    """Texts that are at hand."""
    rows = [Row([text], text, None, len(text)) for text in texts]
    return TextStream("text", ["text"], None, lambda: iter(rows), len(rows))


def open_file(path: Path, kind: Format | None, wanted: Wanted) -> TextStream:
    """A file, which is read to its end once at once: what is wrong with it is told before any work.

    Args:
        path: the file.
        kind: None goes by the file's name.
        wanted: its columns.

    Raises:
        UserError: whatever is wrong with the file, with the row or line.
    """
    name = str(path)
    if not os.path.isfile(path):
        what = "is no regular file: a pipe is given as standard input, lit_cls predict --data.path - < FILE"
        raise UserError(f"{name} {what}" if os.path.exists(path) else f"there is no file {name}: check --data.path")
    kind = kind or format_of(path)
    if not path.stat().st_size:
        raise UserError(f"{name} is empty")
    if kind == "parquet":
        columns, total = parquet_columns(path)
        return replace(_stream(kind, columns, lambda: parquet_records(path), wanted, name), total=total)
    encoding, notes = encoding_of(path)

    def records() -> Iterator[Record]:
        with path.open("rb") as stream:
            yield from records_of(kind, Lines(stream.fileno(), name, encoding))

    if kind == "jsonl":
        columns = list(dict.fromkeys(key for record in records() for key in record.values))
        if not columns:
            raise UserError(f"{name} has no rows")
        opened = _stream(kind, columns, records, wanted, name)
    else:
        _, columns, header = _heading(kind, records(), wanted, name)
        opened = _stream(kind, columns, lambda: islice(records(), header, None), wanted, name)
    return replace(opened, total=sum(1 for _ in opened.rows()), notes=notes)


def open_pipe(
    descriptor: int, kind: Format | None, wanted: Wanted, while_waiting: Callable[[], None] | None = None
) -> TextStream:
    """Standard input, whose rows can be read once.

    Args:
        descriptor: of it.
        kind: None looks at the first line: a JSON object with the column of texts, or a text.
        wanted: its columns.
        while_waiting: as for `Lines`.

    Raises:
        UserError: what is wrong with its first line; of the others, when they are read.
    """
    lines = Lines(descriptor, PIPE, while_waiting=while_waiting)
    notes: list[str] = []
    if kind == "parquet":
        raise UserError("parquet is not read from a pipe: write it to a file, and give that with --data.path")
    if kind is None:
        kind, note = _detect(lines, wanted)
        notes.append(note)
    records = records_of(kind, lines)
    if kind == "text":
        first, columns = [], ["text"]
    elif kind == "jsonl":
        first = list(islice(records, 1))
        columns = list(first[0].values) if first else [str(_choices(wanted.text, wanted.usual_texts)[0])]
    else:
        heading, columns, header = _heading(kind, records, wanted, PIPE)
        first = [] if header else [heading]
    opened = _stream(kind, columns, lambda: chain(first, records), wanted, PIPE)
    return replace(opened, at_hand=lines.at_hand, notes=notes)


def chunks(stream: TextStream) -> Iterator[list[Row]]:
    """Rows to be answered together: few at first, and no more than are at hand.

    Which rows of a file share a chunk follows from the file alone, so that its answers repeat to the last digit.
    """
    most, size, rows = _FIRST_ROWS, 0, list[Row]()
    for row in stream.rows():
        rows.append(row)
        size += row.size
        if len(rows) >= most or size >= _MOST_CHARACTERS or not stream.at_hand():
            yield rows
            most, size, rows = min(2 * most, _MOST_ROWS), 0, []
    if rows:
        yield rows


def _detect(lines: Lines, wanted: Wanted) -> tuple[Format, str]:
    """What a pipe holds, by its first line; and how that is told."""
    as_texts = f"{PIPE} is read as texts, one a line"
    first = next(lines, None)
    if first is None:
        named = wanted.text is not None or wanted.label is not None  # texts, one a line, have no columns
        return ("jsonl", f"{PIPE} is read as JSON lines") if named else ("text", as_texts)
    lines.put_back(first)
    if not first.lstrip().startswith("{"):
        return "text", as_texts
    names = [str(name) for name in _choices(wanted.text, wanted.usual_texts)]
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict) and any(name in record for name in names):
        return "jsonl", f"{PIPE} is read as JSON lines"
    return "text", (
        f"{as_texts}: the first one begins like JSON, but is no object with {' or '.join(map(quote, names))}. "
        "If these are JSON lines, name the column of texts with --data.text_column"
    )


def _heading(kind: Format, records: Iterator[Record], wanted: Wanted, name: str) -> tuple[Record, list[str], int]:
    """The first row of a table, the names of its columns, and whether the row is these names (1 or 0)."""
    first = next(records, None)
    if first is None:
        raise UserError(f"{name} is empty")
    if kind == "text":
        return first, ["text"], 0
    if wanted.header:
        return first, list(first.values), 1
    return first, [str(i) for i in range(len(first.values))], 0


def _stream(
    kind: Format, columns: list[str], records: Callable[[], Iterator[Record]], wanted: Wanted, name: str
) -> TextStream:
    """Finds the columns of texts and labels; the rows are checked as they are read."""
    if kind == "text":
        wanted = Wanted()
    text_at, label_at = _places(kind, columns, wanted, name)
    # JSON lines of a pipe may have a label later on.
    labels = [str(choice) for choice in _choices(wanted.label, wanted.usual_labels) if choice != columns[text_at]]
    labels = labels if label_at is None else [columns[label_at]]

    def rows() -> Iterator[Row]:
        for number, record in enumerate(records(), start=1):
            fields, label = record.values, None
            if isinstance(fields, dict):
                text = fields.get(columns[text_at])
                label = next((fields[key] for key in labels if key in fields), None)
            elif len(fields) == len(columns):
                text = fields[text_at]
                label = None if label_at is None else fields[label_at]
            else:
                raise UserError(
                    f"{name}: row {number} (line {record.line}) has {len(fields)} fields, not {len(columns)} like the "
                    "first line. Quote texts that contain the separator"
                )
            role = "text"
            try:
                text = as_text(text)
                role = "label"
                label = as_text(label)
            except TypeError as error:
                told = f"{name}: the {role} of row {number} is {error}, not a text or a number"
                raise UserError(told) from error
            yield Row(record.values, text, label, record.size)

    label_column = None if label_at is None else columns[label_at]
    return TextStream(kind, columns, label_column, rows, text_column=columns[text_at])


def _places(kind: Format, columns: list[str], wanted: Wanted, name: str) -> tuple[int, int | None]:
    """Of the column of texts, and of that of labels if there is one."""
    numbered = not wanted.header and kind in ("csv", "tsv")
    hint = " (data.header is false: columns are numbered from 0)" if numbered else ""
    if kind == "tsv" and len(columns) == 1:
        hint += " (one text a line: --input_format text)"
    there = {known.strip() for known in columns}
    if wanted.header:  # else a usual number is of columns without names, and says nothing of those that have one
        there |= {str(i) for i in range(len(columns))}

    def place(role: str, asked: Column | None, usual: tuple[Column, ...], needed: bool) -> int | None:
        choices = _choices(asked, usual)
        found = next((choice for choice in choices if str(choice) in there), choices[-1] if needed else None)
        return None if found is None else column_index(found, role, columns, Path(name), hint)

    text_at = place("text", wanted.text, wanted.usual_texts, needed=True)
    label_at = place("label", wanted.label, wanted.usual_labels, needed=wanted.label is not None)
    assert text_at is not None
    if text_at == label_at and wanted.label is not None:
        raise UserError(
            f"{name}: column {quote(columns[text_at])} is named for both texts and labels: "
            "change data.text_column or data.label_column"
        )
    return text_at, None if text_at == label_at else label_at


def _choices(asked: Column | None, usual: tuple[Column, ...]) -> tuple[Column, ...]:
    return usual if asked is None else (asked,)
