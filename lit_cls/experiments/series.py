"""A series of fits, one after the other: planned, shown in one table, and continued where it was stopped.

`OUT/runs/<name>/version_<n>/` are the run folders, as `lit_cls fit` leaves them; `OUT/logs/<name>.log`
is what each run said. A run whose folder has a report is finished and is not run again.
"""

import gc
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lit_cls.data.split_data import SplitData
from lit_cls.errors import UserError
from lit_cls.experiments.costs import Cost, download_size, expected_cost
from lit_cls.experiments.fit import Fit, OpenFit
from lit_cls.experiments.machine import Machine, free_resources, matmul_rate
from lit_cls.experiments.records import Record, is_finished, read_record
from lit_cls.model.pretrained import check_pretrained
from lit_cls.model.weight_files import file_sha256
from lit_cls.model.weights import SIZES, ModelSize, WeightsCache, match_weights
from lit_cls.runs.folder import version_folders

State = Literal["waiting", "running", "finished", "failed", "skipped"]

# Where a run lands, how it reads its data and where it keeps what it computes once changes no result.
_NO_SETTINGS = (
    *("config", "run_name", "ckpt_path", "trainer.default_root_dir", "data.num_workers", "data.path"),
    *("save_every_n_steps", "model.cache_dir", "model.cache_gb", "model.gradient_checkpointing", "model.compile"),
)


@dataclass(frozen=True)
class Job:
    """One fit of a series."""

    line: tuple[str, ...]
    """First cells of its line in the table; jobs with the same cells share the line."""
    name: str
    """Of its folder."""
    options: tuple[str, ...]
    """Of `lit_cls fit`."""
    again: bool = False
    """Whether it is run although it is finished."""


@dataclass
class Entry:
    """A job, and how far it is."""

    job: Job
    words: list[str]
    """Of the command that runs it."""
    size: ModelSize
    cost: Cost
    state: State = "waiting"
    reason: str = ""
    """Why it was skipped, or failed."""
    record: Record | None = None
    run: Fit | None = None
    """While it runs."""
    started: float = 0.0
    seconds: float = 0.0
    """Of the whole run, evaluation included; 0 where it finished in an earlier session."""


