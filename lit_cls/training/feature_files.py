"""Outputs of the frozen layers as files: mapped instead of read, found again by what they follow from.

Shapes: C emb_dim, P positions of all texts of a split.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

import lit_cls
from lit_cls.errors import UserError
from lit_cls.io.atomic import flush, rename, write_json
from lit_cls.model.classifier import TextClassifier

GB = 10**9


@dataclass(frozen=True)
class FeatureKey:
    """All that the frozen layers' outputs for a split follow from, apart from the positions that are kept."""

    lit_cls: str
    weights: str
    """sha256 of the file they came from, or of the frozen tensors."""
    shape: dict[str, float]
    frozen_blocks: int
    causal: bool
    token_position: str | None
    """Where it matters: a read position is kept alone, or pads are seen without the causal mask."""
    texts: str
    """sha256 of the token ids."""
    pad_to: int | None
    precision: str
    device: str

    def path(self, folder: Path, positions: str) -> Path:
        """The file that holds these positions, or would."""
        text = json.dumps({**asdict(self), "positions": positions}, sort_keys=True)
        return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.features"


def feature_key(
    net: TextClassifier, token_ids: Sequence[list[int]], pad_to: int | None, weights_sha256: str, precision: str
) -> FeatureKey:
    """The key of this network's outputs for these texts."""
    texts = hashlib.sha256()
    for ids in token_ids:
        texts.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
    where_it_matters = net.head_alone or not net.causal
    return FeatureKey(
        lit_cls=lit_cls.__version__,
        weights=weights_sha256,
        shape=asdict(net.config),
        frozen_blocks=net.first_trained_block,
        causal=net.causal,
        token_position=net.token_position if where_it_matters else None,
        texts=texts.hexdigest(),
        pad_to=pad_to,
        precision=precision,
        device=net.embeddings.weight.device.type,
    )


def find(path: Path, n_positions: int, width: int, dtype: torch.dtype) -> tuple[Tensor, float] | None:
    """A file that is there and whole: its (P, C) tensor, and the seconds that computing it took.

    Nothing written to the tensor reaches the file.
    """
    if not path.is_file() or path.stat().st_size != n_positions * width * dtype.itemsize:
        return None
    try:
        seconds = float(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # without its note, a file is none of ours
        return None
    values = torch.from_file(str(path), shared=False, size=n_positions * width, dtype=dtype)
    return values.view(n_positions, width), seconds


def new_file(folder: Path, n_positions: int, width: int, dtype: torch.dtype) -> tuple[Path, Tensor]:
    """A new file under a name of its own, and the (P, C) tensor that writes to it; refused without room for it."""
    size = n_positions * width * dtype.itemsize
    check_room(folder, size)
    partial = folder / f"{_prefix()}{os.getpid()}-{uuid.uuid4().hex}.partial"
    with partial.open("xb") as file:
        try:
            # Taken now: a mapped file that finds the disk full later ends the process without a word.
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            partial.unlink()
            raise _too_large(folder, size) from error
    values = torch.from_file(str(partial), shared=True, size=n_positions * width, dtype=dtype)
    return partial, values.view(n_positions, width)


def check_room(folder: Path, size: int) -> None:
    """Refuses outputs of so many bytes for which the disk has no room."""
    if size > shutil.disk_usage(folder).free:
        raise _too_large(folder, size)


def _too_large(folder: Path, size: int) -> UserError:
    free = shutil.disk_usage(folder).free
    return UserError(
        f"the outputs of the frozen layers take {size / GB:.1f} GB, {folder} has {free / GB:.1f} GB free: "
        "make room there, or pass --model.fast false, which computes them in every step"
    )


def publish(partial: Path, target: Path, key: FeatureKey, positions: str, seconds: float) -> None:
    """Gives a filled file the name that it is found by, with a note of what it holds beside it.

    Of two processes that fill the same one, each has its own, and the later name stays.
    """
    with partial.open("rb") as file:
        flush(file)
    write_json(target.with_suffix(".json"), {**asdict(key), "positions": positions, "seconds": seconds})
    rename(partial, target)


def check_folder(folder: Path) -> None:
    """Creates the folder, or refuses it before the run, and removes partial files of killed runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for partial in folder.glob(f"{_prefix()}*.partial"):
            writer = partial.name.removeprefix(_prefix()).split("-")[0]
            # Another machine whose name goes on behind this one's has no number here.
            if writer.isdecimal() and not psutil.pid_exists(int(writer)):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"model.cache_dir {folder}: nothing can be kept there: {error.strerror}") from error


def _prefix() -> str:
    return f".frozen-{platform.node()}-"


def frozen_sha256(net: TextClassifier) -> str:
    """Of the tensors that do not train, for weights that no file names."""
    digest = hashlib.sha256()
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
