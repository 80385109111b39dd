"""Progress of a command that takes long: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from typing import Any

from lit_cls.io.terminal import is_terminal, print_error

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal."""
BAR_AFTER = 1.0
"""Seconds before a bar appears."""


@dataclass(eq=False)
class Progress:
    """How much of the work is done, with a rate; on standard error.

    If standard output gets results meanwhile (`stdout_used`), on the same terminal they are the progress. Without
    `bar` there are only lines, for a caller whose console draws its own.
    """

    total: int | None = None
    unit: str = "texts"
    log: Callable[[str], None] = print_error
    stdout_used: InitVar[bool] = False
    bar: InitVar[bool] = True

    def __post_init__(self, stdout_used: bool, bar: bool) -> None:
        on_terminal = bar and is_terminal(sys.stderr)
        self._silent = on_terminal and stdout_used and is_terminal(sys.stdout)
        self._may_draw = on_terminal and not self._silent
        self._bar: Any = None
        self._label, self._done = "", 0
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, n: int) -> None:
        """Counts `n` more as done."""
        self._update(self._done + n)

    def report(self, label: str, done: int, total: int) -> None:
        """Sets how many of one phase are done, of a total that may grow; another label begins another phase."""
        if label != self._label:
            self._label, self._began = label, time.monotonic()
        self.total = total
        self._update(done)

    def _update(self, done: int) -> None:
        self._done = done
        now = time.monotonic()
        rate = f"{done / max(now - self._began, 1e-9):,.1f} {self.unit}/s"
        if self._may_draw and self.total:
            if self._bar is None and now - self._began >= BAR_AFTER:
                self._bar = _bar()
            if self._bar is not None:
                [task] = self._bar.task_ids
                self._bar.update(task, description=self._label, completed=done, total=self.total, rate=rate)
        elif not self._silent and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            label = f"{self._label}: " if self._label else ""
            total = f" of {self.total:,}" if self.total else ""
            self.log(f"{label}{done:,}{total} {self.unit}, {rate}")


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    bar.add_task("", total=None, rate="")
    bar.start()
    return bar
