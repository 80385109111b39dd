"""A series of fits, one after the other: planned, shown in one table, and resumed where it was stopped.

`OUT/runs/<name>/version_<n>/` are the folders of runs, which are finished once they have a report;
`OUT/logs/<name>.log` is the output of each.
"""

import gc
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lit_cls.data.split_data import SplitData
from lit_cls.errors import UserError
from lit_cls.experiments.costs import Estimate, download_size
from lit_cls.experiments.finished_run import is_finished, read_finished_run
from lit_cls.experiments.fit import Fit, OpenFit
from lit_cls.experiments.machine import Machine, free_resources, matmul_rate
from lit_cls.experiments.series_runs import STATE_COLUMNS, RunRequest, SeriesRun, duration, state_cells
from lit_cls.io.terminal import print_to
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.pretrained import hub_file
from lit_cls.model.weight_files import file_sha256
from lit_cls.model.weights import WeightsCache, match_weights
from lit_cls.runs.folder import version_folders

# Options that change no result: where a run lands, how it reads its data, where it keeps what it computes once.
_NO_SETTINGS = (
    *("config", "run_name", "ckpt_path", "trainer.default_root_dir", "data.num_workers", "data.path"),
    *("save_every_n_steps", "model.cache_dir", "model.cache_gb", "model.gradient_checkpointing", "model.compile"),
)


