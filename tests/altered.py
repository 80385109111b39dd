"""Checkpoints that are far from where training begins: adapters, biases and decisions that matter."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from small_fits import data, module, save

from lit_cls.exports.source import ExportSource, ReferenceOutputs
from lit_cls.inference import classifier_of
from lit_cls.model.classifier import GPTClassifier
from lit_cls.model.decision import Decision
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import DECISION_KEY, read_checkpoint

TEXTS = ["good film 3", "", "poor film poor film poor film 4", "<|endoftext|>", "word " * 1500, "🙂 naïve\ttab\nline"]


def altered(
    folder: Path,
    reviews: str,
    options: dict[str, object] | None = None,
    texts: dict[str, object] | None = None,
    decision: Decision | None = None,
    adapter: float = 0.2,
    **trainer: object,
) -> Path:
    """A checkpoint after one step, its adapters, head and bias drawn anew: at the start, B and biases are zero."""
    torch.manual_seed(4)
    path = save(folder, module(**(options or {})), data(reviews, **(texts or {})), limit_train_batches=1, **trainer)
    content = dict(read_checkpoint(path))
    torch.manual_seed(5)
    state = dict(content["state_dict"])
    for name, tensor in state.items():
        if name.endswith("lora_B"):
            state[name] = torch.randn_like(tensor) * adapter
        if name.endswith(("out_head.weight", "out_head.bias", "att.W_value.bias")):
            state[name] = torch.randn_like(tensor)
    content["state_dict"] = state
    if decision is not None:
        content[DECISION_KEY] = asdict(decision)
    AtomicCheckpointIO().save_checkpoint(content, folder / "altered.ckpt")
    return folder / "altered.ckpt"


def exportable(
    path: Path, out: Path, texts: list[str] | None = None
) -> tuple[ExportSource, GPTClassifier, ReferenceOutputs]:
    """What `lit_cls export` hands to a format."""
    checkpoint = read_checkpoint(path)
    classifier = classifier_of(path, checkpoint, torch.device("cpu"), precision="32-true", packed=False)
    return ExportSource.of(path, checkpoint, out), classifier.net, ReferenceOutputs.of(classifier, texts or TEXTS)


def export_source(model: dict[str, Any] | None = None, **changes: Any) -> ExportSource:
    """A source that was never written, for checks of its settings."""
    settings = ModelSettings("gpt2-nano", "random", **(model or {}))
    plain: dict[str, Any] = {"cut_to": 1024, "pad_to": None, "truncation": "head", "decision": Decision(), **changes}
    return ExportSource(Path("some.ckpt"), Path("out"), settings, None, ("no", "yes"), **plain)
