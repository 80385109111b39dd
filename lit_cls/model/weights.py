"""The size table, and GPT-2 weights put into a model.

This is the only place that translates names, in both directions: Hugging Face's GPT-2 files to the
published code's naming, which is also ours. Tensors are read one at a time, so that loading never holds the weights
twice; how files are opened is in `weight_files.py`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from lit_cls.errors import UserError
from lit_cls.model.backbones.gpt2 import GPTBackbone, GPTConfig, GPTModel
from lit_cls.model.weight_files import StoredTensor, files_of, open_weights, shown

ModelSize = Literal["gpt2-nano", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]

# gpt2-nano is ours, for trying out: the shape of minGPT's "gpt-nano", with GPT-2's vocabulary.
SIZES: dict[ModelSize, GPTConfig] = {
    "gpt2-nano": GPTConfig(emb_dim=48, n_heads=3, n_layers=3),
    "gpt2-small": GPTConfig(emb_dim=768, n_heads=12, n_layers=12),
    "gpt2-medium": GPTConfig(emb_dim=1024, n_heads=16, n_layers=24),
    "gpt2-large": GPTConfig(emb_dim=1280, n_heads=20, n_layers=36),
    "gpt2-xl": GPTConfig(emb_dim=1600, n_heads=25, n_layers=48),
}

# Hugging Face's names within a block, to ours. Its linear layers are Conv1D, stored (in, out).
_HF_BLOCK = {
    "ln_1.weight": "norm1.scale",
    "ln_1.bias": "norm1.shift",
    "ln_2.weight": "norm2.scale",
    "ln_2.bias": "norm2.shift",
    "attn.c_proj.weight": "att.out_proj.weight",
    "attn.c_proj.bias": "att.out_proj.bias",
    "mlp.c_fc.weight": "ff.layers.0.weight",
    "mlp.c_fc.bias": "ff.layers.0.bias",
    "mlp.c_proj.weight": "ff.layers.2.weight",
    "mlp.c_proj.bias": "ff.layers.2.bias",
}
_HF_TOP = {
    "wte.weight": "tok_emb.weight",
    "wpe.weight": "pos_emb.weight",
    "ln_f.weight": "final_norm.scale",
    "ln_f.bias": "final_norm.shift",
    "lm_head.weight": "out_head.weight",
}
_QKV = ("W_query", "W_key", "W_value")
# The same table from ours to Hugging Face's, where query, key and value are one.
_TO_HF_BLOCK = {ours: theirs for theirs, ours in _HF_BLOCK.items()} | {
    f"att.{part}.{kind}": f"attn.c_attn.{kind}" for part in _QKV for kind in ("weight", "bias")
}
_TO_HF_TOP = {ours: f"transformer.{theirs}" for theirs, ours in _HF_TOP.items()} | {"out_head.weight": "score.weight"}
# Causal masks that older code stored beside the weights.
_MASK_SUFFIXES = (".attn.bias", ".attn.masked_bias", ".att.mask")


class WeightsCache:
    """The tensors of the last weights file, for networks that are made of it one after the other.

    Whoever makes them owns the cache and hands it to `load_weights`: the file is read once, and the networks
    share in memory what they do not train. Another file, or a changed one, replaces the one before.
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


def load_weights(model: GPTBackbone, path: str | Path, cache: WeightsCache | None = None) -> list[str]:
    """Reads a file of GPT-2 weights into a model.

    Accepted: Hugging Face GPT-2 safetensors (a file, a sharded index, or a folder with either; with
    and without the `transformer.` prefix), the published code's naming (`.safetensors`, `.pth`),
    and our own checkpoints (`.ckpt`). Parameters are replaced, not copied into: the model may have
    been built on the meta device, without memory.

    Args:
        model: a language model or a classifier. A language model's output layer is tied to the
            token embedding when the file has none; a classifier takes the file's head only when it
            has the classifier's shape.
        path: the file or folder.
        cache: of networks that are made of the same file in turn.

    Returns:
        What of the file was left out or tied, in words, to be shown.

    Raises:
        UserError: unreadable file, or missing, unexpected and misshapen tensors, named together.
    """
    stored, notes = match_weights(model, Path(path))
    for name, values in _read_all(Path(path), stored, None if cache is None else cache.tensors(Path(path))):
        module_name, _, attribute = name.rpartition(".")
        # Cached tensors must stay as they were read.
        changes = cache is not None and model.get_parameter(name).requires_grad
        setattr(model.get_submodule(module_name), attribute, nn.Parameter(values.clone() if changes else values))
    if isinstance(model, GPTModel) and "out_head.weight" not in stored:
        model.out_head.weight = model.tok_emb.weight
    return notes


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


