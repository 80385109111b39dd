"""Lightning's Trainer with `precision auto`, and loops that can be left and resumed between two batches."""

from typing import Any

from lightning.pytorch import Trainer

from lit_cls.training.loops import EpochLoop, FitLoop
from lit_cls.training.precision import Precision, auto_precision
from lit_cls.training.restoring import CheckpointConnector


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
        stock = self.fit_loop
        fit_loop = FitLoop(self, stock.min_epochs, stock.max_epochs)
        fit_loop.epoch_loop = EpochLoop(self, stock.min_steps, stock.max_steps)
        self.fit_loop = fit_loop
        self._checkpoint_connector = CheckpointConnector(self)
