"""Kills a run again and again, and compares it bit by bit with an uninterrupted one (`lit_cls verify-resume`)."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.runs.folder import version_folders
from lit_cls.training.checkpoints import BEST, LAST, RUN_KEY, newest_checkpoint, read_checkpoint

_BEGIN, _END = "What trains", "Accuracy"
"""Lines that a run prints before its first step, and after its evaluation."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
EARLY_SHARE = 0.2  # of the kills: before the training, in imports, data and weights
STOPPED_CODES = (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)


@dataclass(frozen=True)
class Comparison:
    """One compared part of two runs."""

    name: str
    size: str
    difference: str | None
    """The first one; None where there is none."""


@dataclass(frozen=True)
class Kill:
    """A signal and its moment."""

    number: signal.Signals
    early: bool
    """Whether the time is counted from the start of the process, not from that of the training."""
    after: float
    """Seconds."""

    def __str__(self) -> str:
        since = "the process" if self.early else "the training"
        return f"{self.number.name} {self.after:.2f} s after the start of {since}"


@dataclass(frozen=True)
class ProcessResult:
    """Exit code of a process, and how long it took, until its training and in it."""

    code: int
    seconds: float
    seconds_starting: float
    seconds_training: float


def run_process(words: Sequence[str], log: Path, kill: Kill | None = None) -> ProcessResult:
    """Runs lit_cls in a process of its own, to its end or to its kill.

    Args:
        words: its command line.
        log: file to which its output is added.
        kill: the signal it gets, if it still runs then.
    """
    started = time.monotonic()
    seen: dict[str, float] = {}
    with log.open("a", encoding="utf-8") as stream, _process(words) as process:
        print(f"$ lit_cls {' '.join(words)}   # {kill or 'uninterrupted'}", file=stream, flush=True)
        if kill is not None and kill.early:
            _send_later(process, kill)
        assert process.stdout is not None
        for line in process.stdout:
            stream.write(line)
            if kill is not None and not kill.early and line.startswith(_BEGIN) and _BEGIN not in seen:
                _send_later(process, kill)
            for mark in (_BEGIN, _END):
                if line.startswith(mark):
                    seen[mark] = time.monotonic()
        code = process.wait()
        print(f"# ended with {code}", file=stream)
    ended = time.monotonic()
    begun = seen.get(_BEGIN, ended)
    return ProcessResult(code, ended - started, begun - started, seen.get(_END, ended) - begun)


def compare_runs(one: Path, other: Path) -> list[Comparison]:
    """Compares two run folders bit by bit.

    Args:
        one: the folder of a run.
        other: that of another.
    """
    compared = []
    for name in (LAST, BEST):
        paths = [folder / name for folder in (one, other)]
        if not any(path.exists() for path in paths):
            continue
        if not all(path.exists() for path in paths):
            compared.append(Comparison(name, "", "only one of the runs has it"))
            continue
        contents = [read_checkpoint(path) for path in paths]
        for entry in ("state_dict", "optimizer_states", "lr_schedulers"):
            compared.append(_compare(f"{name}: {entry}", *(content[entry] for content in contents)))
        ours = [
            {name: content[RUN_KEY][name] for name in ("place", "best_loss", "processes", "metrics_rows")}
            for content in contents
        ]
        compared.append(_compare(f"{name}: place, lowest loss, random states", *ours))
    files = ["metrics.csv", *(f"predictions_{split}.csv" for split in SPLIT_NAMES)]
    for file in files:
        texts = [(folder / file).read_bytes() if (folder / file).exists() else None for folder in (one, other)]
        if any(text is not None for text in texts):
            lines = (texts[0] or b"").count(b"\n")
            compared.append(
                Comparison(file, f"{lines:,} lines", None if texts[0] == texts[1] else "not the same bytes")
            )
    return compared


def _compare(name: str, one: Any, other: Any) -> Comparison:
    leaves, others = dict(_leaves(one)), dict(_leaves(other))
    tensors = [value for value in leaves.values() if isinstance(value, Tensor)]
    size = f"{len(tensors):,} tensors, {sum(value.numel() for value in tensors):,} numbers"
    if leaves.keys() != others.keys():
        return Comparison(name, size, f"entries of one alone: {sorted(leaves.keys() ^ others.keys())[:3]}")
    for leaf, value in leaves.items():
        if not _equal(value, others[leaf]):
            return Comparison(name, size, f"{leaf} differs")
    return Comparison(name, size, None)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{name}.{i}")
    else:
        yield name, value


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return bool(one == other) and type(one) is type(other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # As bytes, to compare NaN and the sign of zero too.
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))


def comparison_table(compared: Sequence[Comparison]) -> Table:
    """One row per compared part."""
    table = Table(title="Uninterrupted and killed", title_justify="left")
    for column in ("part", "size", "verdict"):
        table.add_column(column)
    for part in compared:
        table.add_row(part.name, part.size, part.difference or "identical")
    return table


def saved_steps(folder: Path | None) -> int:
    """Steps that a run has saved."""
    newest = None if folder is None else newest_checkpoint(folder, lambda _: None)
    return newest[1][RUN_KEY]["place"]["steps"] if newest else 0


def started_folders(out: Path, first: int) -> list[Path]:
    """The folders of this command's killed run: one, once it has its configuration."""
    folders = version_folders(out / "stopped")[first:]
    return [folder for folder in folders if (folder / "config.yaml").exists()]


def _send_later(process: "subprocess.Popen[str]", kill: Kill) -> None:
    """Sends the signal when its time has passed; it does nothing once the process has ended."""
    timer = threading.Timer(kill.after, process.send_signal, [kill.number])
    timer.daemon = True
    timer.start()


@contextmanager
def _process(words: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process of lit_cls, killed when the block ends before it."""
    with subprocess.Popen(
        [sys.executable, "-m", "lit_cls", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
