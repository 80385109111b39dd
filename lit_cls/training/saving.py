"""The callback that saves and restores the state of a training."""

import math
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_cls.errors import RunError, UserError
from lit_cls.training.checkpoint_io import copy_checkpoint
from lit_cls.training.checkpoints import BEST, LAST, RUN_KEY, has_loss
from lit_cls.training.metrics_file import MetricsFile
from lit_cls.training.module import ClassifierModule
from lit_cls.training.signals import Stopped, StopSignals


@dataclass(eq=False)
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

    metrics: MetricsFile
    signals: StopSignals
    best: bool = True
    every_n_steps: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    writes: bool = True
    resumed_place: dict[str, int] | None = None
    in_own_folder: bool = False
    best_loss: float | None = field(default=None, init=False)
    """The lowest val_loss so far; nan counts as infinite."""
    _best_is_due: bool = field(default=False, init=False)
    _saving: bool = field(default=False, init=False)  # between two steps, where there is a state to resume from
    _loaded: dict[str, Any] | None = field(default=None, init=False)

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
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
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
            self.best_loss, self._best_is_due = value, True

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
        self._stop_if_asked(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the state that Lightning leaves out; checkpoints that are saved elsewhere lack it."""
        if not self._saving:
            return
        module = cast("ClassifierModule", pl_module)
        place = place_of(trainer)
        begun = place["batches"] and trainer.fit_loop.epoch_loop._should_accumulate()  # an accumulation
        ours = {
            "random": random_states(trainer.strategy.root_device),
            "train_loss": module.train_loss.sums(),
            "gradients": {n: p.grad.cpu() for n, p in module.named_parameters() if begun and p.grad is not None},
        }
        processes = [ours] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(processes, ours)
        checkpoint[RUN_KEY] = {
            "settings": self.settings,
            "metrics_rows": len(self.metrics.rows),
            "best_loss": self.best_loss,
            "should_stop": trainer.should_stop,
            "processes": processes,
            "order": trainer.datamodule.order(trainer),  # type: ignore[attr-defined]
            "place": place,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the state that a training restores when it starts."""
        if trainer.state.fn != "fit":
            return
        self._loaded = checkpoint.get(RUN_KEY)
        if self.resumed_place is not None and (self._loaded or {}).get("place") != self.resumed_place:
            raise RunError("the checkpoint was replaced after it was read: its run is still running")

    def _restore(self, state: dict[str, Any], trainer: Trainer, module: ClassifierModule) -> None:
        # Only the first process knows the folder, and all must agree on the lowest loss. A file with another
        # loss is from steps that are repeated, perhaps with other options.
        has_best = trainer.strategy.broadcast(has_loss(self.metrics.folder / BEST, state["best_loss"]))
        self.best_loss = state["best_loss"] if has_best else None
        # Stopped early, a run stays stopped; one that continues in a new folder is meant to train.
        trainer.should_stop = state["should_stop"] and self.in_own_folder
        processes, rank = state["processes"], trainer.global_rank
        # Sums add up, whatever the number of processes was.
        module.train_loss.take_sums([process["train_loss"] for process in processes[rank :: trainer.world_size]])
        gradients: dict[str, Tensor] = processes[rank]["gradients"] if len(processes) == trainer.world_size else {}
        for name, parameter in module.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)
        if rank < len(processes):
            set_random_states(processes[rank]["random"], trainer.strategy.root_device)
        else:  # a new process: any state of its own will do, but the same one every time
            torch.manual_seed(trainer.global_step * trainer.world_size + rank)

    def _stop(self, trainer: Trainer) -> signal.Signals | None:
        """The signal that came, to any of the processes."""
        if trainer.world_size == 1:
            return self.signals.received
        number = torch.tensor(int(self.signals.received or 0), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        return signal.Signals(int(number)) if number else None

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if stop := self._stop(trainer):
            raise Stopped(stop)

    def save(self, trainer: Trainer) -> None:
        """Saves the state; a RunError says why it could not be saved, and which checkpoints there are."""
        if not self.writes:
            return
        folder = self.metrics.folder
        self._saving = True
        try:
            self.metrics.flush()
            # The best first: killed between the two, the run finds it the best again.
            trainer.save_checkpoint(folder / (BEST if self._best_is_due else LAST))
            if self._best_is_due and trainer.is_global_zero:
                copy_checkpoint(folder / BEST, folder / LAST)
        except (OSError, RuntimeError) as error:
            kept = ", ".join(path.name for path in sorted(folder.glob("*.ckpt"))) or "none"
            raise RunError(
                f"the state after {trainer.global_step} steps could not be saved in {folder}: {error}. "
                f"Checkpoints there: {kept}. When that is mended, resume with: lit_cls resume {folder}"
            ) from error
        finally:
            self._saving = False
        self._best_is_due = False


@contextmanager
def restoring(trainer: Trainer) -> Iterator[None]:
    """Reports a state that does not fit as a damaged checkpoint: each value of it fails in a way of its own."""
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        if trainer.state.fn != "fit" or trainer.ckpt_path is None:
            raise
        raise UserError(
            f"{trainer.ckpt_path} cannot be resumed (damaged, or changed by hand): {type(error).__name__}: {error}"
        ) from error


def place_of(trainer: Trainer) -> dict[str, int]:
    """Place of a training: whole epochs, batches of the epoch that has begun, optimizer steps."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    batches = trainer.fit_loop.epoch_loop.batch_progress
    open_epoch = epochs.ready != epochs.processed
    ended_early = not open_epoch and not batches.is_last_batch and batches.current.ready > 0  # by trainer.max_steps
    done = batches.current.ready if open_epoch or ended_early else 0
    return {"epochs": epochs.processed - ended_early, "batches": done, "steps": trainer.global_step}


def random_states(device: torch.device) -> dict[str, Any]:
    """The random states of torch (CPU and this device), numpy and Python, in types that a checkpoint may hold."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        # An array would need numpy's own unpickling, which weights_only refuses.
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restores the states of `random_states`; a device of another type keeps its own."""
    torch.set_rng_state(states["torch"])
    if states["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])
