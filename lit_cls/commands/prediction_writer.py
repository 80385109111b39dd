"""Writes predictions as they come: CSV, JSON lines, or lines for a person."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from lit_cls.errors import RunError, UserError, quote
from lit_cls.io.atomic import csv_text, output_file
from lit_cls.io.terminal import discard_stdout, print_error

OutputFormat = Literal["csv", "jsonl", "lines"]
_SUFFIXES: dict[str, OutputFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(eq=False)
class PredictionWriter:
    """Writes a row's own columns, in their order, then `label`, `probability`, one per class, `truncated`.

    A column of the input that has one of these names is renamed, with `input_` before it, and `log` prints a line.
    `lines` are for a person: label, probabilities, text. A UserError if JSON lines had two columns of one name.
    """

    stream: BinaryIO
    form: OutputFormat
    columns: Sequence[str]
    label_names: Sequence[str]
    log: Callable[[str], None]

    def __post_init__(self) -> None:
        self._ours = ["label", "probability", *(f"probability_{name}" for name in self.label_names), "truncated"]
        self._renamed: dict[str, str] = {}
        self.n = 0
        """Rows written."""
        if self.form == "jsonl" and len(set(self.columns)) < len(self.columns):
            twice = next(name for name in self.columns if list(self.columns).count(name) > 1)
            raise UserError(f"two columns are named {quote(twice)}, and a JSON object has each name once: write CSV")
        if self.form != "lines":
            names = [self._name(column) for column in self.columns]
            if self.form == "csv":
                self._csv_line([*names, *self._ours])

    def write(
        self, values: Sequence[Any] | Mapping[str, Any], label: str, probabilities: Mapping[str, float], truncated: bool
    ) -> None:
        """Writes a row, its values by place or name, and its prediction; a UserError if CSV lacks a column for one."""
        self.n += 1
        shares = [float(f"{probabilities[name]:.6g}") for name in (label, *self.label_names)]
        if self.form == "lines":
            text = " ".join(str(values[0] if isinstance(values, Sequence) else "").split())
            named = "  ".join(f"{name} {share:.4f}" for name, share in probabilities.items())
            end = "  (truncated: longer than the classifier reads)" if truncated else ""
            self._bytes(f"{label}\t{named}\t{text}{end}\n")
        elif self.form == "jsonl":
            pairs = values.items() if isinstance(values, Mapping) else zip(self.columns, values, strict=True)
            row = {self._name(name): _plain(value) for name, value in pairs}
            prediction = dict(zip(self._ours, [label, *shares, truncated], strict=True))
            self._bytes(json.dumps({**row, **prediction}, ensure_ascii=False, default=str) + "\n")
        else:
            if isinstance(values, Mapping):
                if other := [name for name in values if name not in self.columns]:
                    raise UserError(
                        f"row {self.n} has {quote(other[0])}, which the first row does not have: CSV cannot add a "
                        "column later. Pass --output_format jsonl, or give the rows as a file"
                    )
                values = [values.get(name) for name in self.columns]
            self._csv_line([*map(_cell, values), label, *shares, "true" if truncated else "false"])

    def _csv_line(self, cells: Sequence[Any]) -> None:
        # csv quotes cells that have a character of its line end: this way both kinds of line break.
        self._bytes(csv_text([cells], lineterminator="\r\n").removesuffix("\r\n") + "\n")

    def _bytes(self, text: str) -> None:
        # Half of a surrogate pair, which JSON can spell, has no UTF-8 form.
        self.stream.write(text.encode("utf-8", "replace"))

    def _name(self, column: str) -> str:
        """The name of a column of the input in the output; a new name is logged once."""
        if column not in self._ours:
            return column
        if column not in self._renamed:
            name = f"input_{column}"
            while name in self.columns:
                name = f"input_{name}"
            self._renamed[column] = name
            self.log(f"note: the input's column {quote(column)} is {quote(name)} in the output")
        return self._renamed[column]


def _cell(value: Any) -> str:
    plain = _plain(value)
    if plain is None or isinstance(plain, str):
        return plain or ""
    return json.dumps(plain, ensure_ascii=False, default=str) if isinstance(plain, bool | dict | list) else str(plain)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def output_format(path: Path, asked: OutputFormat | None) -> OutputFormat:
    """The format of an output file, by its name or as asked for; a UserError if neither, or if they differ."""
    by_name = _SUFFIXES.get(path.suffix.lower())
    if asked is not None and by_name not in (None, asked):
        raise UserError(f"--output {path} and --output_format {asked} are different formats: leave one out")
    if asked is None and by_name is None:
        raise UserError(f"--output {path}: give a name that ends in .csv or .jsonl, or the format with --output_format")
    return asked or by_name or "csv"


@contextmanager
def output_stream(output: Path | None) -> Iterator[BinaryIO]:
    """A new file that becomes `output` once it is whole; None is standard output."""
    if output is not None:
        with output_file(output, "--output", print_error) as stream:
            yield stream
        return
    standard: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    if standard is None:
        raise UserError("standard output is closed: give a file with --output")
    try:
        sys.stdout.flush()
        yield standard
        standard.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise RunError(f"standard output cannot be written: {error.strerror}") from error
