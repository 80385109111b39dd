"""Guesses a file's format and columns from its content, for `lit_cls data check`, which names the options for `fit`."""

import csv
import io
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from lit_cls.data.formats import SUPPORTED, Fields, Format, as_text, json_object
from lit_cls.data.lines import encoding_of
from lit_cls.data.reader import Table
from lit_cls.errors import UserError

_SAMPLE = 1 << 16  # bytes
_ROWS = 5000
_MOST_CONTROL = 0.03  # share of characters that no text has
_PACKED = {
    b"PK\x03\x04": "a spreadsheet or a zip archive: save the sheet as .csv, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet: save the sheet as .csv",
    b"\x1f\x8b": "compressed (gzip): unpack it",
    b"\x28\xb5\x2f\xfd": "compressed (zstandard): unpack it",
    b"%PDF": "a PDF: extract its texts",
}


class SniffedColumns(NamedTuple):
    """The places of the columns of texts and labels, and whether the first line names the columns."""

    text: int
    label: int
    header: bool


def refuse_binary(content: bytes, file: Path) -> None:
    """Refuses what is no text at all; the UserError names what it seems to be."""
    for start, kind in _PACKED.items():
        if content.startswith(start):
            raise UserError(f"{file} is {kind}")
    text = _text_of(content, file)
    controls = (c for c in text if c not in "\t\n\r\f\v" and unicodedata.category(c) in ("Cc", "Cn"))
    odd = text.count("\ufffd") + sum(1 for _ in controls)
    if odd > _MOST_CONTROL * len(text):
        raise UserError(
            f"{file} is no text: {odd:,} of its first {len(text):,} characters occur in no text. {SUPPORTED} is needed"
        )


def beginning(file: Path) -> bytes:
    """The first bytes of a file, enough for every function here."""
    with file.open("rb") as stream:
        return stream.read(_SAMPLE + 1)


def _text_of(content: bytes, file: Path) -> str:
    """The text that a file begins with, without an incomplete last character."""
    sample = content[:_SAMPLE]
    whole = sample if len(sample) == len(content) else sample[: sample.rfind(b"\n") + 1 or len(sample) - 4]
    return encoding_of(file, whole).decode(whole)


def sniff_format(content: bytes, file: Path) -> Format | None:
    """The format of a file by its content, None when that does not show; a UserError refuses one JSON list."""
    if content[:4] == b"PAR1":
        return "parquet"
    text = _text_of(content, file)
    lines = [line for line in text.split("\n") if line.strip()]
    if text.lstrip().startswith("[") and text.lstrip()[1:].lstrip()[:1] in ("{", "["):
        raise UserError(
            f"{file} is one JSON list: write each of its objects on a line of its own, as a .jsonl "
            "(jq -c '.[]' does it)"
        )
    if lines and lines[0].lstrip().startswith("{") and json_object(lines[0]) is not None:
        return "jsonl"
    separators: tuple[tuple[str, Format], ...] = (("\t", "tsv"), (",", "csv"))
    for separator, format in separators:
        counts = Counter(line.count(separator) for line in lines)
        if lines and sum(n for count, n in counts.items() if count) >= 0.9 * len(lines):
            return format
    return None


def sniff_separator(content: bytes, file: Path) -> str:
    """The separator of a .csv: the one that gives nearly every row the same number of fields; else a comma."""
    sample = _text_of(content, file)
    shares = {separator: _share_of_regular(sample, separator) for separator in (",", "\t", ";", "|")}
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= 0.9 else ","


def _share_of_regular(text: str, separator: str) -> float:
    """The share of rows with the most frequent number of fields, if that is more than one."""
    csv.field_size_limit(1 << 30)
    try:
        # Not strict: texts that were not meant for this separator have quotes anywhere.
        counts = Counter(len(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row)
    except csv.Error:
        return 0.0
    return max((n for fields, n in counts.items() if fields > 1), default=0) / max(counts.total(), 1)


def sniff_columns(table: Table, text: int | None, label: int | None) -> SniffedColumns | None:
    """The columns of texts and labels: few different short values are labels, long and different ones are texts.

    The column of texts or labels may be known. None if fewer than two columns have anything in them.
    """
    first = table.first(_ROWS)
    columns = {at: _ColumnValues(first, at, name) for at, name in enumerate(table.columns)}
    columns = {at: values for at, values in columns.items() if values.n}
    names = [name.strip().casefold() for name in table.columns]
    if text is None and names.count("text") == 1:
        text = names.index("text")
    if label is None and names.count("label") == 1:
        label = names.index("label")
    if label is None:
        # A column with one value for all rows is no label, nor is one with a value of its own for each.
        candidates = [(v.different < 2, v.different > v.n / 2, v.different, v.length, at) for at, v in columns.items()]
        label = min((c for c in candidates if c[-1] != text), default=(None,))[-1]
    if text is None:
        others = [(v.length, v.different, -at) for at, v in columns.items() if at != label]
        text = -max(others)[-1] if others else None
    if text is None or label is None or text == label:
        return None
    first_is_data = label in columns and table.columns[label].strip() in columns[label].distinct
    return SniffedColumns(text, label, table.header and not first_is_data)


class _ColumnValues:
    """Statistics of a column's first values."""

    def __init__(self, rows: list[Fields], at: int, name: str) -> None:
        fields = (row.get(name) if isinstance(row, dict) else row[at] if at < len(row) else None for row in rows)
        values = [text.strip() for text in map(_text_or_none, fields) if text and text.strip()]
        self.n = len(values)
        self.distinct = set(values)
        self.different = len(self.distinct)
        self.length = sum(map(len, values)) / max(self.n, 1)


def _text_or_none(value: object) -> str | None:
    try:
        return as_text(value)
    except TypeError:
        return None
