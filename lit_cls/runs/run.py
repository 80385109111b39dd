"""One run: it trains or evaluates, shows what comes out, and leaves it in a folder of its own."""

import itertools
import json
import os
import shlex
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning_utilities.core.rank_zero import rank_zero_only
from rich.console import Console

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.errors import RunError, UserError
from lit_cls.io.atomic import locked, write_json, write_text
from lit_cls.io.terminal import print_to, stdout_console
from lit_cls.model.weights import match_weights
from lit_cls.report.console import accuracy_table, describe_figures
from lit_cls.report.content import write_report
from lit_cls.report.run_info import RunInfo, count_parameters, describe_checkpoint, read_provenance, reported_settings
from lit_cls.report.split_results import SplitResult, accuracies, evaluate_split, write_split
from lit_cls.runs.folder import check_disk, new_run_folder, provenance
from lit_cls.runs.resuming import Origin
from lit_cls.training.callbacks import SHOWN_LABELS, CollectPredictions, EpochLog, ProgressBar, data_table
from lit_cls.training.checkpoint_io import copy_checkpoint
from lit_cls.training.checkpoints import BEST, LAST, PREVIOUS, has_loss
from lit_cls.training.feature_cache_callback import FrozenTrunk
from lit_cls.training.feature_files import check_folder
from lit_cls.training.metrics_file import MetricsFile
from lit_cls.training.module import ClassifierModule
from lit_cls.training.pad_invariance import SelfTest
from lit_cls.training.saving import Saver
from lit_cls.training.signals import Stopped, StopSignals

Keep = Literal["best", "last"]