@dataclass
class Series:
    """Fits that belong together.

    Args:
        out: the folder of all of them.
        columns: headings of the cells of `Job.line`.
        jobs: in the order of the table; those of one model size run one after the other, so that a
            weights file is read once.
        console: where the table is shown.
        command: what goes on with the series when it was stopped.
        open_fit: builds each fit from its command line.
        on_change: called after each run that has ended, to write down what is known.
    """

    out: Path
    columns: Sequence[str]
    jobs: Sequence[Job]
    console: Console
    command: str
    open_fit: OpenFit
    on_change: Callable[[Sequence[Entry]], None] = lambda entries: None
    entries: list[Entry] = field(default_factory=list)
    parts: SplitData | None = None
    """The data of the first job, once it is planned."""

    def plan(self) -> None:
        """Checks every job, reads its data, and decides what there is to run.

        Raises:
            UserError: a mistake in the options or the data, or runs of other settings in the folder.
        """
        self.console.print(f"checking {len(self.jobs)} runs", highlight=False)
        rates: dict[tuple[torch.device, str], float] = {}
        rooms: dict[torch.device, Machine] = {}
        planned: list[Fit] = []
        downloaded: set[ModelSize] = set()
        kept: set[str] = set()  # outputs of frozen layers, for several rows
        disk = 0
        for job in self.jobs:
            entry, run = self._plan_one(job, rates, rooms)
            self.entries.append(entry)
            self.parts = self.parts or run.datamodule.split_data
            if not job.again:
                self._find_finished(entry, run)
            if entry.state == "finished":
                continue
            first_cost = 0  # of what later runs share
            if run.model.settings.weights == "pretrained" and entry.size not in downloaded:
                first_cost += download_size(entry.size)
            if entry.cost.shared_name not in kept:
                first_cost += entry.cost.shared_disk
            entry.cost = replace(entry.cost, disk=entry.cost.disk + first_cost)
            room = rooms[run.trainer.strategy.root_device]
            _skip_if_too_large(entry, replace(room, disk=room.disk - disk))
            if entry.state == "waiting":  # one that is skipped leaves nothing that others could share
                disk += entry.cost.disk
                kept.add(entry.cost.shared_name)
                if run.model.settings.weights == "pretrained":
                    downloaded.add(entry.size)
                planned.append(run)
        _check_weights(planned)
        self._open()

    def _plan_one(
        self, job: Job, rates: dict[tuple[torch.device, str], float], rooms: dict[torch.device, Machine]
    ) -> tuple[Entry, Fit]:
        """A job, checked; what is known of devices by now is kept in `rates` and `rooms`."""
        root = str(self.out / "runs")
        fixed = ("--run_name", job.name, "--trainer.default_root_dir", root, "--trainer.enable_progress_bar=false")
        words = ["fit", *job.options, *fixed]
        run = self.open_fit(words)
        if run.trainer.world_size > 1:
            raise UserError(
                f"a series runs on one device, not on {run.trainer.world_size}: leave trainer.devices out; "
                "two series with different --out can run side by side"
            )
        if run.model.settings.weights == "pretrained":
            check_pretrained(run.model.settings.size)
        run.datamodule.prepare_data()
        run.model.take_labels(run.datamodule.label_names)
        run.model.weigh_classes(run.datamodule.splits["train"].label_ids)
        device, precision = run.trainer.strategy.root_device, str(run.trainer.precision)
        if device not in rooms:
            rooms[device] = free_resources(device, self.out)
        if (device, precision) not in rates:
            rates[device, precision] = matmul_rate(device, precision)
        return Entry(job, words, run.model.settings.size, expected_cost(run, rates[device, precision])), run

    def _open(self) -> None:
        """The folder can be written to, which is better known now than after the first run."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "logs").mkdir(exist_ok=True)
            (self.out / ".writable").touch()
            (self.out / ".writable").unlink()
        except OSError as error:
            raise UserError(f"nothing can be written to {self.out}: {error.strerror}. Give another --out") from error

    def _find_finished(self, entry: Entry, run: Fit) -> None:
        """Takes over a run of the same settings; of others, there is no telling which was meant."""
        finished = [f for f in version_folders(self.out / "runs" / entry.job.name) if is_finished(f)]
        if not finished:
            return
        record = read_record(finished[-1])
        then, now = _flat(record.settings), _flat(run.settings())
        # An option that came after the record's version changes nothing as long as it is off.
        then = {**{name: value for name, value in now.items() if value in (None, False)}, **then}
        differing = [
            f"{name} {then.get(name)} there, {now.get(name)} now"
            for name in sorted(then.keys() | now.keys())
            if name not in _NO_SETTINGS and then.get(name) != now.get(name)
        ]
        if record.provenance["data_sha256"] != run.datamodule.split_data.sha256:
            differing.append("other data")
        weights = run.model.settings.weights
        if weights not in ("random", "pretrained") and record.provenance["weights_sha256"] != file_sha256(weights):
            differing.append(f"another file {weights}")
        if differing:
            raise UserError(
                f"{finished[-1]} was run with other settings: {'; '.join(differing[:4])}. "
                "Choose another folder with --out, or give the same options to go on in this one"
            )
        entry.state, entry.record = "finished", record

    def run(self) -> None:
        """Runs what is waiting; one that fails does not stop the others."""
        sizes = list(SIZES)
        waiting = [entry for entry in self.entries if entry.state == "waiting"]
        waiting.sort(key=lambda entry: sizes.index(entry.size))
        on_terminal = self.console.is_terminal
        if not on_terminal:
            self.console.print(self.table())
        live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2, transient=False)
        # Lightning leaves a handler of ours alone; its own would end some of its loops and not others.
        before = signal.signal(signal.SIGTERM, _terminate)
        weights_cache = WeightsCache()
        if on_terminal:
            live.start()
        try:
            for entry in waiting:
                self._run_one(entry, weights_cache)
                if not on_terminal:
                    self.say(self._plain_line(entry))
                self._tell_change()
        except (KeyboardInterrupt, SystemExit):
            live.stop()
            self.say(f"stopped; this goes on where it was: {self.command}")
            raise
        finally:
            live.stop()
            signal.signal(signal.SIGTERM, before)

    def _tell_change(self) -> None:
        try:
            self.on_change(self.entries)
        except OSError as error:  # the runs go on; what they leave can be written down later
            self.say(f"note: the results could not be written to {self.out}: {error.strerror}")

    def say(self, line: str) -> None:
        """Prints a line as it is: a path in it can be copied."""
        self.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _run_one(self, entry: Entry, weights_cache: WeightsCache) -> None:
        log = self.out / "logs" / f"{entry.job.name}.log"
        entry.state, entry.started = "running", time.perf_counter()
        with log.open("a", encoding="utf-8") as stream:
            try:
                # Made now, not when it was planned: a Trainer sets switches of the whole process.
                # The series has comparisons of its own, of all runs.
                console = Console(file=stream, width=120)
                entry.run = self.open_fit(entry.words, console=console, comparisons=False, weights_cache=weights_cache)
                entry.run.start()
                entry.record = read_record(entry.run.run.folder)
                entry.state = "finished"
            except UserError as error:
                entry.state, entry.reason = "failed", _first_line(error)
                stream.write(f"error: {error}\n")
            except Exception as error:  # whatever it is, the other runs are to have their chance
                entry.state, entry.reason = "failed", f"{type(error).__name__}: {_first_line(error)} ({log})"
                traceback.print_exc(file=stream)
        entry.seconds = time.perf_counter() - entry.started
        entry.run = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def seconds_left(self) -> float:
        """Of what is waiting or running, corrected by how long the finished ones took."""
        done = [entry for entry in self.entries if entry.seconds and entry.state == "finished"]
        expected = sum(entry.cost.seconds for entry in done)
        factor = sum(entry.seconds for entry in done) / expected if expected else 1.0
        left = 0.0
        for entry in self.entries:
            if entry.state == "waiting":
                left += factor * entry.cost.seconds
            elif entry.state == "running":
                left += max(0.0, factor * entry.cost.seconds - (time.perf_counter() - entry.started))
        return left

    def table(self) -> Table:
        """One line per row of the table, with what is known of it by now."""
        states = [entry.state for entry in self.entries]
        title = f"{states.count('finished')} of {len(states)} runs finished"
        if "waiting" in states or "running" in states:
            title += f", about {duration(self.seconds_left())} left"
        title += "".join(f"; now {' '.join(entry.job.line)}" for entry in self.entries if entry.state == "running")
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
        for column in (*self.columns, "memory", "disk", "time", "test accuracy", "state"):
            table.add_column(Text(column), justify="left" if column in (*self.columns, "state") else "right")
        lines: dict[tuple[str, ...], list[Entry]] = {}
        for entry in self.entries:
            lines.setdefault(entry.job.line, []).append(entry)
        for cells, entries in lines.items():
            table.add_row(*map(Text, (*cells, *_costs(entries), _accuracy(entries), _state(entries))))
        return table

    def _plain_line(self, entry: Entry) -> str:
        what = f"{' '.join(cell for cell in entry.job.line if cell)} ({entry.job.name})"
        if entry.record is None:
            return f"{what}: {entry.state}: {entry.reason}"
        counts = "  ".join(f"{split} {k}/{n}" for split, (k, n) in entry.record.counts.items())
        took = f"trained in {entry.record.seconds:.1f} s, whole run {entry.seconds:.1f} s"
        return f"{what}: {counts}  {took}, about {duration(self.seconds_left())} left"


def duration(seconds: float) -> str:
    """A time for a person: 45 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def _skip_if_too_large(entry: Entry, room: Machine) -> None:
    for what, needs, has in (
        ("memory", entry.cost.memory, room.memory),
        ("the host's memory", entry.cost.host_memory, room.host_memory),
        ("disk", entry.cost.disk, room.disk),
    ):
        if needs > has:
            entry.state = "skipped"
            entry.reason = f"needs about {needs / 1e9:.1f} GB of {what}, {has / 1e9:.1f} GB are free"
            return