@dataclass
class Series:
    """Fits that belong together, in the order of their table."""

    out: Path
    columns: Sequence[str]
    """Headings of `RunRequest.cells`."""
    requests: Sequence[RunRequest]
    console: Console
    command: str
    """Resumes the series when it was stopped."""
    open_fit: OpenFit
    runs: list[SeriesRun] = field(default_factory=list)
    parts: SplitData | None = None
    """The data of the first run, once it is planned."""
    _machines: dict[torch.device, Machine] = field(default_factory=dict, init=False)
    _rates: dict[tuple[torch.device, str], float] = field(default_factory=dict, init=False)
    """Operations per second, by device and precision."""

    def plan(self) -> None:
        """Checks every run, reads its data, and decides which are to run.

        A UserError refuses a mistake in the options or the data, or runs of other settings in the folder.
        """
        print_to(self.console, f"checking {len(self.requests)} runs")
        planned: list[Fit] = []
        shared: set[str] = set()  # downloaded weights and outputs of frozen layers, for several runs
        disk = 0
        for request in self.requests:
            run, fit = self._plan_one(request)
            self.runs.append(run)
            self.parts = self.parts or fit.datamodule.split_data
            if not request.rerun:
                self._find_finished(run, fit)
            if run.state == "finished":
                continue
            files = {run.cost.shared_name: run.cost.shared_disk}
            if fit.model.settings.weights == "pretrained" and run.size not in shared:
                files[run.size] = download_size(run.size)
            new = sum(size for name, size in files.items() if name not in shared)
            run.cost = replace(run.cost, disk=run.cost.disk + new)
            free = self._machines[fit.trainer.strategy.root_device]
            _skip_if_too_large(run, replace(free, disk=free.disk - disk))
            if run.state == "waiting":  # a skipped run leaves nothing that others could share
                disk += run.cost.disk
                shared |= files.keys()
                planned.append(fit)
        _check_weights(planned)
        try:  # whether it can be written to is known before the first run
            (self.out / "logs").mkdir(parents=True, exist_ok=True)
            (self.out / ".writable").touch()
            (self.out / ".writable").unlink()
        except OSError as error:
            raise UserError(f"nothing can be written to {self.out}: {error.strerror}. Give another --out") from error

    def _plan_one(self, request: RunRequest) -> tuple[SeriesRun, Fit]:
        """Checks one run; each device is measured once."""
        words = ["fit", *request.options, "--run_name", request.name]
        words += ["--trainer.default_root_dir", str(self.out / "runs"), "--trainer.enable_progress_bar=false"]
        fit = self.open_fit(words)
        if (n := fit.trainer.world_size) > 1:
            hint = "leave trainer.devices out; two series with different --out can run side by side"
            raise UserError(f"a series runs on one device, not on {n}: {hint}")
        if fit.model.settings.weights == "pretrained":
            hub_file(fit.model.settings.size)
        fit.datamodule.prepare_data()
        fit.model.take_labels(fit.datamodule.label_names)
        fit.model.weigh_classes(fit.datamodule.splits["train"].label_ids)
        device, precision = fit.trainer.strategy.root_device, str(fit.trainer.precision)
        if device not in self._machines:
            self._machines[device] = free_resources(device, self.out)
        if (device, precision) not in self._rates:
            self._rates[device, precision] = matmul_rate(device, precision)
        cost = Estimate(fit).cost(self._rates[device, precision])
        return SeriesRun(request, words, fit.model.settings.size, cost), fit

    def _find_finished(self, run: SeriesRun, fit: Fit) -> None:
        """Takes over a finished run of the same settings; one of other settings is refused."""
        folders = [f for f in version_folders(self.out / "runs" / run.request.name) if is_finished(f)]
        if not folders:
            return
        found = read_finished_run(folders[-1])
        then, now = _flat(found.settings), _flat(fit.settings())
        # An option that is newer than the run changes nothing as long as it is off.
        then = {**{name: value for name, value in now.items() if value in (None, False)}, **then}
        differing = [
            f"{name} {then.get(name)} there, {now.get(name)} now"
            for name in sorted(then.keys() | now.keys())
            if name not in _NO_SETTINGS and then.get(name) != now.get(name)
        ]
        if found.provenance["data_sha256"] != fit.datamodule.split_data.sha256:
            differing.append("other data")
        weights = fit.model.settings.weights
        if weights not in ("random", "pretrained") and found.provenance["weights_sha256"] != file_sha256(weights):
            differing.append(f"another file {weights}")
        if differing:
            raise UserError(
                f"{folders[-1]} was run with other settings: {'; '.join(differing[:4])}. "
                "Choose another folder with --out, or give the same options to resume in this one"
            )
        run.state, run.result = "finished", found

    def run(self, on_change: Callable[[Sequence[SeriesRun]], None] = lambda runs: None) -> None:
        """Runs what is waiting, one model size after the other; a run that fails does not stop the others.

        `on_change` is called after each run that has ended, to write the results.
        """
        # By size: a weights file is then read once.
        waiting = [run for size in BACKBONES for run in self.runs if run.state == "waiting" and run.size == size]
        weights_cache, on_terminal = WeightsCache(), self.console.is_terminal
        live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2)
        # Lightning leaves a handler of ours alone; its own would end some of its loops and not others.
        before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            if not on_terminal:
                self.console.print(self.table())
            with live if on_terminal else nullcontext():
                for run in waiting:
                    self._run_one(run, weights_cache)
                    if not on_terminal:
                        print_to(self.console, self._summary(run))
                    try:
                        on_change(self.runs)
                    except OSError as error:  # the runs go on; their results can be written later
                        note = f"note: the results could not be written to {self.out}: {error.strerror}"
                        print_to(self.console, note)
        except (KeyboardInterrupt, SystemExit):
            print_to(self.console, f"stopped; to resume: {self.command}")
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def _run_one(self, run: SeriesRun, weights_cache: WeightsCache) -> None:
        log = self.out / "logs" / f"{run.request.name}.log"
        run.state, run.started = "running", time.perf_counter()
        with log.open("a", encoding="utf-8") as stream:
            try:
                # Built now, not when it was planned: a Trainer sets switches of the whole process.
                console = Console(file=stream, width=120)
                run.fit = self.open_fit(run.words, console=console, comparisons=False, weights_cache=weights_cache)
                run.fit.start()
                run.result = read_finished_run(run.fit.run.folder)
                run.state = "finished"
            except Exception as error:  # whatever it is, the other runs are to have their chance
                run.state, run.reason = "failed", next(iter(str(error).splitlines()), "")
                if isinstance(error, UserError):
                    stream.write(f"error: {error}\n")
                else:
                    run.reason = f"{type(error).__name__}: {run.reason} ({log})"
                    traceback.print_exc(file=stream)
        run.seconds = time.perf_counter() - run.started
        run.fit = None
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without a GPU

    def seconds_left(self) -> float:
        """Of what is waiting or running, corrected by how long the finished runs took."""
        done = [run for run in self.runs if run.seconds and run.state == "finished"]
        expected = sum(run.cost.seconds for run in done)
        factor, now = sum(run.seconds for run in done) / expected if expected else 1.0, time.perf_counter()
        waiting = (run.cost.seconds for run in self.runs if run.state == "waiting")
        running = (factor * run.cost.seconds - (now - run.started) for run in self.runs if run.state == "running")
        return factor * sum(waiting) + sum(max(0.0, seconds) for seconds in running)

    def table(self) -> Table:
        """One line per `RunRequest.cells`, with the present state of its runs."""
        states = [run.state for run in self.runs]
        title = f"{states.count('finished')} of {len(states)} runs finished"
        if "waiting" in states or "running" in states:
            title += f", about {duration(self.seconds_left())} left"
        title += "".join(f"; now {' '.join(run.request.cells)}" for run in self.runs if run.state == "running")
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
        for column in (*self.columns, *STATE_COLUMNS):
            table.add_column(Text(column), justify="left" if column in (*self.columns, "state") else "right")
        lines: dict[tuple[str, ...], list[SeriesRun]] = {}
        for run in self.runs:
            lines.setdefault(run.request.cells, []).append(run)
        for cells, of_line in lines.items():
            table.add_row(*map(Text, (*cells, *state_cells(of_line))))
        return table

    def _summary(self, run: SeriesRun) -> str:
        name = f"{' '.join(cell for cell in run.request.cells if cell)} ({run.request.name})"
        if run.result is None:
            return f"{name}: {run.state}: {run.reason}"
        counts = "  ".join(f"{split} {k}/{n}" for split, (k, n) in run.result.counts.items())
        took = f"trained in {run.result.seconds:.1f} s, whole run {run.seconds:.1f} s"
        return f"{name}: {counts}  {took}, about {duration(self.seconds_left())} left"


def _skip_if_too_large(run: SeriesRun, free: Machine) -> None:
    for what, needed, available in (
        ("memory", run.cost.memory, free.memory),
        ("the host's memory", run.cost.host_memory, free.host_memory),
        ("disk", run.cost.disk, free.disk),
    ):
        if needed > available:
            run.state = "skipped"
            run.reason = f"needs about {needed / 1e9:.1f} GB of {what}, {available / 1e9:.1f} GB are free"
            return


def _check_weights(planned: Sequence[Fit]) -> None:
    """Refuses weights that are missing or do not fit, before the first run starts.

    Of weights to be downloaded, only the first are: the others when they are needed.
    """
    downloaded = False
    for fit in planned:
        settings = fit.model.settings
        pretrained = settings.weights == "pretrained"
        if not (pretrained and downloaded) and (path := settings.weights_path()) is not None:
            match_weights(settings.build_empty(len(fit.datamodule.label_names)), path)
        downloaded = downloaded or pretrained


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their full names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
