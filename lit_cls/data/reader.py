"""Reads rows of texts and labels from csv, tsv, jsonl, parquet and plain text: files of any size, and pipes.

`fit` and `lit_cls data check` hold all rows of a file and collect what is wrong with them; `predict` takes some rows at
a time and refuses the first that is wrong.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from lit_cls.data import formats
from lit_cls.data.findings import Findings, RowFaults, refuse
from lit_cls.data.formats import ColumnChoice, Fields, Format
from lit_cls.data.lines import Lines, check_file, encoding_of, lines_of_file, lines_of_pipe
from lit_cls.errors import UserError, quote

PIPE = "standard input"
_FIRST_ROWS, _MOST_ROWS = 16, 1024  # of a chunk
_MOST_CHARACTERS = 1 << 20


class TextRow(NamedTuple):
    """One row; None is a missing value."""

    number: int
    """From 1, header and blank lines not counted."""
    fields: Fields
    text: str | None
    label: str | None


@dataclass(frozen=True)
class Table:
    """Records below named columns."""

    name: str
    format: Format
    columns: list[str]
    header: bool
    """Whether the first record names the columns."""
    records: Callable[[Collection[int] | None], Iterator[Fields]]
    """All records, from the first; those of a pipe can be read once. Takes the columns needed, None for all."""
    faults: RowFaults
    encoding: str = "UTF-8"
    notes: Findings = field(default_factory=list)
    """About the encoding."""
    n_rows: int | None = None
    """None for a pipe."""
    lines: Lines | None = None
    """Of a pipe."""

    def select(self, choice: ColumnChoice) -> "TextTable":
        """The same rows with the columns of texts and labels found; raises as `find_columns`."""
        numbered = not self.header and self.format in ("csv", "tsv")
        hint = " (data.header is false: columns are numbered from 0)" if numbered else ""
        if self.format == "tsv" and len(self.columns) == 1 and not choice.label_named:
            hint += " (one text a line: --input_format text)"
        text_at, label_at = formats.find_columns(self.columns, choice, self.name, hint)
        # JSON lines of a pipe may have a label later on.
        later = [str(name) for name in choice.label if name != self.columns[text_at]]
        return TextTable(self, text_at, label_at, later if label_at is None else [self.columns[label_at]])

    def findings(self) -> Findings:
        """Findings about the rows that have been read so far."""
        return [*self.notes, *self.faults.findings()]

    def first(self, n: int) -> list[Fields]:
        """The first rows' fields."""
        return list(islice(self.records(None), int(self.header), n + int(self.header)))

    def without_header(self) -> "Table":
        """The same table, its first line read as a row."""
        assert self.n_rows is not None, "a pipe is read once"
        return replace(
            self, columns=[str(i) for i in range(len(self.columns))], header=False, n_rows=self.n_rows + self.header
        )


@dataclass(frozen=True)
class TextTable:
    """A table whose columns of texts and labels are known."""

    table: Table
    text_at: int
    label_at: int | None
    """None where no column has labels."""
    label_names: list[str]
    """Fields of JSON lines that are labels."""

    @property
    def text_column(self) -> str:
        """Its name."""
        return self.table.columns[self.text_at]

    @property
    def label_column(self) -> str | None:
        """Its name."""
        return None if self.label_at is None else self.table.columns[self.label_at]

    def rows(self, all_fields: bool = True) -> Iterator[TextRow]:
        """The rows that can be read, the others are faults; without `all_fields`, other columns may be None."""
        table, text_at, label_at, text_name = self.table, self.text_at, self.label_at, self.text_column
        n_columns, typed = len(table.columns), table.format in ("jsonl", "parquet")
        needed = None if all_fields else [text_at, text_at if label_at is None else label_at]
        for number, fields in enumerate(islice(table.records(needed), int(table.header), None), start=1):
            if isinstance(fields, dict):
                text = fields.get(text_name)
                label = next((fields[name] for name in self.label_names if name in fields), None)
            elif len(fields) == n_columns:
                text, label = fields[text_at], None if label_at is None else fields[label_at]
            else:
                count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
                message = f"row {number} has {count}, not {n_columns} like the first line"
                table.faults.add("ragged", "row", number, message, ". Quote texts that contain the separator")
                continue
            if typed:
                role = "text"
                try:
                    text, role = formats.as_text(text), "label"
                    label = formats.as_text(label)
                except TypeError as error:
                    message = f"the {role} of row {number} is {error}, not a text or a number"
                    table.faults.add(f"nested {role}", "row", number, message)
                    continue
            yield TextRow(number, fields, text, label)

    def chunks(self) -> Iterator[list[TextRow]]:
        """Rows to be predicted together: few at first, and no more than can be read without waiting.

        Which rows of a file share a chunk follows from the file alone, so that predictions repeat to the last digit.
        """
        most, size, chunk, lines = _FIRST_ROWS, 0, list[TextRow](), self.table.lines
        for row in self.rows():
            chunk.append(row)
            values = row.fields.values() if isinstance(row.fields, dict) else row.fields
            size += sum(len(value) for value in values if isinstance(value, str))
            if len(chunk) >= most or size >= _MOST_CHARACTERS or not (lines is None or lines.at_hand()):
                yield chunk
                most, size, chunk = min(2 * most, _MOST_ROWS), 0, []
        if chunk:
            yield chunk


