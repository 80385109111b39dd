"""Named data sets and local files to labelled texts.

Nothing is repaired in silence: what is dropped, guessed or read in an unusual way is a note, to be shown and stored.
"""

import csv
import hashlib
import io
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lit_cls.data import demo
from lit_cls.data.downloads import SMS_SPAM, fetch
from lit_cls.data.findings import Finding, Findings, and_more, first_ten, refuse, rows_named
from lit_cls.data.formats import SUPPORTED, ColumnChoice, format_of
from lit_cls.data.lines import check_file
from lit_cls.data.reader import TextTable, open_file
from lit_cls.errors import UserError, quote

SourceName = Literal["sms_spam", "demo", "file"]
EmptyPolicy = Literal["error", "drop", "keep"]

LONGEST_LABEL = 1000  # characters; labels head the columns of tables and files


@dataclass(frozen=True)
class LabelledTexts:
    """Labelled texts, in the order of their source."""

    texts: list[str]
    labels: list[str]
    numbers: list[int]
    """Row number of each text in its source, from 1, header and blank lines not counted."""
    sha256: str
    """Of the file's bytes (of the texts, where the source is no file)."""
    notes: list[str] = field(default_factory=list)

    def pick(self, chosen: Sequence[int]) -> "LabelledTexts":
        """Some of the texts, by their places; without the notes."""
        texts, labels, numbers = self.texts, self.labels, self.numbers
        return LabelledTexts(
            [texts[i] for i in chosen], [labels[i] for i in chosen], [numbers[i] for i in chosen], self.sha256
        )

    def after(self, empty: EmptyPolicy) -> "LabelledTexts":
        """All of the texts, or those that are not blank if `empty` is `drop`; without the notes."""
        return self.pick([i for i, text in enumerate(self.texts) if empty != "drop" or not is_blank(text)])


def read_demo(seed: int) -> LabelledTexts:
    """The synthetic messages of the quickstart."""
    texts, labels = demo.generate(seed)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    note = "the demo messages are synthetic: figures on them say nothing about real messages"
    return LabelledTexts(texts, labels, list(range(1, len(texts) + 1)), digest, [note])


def read_sms_spam(path: str | None, quoted: bool) -> LabelledTexts:
    """The SMS Spam Collection (Almeida, Gómez Hidalgo, Yamakami, 2011), from a path or the user's cache.

    One line is one message, unless it is `quoted`: read with CSV quoting, as the published code does, three messages
    become one row, which decides what its split draws. A UserError refuses another file.
    """
    file = Path(os.path.expanduser(path)) if path else fetch(SMS_SPAM)
    digest = file_sha256(file)
    if digest != SMS_SPAM.sha256:
        raise UserError(
            f"{file} is not the SMS Spam Collection: its sha256 is {digest}, not {SMS_SPAM.sha256}. "
            "For a file of your own, leave data.source out or set it to file"
        )
    text = file.read_bytes().decode("utf-8")
    if quoted:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
    else:
        lines = [line.split("\t", 1) for line in text.split("\n") if line]
    return LabelledTexts([t for _, t in lines], [label for label, _ in lines], list(range(1, len(lines) + 1)), digest)


def read_file(path: str, choice: ColumnChoice, empty: EmptyPolicy) -> LabelledTexts:
    """A local file of labelled texts; a UserError names whatever is wrong with it, and the rows that show it."""
    file = Path(os.path.expanduser(path))
    check_file(file)
    format = format_of(file)
    if format is None:
        raise UserError(
            f"{file} is of an unsupported format: {SUPPORTED} is needed. For the SMS Spam Collection, pass "
            "--data.source sms_spam as well"
        )
    table = open_file(file, format, choice.header, hold=True)
    refuse(table.findings())
    rows, found = read_columns(table.select(choice), file)
    refuse(found)
    found += judge(rows, file, empty)
    refuse(found)
    return replace(rows.after(empty), sha256=file_sha256(file), notes=[finding.message for finding in found])


def file_sha256(file: Path) -> str:
    """The sha256 of a file's bytes; raises as `check_file`."""
    check_file(file)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_columns(rows: TextTable, file: Path, sha256: str = "") -> tuple[LabelledTexts, Findings]:
    """The texts and labels of a table, missing ones empty, and all findings about it."""
    read = LabelledTexts([], [], [], sha256)
    for number, _, text, label in rows.rows(all_fields=False):
        read.texts.append(text or "")
        read.labels.append(label or "")
        read.numbers.append(number)
    found = rows.table.findings()
    pairs = zip(read.numbers, read.texts, strict=True) if rows.table.format == "tsv" else ()
    if quoted := [number for number, text in pairs if len(text) > 1 and text[0] == text[-1] == '"']:
        message = f"{len(quoted):,} texts of {file} begin and end with a quote; tab-separated files are read literally"
        found.append(Finding("quotes", message, quoted, refuses=False))
    return read, found


def judge(rows: LabelledTexts, file: Path, empty: EmptyPolicy) -> Findings:
    """Findings about rows: each needs a label that can be a name; empty texts are treated as `empty` says."""
    found = _findings_of_labels(rows, file)
    blank = [i for i, text in zip(rows.numbers, rows.texts, strict=True) if is_blank(text)]
    if blank and empty == "error":
        hint = "Pass --data.empty drop to leave them out, or --data.empty keep to classify them as empty"
        message = f"{file}: {rows_named(blank)} no text. {hint}"
        found.append(Finding("empty", message, blank, options=("--data.empty", "drop")))
    elif blank:
        done = "dropped" if empty == "drop" else "kept"
        found.append(Finding("empty", f"{len(blank):,} empty texts {done}: {first_ten(blank)}", blank, refuses=False))
    return found


def _findings_of_labels(rows: LabelledTexts, file: Path) -> Findings:
    found: Findings = []
    names = set(rows.labels)  # few labels stand in many rows: each is checked once

    def numbers_of(wrong: set[str]) -> list[int]:
        return [i for i, label in zip(rows.numbers, rows.labels, strict=True) if label in wrong] if wrong else []

    if unlabelled := numbers_of({name for name in names if is_blank(name)}):
        message = f"{file}: {rows_named(unlabelled)} no label. Label them or remove them"
        found.append(Finding("unlabelled", message, unlabelled))
    control = {name for name in names if any(unicodedata.category(c) == "Cc" for c in name)}
    long = {name for name in names if len(name) > LONGEST_LABEL}
    more = f"more characters than the {LONGEST_LABEL:,} of a name"
    for kind, wrong, fault, hint in (
        ("control", control, "a line break or another control character", ""),
        ("long_label", long, more, ". Check data.label_column"),
    ):
        if numbers := numbers_of(wrong):
            label = rows.labels[rows.numbers.index(numbers[0])]
            message = f"the label of row {numbers[0]} has {fault}: {quote(label)}{and_more(numbers, 'row')}{hint}"
            found.append(Finding(kind, f"{file}: {message}", numbers))
    return sorted(found, key=lambda finding: (finding.kind != "unlabelled", finding.rows[0]))


def is_blank(value: str) -> bool:
    """Whether there is nothing in it, or white space alone."""
    return not value.strip()
