"""metrics.csv: one row for each time that figures were logged, kept when a run is resumed."""

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
    """A logger that appends to its file: rows are there as soon as they are logged.

    Lightning's own erases the file of a resumed run, and keeps up to 100 rows in memory, which a killed run loses.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.rows: list[dict[str, str]] = []
        """All rows, without the empty cells."""
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.parent.name

    @property
    def version(self) -> str:
        """The run's number among those of its name."""
        return self.folder.name

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.folder)

    log_dir = save_dir

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NAME

    def begin_with(self, path: Path, n_rows: int) -> int:
        """Begins with the first rows of a file, those logged before the state that is resumed.

        Returns the number of rows after these: of steps that are repeated.
        """
        rows = _read(path)
        self.rows = rows[:n_rows]
        self._columns = sorted({name for row in self.rows for name in row})
        if self.rows:
            self._write_all()
        elif path == self.path:
            path.unlink(missing_ok=True)
        return max(0, len(rows) - n_rows)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: they are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row."""
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        row = {name: str(value) for name, value in {**values, "step": step}.items()}
        self.rows.append(row)
        if new := sorted(set(row) - set(self._columns)):
            self._columns = sorted([*self._columns, *new])
            self._write_all()
        else:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(_lines(self._columns, [row]))  # in one write: a killed run leaves whole lines

    @rank_zero_only
    def flush(self) -> None:
        """Waits until all rows are on the disk."""
        if self.path.exists():
            with self.path.open("rb") as stream:
                flush(stream)

    def _write_all(self) -> None:
        write_text(self.path, _lines(self._columns, [{name: name for name in self._columns}, *self.rows]))


def _lines(columns: list[str], rows: list[dict[str, str]]) -> str:
    stream = io.StringIO()
    csv.DictWriter(stream, columns, restval="").writerows(rows)
    return stream.getvalue()


def _read(path: Path) -> list[dict[str, str]]:
    """The rows, without the empty cells; an incomplete last line is dropped."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    return [{name: value for name, value in row.items() if name and value} for row in reader]
