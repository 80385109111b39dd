"""A file's bytes to a table: what kind it is of, how it is encoded, its columns, its values as texts.

What is wrong with a file is found, not raised, so that all of it can be told at once: `fit` refuses the first
finding (`refuse`), `lit_cls data check` shows every one and goes on with what can be read.
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lit_cls.errors import UserError, quote

Kind = Literal["csv", "tsv", "jsonl", "parquet"]
SUFFIXES: dict[str, Kind] = {
    **{".csv": "csv", ".tsv": "tsv", ".txt": "tsv"},
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"},
}


@dataclass(frozen=True)
class Finding:
    """One thing to know about a file or its rows."""

    kind: str
    """A word for machines."""
    message: str
    """What it is and, where a person has to act, the way out."""
    rows: list[int] = field(default_factory=list)
    """All that show it, by row number from 1, header and blank lines not counted."""
    refuses: bool = True
    """Whether a training would not start."""
    options: tuple[str, ...] = ()
    """Words for the command line that deal with it; of one that refuses, those that are enough."""
    lines: list[int] = field(default_factory=list)
    """Of the file, where there is no row to number."""


Findings = list[Finding]


@dataclass(frozen=True)
class Table:
    """The rows of a file below named columns."""

    names: list[str]
    n_rows: int
    values: Callable[[int, str, Findings], list[str | None]]
    """A column's values by its place, for a role (`text` or `label`); what is no text is None and a finding."""
    ragged: list[int]
    """Rows with more or fewer fields than there are columns; their values are None."""
    first_ragged: int = 0
    """How many fields the first of them has."""
    lines: list[list[str]] | None = None
    """Of a .csv, .tsv or .txt: its lines, the header's among them."""
    header: bool = False
    """Whether the first of the lines names the columns."""

    def sample(self, at: int, n: int) -> list[str | None]:
        """A column's first values; what is no text is None."""
        first = self if self.lines is None else lined_table(self.lines[: n + 1], self.header)
        return first.values(at, "", [])[:n]


def refuse(found: Findings) -> None:
    """Raises the first finding that no training can start with.

    Raises:
        UserError: its message.
    """
    for finding in found:
        if finding.refuses:
            raise UserError(finding.message)


def content_of(file: Path) -> bytes:
    """All bytes of a file; only of what has an end.

    Raises:
        UserError: no file, or an empty one.
    """
    if os.path.isdir(file):
        raise UserError(f"{file} is a folder: give the file of labelled texts with data.path")
    if not os.path.exists(file):
        raise UserError(f"there is no file {file}: check data.path (it is looked up from {os.path.abspath('.')})")
    if not os.path.isfile(file):
        raise UserError(f"{file} is a pipe or a device: write the texts to a file, and give it with data.path")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if not content:
        raise UserError(f"{file} is empty")
    return content