class Run:
    """A fit or an evaluation, from checked input to a report.

    `callbacks` belong to the Trainer that `fit` and `evaluate` are given.

    Args:
        root: the folder of all runs.
        name: of this run; its folder is `<root>/<name>/version_<n>`.
        command: as typed, for the record.
        keep: which checkpoint a fit tests, `best` (of the lowest val_loss) or `last`; None writes
            no checkpoint.
        config: the text of config.yaml; None writes none.
        settings: the same as plain values, which checkpoints keep.
        save_every_n_steps: of the optimizer, beside every epoch.
        resumed: the folder of a run that was stopped, which this one goes on with.
        console: where the run prints; standard output by default.
        comparisons: whether the report fits baselines and draws plots; a series of runs does so once for all of them.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        command: Sequence[str],
        keep: Keep | None = None,
        config: str | None = None,
        settings: dict[str, Any] | None = None,
        save_every_n_steps: int | None = None,
        resumed: Path | None = None,
        console: Console | None = None,
        comparisons: bool = True,
    ) -> None:
        self.root = root
        self.name = name
        self.command = list(command)
        self.keep = keep
        self.config = config
        self.settings = settings
        self.comparisons = comparisons
        self.resumed = resumed
        self.folder: Path = resumed or root / name  # its new version_<n>, once there is one
        self.console = console or stdout_console()
        self.predictions = CollectPredictions()
        self.self_test = SelfTest()
        self.epoch_log = EpochLog(self.log)
        self.frozen_trunk = FrozenTrunk(self.log, scratch=root)
        self.metrics = MetricsFile(self.folder)
        self._resumption_written = False
        self.signals = StopSignals()
        self.saver = Saver(
            self.metrics,
            self.signals,
            best=keep == "best",
            every_n_steps=save_every_n_steps,
            settings=settings,
            writes=keep is not None,
        )

    def callbacks(self, show_bar: bool) -> list[Callback]:
        """What the run needs of the Trainer."""
        stages = ("fit", "validation", "test")
        record = LambdaCallback(**{f"on_{stage}_start": self._write_provenance for stage in stages})
        bar: list[Callback] = [ProgressBar()] if show_bar else []
        # The trunk after the log, which stops its clock when a validation starts; the saver last, whose random
        # states are those of the next step.
        return [self.predictions, self.self_test, self.epoch_log, self.frozen_trunk, record, *bar, self.saver]

    @rank_zero_only
    def log(self, thing: Any) -> None:
        """Prints a line or a table for a person, once for all processes."""
        try:
            print_to(self.console, thing)
        except BrokenPipeError as error:  # a run that nobody hears of ends, with its state saved
            raise RunError("standard output was closed while the run printed to it") from error

    def fit(
        self,
        trainer: Trainer,
        module: ClassifierModule,
        data: ClassificationData,
        origin: Origin | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Trains, then tests the kept checkpoint.

        Args:
            trainer: a `ClassifierTrainer` made with `callbacks`.
            module: the model.
            data: the texts.
            origin: where training goes on from.
            notes: what else is to be told, once the data is.

        Raises:
            UserError: anything wrong with data, weights or disk, before the first step.
        """
        _check_batches(trainer, data)
        self._show_data(module, data)
        for note in notes:
            self.log(note)
        module.take_labels(data.label_names)
        for note in module.weigh_classes(data.splits["train"].label_ids):
            self.log(f"note: {note}")
        self._check_room(module, len(data.label_names))
        with self._open(trainer, data, origin):
            self._train(trainer, module, data, origin)
            self.folder = Path(trainer.strategy.broadcast(str(self.folder)))  # the first process made it
            kept = self._kept(trainer)
            self._evaluate(trainer, module, data, ("test", "validation", "train"), kept)
        if seconds := self._seconds_training():
            frozen = self.frozen_trunk.seconds.get("train")
            when = ", by the run that computed them" if "train" in self.frozen_trunk.found else ""
            part = f" ({frozen:.1f} s of it for the frozen layers{when})" if frozen else ""
            self.log(f"trained in {seconds:.1f} s{part}, {self.epoch_log.texts_trained / seconds:.1f} texts/s")
        self.log(f"everything is in {self.folder}")
        if kept is not None:
            self.log(f'classify texts with: lit_cls predict --ckpt_path {kept} "a text"')

    def _check_room(self, module: ClassifierModule, n_labels: int) -> None:
        """The weights fit, and what the run will write has room."""
        with torch.device("meta"):
            sketch = module.settings.build(n_labels)
        weights = module.settings.weights_path()
        if weights is not None:
            match_weights(sketch, weights)
        if self.keep is not None:
            names = (LAST, PREVIOUS, BEST) if self.keep == "best" else (LAST, PREVIOUS)
            copies = 1 + len(names)  # one is being written; of a run that goes on, some are there
            if self.resumed is not None:
                copies -= sum((self.resumed / name).exists() for name in names)
            check_disk(self.root, sketch, frozen_are_named=weights is not None, copies=copies)
        if module.cache_dir is not None:
            check_folder(Path(os.path.expanduser(module.cache_dir)))

    @staticmethod
    def _train(trainer: Trainer, module: ClassifierModule, data: ClassificationData, origin: Origin | None) -> None:
        try:
            trainer.fit(module, datamodule=data, ckpt_path=None if origin is None else str(origin.path))
        except Exception as error:
            if origin is None or isinstance(error, UserError | RunError) or not _while_restoring(error):
                raise
            told = f"{type(error).__name__}: {error}"
            raise UserError(f"{origin.path} cannot be gone on with (damaged, or changed by hand): {told}") from error

    def _seconds_training(self) -> float:
        """Of all epochs, and of the frozen layers' outputs that they start from."""
        return self.epoch_log.seconds_training + self.frozen_trunk.seconds.get("train", 0.0)

    def _kept(self, trainer: Trainer) -> Path | None:
        """The checkpoint to test; no run ends without one, unless that was asked for."""
        if self.keep is None:
            self.log("note: no checkpoint was written: the weights at hand are tested")
            return None
        last = self.folder / LAST
        if not trainer.strategy.broadcast(last.exists()):  # not one batch was to be trained on
            self.saver.save(trainer)
        kept = self.folder / f"{self.keep}.ckpt"
        if not kept.exists():
            self.log("note: nothing was validated, so that there is no best checkpoint: the last is tested")
            return last
        return kept

    def evaluate(
        self, trainer: Trainer, module: ClassifierModule, data: ClassificationData, split: SplitName, checkpoint: Path
    ) -> None:
        """Accuracy of a checkpoint on one split.

        Args:
            trainer: made with `callbacks`.
            module: the model.
            data: the texts.
            split: which of them.
            checkpoint: the trained network.
        """
        self._show_data(module, data)
        with self._open(trainer, data):
            self._evaluate(trainer, module, data, (split,), checkpoint)
        self.log(f"everything is in {self.folder}")

    def _show_data(self, module: ClassifierModule, data: ClassificationData) -> None:
        summary = data.summary
        self.log(data_table(summary))
        if len(summary.label_names) > SHOWN_LABELS:
            train = summary.splits[0].labels
            self.log(f"labels of the train split: {', '.join(f'{name} {n:,}' for name, n in train.items())}")
        for note in summary.notes:
            self.log(f"note: {note}")
        cut = sum(split.cut for split in summary.splits)
        if cut:
            kept = {"head": "their head", "tail": "their tail", "head_tail": "their head and tail"}
            self.log(
                f"note: {cut:,} texts are longer than {summary.max_length} tokens: "
                f"{kept[data.options.truncation]} is read (data.truncation, data.max_length)"
            )
        position = module.settings.token_position
        if position in ("last", "mean") and data.options.padding == "longest_in_batch":
            self.log(
                f"note: token_position {position} reads pads, and data.padding longest_in_batch changes their number "
                "from batch to batch: token_position flexible or mean_flexible, or padding longest_in_train, do not"
            )

    @contextmanager
    def _open(self, trainer: Trainer, data: ClassificationData, origin: Origin | None = None) -> Iterator[None]:
        """The folder of this run, new or gone on with, held until the end; only one process writes to it."""
        self._data = data
        with ExitStack() as stack:
            if trainer.is_global_zero and self.resumed is None:  # `lit_cls resume` holds its own
                self.folder = new_run_folder(self.root, self.name)
                stack.enter_context(locked(self.folder))
            self.metrics.folder = self.saver.folder = self.folder
            self.saver.expected = None if origin is None else origin.place
            self.saver.in_own_folder = self.resumed is not None
            if trainer.is_global_zero:
                self._begin_files(origin)
            trainer.loggers = [self.metrics, *trainer.loggers]
            stack.enter_context(self._told(trainer))
            stack.enter_context(self.signals)
            yield

    def _begin_files(self, origin: Origin | None) -> None:
        """What is there before the first step: the configuration, and what an earlier run leaves to this one."""
        for partial in self.folder.glob("*.partial"):  # of a process that was killed; nobody else writes here
            partial.unlink()
        config = self.folder / "config.yaml"
        if self.config is not None and not (config.exists() and config.read_text(encoding="utf-8") == self.config):
            if config.exists():
                names = (self.folder / f"config_{n}.yaml" for n in itertools.count())
                kept = next(name for name in names if not name.exists())
                write_text(kept, config.read_text(encoding="utf-8"))
                self.log(f"note: the options have changed; those until here are kept as {kept.name}")
            write_text(config, self.config)
        if origin is None:
            self.metrics.begin_with(self.metrics.path, 0)
            return
        place = origin.place
        self.log(
            f"going on from {origin.path}: after {place['steps']:,} steps, {place['epochs']} epochs and "
            f"{place['batches']} batches"
        )
        last = self.folder / LAST
        if last.exists() and origin.path.parent == self.folder and origin.path.name != LAST:
            # A new one would take the place of the one that is whole.
            last.replace(self.folder / "damaged.ckpt")
        again = self.metrics.begin_with(origin.path.with_name(self.metrics.path.name), origin.metrics_rows)
        if again and self.resumed:
            self.log(f"note: {again} rows of metrics.csv are of steps after that, which come again")
        best = self.folder / BEST
        if origin.best_loss is not None and self.keep == "best" and origin.path.parent != self.folder:
            theirs = origin.path.with_name(BEST)
            if has_loss(theirs, origin.best_loss):
                copy_checkpoint(theirs, best)
            else:
                self.log(f"note: {theirs} is not that of the lowest val_loss so far: the lowest from here on is kept")

    @contextmanager
    def _told(self, trainer: Trainer) -> Iterator[None]:
        """Tells what there is to go on with when a run is stopped."""
        try:
            yield
        except Stopped as stopped:
            self.log(f"stopped by {stopped.received.name} after {trainer.global_step} steps")
            if self.keep is not None:
                self.log(f"go on with: {self._way_on()}")
            raise
        except OSError as error:
            way_on = f". With that mended, go on with: {self._way_on()}" if self.keep is not None else ""
            raise RunError(f"the run in {self.folder} failed: {error}{way_on}") from error

    def _way_on(self) -> str:
        return f"lit_cls resume {shlex.quote(str(self.folder))}"

    def _evaluate(
        self,
        trainer: Trainer,
        module: ClassifierModule,
        data: ClassificationData,
        splits: tuple[SplitName, ...],
        checkpoint: Path | None,
    ) -> None:
        """Evaluates the network, from a file when one is given, and shows and stores what came out.

        Each split goes through the Trainer's own verb, so that its options (limits, precision,
        devices) hold; the train split, which has none, through predict.
        """
        found = []
        tested = checkpoint
        for split in splits:
            self.predictions.clear()
            where = {"datamodule": data, "ckpt_path": None if checkpoint is None else str(checkpoint)}
            match split:
                case "test":
                    trainer.test(module, verbose=False, **where)  # type: ignore[arg-type]
                case "validation":
                    trainer.validate(module, verbose=False, **where)  # type: ignore[arg-type]
                case "train":
                    trainer.predict(module, return_predictions=False, **where)  # type: ignore[arg-type]
            checkpoint = None  # its weights are in place now
            found.append(
                evaluate_split(split, data, self.predictions.row_ids, self.predictions.logits, module.decision)
            )
            if trainer.is_global_zero:
                write_split(self.folder, found[-1], data)
        device = trainer.strategy.root_device
        self._peak_gpu_memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        if rule := module.decision.told(data.label_names):
            self.log(f"note: answers follow the checkpoint's tuning: {rule}")
        self._report(found, module, data, tested)

    @rank_zero_only
    def _report(
        self,
        found: Sequence[SplitResult],
        module: ClassifierModule,
        data: ClassificationData,
        tested: Path | None,
    ) -> None:
        self.log(accuracy_table(accuracies(found, data)[::-1]))
        network = {
            "weights_notes": module.weights_notes,
            "seconds_training": self._seconds_training(),
            "seconds_frozen_layers": self.frozen_trunk.seconds,
            "texts_trained": self.epoch_log.texts_trained,
            "parameters": count_parameters(module),
            "peak_gpu_memory": self._peak_gpu_memory,
        }
        settings = self.settings or {"model": module.settings.as_dict(), "data": data.state_dict()["settings"]}
        info = RunInfo(
            name=self.name,
            network=network,
            settings=reported_settings(settings),
            provenance=read_provenance(self.folder),
            tested=describe_checkpoint(tested, self.self_test.place),
            decision=module.decision,
            padding=self.self_test.padding.get(found[0].split),
            metrics=self.metrics.rows,
            comparisons=self.comparisons,
        )
        for thing in describe_figures(write_report(self.folder, found, data, info)):
            self.log(thing)
        self.log(f"report: {self.folder / 'report' / 'report.html'}")

    @rank_zero_only
    def _write_provenance(self, trainer: Trainer, module: ClassifierModule) -> None:
        """Where the run's figures come from, written before there are any."""
        path = self.folder / "provenance.json"
        if path.exists():
            self._write_resumption(path, trainer)
            return
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        content = provenance(
            command=["lit_cls", *self.command],
            data=self._data.summary.as_dict(),
            weights=module.settings.weights,
            weights_sha256=module.weights_sha256,
            config=self.folder / "config.yaml",
            device=f"{name} x {trainer.world_size}",
        )
        write_json(path, content)

    def _write_resumption(self, path: Path, trainer: Trainer) -> None:
        """Adds that the run was gone on with, once for each time."""
        if self.resumed is None or self._resumption_written:
            return
        self._resumption_written = True
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # cut off with the power
            content = {}
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        step = (self.saver.expected or {}).get("steps", 0)  # the trainer counts from 0 until it has restored its loops
        entry = {"command": ["lit_cls", *self.command], "started": now, "step": step}
        write_json(path, {**content, "resumed": [*content.get("resumed", []), entry]})


def _check_batches(trainer: Trainer, data: ClassificationData) -> None:
    """Refuses what Lightning would refuse when it is there: after the training, perhaps."""
    n_batches = {
        "train": len(data.train_dataloader()),
        "val": len(data.val_dataloader()),
        "test": len(data.test_dataloader()),
        "predict": len(data.predict_dataloader()),
    }
    for stage, n in n_batches.items():
        limit = getattr(trainer, f"limit_{stage}_batches")
        if isinstance(limit, float) and limit > 0 and int(limit * n) < 1:
            raise UserError(
                f"trainer.limit_{stage}_batches {limit:g} of {n} {'batch' if n == 1 else 'batches'} is less than one: "
                "give a larger share, or a whole number of batches"
            )
    interval, n = trainer.val_check_interval, n_batches["train"]
    if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > n:
        raise UserError(
            f"trainer.val_check_interval {interval} is more than the {n} batches of an epoch: give fewer, "
            "or --trainer.check_val_every_n_epoch null to count over epochs"
        )


def _while_restoring(error: Exception) -> bool:
    """Whether it arose where a checkpoint's state is taken up: each value of it fails in a way of its own."""
    names = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    return bool(names & {"restore_training_state", "_restore_modules_and_callbacks", "_take_up"})
