"""Named data sets and local files to rows of text and label.

Nothing is repaired in silence: what is dropped, guessed or read in an unusual way is a note of the
`Rows`, to be shown and stored.
"""

import csv
import hashlib
import io
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lit_cls.data import demo
from lit_cls.data.downloads import SMS_SPAM, fetch
from lit_cls.data.files import (
    SUFFIXES,
    Finding,
    Findings,
    Kind,
    Table,
    and_more,
    content_of,
    first_ten,
    read_table,
    refuse,
    rows_named,
)
from lit_cls.errors import UserError, quote

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
class Raw:
    """Texts and labels as a file has them, before they are judged; None is a missing value."""

    texts: list[str | None]
    labels: list[str | None]
    numbers: list[int]
    """Row number of each, from 1."""


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
    content = content_of(file)
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
    content = content_of(file)
    kind = kind_of(file)
    if kind is None:
        raise UserError(
            f"{file} is of no known kind: .csv, .tsv, .txt (tabs), .jsonl or .parquet. For the SMS Spam "
            "Collection, pass --data.source sms_spam as well"
        )
    found: Findings = []
    table, _ = read_table(content, kind, file, header, found)
    refuse(found)
    raw = pick_columns(table, both_columns(table, text_column, label_column, file, header), kind, file, header, found)
    refuse(found)
    found += judge(raw, file, empty)
    refuse(found)
    notes = [finding.message for finding in found]
    return keep(raw, empty, hashlib.sha256(content).hexdigest(), notes)


def kind_of(file: Path) -> Kind | None:
    """What the name of a file says it is."""
    return SUFFIXES.get(file.suffix.lower())


def pick_columns(table: Table, columns: tuple[int, int], kind: Kind, file: Path, header: bool, found: Findings) -> Raw:
    """The texts and the labels of a table; what is wrong with their rows is found."""
    if table.ragged:
        first = table.ragged[0]
        told = (
            f"{file}: {rows_named(table.ragged)} not as many fields as {'the header' if header else 'the first row'} "
            f"({len(table.names)}); row {first} has {table.first_ragged}. Quote texts that contain the separator"
        )
        found.append(Finding("ragged", told, table.ragged))
    texts, labels = (table.values(at, role, found) for at, role in zip(columns, ("text", "label"), strict=True))
    if kind == "tsv":
        quoted = [i for i, text in enumerate(texts, 1) if text and len(text) > 1 and text[0] == text[-1] == '"']
        if quoted:
            told = f"{len(quoted):,} texts of {file} begin and end with a quote; tab-separated files are read literally"
            found.append(Finding("quotes", told, quoted, refuses=False))
    rows = range(1, table.n_rows + 1)
    refused = {n for finding in found if finding.refuses for n in finding.rows}
    if refused:  # they have no text or no label to judge
        kept = [n for n in rows if n not in refused]
        return Raw([texts[n - 1] for n in kept], [labels[n - 1] for n in kept], kept)
    return Raw(texts, labels, list(rows))


def both_columns(table: Table, text_column: Column, label_column: Column, file: Path, header: bool) -> tuple[int, int]:
    """Places of the columns of texts and of labels.

    Raises:
        UserError: there is none of the name, or more than one, or both are the same.
    """
    names = table.names
    hint = "" if header or table.lines is None else " (data.header is false: columns are numbered from 0)"
    text_at = column_index(text_column, "text", names, file, hint)
    label_at = column_index(label_column, "label", names, file, hint)
    if text_at == label_at:
        raise UserError(
            f"{file}: column {quote(names[text_at])} is named for both texts and labels: "
            "change data.text_column or data.label_column"
        )
    return text_at, label_at


def column_index(column: Column, role: str, names: list[str], file: Path, hint: str) -> int:
    """Place of a column given by name, or by number from 0."""
    matches = [i for i, name in enumerate(names) if name.strip() == str(column)]
    if len(matches) > 1:
        raise UserError(f"{file} has {len(matches)} columns named {quote(column)}: give data.{role}_column by number")
    if matches:
        return matches[0]
    numbers = {str(i): i for i in range(len(names))}
    if str(column) in numbers:
        return numbers[str(column)]
    found = ", ".join(quote(name) for name in names[:20])
    raise UserError(
        f"{file} has no column {quote(column)} for the {role}s; its columns are {found}{hint}. "
        f"Name one with --data.{role}_column; a file without a header line also needs --data.header false"
    )


def judge(raw: Raw, file: Path, empty: EmptyPolicy) -> Findings:
    """What is to be said of rows: each needs a label that can be a name; empty texts are treated as `empty` says."""
    found = _judge_labels(raw, file)
    blank = [i for i, text in zip(raw.numbers, raw.texts, strict=True) if is_blank(text)]
    if blank and empty == "error":
        told = (
            f"{file}: {rows_named(blank)} no text. "
            "Pass --data.empty drop to leave them out, or --data.empty keep to classify them as empty"
        )
        found.append(Finding("empty", told, blank, options=("--data.empty", "drop")))
    elif blank:
        verb = "dropped" if empty == "drop" else "kept"
        found.append(Finding("empty", f"{len(blank):,} empty texts {verb}: {first_ten(blank)}", blank, refuses=False))
    return found


def _judge_labels(raw: Raw, file: Path) -> Findings:
    found: Findings = []
    unlabelled = [i for i, label in zip(raw.numbers, raw.labels, strict=True) if is_blank(label)]
    if unlabelled:
        told = f"{file}: {rows_named(unlabelled)} no label. Label them or remove them"
        found.append(Finding("unlabelled", told, unlabelled))
    given = [(i, label) for i, label in zip(raw.numbers, raw.labels, strict=True) if label]
    # Few labels stand in many rows: each is looked at once.
    odd = {label for label in {label for _, label in given} if any(unicodedata.category(c) == "Cc" for c in label)}
    broken = [(i, label) for i, label in given if label in odd]
    if broken:
        number, label = broken[0]
        told = f"the label of row {number} has a line break or another control character: {quote(label)}"
        found.append(_of_labels("control", told, broken, file))
    long = [(i, label) for i, label in given if len(label) > LONGEST_LABEL]
    if long:
        number, label = long[0]
        told = (
            f"the label of row {number} has {len(label):,} characters, more than the {LONGEST_LABEL:,} "
            f"of a name: {quote(label)}"
        )
        found.append(_of_labels("long_label", told, long, file, ". Check data.label_column"))
    return sorted(found, key=lambda finding: (finding.kind != "unlabelled", finding.rows[0]))


def _of_labels(kind: str, told: str, rows: list[tuple[int, str]], file: Path, end: str = "") -> Finding:
    numbers = [number for number, _ in rows]
    return Finding(kind, f"{file}: {told}{and_more(numbers, 'row')}{end}", numbers)


def is_blank(value: str | None) -> bool:
    """Whether there is nothing in it, or white space alone."""
    return value is None or not value.strip()


def keep(raw: Raw, empty: EmptyPolicy, sha256: str, notes: list[str]) -> Rows:
    """The rows to work with, once nothing in them is to be refused."""
    kept = [
        (text or "", label or "", number)
        for text, label, number in zip(raw.texts, raw.labels, raw.numbers, strict=True)
        if empty == "keep" or not is_blank(text)
    ]
    return Rows([t for t, _, _ in kept], [label for _, label, _ in kept], [n for _, _, n in kept], sha256, notes)