def decode(content: bytes, file: Path, found: Findings) -> tuple[str, str]:
    """The text of a file, and the name of its encoding: UTF-8, else cp1252 (Western European Windows).

    What is neither is decoded as well as it can be.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or 0 in content[:4]:
        found.append(Finding("encoding", f"{file} is UTF-16 or UTF-32, or no text at all: save it as UTF-8"))
        wide = _wide_encoding(content)
        return content.decode(wide, errors="replace").removeprefix("\ufeff"), wide.upper()
    try:
        text = content.decode("utf-8-sig")
        return text, "UTF-8 with a byte order mark" if content[:3] == b"\xef\xbb\xbf" else "UTF-8"
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f"line {line}, byte {error.start}"
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        told = f"{file} is neither UTF-8 ({where}) nor cp1252 (byte {error.start}): save it as UTF-8"
        found.append(Finding("encoding", told, lines=[line]))
        return content.decode("cp1252", errors="replace"), "unknown"
    told = f"{file} is not UTF-8 ({where}): read as cp1252"
    found.append(Finding("encoding", told, refuses=False, lines=[line]))
    return text, "cp1252"


def _wide_encoding(content: bytes) -> str:
    if content[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"


def read_table(content: bytes, kind: Kind, file: Path, header: bool, found: Findings) -> tuple[Table, str]:
    """The table in a file, and the name of its encoding.

    Raises:
        UserError: it has no rows, or cannot be read at all.
    """
    if kind == "parquet":
        return _parquet_table(content, file), "parquet"
    text, encoding = decode(content, file, found)
    if kind == "jsonl":
        table = _jsonl_table(text, file, found)
    else:
        table = lined_table(csv_lines(text, file, found) if kind == "csv" else tab_lines(text), header)
    if not table.n_rows:
        refuse(found)
        raise UserError(f"{file} has no rows{' below its header' if header and kind != 'jsonl' else ''}")
    return table, encoding


def csv_lines(text: str, file: Path, found: Findings, separator: str = ",") -> list[list[str]]:
    """The fields of each line of a .csv, with quoting; up to the first line that is not well-formed."""
    csv.field_size_limit(1 << 30)  # a text may be longer than the 128 KiB that csv allows by itself
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    lines: list[list[str]] = []
    begins = 1  # an open quote takes in all that follows: the mistake is where the row begins, not where it ends
    try:
        for line in reader:
            begins = reader.line_num + 1
            if line:
                lines.append(line)
    except csv.Error as error:
        told = (
            f"{file}: the row that begins at line {begins} is no well-formed CSV ({error}); nothing behind it is "
            "looked at"
        )
        found.append(Finding("malformed", told, lines=[begins]))
    return lines


def tab_lines(text: str) -> list[list[str]]:
    """The fields of each line of a tab-separated file, literally: without quoting."""
    return [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip("\r")]


def lined_table(lines: list[list[str]], header: bool) -> Table:
    """The table of lines of fields; the first line names the columns, or they are numbered."""
    first = lines[0] if lines else []
    names = first if header else [str(i) for i in range(len(first))]
    rows = lines[1:] if header else lines
    ragged = [number for number, row in enumerate(rows, start=1) if len(row) != len(names)]

    def values(at: int, role: str, found: Findings) -> list[str | None]:
        return [row[at] if len(row) == len(names) else None for row in rows]

    return Table(names, len(rows), values, ragged, len(rows[ragged[0] - 1]) if ragged else 0, lines, header)


def _jsonl_table(text: str, file: Path, found: Findings) -> Table:
    records: list[dict[str, Any]] = []
    wrong: dict[str, list[int]] = {}
    first: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            wrong.setdefault("json", []).append(number)
            first.setdefault("json", f"is not JSON: {error}")
            continue
        if not isinstance(record, dict):
            wrong.setdefault("object", []).append(number)
            first.setdefault("object", f"is not an object with a text and a label: {quote(line)}")
            continue
        records.append(record)
    for kind, lines in sorted(wrong.items(), key=lambda item: item[1][0]):
        told = f"{file}: line {lines[0]} {first[kind]}{and_more(lines, 'line')}"
        found.append(Finding(kind, told, lines=lines))
    names = list(dict.fromkeys(key for record in records for key in record))

    def values(at: int, role: str, found: Findings) -> list[str | None]:
        return as_texts((record.get(names[at]) for record in records), file, role, found)

    return Table(names, len(records), values, [])


def _parquet_table(content: bytes, file: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{file} needs pyarrow to be read: pip install 'lit_cls[parquet]'") from error
    # What it raises on a damaged file, or on a date that Python has no value for, is of many kinds.
    wrong = (pyarrow.ArrowException, OSError, ValueError, LookupError, ArithmeticError, TypeError)
    try:
        table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)).read()
        table.validate(full=True)
    except wrong as error:
        raise UserError(f"{file} cannot be read as parquet: {error}") from error
    if not table.num_rows:
        raise UserError(f"{file} has no rows")

    def values(at: int, role: str, found: Findings) -> list[str | None]:
        try:
            read = table.column(at).to_pylist()
        except wrong as error:
            told = f"{file}: the {role}s, of parquet's type {table.schema.types[at]}, cannot be read as texts: {error}"
            found.append(Finding("type", told))
            return [None] * table.num_rows
        return as_texts(read, file, role, found)

    return Table(list(table.column_names), table.num_rows, values, [])


def as_texts(values: Iterable[Any], file: Path, role: str, found: Findings) -> list[str | None]:
    """Values as `as_text` has them; those that are no text are None and a finding."""
    texts: list[str | None] = []
    nested: list[int] = []
    first = ""
    for number, value in enumerate(values, start=1):
        try:
            texts.append(as_text(value))
        except TypeError as error:
            first = first or str(error)
            nested.append(number)
            texts.append(None)
    if nested:
        told = f"{file}: the {role} of row {nested[0]} is {first}, not a text or a number{and_more(nested, 'row')}"
        found.append(Finding("nested", told, nested))
    return texts


def as_text(value: Any) -> str | None:
    """A JSON or parquet value as a text; numbers and truth values as JSON spells them.

    Returns:
        None for a missing value.

    Raises:
        TypeError: what it is, where it is neither a text nor a number.
    """
    if isinstance(value, dict | list | bytes):
        raise TypeError({dict: "an object", list: "a list"}.get(type(value), "bytes"))
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas' missing value
        return None
    if isinstance(value, str):
        # Half of a surrogate pair, which JSON can spell, has no UTF-8 form.
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.dumps(value) if isinstance(value, int | float) else str(value)


def rows_named(numbers: Sequence[int]) -> str:
    """Rows as the subject of a sentence: `row 3 has`, or `12 rows (row 1, 2, …) have`."""
    if len(numbers) == 1:
        return f"row {numbers[0]} has"
    return f"{len(numbers):,} rows ({first_ten(numbers)}) have"


def first_ten(numbers: Sequence[int]) -> str:
    """The first ten of rows, and that there are more."""
    return f"row {', '.join(map(str, numbers[:10]))}{', …' if len(numbers) > 10 else ''}"


def and_more(numbers: Sequence[int], thing: str) -> str:
    """Which others are like the first one."""
    if len(numbers) == 1:
        return ""
    others = f"{', '.join(map(str, numbers[1:10]))}{', …' if len(numbers) > 10 else ''}"
    return f"; likewise {len(numbers) - 1:,} more ({thing} {others})"
