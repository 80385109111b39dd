"""Lightning's Trainer with one more word for the precision."""

from typing import Any

from lightning.pytorch import Trainer

from lit_cls.training.precision import Precision, auto_precision


class ClassifierTrainer(Trainer):
    """Lightning's Trainer, whose precision may be left to the device.

    Args:
        precision: `auto` is bf16-mixed on a GPU from Ampere on and on a processor with AVX512-BF16 or
            AMX, else 32-true; beside it Lightning's own.
        kwargs: the Trainer's other options.
    """

    def __init__(self, *, precision: Precision | None = "auto", **kwargs: Any) -> None:
        if precision == "auto":
            precision, _ = auto_precision(kwargs.get("accelerator", "auto"))
        super().__init__(precision=precision, **kwargs)
