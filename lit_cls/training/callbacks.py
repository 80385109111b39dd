"""What a person sees while it runs, and the predictions that evaluation needs."""

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.table import Table
from rich.text import Text
from torch import Tensor

from lit_cls.data.datamodule import DataSummary
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.selection import parameter_groups
from lit_cls.training.module import ClassifierModule

SHOWN_LABELS = 6
"""Columns of labels in the table; more are listed below it."""

Print = Callable[[Any], None]

_LOG_KEY = "lit_cls_epoch_log"


def data_table(summary: DataSummary) -> Table:
    """One row per split: its size, its labels, its lengths, the texts that are cut."""
    # Text, not markup: a path or a label may have brackets.
    table = Table(title=Text(f"Data: {summary.source}, {summary.n_rows:,} rows"), title_justify="left")
    labels = summary.label_names[:SHOWN_LABELS]
    columns = ("split", "texts", *labels, "median tokens", "longest", f"cut at {summary.max_length}")
    for column in columns:
        table.add_column(Text(column), justify="left" if column == "split" else "right")
    for split in summary.splits:
        counts = [f"{split.labels.get(label, 0):,}" for label in labels]
        lengths = [f"{n:,}" for n in (split.tokens_median, split.tokens_longest, split.cut)]
        table.add_row(split.name, f"{split.n:,}", *counts, *lengths)
    return table


def parameter_table(net: TextClassifier) -> Table:
    """What trains: parameter groups, their sizes, and the share of each that trains."""
    table = Table(title="What trains", title_justify="left")
    for column in ("group", "parameters", "trained", "share"):
        table.add_column(column, justify="left" if column == "group" else "right")
    total = trained = 0
    for group, parameters in parameter_groups(net).items():
        n = sum(p.numel() for p in parameters)
        n_trained = sum(p.numel() for p in parameters if p.requires_grad)
        total, trained = total + n, trained + n_trained
        table.add_row(group, f"{n:,}", f"{n_trained:,}", f"{n_trained / n:.2%}")
    table.add_section()
    table.add_row("all", f"{total:,}", f"{trained:,}", f"{trained / total:.2%}")
    return table


