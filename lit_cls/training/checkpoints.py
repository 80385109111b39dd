"""What a checkpoint holds, how it is written and read.

A checkpoint is Lightning's, plus an entry `lit_cls` that says which network it is and which labels
it knows. Tensors that did not train are named by the sha256 of the file they came from; where they
came from no file, the checkpoint holds them too.
"""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

import lit_cls
from lit_cls.errors import UserError
from lit_cls.model.classifier import GPTClassifier, ModelSettings

KEY = "lit_cls"
DATA_KEY = "ClassificationData"
"""Where Lightning puts what the LightningDataModule of that name keeps."""
_ENTRIES = {"model", "label_names", "weights_sha256", "precision", "optimizer"}
_DATA_ENTRIES = {"settings", "label_names", "cut_to", "pad_to", "split_sha256"}


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, flushes to disk, then renames.

    Lightning's own goes through memory and the temporary folder, which may be another, smaller file
    system (Lightning-AI/pytorch-lightning#19970).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves; the target is the old file or the new one, never half of it."""
        target = Path(path)
        partial = target.with_name(f"{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Loads tensors and plain values; nothing else is ever unpickled."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes a checkpoint of this run that a newer one replaces."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, its tensors memory-mapped.

    Raises:
        UserError: no such file, damaged, or not a checkpoint of ours.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint {path}: check --ckpt_path (best, last, or the path of a .ckpt file)")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file fails in the reader's own ways, from EOFError to RuntimeError
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(f"the checkpoint {path} cannot be read (truncated, damaged, or not one): {reason}") from error
    if not isinstance(checkpoint, dict) or not {KEY, DATA_KEY, "state_dict"} <= set(checkpoint):
        raise UserError(
            f"{path} is not a checkpoint written by lit_cls fit. GPT-2 weights to start from belong to --model.weights"
        )
    described, known = checkpoint[KEY], {field.name for field in fields(ModelSettings)}
    complete = described.keys() >= _ENTRIES and checkpoint[DATA_KEY].keys() >= _DATA_ENTRIES
    if not complete or described["model"].keys() != known:
        written = described.get("version", "unknown")
        raise UserError(
            f"{path} was written by another lit_cls ({written}), which this one ({lit_cls.__version__}) cannot read"
        )
    return checkpoint


def describe_network(
    settings: ModelSettings,
    label_names: tuple[str, ...],
    weights_sha256: str | None,
    precision: str = "32-true",
    optimizer: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The entry `lit_cls` of a checkpoint.

    Args:
        settings: the choices that make the network.
        label_names: by class id.
        weights_sha256: of the file the frozen tensors came from, None without one.
        precision: what it was trained and tested in.
        optimizer: its options by name.
    """
    return {
        "version": lit_cls.__version__,
        "model": settings.as_dict(),
        "label_names": list(label_names),
        "weights_sha256": weights_sha256,
        "precision": precision,
        "optimizer": optimizer or {},
    }


def trained_tensors(net: GPTClassifier) -> set[str]:
    """Names of the tensors that a checkpoint must hold even when the frozen ones are named."""
    return {name for name, p in net.named_parameters() if p.requires_grad or name.startswith("out_head.")}


def check_same_network(checkpoint: dict[str, Any], settings: ModelSettings, label_names: tuple[str, ...] = ()) -> None:
    """A checkpoint fits only the network and the labels it was trained with.

    Args:
        checkpoint: as `read_checkpoint` returns it.
        settings: of the network that is to take its tensors.
        label_names: of the data at hand; empty when there is none.

    Raises:
        UserError: what differs, and both values.
    """
    described = checkpoint[KEY]
    theirs = described["model"]
    ours = settings.as_dict()
    different = [
        f"model.{name} is {ours[name]}, the checkpoint's is {theirs[name]}"
        for name in ("size", "token_position", "trainable_layers", "causal", "lora")
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
    """The frozen tensors must be those that the trained ones were trained with.

    Args:
        checkpoint: as `read_checkpoint` returns it.
        weights_sha256: of the weights file that was read; None without one.

    Raises:
        UserError: another file.
    """
    theirs = checkpoint[KEY]["weights_sha256"]
    if weights_sha256 != theirs:
        raise UserError(
            f"the weights file has the sha256 {weights_sha256}, the checkpoint was trained on {theirs}: "
            "give that file with --model.weights"
        )


def checked_state(net: GPTClassifier, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The checkpoint's tensors by their names in the network.

    Raises:
        UserError: it holds neither all tensors nor all trained ones, or others beside.
    """
    state: dict[str, Tensor] = {name.removeprefix("net."): t for name, t in checkpoint["state_dict"].items()}
    everything = {name for name, _ in net.named_parameters()}
    needed = trained_tensors(net) if checkpoint[KEY]["weights_sha256"] else everything
    missing, unexpected = sorted(needed - set(state)), sorted(set(state) - everything)
    if missing or unexpected:
        raise UserError(
            f"the checkpoint is not whole: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}"
        )
    return state
