"""Weights of a file put into a network.

Tensors are read one at a time, so that loading never holds the weights twice. A family translates Hugging Face's
names (`lit_cls.model.backbones`); how files are opened is in `weight_files.py`.
"""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_cls.errors import UserError
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.backbones.gpt2 import GPTModel
from lit_cls.model.weight_files import StoredTensor, files_of, open_weights, printable


class WeightsCache:
    """The tensors of the last weights file, for networks that are made of it one after the other.

    They share in memory the tensors that they do not train. Another file, or a changed one, replaces the last.
    """

    def __init__(self) -> None:
        self._files: tuple[tuple[Path, int], ...] = ()  # with the times of their last change
        self._tensors: dict[str, Tensor] = {}

    def tensors(self, path: Path) -> dict[str, Tensor]:
        """The tensors of this file that have been read, by our names; to be filled by the reader."""
        files = tuple((file, file.stat().st_mtime_ns) for file in files_of(path))
        if files != self._files:
            self._files, self._tensors = files, {}
        return self._tensors


def load_weights(model: nn.Module, path: str | Path, cache: WeightsCache | None = None) -> list[str]:
    """Reads a file of weights into a network.

    Accepted: Hugging Face safetensors (a file, a sharded index, or a folder with either; with and without the
    `transformer.` prefix), the published code's naming (`.safetensors`, `.pth`; with and without a `backbone.`
    prefix), and our own checkpoints (`.ckpt`). Parameters are replaced, not copied into: the network may have
    been built on the meta device, without memory.

    Args:
        model: a language model or a `TextClassifier`. A language model's output layer is tied to the token
            embedding when the file has none; a classifier takes the file's head only when it has its shape.
        path: the file or folder.
        cache: of networks that are made of the same file in turn.

    Returns:
        Notes on what of the file was left out or tied.

    Raises:
        UserError: unreadable file, or missing, unexpected and misshapen tensors, named together.
    """
    stored, notes = match_weights(model, Path(path))
    put_weights(model, Path(path), stored, cache, {_plain(n) for n, p in model.named_parameters() if p.requires_grad})
    if isinstance(model, GPTModel) and "out_head.weight" not in stored:
        model.out_head.weight = model.tok_emb.weight
    return notes


def put_weights(
    module: Any, path: Path, stored: dict[str, StoredTensor], cache: WeightsCache | None, copied: Container[str]
) -> None:
    """Replaces the parameters of a network by those of a file's tensors that it has; the others are not read.

    `copied` names the tensors that change in training, so that a cached one must not be shared.
    """
    own = {_plain(name): (name, p.requires_grad) for name, p in module.named_parameters()}
    wanted = {name: tensor for name, tensor in stored.items() if name in own}
    for name, values in _read_all(path, wanted, None if cache is None else cache.tensors(path)):
        full_name, trains = own[name]
        parent, _, attribute = full_name.rpartition(".")
        kept = values.clone() if cache is not None and name in copied else values
        setattr(module.get_submodule(parent), attribute, nn.Parameter(kept, requires_grad=trains))


def _plain(name: str) -> str:
    """A parameter's name as in the published code, where backbone and head are one module."""
    return name.removeprefix("backbone.")


def _read_all(
    path: Path, stored: dict[str, StoredTensor], cached: dict[str, Tensor] | None
) -> Iterator[tuple[str, Tensor]]:
    """The tensors in float32, one at a time; cached ones are not read again, others are added to the cache."""
    for name, tensor in stored.items():
        if cached is not None and name in cached:
            yield name, cached[name]
            continue
        values = tensor.read().to(torch.float32).contiguous()
        # A sum needs no second copy; a finite one has finite terms.
        if not values.sum().isfinite() and not values.isfinite().all():
            raise UserError(
                f"the weights file {path} holds numbers that are not finite in {name}: it is damaged, or of a training "
                "that diverged. Give another file with --model.weights"
            )
        if cached is not None:
            cached[name] = values
        yield name, values


def match_weights(model: Any, path: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """Checks that a file fits a network, without reading its tensors; arguments and errors as for `load_weights`.

    Returns:
        The file's tensors by the published code's names, and notes on what is left out or tied.
    """
    backbone = getattr(model, "backbone", model)
    translated, ignored = backbone.family.from_hub_names(open_weights(path))
    stored = {_plain(name): tensor for name, tensor in translated.items()}
    expected = {_plain(name): tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    notes = [f"{len(ignored)} stored causal masks of {path} ignored"] if ignored else []
    head = {name for name in expected if name in ("out_head.weight", "out_head.bias")}
    adapter = {_plain(name) for name in getattr(model, "adapter_names", ())}
    optional = set() if adapter & set(stored) else adapter
    in_file = {name for name in stored if name.startswith("out_head.")}
    if isinstance(model, GPTModel):
        if not in_file:
            optional |= head
            notes.append(f"{path} has no output layer: tied to the token embedding")
    elif in_file != head or any(stored[name].shape != expected[name] for name in head):
        optional |= head
        if in_file:
            notes.append(f"the output layer of {path} left out: the classifier has a new head")
        stored = {name: tensor for name, tensor in stored.items() if name not in in_file}
    elif in_file:
        notes.append(f"the head is that of {path}")
    _check_fit(path, backbone.config, stored, expected, optional)
    return stored, notes


def _check_fit(
    path: Path, config: Any, stored: dict[str, StoredTensor], expected: dict[str, tuple[int, ...]], optional: set[str]
) -> None:
    """Reports every missing, unexpected and misshapen tensor at once."""
    both = sorted(set(stored) & set(expected))
    groups = {
        "missing": sorted(set(expected) - set(stored) - optional),
        "unexpected": [printable(name) for name in sorted(set(stored) - set(expected))],
        "of no floating-point numbers": [f"{name} is {stored[name].kind}" for name in both if stored[name].kind],
        "misshapen": [
            f"{name} is {stored[name].shape}, not {expected[name]}"
            for name in both
            if stored[name].shape != expected[name]
        ],
    }
    if not any(groups.values()):
        return
    lines = [f"the weights file {path} does not fit a model of {config.n_layers} blocks and emb_dim {config.emb_dim}:"]
    for kind, names in groups.items():
        if names:
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"  {kind} ({len(names)}): {', '.join(names[:3])}{more}")
    size = _sniff_size(stored)
    if size and BACKBONES[size].config != config:
        lines.append(f"The file looks like {size}: pass --model.size {size}, or another file with --model.weights")
    else:
        lines.append("Give a GPT-2 file of this size with --model.weights, or start with --model.weights random")
    raise UserError("\n".join(lines))


def _sniff_size(stored: dict[str, StoredTensor]) -> str | None:
    """The named network that a file seems to be of."""
    embedding = stored.get("tok_emb.weight")
    blocks = {name.split(".")[1] for name in stored if name.startswith("trf_blocks.")}
    shape = (embedding.shape[-1] if embedding else None, len(blocks))
    return next((size for size, s in BACKBONES.items() if (s.config.emb_dim, s.config.n_layers) == shape), None)
