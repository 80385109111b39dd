"""The callback that saves and restores the state of a training."""

import math
import signal
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_cls.errors import RunError
from lit_cls.training.checkpoint_io import copy_checkpoint
from lit_cls.training.checkpoints import BEST, LAST, RUN_KEY, has_loss
from lit_cls.training.metrics_file import MetricsFile
from lit_cls.training.module import ClassifierModule
from lit_cls.training.random_states import random_states, set_random_states
from lit_cls.training.restoring import restoring
from lit_cls.training.signals import Stopped, StopSignals


class Saver(Callback):
    """Writes `last.ckpt` between two batches, and `best.ckpt` where the validation loss was lowest.

    The loops call `on_batch_complete` and `on_epoch_complete`. It stands last among the callbacks:
    the random states that it puts back are those of the next step.

    Args:
        metrics: of the run, in whose folder checkpoints are written; each states how many rows there were.
        signals: which ask the run to stop.
        best: whether `best.ckpt` is kept.
        every_n_steps: save after every so many optimizer steps, beside every epoch.
        settings: every value the run uses, kept in the checkpoint.
        writes: whether anything is written at all.
        resumed_place: of the state that the training resumes from, as `place_of` returns it; None for a new one.
        in_own_folder: whether it resumes in the folder that it was stopped in.
    """

    def __init__(
        self,
        metrics: MetricsFile,
        signals: StopSignals,
        best: bool = True,
        every_n_steps: int | None = None,
        settings: dict[str, Any] | None = None,
        writes: bool = True,
        resumed_place: dict[str, int] | None = None,
        in_own_folder: bool = False,
    ) -> None:
        self.folder = metrics.folder
        self.resumed_place = resumed_place
        self.in_own_folder = in_own_folder
        self.metrics = metrics
        self.signals = signals
        self.best = best
        self.every_n_steps = every_n_steps
        self.settings = settings or {}
        self.writes = writes
        self.best_loss: float | None = None
        """The lowest val_loss so far; nan counts as infinite."""
        self._best_is_due = False
        self._saving = False  # between two steps, where there is a state to resume from
        self._loaded: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the rest of a loaded state; from here on there is one to save."""
        if self._loaded is not None:
            with restoring(trainer):
                self._restore(self._loaded, trainer, cast("ClassifierModule", pl_module))
            self._loaded = None
        self.signals.install()
        self.signals.deferring = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the run if a signal came after the last state was saved."""
        self.signals.deferring = False
        if stop := self._stop(trainer):
            raise Stopped(stop)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stops within a validation, which is repeated as a whole; several processes end theirs together."""
        if self.signals.deferring and trainer.world_size == 1 and self.signals.received:
            trainer.fit_loop.epoch_loop.validation_due = True
            self.save(trainer)
            raise Stopped(self.signals.received)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes whether this was the lowest loss; it is saved once the step is complete."""
        loss = trainer.callback_metrics.get("val_loss")
        if not self.signals.deferring or not self.best or loss is None:
            return
        value = math.inf if torch.isnan(loss) else float(loss)
        if self.best_loss is None or value < self.best_loss:
            self.best_loss = value
            self._best_is_due = True

    def on_batch_complete(self, trainer: Trainer, stepped: bool) -> None:
        """Saves between two batches of an epoch, if it is due; with gradients, if the optimizer has not `stepped`."""
        if not stepped and not cast("ClassifierModule", trainer.lightning_module).is_whole:
            return  # gradients in parts are not kept: the next batches complete the step
        stop = self._stop(trainer)
        every = self.every_n_steps is not None and stepped and trainer.global_step % self.every_n_steps == 0
        if stop or every or self._best_is_due:
            self.save(trainer)
        if stop:
            raise Stopped(stop)

    def on_epoch_complete(self, trainer: Trainer) -> None:
        """Saves between two epochs, and after the last."""
        self.save(trainer)
        if stop := self._stop(trainer):
            raise Stopped(stop)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the state that Lightning leaves out; checkpoints that are saved elsewhere lack it."""
        if not self._saving:
            return
        module = cast("ClassifierModule", pl_module)
        ours = {
            "random": random_states(trainer.strategy.root_device),
            "train_loss": module.train_loss.sums(),
            "gradients": _gradients(trainer, module),
        }
        processes = [ours]
        if trainer.world_size > 1:
            processes = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(processes, ours)
        checkpoint[RUN_KEY] = {
            "settings": self.settings,
            "metrics_rows": self.metrics.n_rows,
            "best_loss": self.best_loss,
            "should_stop": trainer.should_stop,
            "processes": processes,
            "order": trainer.datamodule.order(trainer),  # type: ignore[attr-defined]
            "place": place_of(trainer),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the state that a training restores when it starts."""
        if trainer.state.fn != "fit":
            return
        self._loaded = checkpoint.get(RUN_KEY)
        expected = self.resumed_place
        if expected is not None and (self._loaded is None or self._loaded["place"] != expected):
            raise RunError("the checkpoint was replaced after it was read: its run is still running")

    def _restore(self, state: dict[str, Any], trainer: Trainer, module: ClassifierModule) -> None:
        # Only the first process knows the folder, and all must agree on the lowest loss. A file with another
        # loss is from steps that are repeated, perhaps with other options.
        has_best = trainer.strategy.broadcast(has_loss(self.folder / BEST, state["best_loss"]))
        self.best_loss = state["best_loss"] if has_best else None
        # Stopped early, a run stays stopped; one that continues in a new folder is meant to train.
        trainer.should_stop = state["should_stop"] and self.in_own_folder
        processes, rank, device = state["processes"], trainer.global_rank, trainer.strategy.root_device
        # Sums add up, whatever the number of processes was.
        if len(processes) == trainer.world_size:
            losses = [processes[rank]["train_loss"]]
        else:
            losses = [process["train_loss"] for process in processes[rank :: trainer.world_size]]
        module.train_loss.take_sums(losses)
        gradients = processes[rank]["gradients"] if len(processes) == trainer.world_size else {}
        for name, parameter in module.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)
        if rank < len(processes):
            set_random_states(processes[rank]["random"], device)
        else:  # a new process: any state of its own will do, but the same one every time
            torch.manual_seed(trainer.global_step * trainer.world_size + rank)

    def _stop(self, trainer: Trainer) -> signal.Signals | None:
        """The signal that came, to any of the processes."""
        received = self.signals.received
        if trainer.world_size > 1:
            number = torch.tensor(int(received or 0), device=trainer.strategy.root_device)
            torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
            received = signal.Signals(int(number)) if number else None
        return received

    def save(self, trainer: Trainer) -> None:
        """Saves the state.

        Raises:
            RunError: why it could not be saved, and which checkpoints there are.
        """
        if not self.writes:
            return
        last, best = self.folder / LAST, self.folder / BEST
        self._saving = True
        try:
            self.metrics.flush()
            # The best first: killed between the two, the run finds it the best again.
            trainer.save_checkpoint(best if self._best_is_due else last)
            if self._best_is_due and trainer.is_global_zero:
                copy_checkpoint(best, last)
        except (OSError, RuntimeError) as error:
            kept = ", ".join(path.name for path in sorted(self.folder.glob("*.ckpt"))) or "none"
            raise RunError(
                f"the state after {trainer.global_step} steps could not be saved in {self.folder}: {error}. "
                f"Checkpoints there: {kept}. When that is mended, resume with: lit_cls resume {self.folder}"
            ) from error
        finally:
            self._saving = False
        self._best_is_due = False


def place_of(trainer: Trainer) -> dict[str, int]:
    """Place of a training: whole epochs, batches of the epoch that has begun, optimizer steps."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    batches = trainer.fit_loop.epoch_loop.batch_progress
    open_epoch = epochs.ready != epochs.processed
    ended_early = not open_epoch and not batches.is_last_batch and batches.current.ready > 0  # by trainer.max_steps
    done = batches.current.ready if open_epoch or ended_early else 0
    return {"epochs": epochs.processed - ended_early, "batches": done, "steps": trainer.global_step}


def _gradients(trainer: Trainer, module: ClassifierModule) -> dict[str, Tensor]:
    """Gradients of an accumulation that has begun."""
    if not place_of(trainer)["batches"] or not trainer.fit_loop.epoch_loop._should_accumulate():
        return {}
    return {name: p.grad.cpu() for name, p in module.named_parameters() if p.grad is not None}