def table_of_texts(texts: Sequence[str]) -> Table:
    """Texts that are in memory."""
    return Table("the texts", "text", ["text"], False, lambda _: ([t] for t in texts), RowFaults(""), n_rows=len(texts))


def open_file(path: Path, format: Format, header: bool, hold: bool, separator: str = ",") -> Table:
    """The table in a file; a UserError refuses one that cannot be read or has no rows.

    With `hold`, all rows are kept in memory and their faults collected; else, rows are read from the file each time,
    and the first fault is raised. `header`: whether the first line of a .csv, .tsv or .txt names the columns.
    `separator`: between the columns of a .csv.
    """
    check_file(path)
    faults = RowFaults(str(path), at_once=not hold)
    header = header and format in ("csv", "tsv")
    if format == "parquet":
        columns, n = formats.parquet_columns(path)
        if hold and not n:
            raise UserError(f"{path} has no rows")
        rows = partial(formats.parquet_records, path, faults)
        return Table(str(path), format, columns, False, rows, faults, format, [], n)
    encoding = encoding_of(path)
    if not hold:
        refuse(encoding.findings)

    def records(_: Collection[int] | None = None) -> Iterator[Fields]:
        with lines_of_file(path, encoding) as lines:
            yield from formats.records_of(format, lines, faults, separator)

    held = list(records()) if hold else None
    again = records if held is None else lambda _: iter(held)
    columns = _columns(format, again(None), header)
    n_rows = None if held is None else len(held) - header
    if n_rows == 0 or not columns:
        refuse([*encoding.findings, *faults.findings()])
        raise UserError(f"{path} has no rows{' below its header' if header else ''}")
    return Table(str(path), format, columns, header, again, faults, encoding.name, encoding.findings, n_rows)


def _columns(format: Format, records: Iterator[Fields], header: bool) -> list[str]:
    """The names of the columns; those of JSON lines in the order of their first appearance."""
    if format == "text":
        return ["text"]
    if format == "jsonl":
        return list(dict.fromkeys(name for record in records for name in record))
    first = next(records, [])
    return list(first) if header else [str(i) for i in range(len(first))]


def open_pipe(
    descriptor: int, format: Format | None, choice: ColumnChoice, while_waiting: Callable[[], None] | None = None
) -> tuple[Table, list[str]]:
    """The table that comes through standard input, whose rows can be read once; and notes.

    Without a `format`, the first line decides: a JSON object with the column of texts, or a text. `while_waiting` is
    called about once a second while nothing comes. A UserError says what is wrong with the first line; other lines are
    checked when they are read.
    """
    if format == "parquet":
        raise UserError("parquet is not read from a pipe: write it to a file, and give that with --data.path")
    lines, notes = lines_of_pipe(descriptor, PIPE, while_waiting), []
    if format is None:
        format, note = _format_of_pipe(lines, choice)
        notes.append(note)
    faults = RowFaults(PIPE, at_once=True)
    records = formats.records_of(format, lines, faults)
    first = [] if format == "text" else list(islice(records, 1))
    header = choice.header and format in ("csv", "tsv")
    columns = _columns(format, iter(first), header) or [str(choice.text[0])]
    if not first and format in ("csv", "tsv"):
        raise UserError(f"{PIPE} is empty")
    return Table(PIPE, format, columns, header, lambda _: chain(first, records), faults, lines=lines), notes


def _format_of_pipe(lines: Lines, choice: ColumnChoice) -> tuple[Format, str]:
    """The format of a pipe, by its first line, and the note about it."""
    as_texts, as_json = f"{PIPE} is read as texts, one a line", f"{PIPE} is read as JSON lines"
    first = next(lines, None)
    if first is None:  # texts, one a line, have no columns that could be named
        return ("jsonl", as_json) if choice.text_named or choice.label_named else ("text", as_texts)
    lines.put_back(first)
    if not first.lstrip().startswith("{"):
        return "text", as_texts
    names, record = [str(name) for name in choice.text], formats.json_object(first) or {}
    if any(name in record for name in names):
        return "jsonl", as_json
    return "text", (
        f"{as_texts}: the first one begins like JSON, but is no object with {' or '.join(map(quote, names))}. "
        "If these are JSON lines, name the column of texts with --data.text_column"
    )
