"""A file as `lit_cls data check` sees it: everything that is wrong with it, and the rows that a training could use.

The same steps as `read_file`, which refuses the first thing that is wrong; here each is written down, and what was
not said, or wrongly, is guessed.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from lit_cls.data.downloads import SMS_SPAM
from lit_cls.data.files import (
    SUFFIXES,
    Finding,
    Findings,
    Kind,
    Table,
    content_of,
    csv_lines,
    decode,
    lined_table,
    read_table,
)
from lit_cls.data.sniff import Columns, guess_columns, guess_kind, guess_separator, refuse_binary
from lit_cls.data.sources import (
    Column,
    Raw,
    Rows,
    both_columns,
    column_index,
    is_blank,
    judge,
    keep,
    kind_of,
    pick_columns,
)
from lit_cls.data.split_data import Reading
from lit_cls.data.splits import alike_labels, check_enough_of_each, check_labels, near_key, too_few_of
from lit_cls.errors import UserError, quote

_KINDS: dict[Kind, str] = {
    "csv": "comma-separated, with quoting",
    "tsv": "tab-separated, without quoting",
    "jsonl": "JSON lines",
    "parquet": "parquet",
}
_SHOWN_ROWS = 3


@dataclass
class Look:
    """What there is in a file or a named source."""

    origin: str
    format: str
    encoding: str
    columns: list[str]
    text_column: str
    label_column: str
    n_rows: int
    sha256: str
    first_rows: list[tuple[int, str, str]]
    """Row number, label, text: as they are in the file."""
    labels: dict[str, int]
    """Rows of each label, the largest first, whether a training could use them or not."""
    rows: Rows
    """Those that a training could use, with every finding dealt with."""
    findings: Findings
    reading: Reading
    """The options with which a training reads these rows."""
    name: str | None
    """Under which a training has to find the file, where its own says nothing of its kind; no file has it."""


def look(reading: Reading) -> Look:
    """Reads a file or a named source; goes on where a training would refuse it.

    Args:
        reading: the options that were given.

    Raises:
        UserError: options that contradict each other; nothing there that could be looked at.
    """
    reading.check()
    if reading.effective_source != "file":
        return _look_at_source(reading, [])
    file = Path(os.path.expanduser(str(reading.path)))
    content = content_of(file)
    sha256 = hashlib.sha256(content).hexdigest()
    usual = (reading.text_column, reading.label_column) == ("text", "label") and reading.header
    if sha256 == SMS_SPAM.sha256 and reading.source is None and usual:
        told = f"{file} is the SMS Spam Collection, by its sha256; a training has to be told"
        finding = Finding("source", told, options=("--data.source", "sms_spam"))
        return _look_at_source(replace(reading, source="sms_spam"), [finding])
    return _look_at_file(reading, file, content, sha256)


def _look_at_source(reading: Reading, found: Findings) -> Look:
    origin, rows = reading.read_source()
    found += [Finding("note", note, refuses=False) for note in rows.notes]
    quoted = ", read with quoting as the published split does" if reading.split == "ch06" else ""
    is_sms = reading.effective_source == "sms_spam"
    raw = Raw(list(rows.texts), list(rows.labels), rows.numbers)
    return Look(
        origin=origin if reading.path is None else f"{reading.path} ({origin})",
        format=f"label, tab, text on each line{quoted}" if is_sms else "made from a seed",
        encoding="UTF-8" if is_sms else "none",
        columns=["label", "text"],
        text_column="text",
        label_column="label",
        n_rows=len(rows.texts),
        sha256=rows.sha256,
        first_rows=_first_rows(raw),
        labels=dict(Counter(rows.labels).most_common()),
        rows=_usable(rows, reading, found),
        findings=found,
        reading=reading,
        name=None,
    )


def _look_at_file(reading: Reading, file: Path, content: bytes, sha256: str) -> Look:
    found: Findings = []
    kind, table, encoding, name = _table(reading, file, content, found)
    columns, reading = _columns(table, reading, file, found)
    if table.header and not columns.header:
        assert table.lines is not None, "only lines can have a header"
        table = lined_table(table.lines, header=False)
    raw = pick_columns(table, (columns.text, columns.label), kind, file, columns.header, found)
    judged = judge(raw, file, reading.empty)
    if any(finding.kind == "empty" and finding.refuses for finding in judged):
        reading = replace(reading, empty="drop")
    found += judged
    refused = {n for finding in judged if finding.refuses for n in finding.rows}
    triples = [row for row in zip(raw.texts, raw.labels, raw.numbers, strict=True) if row[2] not in refused]
    usable = Raw([t for t, _, _ in triples], [label for _, label, _ in triples], [n for _, _, n in triples])
    return Look(
        origin=str(file),
        format=_KINDS[kind],
        encoding=encoding,
        columns=list(table.names),
        text_column=table.names[columns.text],
        label_column=table.names[columns.label],
        n_rows=table.n_rows,
        sha256=sha256,
        first_rows=_first_rows(raw),
        labels=dict(Counter(label for label in raw.labels if label and not is_blank(label)).most_common()),
        rows=_usable(keep(usable, reading.empty, sha256, []), reading, found),
        findings=found,
        reading=reading,
        name=name,
    )


def _table(reading: Reading, file: Path, content: bytes, found: Findings) -> tuple[Kind, Table, str, str | None]:
    """The table of a file, by its name or else by its content; and the name that it needs."""
    kind = kind_of(file)
    if kind != "parquet":
        refuse_binary(content, file)
    if kind is None:
        kind = guess_kind(content, file)
        if kind is None:
            raise UserError(
                f"{file} is of no known kind, by its name or its content: .csv, .tsv, .txt (tabs), .jsonl or .parquet "
                "is needed"
            )
        return (kind, *_renamed(reading, file, content, kind, found))
    table, encoding = read_table(content, kind, file, reading.header, found)
    if kind not in ("csv", "tsv") or _refusal(lambda: _both_named(table, reading, file)) is None:
        return kind, table, encoding, None
    other, separator = guess_kind(content, file), guess_separator(content, file)
    if other == "tsv" and len(table.names) > 1 and separator != "\t":
        other = kind  # there are tabs in its texts
    if other not in (None, kind):
        found.clear()
        return (other, *_renamed(reading, file, content, other, found))
    if kind == "csv" and separator in (";", "|"):
        told = (
            f"{file} has {quote(separator)} between its columns: a training reads commas. Save it with commas, or with "
            "tabs as a .tsv"
        )
        found.clear()  # what was found reading commas
        text, encoding = decode(content, file, found)
        found.append(Finding("separator", told))
        table = lined_table(csv_lines(text, file, found, separator), reading.header)
    return kind, table, encoding, None


def _renamed(reading: Reading, file: Path, content: bytes, kind: Kind, found: Findings) -> tuple[Table, str, str]:
    """The table of a file whose name is not that of its kind, and the name it should have."""
    suffix = next(suffix for suffix, of in SUFFIXES.items() if of == kind)
    stem = file.stem if kind_of(file) else file.name
    names = (file.with_name(f"{stem}_{i}{suffix}" if i else f"{stem}{suffix}") for i in count())
    name = str(next(free for free in names if not os.path.lexists(free)))  # what is there is not to be overwritten
    told = f"{file} is {_KINDS[kind]}, by its content: a training goes by the name, and needs it as {suffix}"
    found.append(Finding("name", told, options=("--data.path", name)))
    table, encoding = read_table(content, kind, file, reading.header, found)
    return table, encoding, name


def _columns(table: Table, reading: Reading, file: Path, found: Findings) -> tuple[Columns, Reading]:
    """The columns that were named, or else guessed; and the options that name them."""
    try:
        text, label = _both_named(table, reading, file)
        return Columns(text, label, reading.header), reading
    except UserError as error:
        wrong = str(error)
    named = {role: _place(column, role, table) for role, column in _asked(reading)}
    guess = guess_columns(table, named["text"], named["label"] if named["label"] != named["text"] else None)
    if guess is None:
        raise UserError(wrong)
    headerless = table.header and not guess.header
    names = [str(at) for at in range(len(table.names))] if headerless else table.names
    text_column, label_column = (_name_of(at, names) for at in (guess.text, guess.label))
    found.append(
        Finding(
            "columns",
            f"{_not_named(table, reading, named, file)}. A guess, from what they hold: the texts are in column "
            f"{quote(text_column)}, the labels in {quote(label_column)}"
            + (", and the first line is a row, no header" if headerless else ""),
            options=(
                *(("--data.header", "false") if headerless else ()),
                *("--data.text_column", text_column, "--data.label_column", label_column),
            ),
        )
    )
    header = reading.header and not headerless
    return guess, replace(reading, text_column=text_column, label_column=label_column, header=header)


def _both_named(table: Table, reading: Reading, file: Path) -> tuple[int, int]:
    return both_columns(table, reading.text_column, reading.label_column, file, reading.header)


def _asked(reading: Reading) -> tuple[tuple[str, Column], tuple[str, Column]]:
    return ("text", reading.text_column), ("label", reading.label_column)


def _place(column: Column, role: str, table: Table) -> int | None:
    try:
        return column_index(column, role, table.names, Path(), "")
    except UserError:
        return None


def _not_named(table: Table, reading: Reading, named: dict[str, int | None], file: Path) -> str:
    columns = f"its columns are {', '.join(quote(name) for name in table.names[:20])}"
    absent = [quote(column) for role, column in _asked(reading) if named[role] is None]
    if not absent:
        return f"{file}: column {quote(reading.text_column)} is named for both texts and labels; {columns}"
    return f"{file} has no column, or more than one, named {' and '.join(absent)}; {columns}"


def _name_of(at: int, names: list[str]) -> str:
    """What names a column: its name, or its number where that is no name of one alone."""
    name = names[at].strip()
    return name if name and [other.strip() for other in names].count(name) == 1 else str(at)


def _first_rows(raw: Raw) -> list[tuple[int, str, str]]:
    first = zip(raw.numbers[:_SHOWN_ROWS], raw.labels[:_SHOWN_ROWS], raw.texts[:_SHOWN_ROWS], strict=True)
    return [(number, label or "", text or "") for number, label, text in first]


def _usable(rows: Rows, reading: Reading, found: Findings) -> Rows:
    """The rows with labels that can be told apart and have texts enough; what has to change for it is found."""
    if reading.split == "ch06":
        return rows
    whole = not any(finding.kind == "malformed" for finding in found)  # or the labels may be behind what was read
    counts = Counter(rows.labels)
    alike = alike_labels(rows.labels)
    usual = {name: max(names, key=counts.__getitem__) for names in alike for name in names}
    labels = [usual.get(label, label) for label in rows.labels]
    told = _refusal(lambda: check_labels(rows.labels))
    if told and (whole or alike):
        changed = [n for n, old, new in zip(rows.numbers, rows.labels, labels, strict=True) if old != new]
        found.append(Finding("alike_labels" if alike else "one_label", told, changed))
    keys = [near_key(text) for text in rows.texts] if reading.group_near_duplicates else None
    short = too_few_of(labels, keys) if whole else set()
    kept = [i for i, label in enumerate(labels) if label not in short]
    if whole and (told := _refusal(lambda: check_enough_of_each(labels, keys))):
        left_out = [n for n, label in zip(rows.numbers, labels, strict=True) if label in short]
        found.append(Finding("few_texts", told, left_out))
    return Rows([rows.texts[i] for i in kept], [labels[i] for i in kept], [rows.numbers[i] for i in kept], rows.sha256)


def _refusal(check: Callable[[], object]) -> str | None:
    try:
        check()
    except UserError as error:
        return str(error)
    return None
