"""`lit_cls verify-resume`: a run that is killed again and again ends as the one that was left alone."""

import os
import random
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
from lit_cls.errors import RunError, UserError
from lit_cls.experiments.arguments import SeriesParser
from lit_cls.training.callbacks import make_console
from lit_cls.training.checkpoints import BEST, LAST, RUN_KEY, newest_checkpoint, read_checkpoint
from lit_cls.training.run_folder import version_folders

_BEGIN, _END = "What trains", "Accuracy"
"""What a run prints before its first step, and once all is evaluated."""
_SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_SHARE_EARLY = 0.2  # of the kills: before the training, in imports, data and weights
_STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)
_FIXED = {
    "--run_name": "its runs are called straight and stopped",
    "--ckpt_path": "its runs start anew",
    "--trainer.default_root_dir": "give --out",
    "--trainer.fast_dev_run": "it leaves no results",
    "--trainer.enable_checkpointing": "what is not saved cannot be gone on with",
}


@dataclass(frozen=True)
class Same:
    """What was compared, and the first difference; None where there is none."""

    what: str
    size: str
    difference: str | None


def verify_resume(words: Sequence[str]) -> int:
    """Runs the command.

    Args:
        words: what was typed after the verb.

    Returns:
        The exit code: 1 where the two runs differ.

    Raises:
        UserError: a mistake in the options.
        RunError: a run failed by itself.
    """
    own, others = _parser().split(words)
    if own.kills < 1:
        raise UserError(f"--kills {own.kills} is less than 1")
    console, out = make_console(), Path(os.path.expanduser(own.out))
    fit = ["fit", *others, "--trainer.default_root_dir", str(out)]
    children = Children(out / "verify-resume.log")
    console.print("a run that is left alone …", soft_wrap=True)
    straight = children.run([*fit, "--run_name", "straight"])
    if straight.code:
        raise RunError(f"the run ended with {straight.code}: see {children.log}")
    console.print(f"  {straight.seconds:.1f} s, {straight.seconds_training:.1f} s of it training", soft_wrap=True)
    draw, n_kills = random.Random(own.seed), 0
    first, n_steps = len(version_folders(out / "stopped")), _steps(version_folders(out / "straight")[-1])
    while True:
        folder = next(iter(_begun(out, first)), None)
        command = [*fit, "--run_name", "stopped"] if folder is None else ["resume", str(folder)]
        kill = None
        if n_kills < own.kills:
            number, early = _SIGNALS[draw.randrange(len(_SIGNALS))], draw.random() < _SHARE_EARLY
            # Of what is left, so much that all the kills find something to end.
            left = straight.seconds_training * (1 - _steps(folder) / n_steps)
            window = straight.seconds_starting if early else 1.5 * left / (own.kills - n_kills + 1)
            kill = Kill(number, early, draw.uniform(0, window))
        ended = children.run(command, kill)
        if ended.code == 0:
            break
        if kill is None or ended.code not in _STOPPED:
            raise RunError(f"a run ended with {ended.code}: see {children.log}")
        n_kills += 1
        console.print(f"  kill {n_kills} of {own.kills}: {kill}", soft_wrap=True)
    [folder] = _begun(out, first)
    compared = compare_runs(version_folders(out / "straight")[-1], folder)
    console.print(_table(compared))
    same = not any(part.difference for part in compared)
    verdict = "identical, bit by bit" if same else "DIFFERENT"
    console.print(f"{verdict}: a run that was left alone, and one that was killed {n_kills} times", soft_wrap=True)
    if n_kills < own.kills:
        console.print(f"note: the run had ended before {own.kills - n_kills} more kills", soft_wrap=True)
    console.print(f"both are in {out}", markup=False, highlight=False, emoji=False, soft_wrap=True)
    return 0 if same else 1


@dataclass(frozen=True)
class Kill:
    """A signal and its moment.

    Args:
        number: of the signal.
        early: counted from the start of the process instead of from that of the training.
        after: seconds.
    """

    number: signal.Signals
    early: bool
    after: float

    def __str__(self) -> str:
        since = "the process" if self.early else "the training"
        return f"{self.number.name} {self.after:.2f} s after the start of {since}"


