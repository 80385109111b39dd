"""Opening files of weights: safetensors, pickles, and indexes of shards.

Tensors are memory-mapped and not read before they are asked for. Nothing in a file is trusted: no
code of it runs, it names no file elsewhere, and what it asks for is bounded.
"""

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.errors import UserError

# GPT-2 XL's names and shapes take 100 KB.
_MAX_PICKLE_BYTES = 32 << 20
_SHARD = re.compile(r"\w[\w.-]*\.(safetensors|bin)", re.ASCII)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    kind: str = ""
    """Of a tensor that is not plain floating-point numbers; empty for one that is."""

    def third(self, part: int) -> "StoredTensor":
        """One of the three equal parts of the last dimension (query, key or value)."""
        width = self.shape[-1] // 3
        columns = slice(part * width, (part + 1) * width)
        return StoredTensor((*self.shape[:-1], width), lambda: self.read()[..., columns], self.kind)

    def transposed(self) -> "StoredTensor":
        """(in, out) as (out, in), or the other way round."""
        return StoredTensor(self.shape[::-1], lambda: self.read().t(), self.kind)


def open_weights(path: Path) -> dict[str, StoredTensor]:
    """Lists the tensors of a weights file without reading them."""
    tensors: dict[str, StoredTensor] = {}
    for file in files_of(path):
        try:
            tensors.update(_open_safetensors(file) if file.suffix == ".safetensors" else _open_pickle(file))
        except UserError:
            raise
        except Exception as error:  # the readers raise a type of their own for each kind of damage
            reason = printable((str(error).splitlines() or [type(error).__name__])[0])
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
        yield name.removeprefix("net."), StoredTensor(tuple(tensor.shape), tensor.detach, plainness(tensor))


def read_pickle(file: Path) -> Any:
    """Reads what `torch.save` wrote, tensors memory-mapped; only tensors and plain containers are unpickled.

    Raises:
        UserError: anything else; the message does not suggest to switch the protection off, as torch's does.
        Exception: a damaged file; each reader has types of its own.
    """
    try:
        with file.open("rb") as stream:
            packed = zipfile.is_zipfile(stream)
    except OSError as error:  # not damaged
        raise UserError(f"the file {file} cannot be read: {error.strerror}") from error
    if not packed:
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
    """The kind of a tensor that is not plain floating-point numbers; empty for one that is."""
    if tensor.is_meta:
        return "empty"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return "sparse, quantized or nested"
    return "" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")


def files_of(path: Path) -> list[Path]:
    """The files that make up a weights path: itself, or the shards that an index names."""
    # os.path: a folder without rights, or too long a name, is no file, instead of an error of its own.
    if os.path.isdir(path):
        for name in ("model.safetensors.index.json", "model.safetensors"):
            if os.path.isfile(path / name):
                return files_of(path / name)
        raise UserError(f"the weights folder {path} has neither model.safetensors nor model.safetensors.index.json")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is no regular file: give a file of weights with --model.weights")
    if not os.path.isfile(path):
        raise UserError(f"there is no weights file {path}: check --model.weights (pretrained, random, or a path)")
    if path.name.endswith(".index.json"):
        shards = _shards(path)
        missing = [shard for shard in shards if not os.path.isfile(path.parent / shard)]
        if missing:
            raise UserError(f"{path} names shards that are not beside it: {', '.join(map(printable, missing))}")
        return [path.parent / shard for shard in shards]
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin", ".ckpt"):
        raise UserError(f"the weights file {path} is unsupported: give a .safetensors, .pth, .pt, .bin or .ckpt file")
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
            f"{index} names shards that are not .safetensors or .bin files beside it: "
            f"{', '.join(printable(str(shard)) for shard in wrong[:3])}"
        )
    return sorted(shards)


def file_sha256(path: str | Path) -> str:
    """sha256 of a weights file; of a sharded one, over its shards in the order of their names."""
    return _sha256(tuple((file, file.stat().st_mtime_ns) for file in files_of(Path(path))))


@cache
def _sha256(files: tuple[tuple[Path, int], ...]) -> str:
    # Asked for several times in a run; GPT-2 XL is 6 GB.
    digest = hashlib.sha256()
    for file, _ in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def printable(name: str) -> str:
    """A name from a file, without what could steer a terminal."""
    return name[:100] if name.isprintable() else ascii(name[:100])
