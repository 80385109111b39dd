"""Named data sets and local files to rows of text and label.

Nothing is repaired in silence: what is dropped, guessed or read in an unusual way is a note of the
`Rows`, to be shown and stored.
"""

import csv
import hashlib
import io
import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lit_cls.data import demo
from lit_cls.data.downloads import SMS_SPAM, fetch
from lit_cls.errors import UserError, shown

SourceName = Literal["sms_spam", "demo", "file"]
EmptyPolicy = Literal["error", "drop", "keep"]
Column = str | int

LONGEST_LABEL = 1000  # characters; labels head the columns of tables and files


@dataclass(frozen=True)
class Rows:
    """Labelled texts, in the order of their source."""

    texts: list[str]
    labels: list[str]
    numbers: list[int]
    """Row number of each text in its source, from 1, header and blank lines not counted."""
    sha256: str
    """Of the file's bytes (of the texts, where the source is no file)."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Raw:
    """What a reader finds, before it is checked; None is a missing value."""

    texts: list[str | None]
    labels: list[str | None]
    notes: list[str]


def read_demo(seed: int) -> Rows:
    """The synthetic messages of the quickstart."""
    texts, labels = demo.generate(seed)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    note = "the demo messages are synthetic: figures on them say nothing about real messages"
    return Rows(texts, labels, list(range(1, len(texts) + 1)), digest, [note])


def read_sms_spam(path: str | None, quoted: bool) -> Rows:
    """The SMS Spam Collection (Almeida, Gómez Hidalgo, Yamakami, 2011), from the UCI archive or a path.

    Args:
        path: a copy on this machine; None downloads it once into the user's cache.
        quoted: read with CSV quoting, as the published code does: three messages become one row,
            which decides what its split draws. Otherwise one line is one message.

    Raises:
        UserError: not that file, or not to be had.
    """
    file = Path(os.path.expanduser(path)) if path else fetch(SMS_SPAM)
    content = _content(file)
    digest = hashlib.sha256(content).hexdigest()
    if digest != SMS_SPAM.sha256:
        raise UserError(
            f"{file} is not the SMS Spam Collection: its sha256 is {digest}, not {SMS_SPAM.sha256}. "
            "For a file of your own, leave data.source out or set it to file"
        )
    text = content.decode("utf-8")
    if quoted:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
    else:
        lines = [line.split("\t", 1) for line in text.split("\n") if line]
    return Rows([t for _, t in lines], [label for label, _ in lines], list(range(1, len(lines) + 1)), digest)


def read_file(path: str, text_column: Column, label_column: Column, header: bool, empty: EmptyPolicy) -> Rows:
    """A local file of labelled texts: .csv, .tsv and .txt (tabs), .jsonl, .parquet.

    Tab-separated files are read literally, one line a row, without quoting; a .csv is read with
    quoting.

    Args:
        path: the file.
        text_column: name, or number from 0, of the column of texts.
        label_column: the same for the labels.
        header: whether the first line of a .csv, .tsv or .txt names the columns.
        empty: what is done about empty and missing texts.

    Raises:
        UserError: whatever is wrong with the file, with the rows that show it.
    """
    file = Path(os.path.expanduser(path))
    content = _content(file)
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet"):
        raise UserError(
            f"{file} is of no known kind: .csv, .tsv, .txt (tabs), .jsonl or .parquet. For the SMS Spam "
            "Collection, pass --data.source sms_spam as well"
        )
    if suffix == ".parquet":
        raw = _read_parquet(content, file, text_column, label_column)
    else:
        text, notes = _decode(content, file)
        if suffix in (".jsonl", ".ndjson"):
            raw = _read_jsonl(text, file, text_column, label_column)
        else:
            table = _csv_lines(text, file) if suffix == ".csv" else _tab_lines(text)
            raw = _pick_columns(table, file, text_column, label_column, header)
        raw = replace(raw, notes=notes + raw.notes)
    return _check(raw, file, hashlib.sha256(content).hexdigest(), empty)


def _content(file: Path) -> bytes:
    """All bytes of a file; only of what has an end."""
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


def _decode(content: bytes, file: Path) -> tuple[str, list[str]]:
    """UTF-8, else cp1252 (Western European Windows) with a note."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or 0 in content[:4]:
        raise UserError(f"{file} is UTF-16 or UTF-32, or no text at all: save it as UTF-8")
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f"line {line}, byte {error.start}"
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is neither UTF-8 ({where}) nor cp1252 (byte {error.start}): save it as UTF-8"
        ) from error
    return text, [f"{file} is not UTF-8 ({where}): read as cp1252"]


