"""A series of fits, one after the other: planned, shown in one table, and continued where it was stopped.

`OUT/runs/<name>/version_<n>/` are the run folders, as `lit_cls fit` leaves them; `OUT/logs/<name>.log`
is what each run said. A run whose folder has a report is finished and is not run again.
"""

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lit_cls.data.parts import Parts
from lit_cls.errors import UserError
from lit_cls.experiments.costs import Cost, Machine, expected_cost, machine, product_rate
from lit_cls.experiments.records import Record, is_finished, read_record
from lit_cls.model.weights import SIZES, match_weights, reading_once
from lit_cls.training.run_folder import version_folders
from lit_cls.verbs import Verbs

State = Literal["waiting", "running", "finished", "failed", "skipped"]

# Where a run lands and how it reads its data changes no result.
_NO_SETTINGS = ("config", "run_name", "ckpt_path", "trainer.default_root_dir", "data.num_workers", "data.path")


@dataclass(frozen=True)
class Job:
    """One fit of a series."""

    line: tuple[str, ...]
    """First cells of its line in the table; jobs with the same cells share the line."""
    name: str
    """Of its folder."""
    options: tuple[str, ...]
    """Of `lit_cls fit`."""


@dataclass
class Entry:
    """A job, and how far it is."""

    job: Job
    run: Verbs | None
    """Checked and ready; None once it has run."""
    cost: Cost
    parts: Parts
    """Its data; jobs that read the same way have the same object."""
    state: State = "waiting"
    reason: str = ""
    """Why it was skipped, or failed."""
    record: Record | None = None
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
        command: as typed: what goes on with the series when it was stopped.
        rerun: run finished ones again, into new folders.
        on_change: called after each run that has ended, to write down what is known.
    """

    out: Path
    columns: Sequence[str]
    jobs: Sequence[Job]
    console: Console
    command: str
    rerun: bool = False
    on_change: Callable[[Sequence[Entry]], None] = lambda entries: None
    entries: list[Entry] = field(default_factory=list)

    def plan(self) -> None:
        """Checks every job, reads its data, and decides what there is to run.

        Raises:
            UserError: a mistake in the options or the data, or runs of other settings in the folder.
        """
        self.console.print(f"checking {len(self.jobs)} runs", highlight=False)
        rates: dict[str, float] = {}
        room: Machine | None = None
        for job in self.jobs:
            root = str(self.out / "runs")
            fixed = ("--run_name", job.name, "--trainer.default_root_dir", root, "--trainer.enable_progress_bar=false")
            run = Verbs(["fit", *job.options, *fixed])
            if run.trainer.world_size > 1:
                raise UserError(
                    f"a series runs on one device, not on {run.trainer.world_size}: leave trainer.devices out; "
                    "two series with different --out can run side by side"
                )
            run.datamodule.prepare_data()
            run.model.take_labels(run.datamodule.label_names)
            device, precision = run.trainer.strategy.root_device, str(run.trainer.precision)
            room = room or machine(device, self.out)
            if precision not in rates:
                rates[precision] = product_rate(device, precision)
            entry = Entry(job, run, expected_cost(run, rates[precision]), run.datamodule.parts)
            self.entries.append(entry)
            if not self.rerun:
                self._find_finished(entry)
            if entry.state == "waiting":
                _skip_if_too_large(entry, room)
            if entry.state != "waiting":
                entry.run = None
        _check_weights([entry for entry in self.entries if entry.state == "waiting"])

    def _find_finished(self, entry: Entry) -> None:
        finished = [f for f in version_folders(self.out / "runs" / entry.job.name) if is_finished(f)]
        if not finished:
            return
        assert entry.run is not None
        record = read_record(finished[-1])
        then, now = _flat(record.settings), _flat(entry.run.settings())
        differing = [
            f"{name} {then.get(name)} there, {now.get(name)} now"
            for name in sorted(then.keys() | now.keys())
            if name not in _NO_SETTINGS and then.get(name) != now.get(name)
        ]
        if record.provenance["data_sha256"] != entry.run.datamodule.summary.sha256:
            differing.append("other data")
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
        waiting.sort(key=lambda entry: sizes.index(entry.run.model.settings.size) if entry.run else 0)
        on_terminal = self.console.is_terminal
        if not on_terminal:
            self.console.print(self.table())
        live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2, transient=False)
        with reading_once():
            if on_terminal:
                live.start()
            try:
                for entry in waiting:
                    self._run_one(entry)
                    if not on_terminal:
                        self.say(self._plain_line(entry))
                    self.on_change(self.entries)
            except KeyboardInterrupt:
                live.stop()
                self.say(f"stopped; the same command goes on where it was: {self.command}")
                raise
            finally:
                live.stop()

    def say(self, line: str) -> None:
        """Prints a line as it is: a path in it can be copied."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _run_one(self, entry: Entry) -> None:
        assert entry.run is not None
        log = self.out / "logs" / f"{entry.job.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        entry.state, entry.started = "running", time.perf_counter()
        with log.open("a", encoding="utf-8") as stream:
            entry.run.run.console = Console(file=stream, width=120)
            try:
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
    for what, needs, has in (("memory", entry.cost.memory, room.memory), ("disk", entry.cost.disk, room.disk)):
        if needs > has:
            entry.state = "skipped"
            entry.reason = f"needs about {needs / 1e9:.1f} GB of {what}, {has / 1e9:.1f} GB are free"
            return


def _check_weights(waiting: Sequence[Entry]) -> None:
    """Weights that are not there, or do not fit, are found before the first run starts.

    Of weights to be downloaded, only those of the first run are: the others when they are needed.
    """
    for entry in waiting:
        assert entry.run is not None
        settings = entry.run.model.settings
        if settings.weights == "pretrained" and entry is not waiting[0]:
            continue
        path = settings.weights_path()
        if path is not None:
            with torch.device("meta"):
                net = settings.build(len(entry.run.datamodule.label_names))
            match_weights(net, path)


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
    running = next((entry for entry in entries if entry.state == "running"), None)
    of = f" {finished}/{len(entries)}" if len(entries) > 1 else ""
    if running is not None:
        epoch = running.run.trainer.current_epoch + 1 if running.run else 1
        epochs = running.run.trainer.max_epochs if running.run else 1
        return f"running{of}, epoch {min(epoch, epochs or epoch)}/{epochs}"
    return "finished" if finished == len(entries) else f"waiting{of}"


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
