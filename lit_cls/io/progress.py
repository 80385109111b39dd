"""How far a command is with its texts, told on standard error."""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class Progress:
    """On a terminal a bar, elsewhere a line now and then; both on standard error.

    Args:
        total: of texts; None while it is not known.
        tell: prints a line.
        answers: whether standard output gets answers meanwhile: on the same terminal, they are what is to be seen.
    """

    def __init__(self, total: int | None, tell: Callable[[str], None], answers: bool = False) -> None:
        self._tell = tell
        self._total = total
        self._covered = answers and _terminal(sys.stdout)
        self._n = 0
        self._began = self._told = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if self._total and _terminal(sys.stderr) and not self._covered:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("", total=self._total, rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n: int) -> None:
        """So many more texts are done."""
        self._n += n
        now = time.monotonic()
        rate = f"{self._n / max(now - self._began, 1e-9):,.1f} texts/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._n, rate=rate)
        elif now - self._told >= EVERY and not (self._covered and _terminal(sys.stderr)):
            self._told = now
            self._tell(f"{self._n:,}{f' of {self._total:,}' if self._total else ''} texts, {rate}")


def _terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None: it was closed before the start
