"""The checkpoint that is exported, and its own outputs to compare with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_cls.data.options import Truncation
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.data.tokenizers.base import Tokenizer
from lit_cls.errors import UserError
from lit_cls.inference import Classifier
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.decision import Decision
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoints import DATA_KEY, KEY, decision_of


@dataclass(frozen=True)
class ExportSource:
    """A checkpoint's settings, without its tensors, and the folder that is written."""

    path: Path
    out: Path
    """The final folder."""
    settings: ModelSettings
    weights_sha256: str | None
    label_names: tuple[str, ...]
    decision: Decision
    cut_to: int
    """Maximum number of tokens of a text."""
    pad_to: int | None
    """Tokens that every text is padded to; None for the longest of its batch."""
    truncation: Truncation

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the backbone's family."""
        return tokenizer_for(self.settings.spec.family.tokenizer)

    @classmethod
    def of(cls, path: Path, checkpoint: dict[str, Any], out: Path) -> "ExportSource":
        """From a checkpoint as `read_checkpoint` returns it."""
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
class ReferenceOutputs:
    """Logits of the checkpoint itself, before anything is merged or folded."""

    texts: Sequence[str]
    logits: Tensor
    """(N, K)."""

    @classmethod
    def of(
        cls, classifier: Classifier, texts: Sequence[str], after_batch: Callable[[int], None] | None = None
    ) -> "ReferenceOutputs":
        """Computes them, which must be finite; in float32 on the CPU, where the exported form is compared too."""
        logits = classifier.logits(texts, after_batch)
        if not logits.isfinite().all():
            raise UserError("the network's outputs are not numbers: its training has diverged. Train anew")
        return cls(texts, logits)


def plain_tensors(net: TextClassifier) -> dict[str, Tensor]:
    """The network's tensors by the published code's names, without an adapter's."""
    plain = {name: p for name, p in net.named_parameters() if name not in net.adapter_names}
    return {name.removeprefix("backbone."): p.detach() for name, p in plain.items()}


def merge_adapter(net: TextClassifier) -> None:
    """Puts a mergeable adapter into the weights of the whole network, head included."""
    if net.adapter is not None:
        net.adapter.merge(net)


def require_packages(*names: str) -> None:
    """Refuses, before any work, an export whose packages are not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(f"the export needs {', '.join(missing)}, not installed here: pip install 'lit_cls[export]'")