def match_weights(model: GPTBackbone, path: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """Checks, without reading it, that a file fits a model.

    Args:
        model: the model; it may be without memory.
        path: as for `load_weights`.

    Returns:
        The file's tensors by the model's names, and what is left out or tied, in words.

    Raises:
        UserError: as `load_weights`.
    """
    stored, masks = _to_our_names(open_weights(path))
    expected = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    notes = [f"{len(masks)} stored causal masks of {path} ignored"] if masks else []
    head = {name for name in expected if name in ("out_head.weight", "out_head.bias")}
    adapters = {name for name in expected if ".lora_" in name}
    optional = set() if adapters & set(stored) else adapters
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
    _check_fit(path, model.config, stored, expected, optional)
    return stored, notes


def _check_fit(
    path: Path,
    config: GPTConfig,
    stored: dict[str, StoredTensor],
    expected: dict[str, tuple[int, ...]],
    optional: set[str],
) -> None:
    """Reports every missing, unexpected and misshapen tensor at once."""
    groups = {
        "missing": sorted(set(expected) - set(stored) - optional),
        "unexpected": [shown(name) for name in sorted(set(stored) - set(expected))],
        "of no floating-point numbers": [
            f"{name} is {stored[name].kind}" for name in sorted(set(stored) & set(expected)) if stored[name].kind
        ],
        "misshapen": [
            f"{name} is {stored[name].shape}, not {expected[name]}"
            for name in sorted(set(stored) & set(expected))
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
    size = _guess_size(stored)
    if size and SIZES[size] != config:
        lines.append(f"The file looks like {size}: pass --model.size {size}, or another file with --model.weights")
    else:
        lines.append("Give a GPT-2 file of this size with --model.weights, or start with --model.weights random")
    raise UserError("\n".join(lines))


def _guess_size(stored: dict[str, StoredTensor]) -> ModelSize | None:
    embedding = stored.get("tok_emb.weight")
    blocks = {name.split(".")[1] for name in stored if name.startswith("trf_blocks.")}
    for size, config in SIZES.items():
        if embedding and embedding.shape[-1] == config.emb_dim and len(blocks) == config.n_layers:
            return size
    return None


def _to_our_names(tensors: dict[str, StoredTensor]) -> tuple[dict[str, StoredTensor], list[str]]:
    """Translates a file's names; returns the tensors and the names of stored causal masks."""
    ours: dict[str, StoredTensor] = {}
    masks: list[str] = []
    for full_name, tensor in tensors.items():
        name = full_name.removeprefix("transformer.")
        if name.endswith(_MASK_SUFFIXES):
            masks.append(full_name)
        elif name in _HF_TOP:
            ours[_HF_TOP[name]] = tensor
        elif name.startswith("h.") and name.count(".") > 1:
            _, index, rest = name.split(".", 2)
            ours.update(_hugging_face_block(f"trf_blocks.{index}", rest, full_name, tensor))
        else:
            ours[full_name] = tensor
    return ours, masks


def _hugging_face_block(block: str, rest: str, full_name: str, tensor: StoredTensor) -> dict[str, StoredTensor]:
    is_matrix = len(tensor.shape) == 2
    if rest in ("attn.c_attn.weight", "attn.c_attn.bias") and tensor.shape:
        kind = rest.rpartition(".")[2]
        parts = [tensor.third(part) for part in range(3)]
        if is_matrix:
            parts = [part.transposed() for part in parts]
        return {f"{block}.att.{name}.{kind}": part for name, part in zip(_QKV, parts, strict=True)}
    if rest in _HF_BLOCK:
        return {f"{block}.{_HF_BLOCK[rest]}": tensor.transposed() if is_matrix else tensor}
    return {full_name: tensor}


def hugging_face_name(name: str) -> str:
    """What `GPT2ForSequenceClassification` calls a classifier's parameter; its head has no bias."""
    if not name.startswith("trf_blocks."):
        return _TO_HF_TOP[name]
    _, index, rest = name.split(".", 2)
    return f"transformer.h.{index}.{_TO_HF_BLOCK[rest]}"


def to_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's tensors as `GPT2ForSequenceClassification` names, joins and stores them.

    Args:
        tensors: by our names; without adapters and without a bias of the head.
    """
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".att.W_key." in name or ".att.W_value." in name:
            continue
        parts = [tensors[name.replace("W_query", part)] for part in _QKV] if ".att.W_query." in name else [tensor]
        joined = torch.cat(parts) if len(parts) > 1 else tensor  # (3C, C) or (3C,)
        is_conv1d = name.startswith("trf_blocks.") and tensor.ndim == 2
        theirs[hugging_face_name(name)] = (joined.t() if is_conv1d else joined).contiguous()
    return theirs
