"""Callbacks of every run: a line per epoch, the predictions of an evaluation, the progress bar."""

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from lit_cls.training.module import ClassifierModule
from lit_cls.training.tables import parameter_table

_LOG_KEY = "lit_cls_epoch_log"


class EpochLog(Callback):
    """Prints a line per epoch: loss, validation, seconds of training and speed; on a terminal and in a log."""

    def __init__(self, log: Callable[[Any], None]) -> None:
        self.log_line = log  # a callback's `log` is set by Lightning
        self.seconds_training = 0.0
        self.texts_trained = 0
        self._started = 0.0
        self._validating = 0.0  # seconds of this epoch that were no training
        self._paused: float | None = None  # when the running validation began
        self._texts = 0
        self._seconds_before = 0.0  # of the epoch, in the process that began it

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Stores the counts, so that a resumed run reports the whole of it."""
        checkpoint[_LOG_KEY] = {
            "seconds_training": self.seconds_training,
            "texts_trained": self.texts_trained,
            "seconds_of_epoch": self._seconds() if self._texts else 0.0,
            "texts_of_epoch": self._texts,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores the counts, in a training."""
        if trainer.state.fn == "fit" and (counted := checkpoint.get(_LOG_KEY)):
            self.seconds_training, self.texts_trained = counted["seconds_training"], counted["texts_trained"]
            self._seconds_before, self._texts = counted["seconds_of_epoch"], counted["texts_of_epoch"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table of parameters, once the network is built."""
        assert isinstance(pl_module, ClassifierModule)
        assert pl_module.net is not None
        for note in pl_module.weights_notes:
            self.log_line(f"note: {note}")
        self.log_line(parameter_table(pl_module.net))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the epoch."""
        self._started = time.perf_counter() - self._seconds_before
        self._validating = self._seconds_before = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pauses the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resumes it."""
        if self._paused is not None:
            self._validating += time.perf_counter() - self._paused
            self._paused = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts texts; without a bar, prints a line at every tenth of a long epoch."""
        self._texts += len(batch["labels"]) * trainer.world_size
        if trainer.progress_bar_callback is not None:
            return
        n_batches, done = int(trainer.num_training_batches), batch_idx + 1
        every = max(1, n_batches // 10)
        if done % every == 0 and done < n_batches and self._seconds() > 5 * done / every:
            loss = float(trainer.callback_metrics["train_loss_step"])
            where = f"epoch {trainer.current_epoch + 1}  batch {done}/{n_batches}"
            self.log_line(f"{where}  train_loss_step {loss:.4f}  {self._speed()}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the figures of the epoch; validation has run by now."""
        seconds, speed = self._seconds(), self._speed()
        self.seconds_training += seconds
        self.texts_trained += self._texts
        self._texts = 0
        names, metrics = ("train_loss", "val_loss", "val_acc"), trainer.callback_metrics
        figures = "  ".join(f"{name} {float(metrics[name]):.4f}" for name in names if name in metrics)
        epochs = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        self.log_line(f"epoch {trainer.current_epoch + 1}{epochs}  {figures}  {speed}")
        if not torch.isfinite(metrics["train_loss"]):
            self.log_line("note: the loss is no longer a number: lower model.learning_rate, or check model.weights")

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
        """Discards an earlier evaluation: the Trainer may be set to skip the next one."""
        self.logits = torch.empty(0, 1)
        """(N, K) float32, after an evaluation."""
        self.row_ids = torch.empty(0, dtype=torch.int64)
        """(N,) the row of each; all rows of the split, unless the Trainer limits the batches."""
        self._batches: list[dict[str, Tensor]] = []

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = []

    def _keep(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any) -> None:
        self._batches.append({name: outputs[name].cpu() for name in ("row_ids", "logits")})

    def _gather(self, trainer: Trainer, pl_module: LightningModule) -> None:
        processes = [self._batches] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(processes, self._batches)
        batches = [batch for process in processes for batch in process]
        row_ids = torch.cat([batch["row_ids"] for batch in batches])
        order = row_ids.argsort()
        self.row_ids = row_ids[order]
        self.logits = torch.cat([batch["logits"] for batch in batches])[order]

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _keep
    on_validation_epoch_end = on_test_epoch_end = on_predict_epoch_end = _gather


class ProgressBar(RichProgressBar):
    """Lightning's bar with the loss alone: the figures of an epoch are in its line."""

    _READ_EVERY = 20  # steps between readings of the loss on a GPU, where each one waits for the step

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0
        self._metrics: dict[str, Any] = {}

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The figures behind the bar."""
        every = 1 if trainer.strategy.root_device.type == "cpu" else self._READ_EVERY
        if self._calls % every == 0:
            metrics = super().get_metrics(trainer, pl_module)
            self._metrics = {name: value for name, value in metrics.items() if name == "train_loss_step"}
        self._calls += 1
        return self._metrics


def quiet_lightning() -> None:
    """Leaves out Lightning's advertisements and hints that do not apply here; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "You have overridden `on_before_batch_transfer`",  # the data module has no such hook: nothing of it is lost
        "does not have many workers",  # texts are tokenised once, in memory: workers would have nothing to do
        "isinstance.treespec, LeafSpec",  # Lightning's own use of a torch function
        "number of training batches .* is smaller than the logging interval",  # few batches: no step need be logged
        "callbacks used to create the checkpoint need to be provided",  # fit's, which test and validate do not need
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*")