def _check_weights(waiting: Sequence[Fit]) -> None:
    """Weights that are not there, or do not fit, are found before the first run starts.

    Of weights to be downloaded, only the first are: the others when they are needed.
    """
    downloaded = False
    for run in waiting:
        settings = run.model.settings
        if settings.weights == "random" or (settings.weights == "pretrained" and downloaded):
            continue
        downloaded = downloaded or settings.weights == "pretrained"
        path = settings.weights_path()
        if path is not None:
            with torch.device("meta"):
                net = settings.build(len(run.datamodule.label_names))
            match_weights(net, path)


def _terminate(number: int, frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _costs(entries: Sequence[Entry]) -> tuple[str, str, str]:
    """What was expected; the time that was taken, where the runs have finished."""
    cost = entries[0].cost
    seconds = sum(entry.cost.seconds for entry in entries)
    took = [entry.seconds for entry in entries if entry.state == "finished"]
    told = f"~{duration(seconds)}" if len(took) < len(entries) or not all(took) else duration(sum(took))
    return f"{cost.memory / 1e9:.1f} GB", _bytes(sum(entry.cost.disk for entry in entries)), told


def _bytes(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e8 else f"{n / 1e6:.0f} MB"


def _accuracy(entries: Sequence[Entry]) -> str:
    """The mean over the seeds that have finished."""
    shares = [k / n for entry in entries if entry.record for k, n in [entry.record.counts["test"]] if n]
    return f"{sum(shares) / len(shares):.2%}" if shares else ""


def _state(entries: Sequence[Entry]) -> str:
    for entry in entries:
        if entry.state in ("failed", "skipped"):
            return f"{entry.state}: {entry.reason}"
    finished = sum(entry.state == "finished" for entry in entries)
    of = f" {finished}/{len(entries)}" if len(entries) > 1 else ""
    if any(entry.state == "running" for entry in entries):
        # Drawn by another thread: a run may end between two looks at it.
        run = next((run for entry in entries if (run := entry.run) is not None), None)
        if run is None:
            return f"running{of}"
        epochs = run.trainer.max_epochs
        return f"running{of}, epoch {min(run.trainer.current_epoch + 1, epochs or 1)}/{epochs}"
    return "finished" if finished == len(entries) else f"waiting{of}"


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
