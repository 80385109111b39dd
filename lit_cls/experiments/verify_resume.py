"""Kills a run again and again, and compares it bit by bit with an uninterrupted one (`lit_cls verify-resume`)."""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from subprocess import PIPE, STDOUT, Popen
from threading import Timer
from typing import Any

import torch
from torch import Tensor

from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.runs.folder import version_folders
from lit_cls.training.checkpoints import BEST, LAST, RUN_KEY, newest_checkpoint, read_checkpoint

_BEGIN, _END = "What trains", "Accuracy"
"""Lines that a run prints before its first step, and after its evaluation."""
_EARLY_SHARE = 0.2  # of the kills: before the training, in imports, data and weights


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
    """Exit code of a process, and its seconds: in all, until its training, and in it."""

    code: int
    seconds: float
    seconds_starting: float
    seconds_training: float

    @property
    def was_stopped(self) -> bool:
        """Whether it has ended by a signal."""
        return self.code in (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)


def draw_kill(draw: Random, straight: ProcessResult, share_left: float, n_left: int) -> Kill:
    """The first of the kills that are left, with that share of the training of the uninterrupted process ahead."""
    number, early = draw.choice((signal.SIGKILL, signal.SIGTERM)), draw.random() < _EARLY_SHARE
    # So much of the remaining time that every kill still finds a running process.
    left = 1.5 * straight.seconds_training * share_left / (n_left + 1)
    return Kill(number, early, draw.uniform(0, straight.seconds_starting if early else left))


def run_process(words: Sequence[str], log: Path, kill: Kill | None = None) -> ProcessResult:
    """Runs lit_cls in a process of its own, to its end or to its kill; its output is added to the log."""
    started = time.monotonic()
    seen: dict[str, float] = {}
    command = [sys.executable, "-m", "lit_cls", *words]
    with (
        log.open("a", encoding="utf-8") as stream,
        Popen(command, stdout=PIPE, stderr=STDOUT, encoding="utf-8", errors="replace") as process,
    ):
        try:
            print(f"$ lit_cls {' '.join(words)}   # {kill or 'uninterrupted'}", file=stream, flush=True)
            if kill is not None:
                timer = Timer(kill.after, process.send_signal, [kill.number])  # nothing once the process has ended
                timer.daemon = True
                if kill.early:
                    timer.start()
            assert process.stdout is not None
            for line in process.stdout:
                stream.write(line)
                if kill is not None and not kill.early and line.startswith(_BEGIN) and _BEGIN not in seen:
                    timer.start()
                seen |= {mark: time.monotonic() for mark in (_BEGIN, _END) if line.startswith(mark)}
            print(f"# ended with {process.wait()}", file=stream)
        finally:
            process.kill()  # nothing once it has ended
    ended = time.monotonic()
    begun = seen.get(_BEGIN, ended)
    return ProcessResult(process.returncode, ended - started, begun - started, seen.get(_END, ended) - begun)


def compare_runs(one: Path, other: Path) -> list[Comparison]:
    """Compares two run folders bit by bit."""
    compared = []
    for name in (LAST, BEST):
        paths = [folder / name for folder in (one, other) if (folder / name).exists()]
        if len(paths) == 1:
            compared.append(Comparison(name, "", "only one of the runs has it"))
        elif paths:
            contents = [read_checkpoint(path) for path in paths]
            for entry in ("state_dict", "optimizer_states", "lr_schedulers"):
                compared.append(_compare(f"{name}: {entry}", *(content[entry] for content in contents)))
            keys = ("place", "best_loss", "processes", "metrics_rows")
            ours = ({key: content[RUN_KEY][key] for key in keys} for content in contents)
            compared.append(_compare(f"{name}: place, lowest loss, random states", *ours))
    for file in ("metrics.csv", *(f"predictions_{split}.csv" for split in SPLIT_NAMES)):
        first, second = ((run / file).read_bytes() if (run / file).exists() else None for run in (one, other))
        if first is not None or second is not None:
            lines = (first or b"").count(b"\n")
            compared.append(Comparison(file, f"{lines:,} lines", None if first == second else "not the same bytes"))
    return compared


def _compare(name: str, one: Any, other: Any) -> Comparison:
    leaves, others = dict(_leaves(one)), dict(_leaves(other))
    tensors = [value for value in leaves.values() if isinstance(value, Tensor)]
    size = f"{len(tensors):,} tensors, {sum(value.numel() for value in tensors):,} numbers"
    if leaves.keys() != others.keys():
        return Comparison(name, size, f"entries of one alone: {sorted(leaves.keys() ^ others.keys())[:3]}")
    different = (f"{leaf} differs" for leaf, value in leaves.items() if not _equal(value, others[leaf]))
    return Comparison(name, size, next(different, None))


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}")
    else:
        yield name, value


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return bool(one == other) and type(one) is type(other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # As bytes, to compare NaN and the sign of zero too.
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))


def saved_steps(folder: Path | None) -> int:
    """Steps that a run has saved."""
    newest = None if folder is None else newest_checkpoint(folder, lambda _: None)
    return newest[1][RUN_KEY]["place"]["steps"] if newest else 0


def started_folders(out: Path, first: int) -> list[Path]:
    """The folders of this command's killed run: one, once it has its configuration."""
    return [folder for folder in version_folders(out / "stopped")[first:] if (folder / "config.yaml").exists()]
