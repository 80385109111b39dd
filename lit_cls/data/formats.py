"""The rows of a file or a pipe by its format, one after the other: fields, not yet texts and labels."""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lit_cls.data.files import SUFFIXES
from lit_cls.data.lines import LONGEST_LINE, Encoding, Lines
from lit_cls.errors import UserError, quote

Format = Literal["text", "csv", "tsv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
_BATCH = 1024  # rows of a parquet file that are held at once

Values = Sequence[Any] | dict[str, Any]
"""The fields of a row by their place; those of JSON lines by their name."""


@dataclass(frozen=True)
class Record:
    """The fields of one row."""

    values: Values
    line: int
    """Where it ends; 0 where there are no lines."""
    size: int
    """Characters, about, that it takes."""


def format_of(path: Path) -> Format:
    """What a file is, by its name.

    Raises:
        UserError: no name that says so.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path} is of no known kind: .csv, .tsv, .txt (tabs), .jsonl or .parquet. "
            f"Say what it is with --input_format {'|'.join(FORMATS)}"
        )
    return SUFFIXES[suffix]


def encoding_of(path: Path) -> tuple[Encoding, list[str]]:
    """UTF-8, else cp1252 (Western European Windows) with a note; the whole file is looked at.

    Raises:
        UserError: neither, or the file cannot be read.
    """
    wrong = _first_undecodable(path, "utf-8")
    if wrong is None:
        return "utf-8", []
    where = f"line {wrong[0]}, byte {wrong[1]}"
    if also := _first_undecodable(path, "cp1252"):
        raise UserError(f"{path} is neither UTF-8 ({where}) nor cp1252 (byte {also[1]}): save it as UTF-8")
    return "cp1252", [f"{path} is not UTF-8 ({where}): read as cp1252"]


def _first_undecodable(path: Path, encoding: Encoding) -> tuple[int, int] | None:
    """Line, from 1, and byte, from 0, of the first one that the encoding has not."""
    decoder, line, start = codecs.getincrementaldecoder(encoding)(), 1, 0
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    with stream:
        while True:
            block = stream.read(1 << 20)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                # A character that began in the block before stands in front of this one.
                at = error.start - (len(error.object) - len(block))
                return line + block.count(b"\n", 0, max(at, 0)), start + at
            if not block:
                return None
            line, start = line + block.count(b"\n"), start + len(block)


def records_of(kind: Format, lines: Lines) -> Iterator[Record]:
    """The fields of each row, of a table its header too; blank lines are rows of texts alone.

    Raises:
        UserError: a line that is not of the format.
    """
    if kind == "csv":
        yield from _csv_records(lines)
    for line in lines:
        if kind == "text":
            yield Record([line.removesuffix("\n").removesuffix("\r")], lines.number, len(line))
        elif kind == "tsv" and line.strip("\r\n"):
            yield Record(line.removesuffix("\n").rstrip("\r").split("\t"), lines.number, len(line))
        elif kind == "jsonl" and line.strip():
            yield Record(_json_object(line, lines), lines.number, len(line))


def _csv_records(lines: Lines) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_LINE)  # by itself 128 KiB
    # A lone carriage return ends a line as well, as it does in sources.py.
    reader = csv.reader((part for line in lines for part in io.StringIO(line, newline="")), strict=True)
    begins = 1  # as in files.py: the mistake is where the row begins
    try:
        for values in reader:
            begins = reader.line_num + 1
            if values:
                yield Record(values, lines.number, sum(map(len, values)))
    except csv.Error as error:
        told = f"{lines.name}: the row that begins at line {begins} is no well-formed CSV ({error})"
        raise UserError(told) from error


def _json_object(line: str, lines: Lines) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{lines.name}: line {lines.number} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise UserError(f"{lines.name}: line {lines.number} is not an object with a text: {quote(line.strip())}")
    return record


def parquet_columns(path: Path) -> tuple[list[str], int]:
    """The names of the columns, and the number of rows.

    Raises:
        UserError: pyarrow is missing, or the file is no parquet.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path} needs pyarrow to be read: pip install 'lit_cls[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return list(file.schema_arrow.names), file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error


def parquet_records(path: Path) -> Iterator[Record]:
    """The rows, some at a time.

    Raises:
        UserError: the file is damaged, or holds what Python has no value for.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                batch.validate(full=True)
                size = batch.nbytes // max(1, batch.num_rows)
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield Record(values, 0, size)
    # What it raises on a damaged file, or on a date that Python has no value for, is of many kinds.
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, ArithmeticError, TypeError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error
