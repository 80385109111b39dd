"""The size table, and reading GPT-2 weights from files.

This is the only place that translates names: Hugging Face's GPT-2 files to the published code's
naming, which is also ours. Files are memory-mapped and read one tensor at a time, so that loading
never holds the weights twice.
"""

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_cls.errors import UserError
from lit_cls.model.gpt import GPTBackbone, GPTConfig, GPTModel
from lit_cls.transfer import Limits, TransferError, alone_in, discard, set_aside, transfer

ModelSize = Literal["gpt2-nano", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]

# gpt2-nano is ours, for trying out: the shape of minGPT's "gpt-nano", with GPT-2's vocabulary.
SIZES: dict[ModelSize, GPTConfig] = {
    "gpt2-nano": GPTConfig(emb_dim=48, n_heads=3, n_layers=3),
    "gpt2-small": GPTConfig(emb_dim=768, n_heads=12, n_layers=12),
    "gpt2-medium": GPTConfig(emb_dim=1024, n_heads=16, n_layers=24),
    "gpt2-large": GPTConfig(emb_dim=1280, n_heads=20, n_layers=36),
    "gpt2-xl": GPTConfig(emb_dim=1600, n_heads=25, n_layers=48),
}

# Repository and commit of each published model on the Hugging Face hub.
_PRETRAINED: dict[str, tuple[str, str]] = {
    "gpt2-small": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    "gpt2-medium": ("openai-community/gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da"),
    "gpt2-large": ("openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519"),
    "gpt2-xl": ("openai-community/gpt2-xl", "15ea56dee5df4983c59b2538573817e1667135e2"),
}

_FILE = "model.safetensors"
# The published sha256 at those commits, where it is known here; of the others the hub's own word is taken.
_SHA256 = {
    "gpt2-small": "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    "gpt2-xl": "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
}
_MAX_DOWNLOAD_BYTES = 7 * 10**9  # GPT-2 XL takes 6.4 GB

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
# Causal masks that older code stored beside the weights.
_MASK_SUFFIXES = (".attn.bias", ".attn.masked_bias", ".att.mask")
# GPT-2 XL's names and shapes take 100 KB.
_MAX_PICKLE_BYTES = 32 << 20
_SHARD = re.compile(r"\w[\w.-]*\.(safetensors|bin)", re.ASCII)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    kind: str = ""
    """What it is instead of a plain tensor of floating-point numbers; empty when it is one."""

    def third(self, part: int) -> "StoredTensor":
        """One of the three equal parts of the last dimension (query, key or value)."""
        width = self.shape[-1] // 3
        columns = slice(part * width, (part + 1) * width)
        return StoredTensor((*self.shape[:-1], width), lambda: self.read()[..., columns], self.kind)

    def transposed(self) -> "StoredTensor":
        """(in, out) as (out, in), or the other way round."""
        return StoredTensor(self.shape[::-1], lambda: self.read().t(), self.kind)


def load_weights(model: GPTBackbone, path: str | Path) -> list[str]:
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

    Returns:
        What of the file was left out or tied, in words, to be shown.

    Raises:
        UserError: unreadable file, or missing, unexpected and misshapen tensors, named together.
    """
    stored, notes = match_weights(model, Path(path))
    for name, values in _read_all(Path(path), stored):
        module_name, _, attribute = name.rpartition(".")
        # What is kept for the next network must stay as it was read.
        changes = _kept is not None and model.get_parameter(name).requires_grad
        setattr(model.get_submodule(module_name), attribute, nn.Parameter(values.clone() if changes else values))
    if isinstance(model, GPTModel) and "out_head.weight" not in stored:
        model.out_head.weight = model.tok_emb.weight
    return notes


# Inside `reading_once`, the tensors of the last weights file, by its files and their times of change.
_kept: dict[tuple[tuple[Path, int], ...], dict[str, Tensor]] | None = None


@contextmanager
def reading_once() -> Iterator[None]:
    """Within it, a weights file is read once, however many networks are made of it in turn.

    They share in memory what they do not train. Another file takes the place of the one before.
    """
    global _kept  # noqa: PLW0603 - whoever wants this is several calls above the one that reads
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def _read_all(path: Path, stored: dict[str, StoredTensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors in float32, one at a time."""
    tensors: dict[str, Tensor] = {}
    if _kept is not None:
        key = tuple((file, file.stat().st_mtime_ns) for file in _weight_files(path))
        if key not in _kept:
            _kept.clear()
        tensors = _kept.setdefault(key, tensors)
    for name, tensor in stored.items():
        values = tensors[name] if name in tensors else tensor.read().to(torch.float32).contiguous()
        # A sum needs no second copy; a finite one has finite terms.
        if name not in tensors and not values.sum().isfinite() and not values.isfinite().all():
            raise UserError(
                f"the weights file {path} holds numbers that are not finite in {name}: it is damaged, or of a training "
                "that diverged. Give another file with --model.weights"
            )
        if _kept is not None:
            tensors[name] = values
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
    stored, masks = _to_our_names(_open(path))
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


