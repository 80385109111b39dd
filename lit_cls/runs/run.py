"""One run: a training or an evaluation, from checked input to its report in a folder of its own."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning_utilities.core.rank_zero import rank_zero_only
from rich.console import Console

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.errors import RunError
from lit_cls.io.atomic import locked
from lit_cls.io.terminal import print_to, stdout_console
from lit_cls.report.console import accuracy_table, describe_figures
from lit_cls.report.content import write_report
from lit_cls.report.run_info import RunInfo, count_parameters, describe_checkpoint, read_provenance, reported_settings
from lit_cls.report.split_results import SplitResult, accuracies, evaluate_split, write_split
from lit_cls.runs.checks import check_batches, check_weights_and_disk
from lit_cls.runs.folder import new_run_folder, write_config
from lit_cls.runs.provenance import NAME, add_resumption, write_provenance
from lit_cls.runs.resuming import ResumeState, continue_files
from lit_cls.training.callbacks import CollectPredictions, EpochLog, ProgressBar
from lit_cls.training.checkpoints import BEST, LAST, PREVIOUS
from lit_cls.training.feature_cache import CacheFeatures
from lit_cls.training.metrics_file import MetricsFile
from lit_cls.training.module import ClassifierModule
from lit_cls.training.pad_invariance import PaddingTest
from lit_cls.training.saving import Saver
from lit_cls.training.signals import Stopped, StopSignals
from lit_cls.training.tables import describe_data

Keep = Literal["best", "last"]


@dataclass(eq=False)
class Run:
    """A fit or an evaluation, from checked input to a report.

    `callbacks` belong to the Trainer that `fit` and `evaluate` are given.

    Args:
        root: the folder of all runs.
        name: of this run; its folder is `<root>/<name>/version_<n>`.
        command: as typed, for provenance.json.
        keep: which checkpoint a fit tests, `best` (of the lowest val_loss) or `last`; None writes no checkpoint.
        config: the text of config.yaml, which checkpoints keep too; None writes none.
        save_every_n_steps: of the optimizer, beside every epoch.
        resumed: the folder of a run that was stopped, in which this one continues.
        console: where the run prints.
        comparisons: as in `RunInfo`.
    """

    root: Path
    name: str
    command: list[str]
    keep: Keep | None = None
    config: str | None = None
    save_every_n_steps: int | None = None
    resumed: Path | None = None
    console: Console = field(default_factory=stdout_console)
    comparisons: bool = True

    def __post_init__(self) -> None:
        self.settings: dict[str, Any] = yaml.safe_load(self.config) if self.config is not None else {}
        self.folder: Path = self.resumed or self.root / self.name  # its new version_<n>, once there is one
        self.predictions = CollectPredictions()
        self.padding_test = PaddingTest()
        self.epoch_log = EpochLog(self.log)
        self.cache_features = CacheFeatures(self.log, scratch=self.root)
        self.signals = StopSignals()

    def callbacks(self, show_bar: bool) -> list[Callback]:
        """The callbacks that the Trainer is made with; the one that saves is added when the run has its folder."""
        bar: list[Callback] = [ProgressBar()] if show_bar else []
        # The feature cache after the log, which stops its clock when a validation starts.
        return [self.predictions, self.padding_test, self.epoch_log, self.cache_features, *bar]

    @rank_zero_only
    def log(self, thing: Any) -> None:
        """Prints a line or a table, once for all processes; a RunError ends a run that nobody reads any more."""
        try:
            print_to(self.console, thing)
        except BrokenPipeError as error:
            raise RunError("standard output was closed: the run ends here") from error

    def fit(
        self,
        trainer: Trainer,
        module: ClassifierModule,
        data: ClassificationData,
        state: ResumeState | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Trains, from the start or from a state, then tests the kept checkpoint.

        `trainer` is a `ClassifierTrainer` made with `callbacks`; `notes` are printed behind the lines about the data.
        """
        self.trainer, self.module, self.data = trainer, module, data
        check_batches(trainer, data)
        for thing in (*describe_data(data, module.settings.token_position), *notes):
            self.log(thing)
        module.take_labels(data.label_names)
        for note in module.weigh_classes(data.splits["train"].label_ids):
            self.log(f"note: {note}")
        check_weights_and_disk(module, len(data.label_names), self.root, self._copies())
        with self._opened(state) as saver:
            trainer.fit(module, datamodule=data, ckpt_path=None if state is None else str(state.path))
            self.folder = Path(trainer.strategy.broadcast(str(self.folder)))  # the first process created it
            kept = self._kept(saver)
            self._evaluate(kept, "test", "validation", "train")
        if seconds := self._seconds_training():
            frozen = module.feature_cache.seconds.get("train")
            when = ", by the run that computed them" if "train" in module.feature_cache.found else ""
            part = f" ({frozen:.1f} s of it for the frozen layers{when})" if frozen else ""
            self.log(f"trained in {seconds:.1f} s{part}, {self.epoch_log.texts_trained / seconds:.1f} texts/s")
        self.log(f"everything is in {self.folder}")
        if kept is not None:
            self.log(f'classify texts with: lit_cls predict --ckpt_path {kept} "a text"')

    def evaluate(
        self, trainer: Trainer, module: ClassifierModule, data: ClassificationData, split: SplitName, checkpoint: Path
    ) -> None:
        """Evaluates a checkpoint on one split, with a Trainer made with `callbacks`."""
        self.trainer, self.module, self.data = trainer, module, data
        for thing in describe_data(data, module.settings.token_position):
            self.log(thing)
        with self._opened(None):
            self._evaluate(checkpoint, split)
        self.log(f"everything is in {self.folder}")

    def _copies(self) -> int:
        """Checkpoints that will exist at once beside those that are there: of a resumed run, some are."""
        if self.keep is None:
            return 0
        names = (LAST, PREVIOUS, BEST) if self.keep == "best" else (LAST, PREVIOUS)
        there = 0 if self.resumed is None else sum((self.resumed / name).exists() for name in names)
        return 1 + len(names) - there  # one is being written

    def _seconds_training(self) -> float:
        """Of all epochs, and of the frozen layers' outputs that they start from."""
        return self.epoch_log.seconds_training + self.module.feature_cache.seconds.get("train", 0.0)

    def _kept(self, saver: Saver) -> Path | None:
        """The checkpoint to test; every run ends with one, unless it was asked not to."""
        if self.keep is None:
            self.log("note: no checkpoint was written: the weights in memory are tested")
            return None
        last = self.folder / LAST
        if not self.trainer.strategy.broadcast(last.exists()):  # not one batch was to be trained on
            saver.save(self.trainer)
        kept = self.folder / f"{self.keep}.ckpt"
        if not kept.exists():
            self.log("note: nothing was validated, so there is no best checkpoint: the last is tested")
            return last
        return kept

    @contextmanager
    def _opened(self, state: ResumeState | None) -> Iterator[Saver]:
        """Holds the run's folder, new or resumed, for one process, with the objects that write into it.

        Prints how to resume the run when it is stopped or cannot write.
        """
        trainer = self.trainer
        with ExitStack() as stack:
            if trainer.is_global_zero and self.resumed is None:  # `lit_cls resume` holds its own
                self.folder = new_run_folder(self.root, self.name)
                stack.enter_context(locked(self.folder))
            self.metrics = MetricsFile(self.folder)
            saver = Saver(
                self.metrics,
                self.signals,
                best=self.keep == "best",
                every_n_steps=self.save_every_n_steps,
                settings=self.settings,
                writes=self.keep is not None,
                resumed_place=None if state is None else state.place,
                in_own_folder=state is not None and state.path.parent == self.folder,
            )
            if trainer.is_global_zero:
                self._begin_files(state)
            write = partial(self._write_provenance, 0 if state is None else state.place["steps"])
            record = LambdaCallback(on_fit_start=write, on_validation_start=write, on_test_start=write)
            # The saver is the last callback: it restores the random states of the next step.
            trainer.callbacks += [record, saver]  # type: ignore[attr-defined]
            trainer.loggers = [self.metrics, *trainer.loggers]
            resume = f"resume with: lit_cls resume {shlex.quote(str(self.folder))}"
            try:
                with self.signals:
                    yield saver
            except Stopped as stopped:
                self.log(f"stopped by {stopped.received.name} after {trainer.global_step} steps")
                if self.keep is not None:
                    self.log(resume)
                raise
            except OSError as error:
                hint = f". When that is mended, {resume}" if self.keep is not None else ""
                raise RunError(f"the run in {self.folder} failed: {error}{hint}") from error

    def _begin_files(self, state: ResumeState | None) -> None:
        """Writes the configuration, and what an earlier run leaves to this one, before the first step."""
        for left in self.folder.glob("*.partial"):  # of a process that was killed; nobody else writes here
            left.unlink()
        if self.config is not None and (earlier := write_config(self.folder, self.config)):
            self.log(f"note: the options have changed; the earlier ones are kept as {earlier}")
        if state is None:
            self.metrics.begin_with(self.metrics.path, 0)
        else:
            continue_files(state, self.metrics, self.keep == "best", self.log)

    @rank_zero_only
    def _write_provenance(self, step: int, trainer: Trainer, module: ClassifierModule) -> None:
        """Writes provenance.json when the device and the weights are known and there are no figures yet."""
        if not (self.folder / NAME).exists():
            write_provenance(self.folder, self.command, self.data.summary, module, trainer)
        elif trainer.training:  # a fit begins, and not its validation: it is resumed
            add_resumption(self.folder, self.command, step)

    def _evaluate(self, checkpoint: Path | None, *splits: SplitName) -> None:
        """Evaluates the network, from a file when one is given, and prints and stores the predictions and figures.

        Each split goes through the Trainer's own method, so that its limits hold; the train split through predict.
        """
        trainer, module, data, found = self.trainer, self.module, self.data, []
        path = None if checkpoint is None else str(checkpoint)
        for split in splits:
            self.predictions.clear()
            if split == "train":
                trainer.predict(module, ckpt_path=path, return_predictions=False, datamodule=data)
            else:
                evaluate = trainer.test if split == "test" else trainer.validate
                evaluate(module, ckpt_path=path, verbose=False, datamodule=data)
            path = None  # its weights are in place now
            row_ids, logits = self.predictions.row_ids, self.predictions.logits
            found.append(evaluate_split(split, data, row_ids, logits, module.decision))
            if trainer.is_global_zero:
                write_split(self.folder, found[-1], data)
        if rule := module.decision.describe(data.label_names):
            self.log(f"note: predictions follow the checkpoint's tuning: {rule}")
        if trainer.is_global_zero:
            self._report(found, checkpoint)

    def _report(self, found: Sequence[SplitResult], tested: Path | None) -> None:
        module, data, device = self.module, self.data, self.trainer.strategy.root_device
        self.log(accuracy_table(accuracies(found, data)[::-1]))
        network = {
            "weights_notes": module.weights_notes,
            "seconds_training": self._seconds_training(),
            "seconds_frozen_layers": module.feature_cache.seconds,
            "texts_trained": self.epoch_log.texts_trained,
            "parameters": count_parameters(module),
            "peak_gpu_memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        }
        settings = self.settings or {"model": module.settings.as_dict(), "data": data.state_dict()["settings"]}
        info = RunInfo(
            name=self.name,
            network=network,
            settings=reported_settings(settings),
            provenance=read_provenance(self.folder),
            tested=describe_checkpoint(tested, self.padding_test.place),
            decision=module.decision,
            padding=self.padding_test.found.get(found[0].split),
            metrics=self.metrics.rows,
            comparisons=self.comparisons,
        )
        for thing in describe_figures(write_report(self.folder, found, data, info)):
            self.log(thing)
        self.log(f"report: {self.folder / 'report' / 'report.html'}")
