"""What is exported: a classifier, how it reads texts, and its own answers to some, for comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_cls.data.options import Truncation
from lit_cls.errors import UserError
from lit_cls.inference import Classifier
from lit_cls.model.classifier import GPTClassifier, ModelSettings
from lit_cls.model.decision import Decision
from lit_cls.training.checkpoints import DATA_KEY, KEY, decision_of


@dataclass(frozen=True)
class Source:
    """A checkpoint's choices, without its tensors, and where they go."""

    path: Path
    out: Path
    """The folder that is written, when all of it is."""
    settings: ModelSettings
    weights_sha256: str | None
    label_names: tuple[str, ...]
    decision: Decision
    cut_to: int
    """Tokens that are read of a text."""
    pad_to: int | None
    """Tokens that every text is padded to; None for those of the longest beside it."""
    truncation: Truncation

    @classmethod
    def of(cls, path: Path, checkpoint: dict[str, Any], out: Path) -> "Source":
        """Of a checkpoint as `read_checkpoint` returns it."""
        described, data = checkpoint[KEY], checkpoint[DATA_KEY]
        return cls(
            path,
            out,
            ModelSettings.from_dict(described["model"]),
            described["weights_sha256"],
            tuple(described["label_names"]),
            decision_of(checkpoint),
            data["cut_to"],
            data["pad_to"],
            data["settings"]["truncation"],
        )


@dataclass(frozen=True)
class Answers:
    """What the original says, before anything is merged or folded."""

    texts: Sequence[str]
    logits: Tensor
    """(N, K)."""

    @classmethod
    def of(
        cls, classifier: Classifier, texts: Sequence[str], after_batch: Callable[[int], None] | None = None
    ) -> "Answers":
        """Asks it; it should compute in float32 on the processor, where others are measured too.

        Raises:
            UserError: what it answers are no numbers.
        """
        logits = classifier.logits(texts, after_batch)
        if not logits.isfinite().all():
            raise UserError("the network's outputs are no numbers: its training has diverged. Train anew")
        return cls(texts, logits)


def plain_tensors(net: GPTClassifier) -> dict[str, Tensor]:
    """The network's tensors without adapters."""
    return {name: p.detach() for name, p in net.named_parameters() if ".lora_" not in name}


def require_packages(*names: str) -> None:
    """Tells before any work what its end would lack.

    Raises:
        UserError: which packages are not installed.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(f"the export needs {', '.join(missing)}, not installed here: pip install 'lit_cls[export]'")
