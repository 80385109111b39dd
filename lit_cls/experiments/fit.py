"""What a series uses of `lit_cls.commands.train.TrainCommand`, handed in because experiments import no commands."""

from typing import Any, Protocol

from lightning.pytorch import Trainer
from rich.console import Console

from lit_cls.data.datamodule import ClassificationData
from lit_cls.model.weights import WeightsCache
from lit_cls.runs.run import Run
from lit_cls.training.module import ClassifierModule


class Fit(Protocol):
    """A fit whose options are checked and whose objects are built; nothing runs before `start`."""

    trainer: Trainer
    model: ClassifierModule
    datamodule: ClassificationData
    run: Run

    def settings(self) -> dict[str, Any]:
        """Every value that the run uses, as in its config.yaml."""

    def start(self) -> None:
        """Trains, tests and reports."""


class OpenFit(Protocol):
    """Builds a fit from its command line."""

    def __call__(
        self,
        words: list[str],
        *,
        console: Console | None = None,
        comparisons: bool = True,
        weights_cache: WeightsCache | None = None,
    ) -> Fit:
        """From `fit` and its options; it prints to `console`, and has no baselines and plots without `comparisons`."""