@dataclass(frozen=True)
class Ended:
    """How a process ended, and how long it took, until its training and in it."""

    code: int
    seconds: float
    seconds_starting: float
    seconds_training: float


class Children:
    """Runs the command in processes of its own.

    Args:
        log: where all that they print is added.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)

    def run(self, words: Sequence[str], kill: Kill | None = None) -> Ended:
        """Runs one to its end, or to its kill."""
        started = time.monotonic()
        seen: dict[str, float] = {}
        with self.log.open("a", encoding="utf-8") as log:
            print(f"$ lit_cls {' '.join(words)}   # {kill or 'left alone'}", file=log, flush=True)
            with _child(words) as child:
                begun = threading.Event()
                if kill is not None:
                    threading.Thread(target=_kill, args=(child, kill, begun), daemon=True).start()
                assert child.stdout is not None
                for line in child.stdout:
                    log.write(line)
                    for mark in (_BEGIN, _END):
                        if line.startswith(mark):
                            seen[mark] = time.monotonic()
                    if _BEGIN in seen:
                        begun.set()
                code = child.wait()
            print(f"# ended with {code}", file=log)
        ended = time.monotonic()
        begun_at = seen.get(_BEGIN, ended)
        return Ended(code, ended - started, begun_at - started, seen.get(_END, ended) - begun_at)


def compare_runs(one: Path, other: Path) -> list[Same]:
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
            compared.append(Same(name, "", "only one of the runs has it"))
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
            compared.append(Same(file, f"{lines:,} lines", None if texts[0] == texts[1] else "not the same bytes"))
    return compared


def _compare(what: str, one: Any, other: Any) -> Same:
    leaves, others = dict(_leaves(one)), dict(_leaves(other))
    tensors = [value for value in leaves.values() if isinstance(value, Tensor)]
    size = f"{len(tensors):,} tensors, {sum(value.numel() for value in tensors):,} numbers"
    if leaves.keys() != others.keys():
        return Same(what, size, f"entries of one alone: {sorted(leaves.keys() ^ others.keys())[:3]}")
    for name, value in leaves.items():
        if not _equal(value, others[name]):
            return Same(what, size, f"{name} differs")
    return Same(what, size, None)


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
    # As bytes: that also compares what is not a number, and the sign of zero.
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))


def _table(compared: Sequence[Same]) -> Table:
    table = Table(title="Left alone and killed", title_justify="left")
    for column in ("what", "size", "verdict"):
        table.add_column(column)
    for part in compared:
        table.add_row(part.what, part.size, part.difference or "identical")
    return table


def _steps(folder: Path | None) -> int:
    """How many a run has saved."""
    newest = None if folder is None else newest_checkpoint(folder, lambda _: None)
    return newest[1][RUN_KEY]["place"]["steps"] if newest else 0


def _begun(out: Path, first: int) -> list[Path]:
    """The folders of this command's killed run: one, once it has its configuration."""
    folders = version_folders(out / "stopped")[first:]
    return [folder for folder in folders if (folder / "config.yaml").exists()]


def _kill(child: "subprocess.Popen[str]", kill: Kill, begun: threading.Event) -> None:
    if not kill.early:
        begun.wait()
    time.sleep(kill.after)
    child.send_signal(kill.number)  # nothing, when it has ended


@contextmanager
def _child(words: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """The command in a process that does not outlive this one's interest in it."""
    with subprocess.Popen(
        [sys.executable, "-m", "lit_cls", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _parser() -> SeriesParser:
    parser = SeriesParser(
        "verify-resume", "Proves that a run which is killed and gone on with ends as one that was left alone.", _FIXED
    )
    parser.add_argument(
        "--kills", type=int, default=5, help="how often the second run is killed (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=123, help="of the moments and signals (default: %(default)s)")
    parser.add_argument("--out", default="checkpoints/verify-resume", help="folder of both (default: %(default)s)")
    return parser
