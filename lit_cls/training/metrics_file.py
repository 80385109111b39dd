"""metrics.csv: one row for each time that figures were logged, kept when a run goes on."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import Tensor

from lit_cls.io.atomic import flush, write_text

NAME = "metrics.csv"


class MetricsFile(Logger):
    """A logger that adds to its file and never takes from it: rows are there as soon as they are logged.

    Lightning's own erases the file of the run that it goes on with, and keeps up to a hundred rows in
    memory, which a killed run loses.

    Args:
        folder: where `metrics.csv` is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []

    @property
    def name(self) -> str:
        """Of the run."""
        return self.folder.parent.name

    @property
    def version(self) -> str:
        """Which of the runs of that name."""
        return self.folder.name

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.folder)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self.folder)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    @property
    def rows(self) -> list[dict[str, str]]:
        """All of them, without the empty cells."""
        return list(self._rows)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NAME

    def begin_with(self, path: Path, n_rows: int) -> int:
        """Takes over the first rows of a file: those logged before the state that is gone on from.

        The rows after them are of steps that come again.

        Args:
            path: this file, or that of the run before.
            n_rows: how many.

        Returns:
            How many rows there were beyond these.
        """
        rows = _read(path)
        self._rows = rows[:n_rows]
        self._columns = sorted({name for row in self._rows for name in row})
        if self._rows:
            self._write_all()
        elif path == self.path:
            path.unlink(missing_ok=True)
        return max(0, len(rows) - n_rows)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """They are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row."""
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        row = {name: str(value) for name, value in {**values, "step": step}.items()}
        self._rows.append(row)
        if new := sorted(set(row) - set(self._columns)):
            self._columns = sorted([*self._columns, *new])
            self._write_all()
        else:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(_lines(self._columns, [row]))  # at once: a killed run leaves whole lines

    @rank_zero_only
    def flush(self) -> None:
        """Has the disk take what is written."""
        if self.path.exists():
            with self.path.open("rb") as stream:
                flush(stream)

    def _write_all(self) -> None:
        header = _lines(self._columns, [dict(zip(self._columns, self._columns, strict=True))])
        write_text(self.path, header + _lines(self._columns, self._rows))


def _lines(columns: list[str], rows: list[dict[str, str]]) -> str:
    stream = io.StringIO()
    csv.DictWriter(stream, columns, restval="").writerows(rows)
    return stream.getvalue()


def _read(path: Path) -> list[dict[str, str]]:
    """The rows, without the empty cells; a last line that was cut off is none."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    return [{name: value for name, value in row.items() if name and value} for row in reader]
