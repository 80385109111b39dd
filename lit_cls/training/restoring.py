"""Restoring a checkpoint's state into a Trainer, as a step whose failures are the checkpoint's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from lightning.pytorch.trainer.states import TrainerFn

from lit_cls.errors import RunError, UserError


@contextmanager
def restoring(trainer: Trainer) -> Iterator[None]:
    """Reports a state that does not fit as a damaged checkpoint: each value of it fails in a way of its own.

    Raises:
        UserError: which checkpoint, and why.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        if trainer.state.fn != TrainerFn.FITTING or trainer.ckpt_path is None:
            raise
        raise UserError(
            f"{trainer.ckpt_path} cannot be resumed (damaged, or changed by hand): {type(error).__name__}: {error}"
        ) from error


class CheckpointConnector(_CheckpointConnector):
    """Lightning's restoring of modules, callbacks, loops and optimizers, which has no public place."""

    def _restore_modules_and_callbacks(self, *args: Any, **kwargs: Any) -> None:
        with restoring(self.trainer):
            super()._restore_modules_and_callbacks(*args, **kwargs)

    def restore_training_state(self) -> None:
        """Restores precision, loops, optimizers and schedules."""
        with restoring(self.trainer):
            super().restore_training_state()
