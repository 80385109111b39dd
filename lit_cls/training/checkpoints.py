"""Contents of checkpoints: reading, checking, and the entries beside Lightning's.

The entry `lit_cls` describes the network and its labels. Frozen tensors are named by the sha256 of the file they
came from; without a file, the checkpoint holds them too. A checkpoint that a training can resume from also has an
entry `lit_cls_run`: its place, random states and options (see `Saver`).
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

import lit_cls
from lit_cls.errors import UserError
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.decision import Decision
from lit_cls.model.settings import ModelSettings
from lit_cls.model.weight_files import read_pickle
from lit_cls.training.checkpoint_content import problem_of
from lit_cls.training.checkpoint_formats import FORMAT, upgrade

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
"""A run's checkpoints: its last state, the one before that, and that of the lowest validation loss."""
KEY = "lit_cls"
RUN_KEY = "lit_cls_run"
DATA_KEY = "ClassificationData"
"""Where Lightning puts what the LightningDataModule of that name keeps."""
DECISION_KEY = "lit_cls_decision"
"""What `lit_cls tune` adds: see `lit_cls.model.decision.Decision`."""
_BLOCK = 1 << 22  # bytes that are read at a time
_ENTRIES = {"model", "label_names", "weights_sha256", "precision"}
_DATA_ENTRIES = {"settings", "label_names", "cut_to", "pad_to", "split_sha256"}


def is_intact(path: Path) -> bool:
    """Whether every record of a file has the checksum that was written with it; torch reads past a wrong one."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & ~0x808 for record in records):
                return archive.testzip() is None  # not as torch.save packs
    except zipfile.BadZipFile:
        return False
    # `testzip` reads in one thread, and copies three times: 2.5 s for the 1.4 GB of GPT-2 small with its optimizer.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        return all(threads.map(partial(_is_as_written, path), records))


def _is_as_written(path: Path, record: zipfile.ZipInfo) -> bool:
    """Whether a record that is not compressed stands where the archive's directory says, and has its checksum."""
    with path.open("rb", buffering=0) as stream:
        stream.seek(record.header_offset)
        header = stream.read(30)  # section 4.3.7 of PKWARE's APPNOTE
        if len(header) < 30 or header[:4] != b"PK\3\4" or record.compress_size != record.file_size:
            return False
        name, extra = struct.unpack("<HH", header[26:])
        if stream.read(name) != record.orig_filename.encode("utf-8"):
            return False
        stream.seek(extra, os.SEEK_CUR)
        block, left, checksum = memoryview(bytearray(min(_BLOCK, record.file_size))), record.file_size, 0
        while left and (n := stream.readinto(block[:left])):
            checksum, left = zlib.crc32(block[:n], checksum), left - n
    return left == 0 and checksum == record.CRC


@lru_cache(maxsize=32)
def _was_intact(path: Path, changed_ns: int, size: int) -> bool:
    # Asked for several times in a run.
    return is_intact(path)


def has_loss(path: Path, loss: float | None) -> bool:
    """Whether a file is an intact checkpoint with this lowest validation loss."""
    try:
        return path.exists() and loss is not None and read_checkpoint(path).get(RUN_KEY, {}).get("best_loss") == loss
    except UserError:
        return False


