"""The runs of a series: what is asked for, and their state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lit_cls.experiments.costs import Cost
from lit_cls.experiments.counts import share
from lit_cls.experiments.finished_run import FinishedRun
from lit_cls.experiments.fit import Fit
from lit_cls.model.backbones import BackboneName

State = Literal["waiting", "running", "finished", "failed", "skipped"]


@dataclass(frozen=True)
class RunRequest:
    """One fit of a series, with its options of `lit_cls fit`; its folder has its name."""

    cells: tuple[str, ...]
    """First cells of its line in the table; runs with the same cells share the line."""
    name: str
    options: tuple[str, ...]
    rerun: bool = False


@dataclass
class SeriesRun:
    """A fit of a series and its state."""

    request: RunRequest
    words: list[str]
    """`fit` and its options."""
    size: BackboneName
    cost: Cost
    state: State = "waiting"
    reason: str = ""
    result: FinishedRun | None = None
    fit: Fit | None = None
    """While it runs."""
    started: float = 0.0
    seconds: float = 0.0
    """Of the whole run, evaluation included; 0 where an earlier command finished it."""


def duration(seconds: float) -> str:
    """A time for a person: 45 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


STATE_COLUMNS = ("memory", "disk", "time", "test accuracy", "state")


def state_cells(runs: Sequence[SeriesRun]) -> tuple[str, ...]:
    """`STATE_COLUMNS` of runs that share a line: sums, but the memory of one, and the mean accuracy of the finished.

    Memory, disk and time are expected; the time is the one that was taken, where all have finished.
    """
    disk = sum(run.cost.disk for run in runs)
    known = all(run.state == "finished" and run.seconds for run in runs)
    time = sum(run.seconds if known else run.cost.seconds for run in runs)
    shares = [share(run.result.counts["test"]) for run in runs if run.result and run.result.counts["test"][1]]
    return (
        f"{runs[0].cost.memory / 1e9:.1f} GB",
        f"{disk / 1e9:.1f} GB" if disk >= 1e8 else f"{disk / 1e6:.0f} MB",
        f"{'' if known else '~'}{duration(time)}",
        f"{sum(shares) / len(shares):.2%}" if shares else "",
        _state(runs),
    )


def _state(runs: Sequence[SeriesRun]) -> str:
    for run in runs:
        if run.state in ("failed", "skipped"):
            return f"{run.state}: {run.reason}"
    finished = sum(run.state == "finished" for run in runs)
    of = f" {finished}/{len(runs)}" if len(runs) > 1 else ""
    if any(run.state == "running" for run in runs):
        # Drawn by another thread: a run may end between two readings.
        fit = next((fit for run in runs if (fit := run.fit) is not None), None)
        if fit is None:
            return f"running{of}"
        epochs = fit.trainer.max_epochs
        return f"running{of}, epoch {min(fit.trainer.current_epoch + 1, epochs or 1)}/{epochs}"
    return "finished" if finished == len(runs) else f"waiting{of}"