class EpochLog(Callback):
    """One plain line per epoch: loss, validation, seconds of training and speed; on a terminal and in a log.

    Args:
        log: prints a line or a table.
    """

    def __init__(self, log: Print) -> None:
        self.log_line = log  # a callback's `log` is set by Lightning
        self.seconds_training = 0.0
        self.texts_trained = 0
        self._started = 0.0
        self._validating = 0.0  # seconds of this epoch that were no training
        self._paused: float | None = None  # when the validation began that is going on
        self._texts = 0
        self._seconds_before = 0.0  # of the epoch, in the process that began it

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps what has been counted: a run that goes on tells of the whole of it."""
        checkpoint[_LOG_KEY] = {
            "seconds_training": self.seconds_training,
            "texts_trained": self.texts_trained,
            "seconds_of_epoch": self._seconds() if self._texts else 0.0,
            "texts_of_epoch": self._texts,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on counting, in a training."""
        if trainer.state.fn == "fit" and (counted := checkpoint.get(_LOG_KEY)):
            self.seconds_training, self.texts_trained = counted["seconds_training"], counted["texts_trained"]
            self._seconds_before, self._texts = counted["seconds_of_epoch"], counted["texts_of_epoch"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells what trains, once the network is there."""
        assert isinstance(pl_module, ClassifierModule)
        assert pl_module.net is not None
        for note in pl_module.weights_notes:
            self.log_line(f"note: {note}")
        self.log_line(parameter_table(pl_module.net))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the epoch."""
        self._started, self._validating = time.perf_counter() - self._seconds_before, 0.0
        self._seconds_before = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts it again."""
        if self._paused is not None:
            self._validating += time.perf_counter() - self._paused
            self._paused = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts texts; where there is no bar, tells of the first step and of every tenth of an epoch."""
        self._texts += len(batch["labels"]) * trainer.world_size
        if trainer.progress_bar_callback is not None:
            return
        n_batches = int(trainer.num_training_batches)
        done = batch_idx + 1
        every = max(1, n_batches // 10)
        if done % every == 0 and done < n_batches and self._seconds() > 5 * done / every:
            loss = float(trainer.callback_metrics["train_loss_step"])
            where = f"epoch {trainer.current_epoch + 1}  batch {done}/{n_batches}"
            self.log_line(f"{where}  train_loss_step {loss:.4f}  {self._speed()}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the figures of the epoch; validation has run by now."""
        seconds, speed = self._seconds(), self._speed()
        self.seconds_training += seconds
        self.texts_trained += self._texts
        self._texts = 0
        names = ("train_loss", "val_loss", "val_acc")
        metrics = trainer.callback_metrics
        figures = "  ".join(f"{name} {float(metrics[name]):.4f}" for name in names if name in metrics)
        epochs = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        self.log_line(f"epoch {trainer.current_epoch + 1}{epochs}  {figures}  {speed}")
        if not torch.isfinite(metrics["train_loss"]):
            self.log_line("note: the loss is not a number any more: lower model.learning_rate, or check model.weights")

    def _seconds(self) -> float:
        return (self._paused or time.perf_counter()) - self._started - self._validating

    def _speed(self) -> str:
        seconds = self._seconds()
        return f"{seconds:.1f} s  {self._texts / seconds:.1f} texts/s"


class CollectPredictions(Callback):
    """Keeps the logits of an evaluation, from all processes, in the order of the rows."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets an earlier evaluation: Lightning may be told to skip the next one."""
        self.logits = torch.empty(0, 1)
        """(N, K) float32, after an evaluation."""
        self.row_ids = torch.empty(0, dtype=torch.int64)
        """(N,) the row of each; all rows of the split, unless Lightning was told to stop early."""
        self._batches: list[dict[str, Tensor]] = []

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = []

    def _keep(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batches.append({name: outputs[name].cpu() for name in ("row_ids", "logits")})

    def _gather(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = self._batches
        if trainer.world_size > 1:
            gathered: list[list[dict[str, Tensor]]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, batches)
            batches = [batch for process in gathered for batch in process]
        row_ids = torch.cat([batch["row_ids"] for batch in batches])
        order = row_ids.argsort()
        self.row_ids = row_ids[order]
        self.logits = torch.cat([batch["logits"] for batch in batches])[order]

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _keep
    on_validation_epoch_end = on_test_epoch_end = on_predict_epoch_end = _gather


class ProgressBar(RichProgressBar):
    """Lightning's bar with the loss alone: the figures of an epoch are in its line."""

    _EVERY = 20  # steps between two looks at the loss on a GPU, where each look waits for the step

    def __init__(self) -> None:
        super().__init__()
        self._looks = 0
        self._shown: dict[str, int | str | float | dict[str, float]] = {}

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands behind the bar."""
        every = 1 if trainer.strategy.root_device.type == "cpu" else self._EVERY
        if self._looks % every == 0:
            shown = super().get_metrics(trainer, pl_module)
            self._shown = {name: value for name, value in shown.items() if name == "train_loss_step"}
        self._looks += 1
        return self._shown


def quiet_lightning() -> None:
    """Leaves out Lightning's advertisements and hints that do not apply here; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Nothing of the data module's is lost by it: it has no such hook.
    warnings.filterwarnings("ignore", message=".*You have overridden `on_before_batch_transfer`.*")
    # Texts are tokenised once, in memory: workers would have nothing to do.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Lightning's own use of a torch function.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # Asked for: with num_sanity_val_steps 0 and few batches, every step may be logged.
    warnings.filterwarnings("ignore", message=".*number of training batches .* is smaller than the logging interval.*")
    # fit's callbacks, which test and validate do not need.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