def _csv_lines(text: str, file: Path) -> list[list[str]]:
    csv.field_size_limit(1 << 30)  # a text may be longer than the 128 KiB that csv allows by itself
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [line for line in reader if line]
    except csv.Error as error:
        raise UserError(f"{file} is no well-formed CSV near line {reader.line_num}: {error}") from error


def _tab_lines(text: str) -> list[list[str]]:
    return [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip("\r")]


def _pick_columns(table: list[list[str]], file: Path, text_column: Column, label_column: Column, header: bool) -> _Raw:
    names = table[0] if header and table else [str(i) for i in range(len(table[0]) if table else 0)]
    rows = table[1:] if header else table
    if not rows:
        raise UserError(f"{file} has no rows{' below its header' if header else ''}")
    hint = "" if header else " (data.header is false: columns are numbered from 0)"
    text_at, label_at = _both_columns(text_column, label_column, names, file, hint)
    ragged = [i for i, row in enumerate(rows, start=1) if len(row) != len(names)]
    if ragged:
        first = ragged[0]
        raise UserError(
            f"{file}: {_rows_named(ragged)} not as many fields as {'the header' if header else 'the first row'} "
            f"({len(names)}); row {first} has {len(rows[first - 1])}. Quote texts that contain the separator"
        )
    notes = []
    quoted = sum(len(row[text_at]) > 1 and row[text_at][0] == row[text_at][-1] == '"' for row in rows)
    if file.suffix.lower() != ".csv" and quoted:
        notes.append(f"{quoted:,} texts of {file} begin and end with a quote; tab-separated files are read literally")
    return _Raw([row[text_at] for row in rows], [row[label_at] for row in rows], notes)


def _both_columns(
    text_column: Column, label_column: Column, names: list[str], file: Path, hint: str
) -> tuple[int, int]:
    text_at = _column_index(text_column, "text", names, file, hint)
    label_at = _column_index(label_column, "label", names, file, hint)
    if text_at == label_at:
        raise UserError(
            f"{file}: column {shown(names[text_at])} is named for both texts and labels: "
            "change data.text_column or data.label_column"
        )
    return text_at, label_at


def _column_index(column: Column, role: str, names: list[str], file: Path, hint: str) -> int:
    """Place of a column given by name, or by number from 0."""
    matches = [i for i, name in enumerate(names) if name.strip() == str(column)]
    if len(matches) > 1:
        raise UserError(f"{file} has {len(matches)} columns named {shown(column)}: give data.{role}_column by number")
    if matches:
        return matches[0]
    numbers = {str(i): i for i in range(len(names))}
    if str(column) in numbers:
        return numbers[str(column)]
    found = ", ".join(shown(name) for name in names[:20])
    raise UserError(
        f"{file} has no column {shown(column)} for the {role}s; its columns are {found}{hint}. "
        f"Name one with --data.{role}_column; a file without a header line also needs --data.header false"
    )


