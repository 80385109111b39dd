"""Answers to texts, written as they come: CSV, JSON lines, or lines to be read; whole files only."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from lit_cls.errors import RunError, UserError, quote

AnswerFormat = Literal["csv", "jsonl", "lines"]
_SUFFIXES: dict[str, AnswerFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class AnswerWriter:
    """Writes a row's own columns, in their order, then `label`, `probability`, one per class, `truncated`.

    A column of the input that has one of these names is renamed, with `input_` before it.

    Args:
        stream: takes the bytes.
        form: `csv`; `jsonl`, an object a line; or `lines`: label, probabilities and the text, for a person.
        columns: of the input, as far as they are known.
        label_names: by class id.
        tell: prints a line, about each column that is renamed.
        fixed: no row has other columns than these.

    Raises:
        UserError: JSON lines cannot hold two columns of one name.
    """

    def __init__(
        self,
        stream: BinaryIO,
        form: AnswerFormat,
        columns: Sequence[str],
        label_names: Sequence[str],
        tell: Callable[[str], None],
        fixed: bool = True,
    ) -> None:
        self._stream = stream
        self._form = form
        self._columns = list(columns)
        self._label_names = list(label_names)
        self._tell = tell
        self._fixed = fixed
        self._ours = ["label", "probability", *(f"probability_{name}" for name in label_names), "truncated"]
        self._renamed: dict[str, str] = {}
        self.n = 0
        """Rows written."""
        if form == "jsonl" and len(set(columns)) < len(columns):
            twice = next(name for name in columns if list(columns).count(name) > 1)
            raise UserError(f"two columns are named {quote(twice)}, and a JSON object has each name once: write CSV")
        if form != "lines":
            names = [self._name(column) for column in columns]
            if form == "csv":
                self._csv_line([*names, *self._ours])

    def write(
        self, values: Sequence[Any] | Mapping[str, Any], label: str, probabilities: Mapping[str, float], cut: bool
    ) -> None:
        """One row.

        Args:
            values: its fields by their place, or by name.
            label: the answer.
            probabilities: of every label, in the order of `label_names`.
            cut: whether only a part of the text was read.

        Raises:
            UserError: a field that CSV has no column for.
        """
        self.n += 1
        shares = [float(f"{probabilities[name]:.6g}") for name in (label, *self._label_names)]
        if self._form == "lines":
            self._line(label, probabilities, str(values[0] if isinstance(values, Sequence) else ""), cut)
        elif self._form == "jsonl":
            pairs = values.items() if isinstance(values, Mapping) else zip(self._columns, values, strict=True)
            row = {self._name(name): _plain(value) for name, value in pairs}
            answer = dict(zip(self._ours, [label, *shares, cut], strict=True))
            self._bytes(json.dumps({**row, **answer}, ensure_ascii=False, default=str) + "\n")
        else:
            self._csv_line([*self._cells(values), label, *shares, "true" if cut else "false"])

    def _cells(self, values: Sequence[Any] | Mapping[str, Any]) -> list[str]:
        if isinstance(values, Mapping):
            if other := [name for name in values if name not in self._columns]:
                raise UserError(
                    f"row {self.n} has {quote(other[0])}, which the first one has not: CSV cannot take a column later. "
                    "Pass --output_format jsonl, or give the rows as a file"
                )
            values = [values.get(name) for name in self._columns]
        return [_cell(value) for value in values]

    def _line(self, label: str, probabilities: Mapping[str, float], text: str, cut: bool) -> None:
        shares = "  ".join(f"{name} {share:.4f}" for name, share in probabilities.items())
        end = "  (cut: longer than the classifier reads)" if cut else ""
        self._bytes(f"{label}\t{shares}\t{' '.join(text.split())}{end}\n")

    def _csv_line(self, cells: Sequence[Any]) -> None:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(cells)  # Python quotes what its own lines end with
        self._bytes(line.getvalue().removesuffix("\r\n") + "\n")

    def _bytes(self, text: str) -> None:
        # Half of a surrogate pair, which JSON can spell, has no UTF-8 form.
        self._stream.write(text.encode("utf-8", "replace"))

    def _name(self, column: str) -> str:
        """What a column of the input is called in the output; told once."""
        if column not in self._ours:
            return column
        if column not in self._renamed:
            name = f"input_{column}"
            while name in self._columns:
                name = f"input_{name}"
            self._renamed[column] = name
            self._tell(f"note: the input's column {quote(column)} is {quote(name)} in the output")
        return self._renamed[column]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    plain = _plain(value)
    if plain is None:
        return ""
    return json.dumps(plain, ensure_ascii=False, default=str) if isinstance(plain, bool | dict | list) else str(plain)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_of(path: Path, asked: AnswerFormat | None) -> AnswerFormat:
    """What is written into a file, by its name, or as asked for.

    Raises:
        UserError: neither says, or they say different things.
    """
    by_name = _SUFFIXES.get(path.suffix.lower())
    if asked is not None and by_name not in (None, asked):
        raise UserError(f"--output {path} and --output_format {asked} say different things: leave one out")
    if asked is None and by_name is None:
        raise UserError(f"--output {path}: a name that ends in .csv or .jsonl, or --output_format, says what it is")
    return asked or by_name or "csv"


def check_new_file(path: Path) -> None:
    """Refuses, before any work, a file that could not be written or would replace another.

    Raises:
        UserError: it is there already, or its folder is not.
    """
    if os.path.lexists(path):
        raise UserError(f"--output {path} is there already, and nothing is overwritten: give another name")
    if not os.path.isdir(path.parent):
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"--output {path}: the folder {path.parent} cannot be written to")
    check_partial(path, "--output")


def check_partial(path: Path, option: str) -> None:
    """Refuses, before any work, a file of whose name no `<name>.partial` can be made: too long a name, say.

    Args:
        path: the file.
        option: that names it.

    Raises:
        UserError: it cannot, or another process is writing it.
    """
    partial = _partial(path)
    left = os.path.lexists(partial)
    try:
        with partial.open("ab") as stream:
            _lock(stream, partial, option)
            if not left:
                partial.unlink()
    except OSError as error:
        told = f"{option} {path} is written as {partial.name} first, which cannot be made: {error.strerror}"
        raise UserError(f"{told}. Give another name") from error


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


@contextmanager
def whole_file(path: Path, tell: Callable[[str], None]) -> Iterator[BinaryIO]:
    """A file that has its name once it is whole; until then, and for ever if it is stopped, `<name>.partial`.

    Args:
        path: its name.
        tell: prints a line, about what an earlier attempt has left.

    Raises:
        UserError: another process is writing it.
        RunError: the disk is full, say.
    """
    partial = _partial(path)
    try:
        with partial.open("ab") as stream:
            _lock(stream, partial, "--output")
            if stream.tell():
                tell(f"note: {partial}, of an attempt that was stopped, is written anew")
                stream.truncate(0)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if path.exists():
                raise RunError(f"{path} has come to be meanwhile, and nothing is overwritten: all is in {partial}")
            partial.rename(path)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        kept = f"; what was, is in {partial}" if os.path.isfile(partial) else ""
        raise RunError(f"{path} cannot be written: {error.strerror}{kept}") from error


def _lock(stream: BinaryIO, partial: Path, option: str) -> None:
    """Of two that write the same file, one stops."""
    with suppress(ImportError):  # on Windows an open file cannot be renamed by the other anyway
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is writing {partial}: give another name with {option}") from error
        if not partial.exists() or not os.path.samestat(os.fstat(stream.fileno()), partial.stat()):
            raise UserError(f"another process has just written {partial}: give another name with {option}")