def check_pretrained(size: ModelSize) -> None:
    """Not every size has pretrained weights.

    Raises:
        UserError: this one has none.
    """
    if size not in _PRETRAINED:
        raise UserError(
            f"there are no pretrained weights for {size}: pass --model.weights random (of lit_cls reproduce, "
            f"--weights random), or one of the sizes {', '.join(_PRETRAINED)}"
        )


def fetch_pretrained(size: ModelSize) -> Path:
    """OpenAI's weights for a size, from the Hugging Face hub or its cache on this machine.

    The commit is pinned; the file's sha256, which names it in the cache, is checked.

    Raises:
        UserError: there are no such weights, no network, or a damaged download.
    """
    check_pretrained(size)
    # Imported here: only this path needs it, and it brings an HTTP client with it.
    import huggingface_hub
    from huggingface_hub.utils import logging

    repo, revision = _PRETRAINED[size]
    offline = os.environ.get("LIT_CLS_OFFLINE", "0") not in ("", "0")
    logging.set_verbosity_error()  # its retries; the end of them is told below
    try:
        if offline or is_downloaded(size):
            path = huggingface_hub.hf_hub_download(repo, _FILE, revision=revision, local_files_only=True)
        else:
            path = _download(size)
    except Exception as error:  # the hub's own, its HTTP client's, the disk's: each has types of its own
        reason = "LIT_CLS_OFFLINE is set" if offline else (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the pretrained weights of {size} are not on this machine and could not be downloaded ({reason}):\n"
            f"  https://huggingface.co/{repo}/resolve/{revision}/{_FILE}\n"
            "Download that file elsewhere and pass --model.weights PATH, or start untrained with --model.weights random"
        ) from error
    _check_cached(size, Path(path))
    return Path(path)


def _download(size: str) -> str:
    """Fetches the file to where the hub's cache keeps it, which then links it into place.

    The hub's own download starts anew after each break and waits for ever on a server that dawdles.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repo, revision = _PRETRAINED[size]
    url = huggingface_hub.hf_hub_url(repo, _FILE, revision=revision)
    offered = huggingface_hub.get_hf_file_metadata(url, timeout=30)
    published = _SHA256.get(size) or offered.etag or ""
    if offered.etag != published or not re.fullmatch(r"[0-9a-f]{64}", published):
        raise TransferError(
            f"the server offers a file with the sha256 {offered.etag}, the published one has {published}"
        )
    if not offered.size or offered.size > _MAX_DOWNLOAD_BYTES:
        raise TransferError(f"the server offers a file of {offered.size} bytes")
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    with alone_in(blobs):
        if not (blobs / published).exists():
            partial = blobs / f"{published}.partial"
            transfer(url, partial, Limits(max_bytes=offered.size), f"the weights of {size}")
            digest = _digest((partial,))
            if digest != published:
                aside = set_aside(partial, _FILE, digest)
                discard(partial)
                raise TransferError(f"its sha256 is {digest}, not {published}: not used, kept as {aside}")
            os.replace(partial, blobs / published)
            discard(partial)
    return huggingface_hub.hf_hub_download(repo, _FILE, revision=revision)


def _check_cached(size: str, path: Path) -> None:
    """A file with the wrong sha256 is moved out of the hub's cache, whose next download is whole."""
    blob = path.resolve()  # the cache names a file by its sha256 and links to it
    published = _SHA256.get(size) or blob.name
    if len(published) != 64 or (digest := file_sha256(path)) == published:
        return
    aside = set_aside(blob, _FILE, digest)
    path.unlink(missing_ok=True)
    raise UserError(
        f"the cached weights {blob} are damaged: their sha256 is {digest}, not the published {published}. They are "
        f"kept as {aside} and not used: run again to download them anew"
    )


def is_downloaded(size: ModelSize) -> bool:
    """Whether the pretrained weights of a size are in the hub's cache on this machine."""
    import huggingface_hub

    repo, revision = _PRETRAINED[size]
    return isinstance(huggingface_hub.try_to_load_from_cache(repo, _FILE, revision=revision), str)


def file_sha256(path: str | Path) -> str:
    """sha256 of a weights file; of a sharded one, over its shards in the order of their names."""
    return _sha256(tuple((file, file.stat().st_mtime_ns) for file in _weight_files(Path(path))))


@cache
def _sha256(files: tuple[tuple[Path, int], ...]) -> str:
    # Asked for several times in a run; GPT-2 XL is 6 GB.
    return _digest(tuple(file for file, _ in files))


def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


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
        "unexpected": [_shown(name) for name in sorted(set(stored) - set(expected))],
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


def _shown(name: str) -> str:
    """A name from a file, without what could steer a terminal."""
    return name[:100] if name.isprintable() else ascii(name[:100])


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


