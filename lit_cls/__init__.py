"""lit_cls: GPT-2, written from scratch in PyTorch, as a text classifier."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lit_cls.inference import Classifier, Prediction

__version__ = "0.2.0"
__all__ = ["Classifier", "Prediction", "__version__", "load"]


def __getattr__(name: str) -> object:
    # Imported on first use: `lit_cls --help` must not wait for torch.
    if name in ("Classifier", "Prediction", "load"):
        from lit_cls import inference

        return getattr(inference, name)
    raise AttributeError(f"module 'lit_cls' has no attribute {name!r}")