def _read_jsonl(text: str, file: Path, text_column: Column, label_column: Column) -> _Raw:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}: line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UserError(f"{file}: line {number} is not an object with a text and a label: {shown(line)}")
        records.append(record)
    if not records:
        raise UserError(f"{file} has no rows")
    names = list(dict.fromkeys(key for record in records for key in record))
    text_at, label_at = _both_columns(text_column, label_column, names, file, "")
    return _Raw(
        _scalars((r.get(names[text_at]) for r in records), file, "text"),
        _scalars((r.get(names[label_at]) for r in records), file, "label"),
        [],
    )


def _read_parquet(content: bytes, file: Path, text_column: Column, label_column: Column) -> _Raw:
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
    found: list[list[str | None]] = []
    for at, role in zip(
        _both_columns(text_column, label_column, table.column_names, file, ""), ("text", "label"), strict=True
    ):
        try:
            values = table.column(at).to_pylist()
        except wrong as error:
            raise UserError(
                f"{file}: the {role}s, of parquet's type {table.schema.types[at]}, cannot be read as texts: {error}"
            ) from error
        found.append(_scalars(values, file, role))
    texts, labels = found
    return _Raw(texts, labels, [])


def _scalars(values: Iterable[Any], file: Path, role: str) -> list[str | None]:
    """JSON and parquet values as texts; numbers and truth values as JSON spells them."""
    found: list[str | None] = []
    for number, value in enumerate(values, start=1):
        if isinstance(value, dict | list | bytes):
            kind = {dict: "an object", list: "a list"}.get(type(value), "bytes")
            raise UserError(f"{file}: the {role} of row {number} is {kind}, not a text or a number")
        if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas' missing value
            found.append(None)
        elif isinstance(value, str):
            # Half of a surrogate pair, which JSON can spell, has no UTF-8 form.
            found.append(value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        else:
            found.append(json.dumps(value) if isinstance(value, int | float) else str(value))
    return found


def _check(raw: _Raw, file: Path, sha256: str, empty: EmptyPolicy) -> Rows:
    """Every row needs a label; empty texts are treated as `empty` says."""
    unlabelled = [i for i, label in enumerate(raw.labels, start=1) if label is None or not label.strip()]
    if unlabelled:
        raise UserError(f"{file}: {_rows_named(unlabelled)} no label. Label them or remove them")
    for number, label in enumerate(raw.labels, start=1):
        if label and any(unicodedata.category(c) == "Cc" for c in label.strip()):
            raise UserError(
                f"{file}: the label of row {number} has a line break or another control character: {shown(label)}"
            )
        if label and len(label) > LONGEST_LABEL:
            raise UserError(
                f"{file}: the label of row {number} has {len(label):,} characters, more than the {LONGEST_LABEL:,} "
                f"of a name: {shown(label)}. Check data.label_column"
            )
    blank = {i for i, text in enumerate(raw.texts, start=1) if text is None or not text.strip()}
    notes = list(raw.notes)
    if blank and empty == "error":
        raise UserError(
            f"{file}: {_rows_named(sorted(blank))} no text. "
            "Pass --data.empty drop to leave them out, or --data.empty keep to classify them as empty"
        )
    if blank:
        verb = "dropped" if empty == "drop" else "kept"
        notes.append(f"{len(blank):,} empty texts {verb}: {_first(sorted(blank))}")
    kept = [
        (text or "", label or "", number)
        for number, (text, label) in enumerate(zip(raw.texts, raw.labels, strict=True), start=1)
        if empty == "keep" or number not in blank
    ]
    repeated = sum(n - 1 for n in Counter(text for text, _, _ in kept).values())
    if repeated:
        notes.append(f"{repeated:,} texts repeat an earlier one word for word; a split may have both sides of a pair")
    return Rows([t for t, _, _ in kept], [label for _, label, _ in kept], [n for _, _, n in kept], sha256, notes)


def _rows_named(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"row {numbers[0]} has"
    return f"{len(numbers):,} rows ({_first(numbers)}) have"


def _first(numbers: list[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:10])
    return f"row {shown}{', …' if len(numbers) > 10 else ''}"
