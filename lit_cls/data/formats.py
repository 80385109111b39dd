"""Records of each format: the fields of one row after the other; and the columns that have the texts and labels."""

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, get_args

from lit_cls.data.findings import RowFaults
from lit_cls.data.lines import LONGEST_LINE, Lines
from lit_cls.errors import UserError, quote

Format = Literal["text", "csv", "tsv", "jsonl", "parquet"]
"""`text` is one text a line, without columns."""
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[str, Format] = {
    **{".csv": "csv", ".tsv": "tsv", ".txt": "tsv"},
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"},
}
SUPPORTED = ".csv, .tsv, .txt (tabs), .jsonl or .parquet"
Fields = Sequence[Any] | dict[str, Any]
"""The fields of a row by their place; those of JSON lines by their name."""
Column = str | int
"""A name, or a number from 0."""
_BATCH = 1024  # rows of a parquet file that are held at once


def format_of(path: Path) -> Format | None:
    """The format by a file's name."""
    return SUFFIXES.get(path.suffix.lower())


def records_of(format: Format, lines: Lines, faults: RowFaults, separator: str = ",") -> Iterator[Fields]:
    """The fields of each row, those of a header too. Blank lines are rows of the format `text` alone.

    A .csv is read with quoting, tab-separated files literally.
    """
    if format == "csv":
        yield from _csv_records(lines, faults, separator)
    elif format == "jsonl":
        yield from _json_records(lines, faults)
    elif format == "tsv":
        for line in lines:
            if row := line.rstrip("\r\n"):
                yield row.split("\t")
    else:
        for line in lines:
            yield [line.removesuffix("\n").removesuffix("\r")]


def _csv_records(lines: Lines, faults: RowFaults, separator: str) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_LINE)  # by default 128 KiB
    reader = csv.reader(_lines_with_returns(lines), strict=True, delimiter=separator)
    begins = 1  # an open quote takes in all that follows: the mistake is where the row begins, not where it ends
    try:
        for fields in reader:
            begins = reader.line_num + 1
            if fields:
                yield fields
    except csv.Error as error:
        message = f"the row that begins at line {begins} is no well-formed CSV ({error}); nothing after it is read"
        faults.add("malformed", "line", begins, message)


def _lines_with_returns(lines: Lines) -> Iterator[str]:
    """Ends lines at lone carriage returns too."""
    for line in lines:
        if "\r" not in line or (line.find("\r") == len(line) - 2 and line[-1] == "\n"):
            yield line
        else:
            yield from io.StringIO(line, newline="")


def _json_records(lines: Lines, faults: RowFaults) -> Iterator[dict[str, Any]]:
    for line in lines:
        text = line.rstrip()
        if not text:
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            faults.add("json", "line", lines.number, f"line {lines.number} is not JSON: {error}")
            continue
        if isinstance(record, dict):
            yield record
        else:
            message = f"line {lines.number} is not an object with a text: {quote(text)}"
            faults.add("object", "line", lines.number, message)


def json_object(line: str) -> dict[str, Any] | None:
    """The JSON object on a line; None if the line holds something else."""
    with suppress(ValueError, RecursionError):
        if isinstance(record := json.loads(line), dict):
            return record
    return None


def parquet_columns(path: Path) -> tuple[list[str], int]:
    """The names of the columns, and the number of rows; a UserError if pyarrow is missing or it is no parquet."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path} needs pyarrow to be read: pip install 'lit_cls[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return list(file.schema_arrow.names), file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error


def parquet_records(path: Path, faults: RowFaults, wanted: Collection[int] | None = None) -> Iterator[Sequence[Any]]:
    """The rows; of columns that are not wanted, the fields are None. A UserError refuses a damaged file."""
    import pyarrow.parquet

    # What it raises on a damaged file, or on a date that Python has no value for, is of many kinds.
    damages = (pyarrow.ArrowException, OSError, ValueError, LookupError, ArithmeticError, TypeError)
    first = 1
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                batch.validate(full=True)
                columns: list[Any] = []
                for at, column in enumerate(batch.columns):
                    try:
                        needed = wanted is None or at in wanted
                        columns.append(column.to_pylist() if needed else repeat(None, len(column)))
                    except damages as error:
                        name = quote(batch.schema.names[at])
                        message = f"column {name}, of parquet's type {column.type}, cannot be read as texts: {error}"
                        faults.add(f"type {at}", "row", first, message)
                        columns.append(repeat(None, len(column)))
                yield from zip(*columns, strict=True)
                first += batch.num_rows
    except damages as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error


def as_text(value: Any) -> str | None:
    """A JSON or parquet value as a text, None if it is missing; numbers and truth values as JSON spells them.

    A TypeError names the type of a value that is neither a text nor a number.
    """
    if isinstance(value, str):
        # Half of a surrogate pair, which JSON can spell, has no UTF-8 form.
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict | list | bytes):
        raise TypeError({dict: "an object", list: "a list"}.get(type(value), "bytes"))
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas' missing value
        return None
    return json.dumps(value) if isinstance(value, int | float) else str(value)


@dataclass(frozen=True)
class ColumnChoice:
    """The columns of texts and labels, by name or by number from 0; the first that a table has is taken."""

    text: tuple[Column, ...] = ("text",)
    label: tuple[Column, ...] = ("label",)
    header: bool = True
    """Whether the first line of a .csv, .tsv or .txt names the columns."""
    text_named: bool = True
    """Whether the user named the column of texts."""
    label_named: bool = True
    """Likewise; a column of labels that is not named may be missing."""


def find_columns(columns: list[str], choice: ColumnChoice, name: str, hint: str) -> tuple[int, int | None]:
    """Places of the columns of texts and labels in a file; a hint follows the list of columns in a message.

    A UserError refuses a column that is absent, ambiguous, or the same for both.
    """
    known = {column.strip() for column in columns}
    if choice.header:  # else a number is of columns without names, and means none of those that have one
        known |= {str(i) for i in range(len(columns))}

    def place(role: str, wanted: tuple[Column, ...], required: bool) -> int | None:
        column = next((column for column in wanted if str(column) in known), wanted[-1] if required else None)
        return None if column is None else column_index(column, role, columns, name, hint)

    text_at = place("text", choice.text, required=True)
    label_at = place("label", choice.label, required=choice.label_named)
    assert text_at is not None, "it is required"
    if text_at != label_at:
        return text_at, label_at
    if choice.label_named:
        raise UserError(
            f"{name}: column {quote(columns[text_at])} is named for both texts and labels: "
            "change data.text_column or data.label_column"
        )
    return text_at, None


def column_index(column: Column, role: str, columns: list[str], name: str, hint: str) -> int:
    """Place of a column given by name, or by number from 0; raises as `find_columns`."""
    matches = [i for i, other in enumerate(columns) if other.strip() == str(column)]
    if len(matches) > 1:
        raise UserError(f"{name} has {len(matches)} columns named {quote(column)}: give data.{role}_column by number")
    matches = matches or [i for i in range(len(columns)) if str(i) == str(column)]
    if matches:
        return matches[0]
    found = ", ".join(quote(other) for other in columns[:20])
    raise UserError(
        f"{name} has no column {quote(column)} for the {role}s; its columns are {found}{hint}. "
        f"Name one with --data.{role}_column; a file without a header line also needs --data.header false"
    )
