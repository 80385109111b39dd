"""Inspects a file for `lit_cls data check`: all that is wrong with it, and the rows that `fit` could use.

The same steps as `sources.read_file`, which refuses the first finding; here all are collected, and options guessed.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from lit_cls.data.downloads import SMS_SPAM
from lit_cls.data.findings import Finding, Findings
from lit_cls.data.formats import SUFFIXES, SUPPORTED, Column, Format, column_index, format_of
from lit_cls.data.lines import check_file
from lit_cls.data.options import DataOptions
from lit_cls.data.reader import Table, open_file
from lit_cls.data.sniff import beginning, refuse_binary, sniff_columns, sniff_format, sniff_separator
from lit_cls.data.sources import LabelledTexts, file_sha256, is_blank, judge, read_columns
from lit_cls.data.split_data import read_source
from lit_cls.data.splits import alike_labels, check_enough_of_each, check_labels, near_key, too_few_of
from lit_cls.errors import UserError, quote

_FORMATS: dict[Format, str] = {
    "csv": "comma-separated, with quoting",
    "tsv": "tab-separated, without quoting",
    "jsonl": "JSON lines",
    "parquet": "parquet",
}
_SHOWN_ROWS = 3


@dataclass(kw_only=True)
class Inspection:
    """The content of a file or a named source; the defaults are those of a named source."""

    origin: str
    format: str
    encoding: str
    columns: Sequence[str] = ("label", "text")
    text_column: str = "text"
    label_column: str = "label"
    n_rows: int
    sha256: str
    first_rows: list[tuple[int, str, str]]
    """Row number, label, text: as they are in the file."""
    labels: dict[str, int]
    """Rows of each label, the largest first, whether `fit` could use them or not."""
    rows: LabelledTexts
    """Those that `fit` could use once every finding is dealt with."""
    findings: Findings
    options: DataOptions
    """The options with which `fit` reads these rows."""
    needed_name: str | None = None
    """The name under which `fit` has to find the file, where its own does not show the format; no file has it."""


def inspect(options: DataOptions) -> Inspection:
    """Reads a file or a named source, and continues where `fit` would refuse it.

    A UserError refuses options that contradict each other, and what cannot be inspected at all.
    """
    options.check()
    if options.effective_source != "file":
        return _inspect_source(options, [])
    file = Path(os.path.expanduser(str(options.path)))
    sha256 = file_sha256(file)
    usual = (options.text_column, options.label_column) == ("text", "label") and options.header
    if sha256 == SMS_SPAM.sha256 and options.source is None and usual:
        message = f"{file} is the SMS Spam Collection, by its sha256; fit needs the option"
        finding = Finding("source", message, options=("--data.source", "sms_spam"))
        return _inspect_source(replace(options, source="sms_spam"), [finding])
    return _inspect_file(options, file, sha256)


def _inspect_source(options: DataOptions, found: Findings) -> Inspection:
    origin, rows = read_source(options)
    found += [Finding("note", note, refuses=False) for note in rows.notes]
    quoted = ", read with quoting as the published split does" if options.split == "ch06" else ""
    is_sms = options.effective_source == "sms_spam"
    return Inspection(
        origin=origin if options.path is None else f"{options.path} ({origin})",
        format=f"label, tab, text on each line{quoted}" if is_sms else "made from a seed",
        encoding="UTF-8" if is_sms else "none",
        n_rows=len(rows.texts),
        sha256=rows.sha256,
        first_rows=_first_rows(rows),
        labels=dict(Counter(rows.labels).most_common()),
        rows=_usable(rows, options, found),
        findings=found,
        options=options,
    )


def _inspect_file(options: DataOptions, file: Path, sha256: str) -> Inspection:
    found: Findings = []
    table, name = _open(options, file, found)
    opened = table.findings()
    found += opened
    table, options = _find_columns(table, options, found)
    selected = table.select(options.columns)
    raw, faults = read_columns(selected, file, sha256)
    judged = judge(raw, file, options.empty)
    found += [finding for finding in faults if finding not in opened] + judged
    if any(finding.kind == "empty" and finding.refuses for finding in judged):
        options = replace(options, empty="drop")
    refused = {n for finding in judged if finding.refuses for n in finding.rows}
    kept = [i for i, n in enumerate(raw.numbers) if n not in refused]
    assert selected.label_column is not None, "it is required"
    assert table.n_rows is not None, "it is held"
    return Inspection(
        origin=str(file),
        format=_FORMATS[table.format],
        encoding=table.encoding,
        columns=list(table.columns),
        text_column=selected.text_column,
        label_column=selected.label_column,
        n_rows=table.n_rows,
        sha256=sha256,
        first_rows=_first_rows(raw),
        labels=dict(Counter(label for label in raw.labels if not is_blank(label)).most_common()),
        rows=_usable(raw.pick(kept).after(options.empty), options, found),
        findings=found,
        options=options,
        needed_name=name,
    )


def _open(options: DataOptions, file: Path, found: Findings) -> tuple[Table, str | None]:
    """The table of a file, by its name or else by its content; and the name that it needs."""
    check_file(file)
    format, start = format_of(file), beginning(file)
    if format != "parquet":
        refuse_binary(start, file)
    if format is None:
        format = sniff_format(start, file)
        if format is None:
            both = "by its name and by its content"
            raise UserError(f"{file} is of an unsupported format, {both}: {SUPPORTED} is needed")
        return _open_renamed(options, file, format, found)
    table = open_file(file, format, options.header, hold=True)
    if format not in ("csv", "tsv") or _refusal(lambda: table.select(options.columns)) is None:
        return table, None
    other, separator = sniff_format(start, file), sniff_separator(start, file)
    if other == "tsv" and len(table.columns) > 1 and separator != "\t":
        other = format  # there are tabs in its texts
    if other not in (None, format):
        return _open_renamed(options, file, other, found)
    if format == "csv" and separator in (";", "|"):
        message = f"{file} has {quote(separator)} between its columns: fit reads commas. Save it with commas"
        found.append(Finding("separator", f"{message}, or with tabs as a .tsv"))
        return open_file(file, format, options.header, True, separator), None
    return table, None


def _open_renamed(options: DataOptions, file: Path, format: Format, found: Findings) -> tuple[Table, str]:
    """The table of a file whose name is not that of its format, and the name it should have."""
    suffix = next(suffix for suffix, of in SUFFIXES.items() if of == format)
    stem = file.stem if format_of(file) else file.name
    names = (file.with_name(f"{stem}_{i}{suffix}" if i else f"{stem}{suffix}") for i in count())
    name = str(next(free for free in names if not os.path.lexists(free)))  # no other file is to be overwritten
    message = f"{file} is {_FORMATS[format]}, by its content: fit goes by the name, and needs it as {suffix}"
    found.append(Finding("name", message, options=("--data.path", name)))
    return open_file(file, format, options.header, hold=True), name


def _find_columns(table: Table, options: DataOptions, found: Findings) -> tuple[Table, DataOptions]:
    """The table, without a header that is none, and the options that name its columns, which may be guessed."""
    refusal = _refusal(lambda: table.select(options.columns))
    if refusal is None:
        return table, options
    columns = f"its columns are {', '.join(quote(name) for name in table.columns[:20])}"
    text, label = _place(table, options.text_column, "text"), _place(table, options.label_column, "label")
    guess = sniff_columns(table, text, label if label != text else None)
    if guess is None:
        raise UserError(refusal)
    asked = ((text, options.text_column), (label, options.label_column))
    if absent := [quote(column) for place, column in asked if place is None]:
        fault = f"{table.name} has no column, or more than one, named {' and '.join(absent)}; {columns}"
    else:
        fault = f"{table.name}: column {quote(options.text_column)} is named for both texts and labels; {columns}"
    headerless = table.header and not guess.header
    if headerless:
        table, options = table.without_header(), replace(options, header=False)
    text_column, label_column = (_name_of(at, table.columns) for at in (guess.text, guess.label))
    message = (
        f"{fault}. A guess, from their content: the texts are in column {quote(text_column)}, the labels in "
        f"{quote(label_column)}" + (", and the first line is a row, no header" if headerless else "")
    )
    header = ("--data.header", "false") if headerless else ()
    named = (*header, "--data.text_column", text_column, "--data.label_column", label_column)
    found.append(Finding("columns", message, options=named))
    return table, replace(options, text_column=text_column, label_column=label_column)


def _place(table: Table, column: Column, role: str) -> int | None:
    try:
        return column_index(column, role, table.columns, table.name, "")
    except UserError:
        return None


def _name_of(at: int, names: list[str]) -> str:
    """Its name, or its number if the name is empty or not unique."""
    name = names[at].strip()
    return name if name and [other.strip() for other in names].count(name) == 1 else str(at)


def _first_rows(rows: LabelledTexts) -> list[tuple[int, str, str]]:
    return list(zip(rows.numbers[:_SHOWN_ROWS], rows.labels[:_SHOWN_ROWS], rows.texts[:_SHOWN_ROWS], strict=True))


def _usable(rows: LabelledTexts, options: DataOptions, found: Findings) -> LabelledTexts:
    """The rows whose labels are distinct and have enough texts; adds findings about the others."""
    if options.split == "ch06":
        return rows
    whole = not any(finding.kind == "malformed" for finding in found)  # or the labels may be behind what was read
    counts = Counter(rows.labels)
    alike = alike_labels(rows.labels)
    usual = {name: max(names, key=counts.__getitem__) for names in alike for name in names}
    labels = [usual.get(label, label) for label in rows.labels]
    refusal = _refusal(lambda: check_labels(rows.labels))
    if refusal and (whole or alike):
        changed = [n for n, old, new in zip(rows.numbers, rows.labels, labels, strict=True) if old != new]
        found.append(Finding("alike_labels" if alike else "one_label", refusal, changed))
    keys = [near_key(text) for text in rows.texts] if options.group_near_duplicates else None
    short = too_few_of(labels, keys) if whole else set()
    kept = [i for i, label in enumerate(labels) if label not in short]
    if whole and (refusal := _refusal(lambda: check_enough_of_each(labels, keys))):
        left_out = [n for n, label in zip(rows.numbers, labels, strict=True) if label in short]
        found.append(Finding("few_texts", refusal, left_out))
    return replace(rows, labels=labels).pick(kept)


def _refusal(check: Callable[[], object]) -> str | None:
    try:
        check()
    except UserError as error:
        return str(error)
    return None