def newest_checkpoint(folder: Path, log: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """A run's newest intact checkpoint and its content; `log` prints a line about each damaged one.

    Raises:
        UserError: there are checkpoints, and none is intact.
    """
    found = [folder / name for name in (LAST, PREVIOUS, BEST) if os.path.exists(folder / name)]
    for path in found:
        try:
            return path, read_checkpoint(path)
        except UserError as error:
            if path == found[-1]:
                raise
            log(f"note: {error}; the one before it is used")
    return None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, its tensors memory-mapped, once its checksums have been compared.

    Raises:
        UserError: no such file, damaged, or not a checkpoint of ours.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no checkpoint {path}: check --ckpt_path (best, last, or the path of a .ckpt file)")
    try:
        checkpoint = read_pickle(Path(path))
        about = Path(path).stat()
        if not _was_intact(Path(path).resolve(), about.st_mtime_ns, about.st_size):
            raise OSError("a checksum is wrong")
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in the reader's own ways, from EOFError to RuntimeError
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(f"the checkpoint {path} cannot be read (truncated, damaged, or not one): {reason}") from error
    if not isinstance(checkpoint, dict) or not {KEY, DATA_KEY, "state_dict"} <= set(checkpoint):
        raise UserError(
            f"{path} is not a checkpoint written by lit_cls fit. GPT-2 weights to start from belong to --model.weights"
        )
    upgrade(checkpoint)
    if problem := problem_of(checkpoint):
        raise UserError(f"the checkpoint {path} is damaged: {problem}")
    described, known = checkpoint[KEY], {field.name for field in fields(ModelSettings)}
    complete = described.keys() >= _ENTRIES and checkpoint[DATA_KEY].keys() >= _DATA_ENTRIES
    if not complete or described["model"].keys() != known or described.get("format") != FORMAT:
        written = described.get("version", "unknown")
        raise UserError(
            f"{path} was written by another lit_cls ({written}), which this one ({lit_cls.__version__}) cannot read"
        )
    return checkpoint


def decision_of(checkpoint: dict[str, Any]) -> Decision:
    """The decision rule of a checkpoint: as tuned, else the most probable label."""
    return Decision(**checkpoint.get(DECISION_KEY, {}))


def without_training(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The entries of a checkpoint that prediction needs: no optimizer, no place in a training."""
    lightnings = ("epoch", "global_step", "pytorch-lightning_version", "loops")
    names = (KEY, DATA_KEY, DECISION_KEY, "state_dict", *lightnings)
    return {name: checkpoint[name] for name in names if name in checkpoint}


def describe_network(
    settings: ModelSettings, label_names: tuple[str, ...], weights_sha256: str | None, precision: str = "32-true"
) -> dict[str, Any]:
    """The entry `lit_cls` of a checkpoint; `weights_sha256` is None where no file has the frozen tensors."""
    return {
        "version": lit_cls.__version__,
        "format": FORMAT,
        "model": settings.as_dict(),
        "label_names": list(label_names),
        "weights_sha256": weights_sha256,
        "precision": precision,
    }


def trained_tensors(net: TextClassifier) -> set[str]:
    """Names of the tensors that a checkpoint must hold even when the frozen ones are named."""
    return {name for name, p in net.named_parameters() if p.requires_grad or not name.startswith("backbone.")}


def check_same_network(checkpoint: dict[str, Any], settings: ModelSettings, label_names: tuple[str, ...] = ()) -> None:
    """Checks that a checkpoint belongs to a network, and to the labels of the data where there are some.

    Raises:
        UserError: the differences, with both values.
    """
    described = checkpoint[KEY]
    theirs = described["model"]
    ours = settings.as_dict()
    different = [
        f"model.{name} is {ours[name]}, the checkpoint's is {theirs[name]}"
        for name in ("size", "token_position", "trainable_layers", "causal", "adapter")
        if ours[name] != theirs[name]
    ]
    if label_names and list(label_names) != described["label_names"]:
        different.append(
            f"the data's labels are {', '.join(label_names)}, the checkpoint's {', '.join(described['label_names'])}"
        )
    if (settings.weights == "random") != (described["weights_sha256"] is None):
        different.append(f"model.weights is {settings.weights}, the checkpoint's is {theirs['weights']}")
    if different:
        raise UserError(
            "the checkpoint belongs to another network:\n  "
            + "\n  ".join(different)
            + "\nLeave these options out (the checkpoint brings its own), or train anew without --ckpt_path"
        )


def check_same_weights(checkpoint: dict[str, Any], weights_sha256: str | None) -> None:
    """Checks that the weights file is the one that the checkpoint was trained on; None is no file.

    Raises:
        UserError: another file.
    """
    theirs = checkpoint[KEY]["weights_sha256"]
    if weights_sha256 != theirs:
        raise UserError(
            f"the weights file has the sha256 {weights_sha256}, the checkpoint was trained on {theirs}: "
            "give that file with --model.weights"
        )


def checked_state(net: TextClassifier, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The checkpoint's tensors by their names in the network.

    Raises:
        UserError: it holds neither all tensors nor all trained ones, or others beside.
    """
    state: dict[str, Tensor] = {name.removeprefix("net."): t for name, t in checkpoint["state_dict"].items()}
    shapes = {name: p.shape for name, p in net.named_parameters()}
    needed = trained_tensors(net) if checkpoint[KEY]["weights_sha256"] else set(shapes)
    missing, unexpected = sorted(needed - set(state)), sorted(set(state) - set(shapes))
    misshapen = [name for name in sorted(set(state) & set(shapes)) if state[name].shape != shapes[name]]
    if misshapen:
        raise UserError(f"the checkpoint is not whole: {len(misshapen)} tensors of another shape {misshapen[:3]}")
    if missing or unexpected:
        raise UserError(
            f"the checkpoint is not whole: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}"
        )
    return state
