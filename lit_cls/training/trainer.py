"""Lightning's Trainer with `precision auto`, and training loops that are saved and resumed between two batches only.

Lightning saves in the middle of its hooks and infers from its counters where that was; it starts an epoch's order again
and counts some steps twice (Lightning-AI/pytorch-lightning#19764, #18780). Here a checkpoint is saved where everything
before is done: after a batch and what belongs to it (optimizer step, validation, schedules, rows of metrics), after an
epoch with its figures, or, when a signal comes in a validation, before that validation.
"""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

from lit_cls.training.precision import Precision, auto_precision
from lit_cls.training.saving import Saver, restoring


class EpochLoop(_TrainingEpochLoop):
    """One epoch, or the rest of one."""

    validation_due = False
    """Whether the state was saved before a validation that is to follow the last batch."""
    begin_at = 0
    """Batches that are done, of an epoch that is resumed."""

    @property
    def done(self) -> bool:
        """Whether the epoch is over."""
        return not self.validation_due and super().done

    def reset(self) -> None:
        """Keeps the counters of an epoch that is resumed."""
        if self.begin_at:
            self.begin_at = 0
        else:
            super().reset()

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Trains on a batch, unless a validation comes first."""
        if not self.validation_due:
            super().advance(data_fetcher)

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Validates when it is due; then the batch is complete."""
        self.validation_due = False
        super().on_advance_end(data_fetcher)
        if not self._num_ready_batches_reached():
            for saver in _savers(self.trainer):
                saver.on_batch_complete(self.trainer, stepped=not self._should_accumulate())

    def on_save_checkpoint(self) -> dict[str, Any]:
        """Adds whether a validation is due."""
        return {**super().on_save_checkpoint(), "validation_due": self.validation_due}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Restores whether a validation is due."""
        super().on_load_checkpoint(state_dict)
        self.validation_due = state_dict.get("validation_due", False)


class FitLoop(_FitLoop):
    """All epochs."""

    epoch_loop: EpochLoop

    @property
    def done(self) -> bool:
        """Whether nothing is left to train; an epoch that was left open is not done."""
        return not self.epoch_loop.begin_at and super().done

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Restores the place exactly, so that Lightning infers nothing from its counters."""
        super().load_state_dict(state_dict, prefix)
        batches = self.epoch_loop.batch_progress
        epochs: list[Any] = [self.epoch_progress.total, self.epoch_progress.current]
        in_epoch = epochs[1].ready != epochs[1].processed
        n_done = batches.current.ready
        at_max_steps = self.max_steps != -1 and self.epoch_loop.global_step >= self.max_steps
        ended = state_dict[f"{prefix}state_dict"].get("should_stop", False) or at_max_steps
        if not in_epoch and not batches.is_last_batch and n_done and not ended:
            # trainer.max_steps had ended it in the middle of an epoch, and is more now.
            in_epoch = True
            for progress in epochs:
                progress.processed -= 1
        for progress in epochs:
            progress.ready = progress.started = progress.completed = progress.processed
        self.epoch_loop.begin_at = n_done if in_epoch else 0
        for loop in (self, self.epoch_loop, self.epoch_loop.val_loop):
            loop._restarting = loop._loaded_from_state_dict = loop._resuming_from_checkpoint = False

    def on_save_checkpoint(self) -> dict[str, Any]:
        """Adds whether the training was stopped early."""
        return {**super().on_save_checkpoint(), "should_stop": self.trainer.should_stop}

    def on_advance_start(self) -> None:
        """Begins an epoch, or the rest of one: in the order of the epoch, without the batches that are done."""
        begin_at = self.epoch_loop.begin_at
        super().on_advance_start()
        if begin_at:
            assert self._combined_loader is not None
            assert self._data_fetcher is not None
            for loader in self._combined_loader.flattened:
                loader.sampler.begin_at(begin_at)
            iter(self._data_fetcher)  # workers have already been given batches from the beginning

    def on_advance_end(self) -> None:
        """Ends an epoch; its figures are written by then."""
        super().on_advance_end()
        for saver in _savers(self.trainer):
            saver.on_epoch_complete(self.trainer)


def _savers(trainer: Trainer) -> list[Saver]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Saver)]  # type: ignore[attr-defined]


class CheckpointConnector(_CheckpointConnector):
    """Lightning's restoring of modules, callbacks, loops and optimizers, which has no public place."""

    def _restore_modules_and_callbacks(self, *args: Any, **kwargs: Any) -> None:
        with restoring(self.trainer):
            super()._restore_modules_and_callbacks(*args, **kwargs)

    def restore_training_state(self) -> None:
        """Restores precision, loops, optimizers and schedules."""
        with restoring(self.trainer):
            super().restore_training_state()


class ClassifierTrainer(Trainer):
    """Lightning's Trainer, whose precision may depend on the device.

    Args:
        precision: `auto` is bf16-mixed on a GPU from Ampere on and on a CPU with AVX512-BF16 or
            AMX, else 32-true; or one of Lightning's own.
        kwargs: the Trainer's other options.
    """

    def __init__(self, *, precision: Precision | None = "auto", **kwargs: Any) -> None:
        if precision == "auto":
            precision, _ = auto_precision(kwargs.get("accelerator", "auto"))
        super().__init__(precision=precision, **kwargs)
        fit_loop = FitLoop(self, self.fit_loop.min_epochs, self.fit_loop.max_epochs)
        fit_loop.epoch_loop = EpochLoop(self, self.fit_loop.min_steps, self.fit_loop.max_steps)
        self.fit_loop = fit_loop
        self._checkpoint_connector = CheckpointConnector(self)

    def _teardown(self) -> None:
        """Ends the training's data workers too if its validation was stopped: Lightning ends the validation's alone."""
        super()._teardown()
        self.fit_loop.teardown()
