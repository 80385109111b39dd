"""Runs that are stopped in this process, at a chosen moment, and resumed."""

import os
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from lit_cls.commands.train import TrainCommand
from lit_cls.experiments.verify_resume import compare_runs
from lit_cls.training.signals import Stopped

NANO = ["--model.size", "gpt2-nano", "--model.weights", "random", "--model.learning_rate", "3e-3"]
CPU = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.log_every_n_steps", "1"]


class DiedError(BaseException):
    """A process that is gone: nothing runs after it."""


class At(Callback):
    """Ends a run at a moment of it.

    Args:
        hook: the callback's method.
        count: at which of its calls, from 1.
        number: the signal that comes; None is a death without one.
    """

    def __init__(self, hook: str, count: int, number: signal.Signals | None) -> None:
        self.left = count
        self.number = number
        setattr(self, hook, self._called)

    def _called(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left:
            return
        if self.number is None:
            raise DiedError
        os.kill(os.getpid(), self.number)


class Terminated(At):
    """Ends a run at a moment of it, named in a configuration.

    Args:
        hook: the callback's method.
        count: at which of its calls, from 1.
    """

    def __init__(self, hook: str, count: int) -> None:
        super().__init__(hook, count, signal.SIGTERM)


def fit(words: list[str], *moments: At) -> Path:
    """A run that is stopped at the first moment, resumed, stopped at the next, …; its folder."""
    command = TrainCommand(["fit", *words], comparisons=False)
    for moment in moments:
        command.trainer.callbacks.insert(0, moment)  # type: ignore[attr-defined]
        try:
            command.start()
        except (Stopped, DiedError):
            assert moment.left <= 0
        else:
            raise AssertionError("the run has ended before it was stopped")
        folder = command.run.folder
        assert not (folder / "report").exists()
        words = ["fit", "--config", str(folder / "config.yaml")]
        command = TrainCommand(words, resumed=folder, comparisons=False)
    command.start()
    return command.run.folder


def assert_same(one: Path, other: Path) -> None:
    compared = compare_runs(one, other)
    assert len(compared) > 5
    assert [part for part in compared if part.difference] == []