def _open(path: Path) -> dict[str, StoredTensor]:
    """Lists the tensors of a weights file without reading them."""
    tensors: dict[str, StoredTensor] = {}
    for file in _weight_files(path):
        try:
            tensors.update(_open_safetensors(file) if file.suffix == ".safetensors" else _open_pickle(file))
        except UserError:
            raise
        except Exception as error:  # the readers raise a type of their own for each kind of damage
            reason = _shown((str(error).splitlines() or [type(error).__name__])[0])
            raise UserError(
                f"the weights file {file} cannot be read (truncated, damaged, or not a weights file): {reason}"
            ) from error
    if not tensors:
        raise UserError(f"the weights file {path} holds no tensors")
    return tensors


def _open_safetensors(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    from safetensors import safe_open

    def read(name: str) -> Tensor:
        # Opened anew for each tensor: the mapping goes with it, and with it the pages that
        # would otherwise stay counted beside the transposed copy.
        with safe_open(file, framework="pt") as again:
            tensor: Tensor = again.get_tensor(name)
        return tensor

    with safe_open(file, framework="pt") as handle:
        for name in list(handle.keys()):
            found = handle.get_slice(name)
            kind = found.get_dtype() if found.get_dtype()[0] not in "FB" or found.get_dtype() == "BOOL" else ""
            yield name, StoredTensor(tuple(found.get_shape()), partial(read, name), kind)


def _open_pickle(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    """`.pth` and `.ckpt` files; nothing but tensors and plain containers is ever unpickled."""
    state = read_pickle(file)
    if isinstance(state, dict) and (state.get("lit_cls") or {}).get("weights_sha256"):
        raise UserError(
            f"the checkpoint {file} holds only what was trained, on top of weights from another file: "
            "it belongs to --ckpt_path, not to --model.weights"
        )
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise UserError(f"the weights file {file} is not a state dict (names with a tensor each)")
    for name, tensor in state.items():
        yield name.removeprefix("net."), StoredTensor(tuple(tensor.shape), partial(_same, tensor), plainness(tensor))


def read_pickle(file: Path) -> Any:
    """What `torch.save` wrote, tensors memory-mapped; nothing but tensors and plain containers is ever unpickled.

    Raises:
        UserError: anything else, told so that nobody is led to switch the protection off, as torch's words do.
        Exception: of a damaged file, in the reader's own ways.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no zip archive, as torch.save writes since torch 1.6: save an older file again")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    pickles = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
    if pickles > _MAX_PICKLE_BYTES or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError(
            f"the file {file} is packed as torch.save packs none: it could fill the memory, and is not read"
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\w+(?:\.\w+)+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(
            f"the file {file} cannot be read: it holds something other than tensors{what}, which could run code when "
            "read. Nothing of it was run. Ask its author for a .safetensors file"
        ) from error
    except MemoryError as error:
        raise UserError(f"the file {file} cannot be read: it asks for more memory than there is") from error


def plainness(tensor: Tensor) -> str:
    """What it is instead of a plain tensor of floating-point numbers; empty when it is one."""
    if tensor.is_meta:
        return "empty"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return "sparse, quantized or nested"
    return "" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _weight_files(path: Path) -> list[Path]:
    """The files that make up a weights path: itself, or the shards that an index names."""
    if path.is_dir():
        for name in ("model.safetensors.index.json", "model.safetensors"):
            if (path / name).is_file():
                return _weight_files(path / name)
        raise UserError(f"the weights folder {path} has neither model.safetensors nor model.safetensors.index.json")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no regular file: give a file of weights with --model.weights")
    if not path.is_file():
        raise UserError(f"there is no weights file {path}: check --model.weights (pretrained, random, or a path)")
    if path.name.endswith(".index.json"):
        shards = _shards(path)
        missing = [shard for shard in shards if not (path.parent / shard).is_file()]
        if missing:
            raise UserError(f"{path} names shards that are not beside it: {', '.join(map(_shown, missing))}")
        return [path.parent / shard for shard in shards]
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin", ".ckpt"):
        raise UserError(f"the weights file {path} is of no known kind: .safetensors, .pth, .pt, .bin or .ckpt")
    return [path]


def _shards(index: Path) -> list[str]:
    """Names of the shards, which lie beside the index: it cannot name a file elsewhere."""
    try:
        if index.stat().st_size > _MAX_PICKLE_BYTES:
            raise ValueError("too large")
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        wrong = [shard for shard in shards if not isinstance(shard, str) or not _SHARD.fullmatch(shard)]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{index} is not an index of sharded weights (no weight_map)") from error
    if wrong:
        raise UserError(
            f"{index} names shards that are no plain names of .safetensors or .bin files beside it: "
            f"{', '.join(_shown(str(shard)) for shard in wrong[:3])}"
        )
    return sorted(shards)
