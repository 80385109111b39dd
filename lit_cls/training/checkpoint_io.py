"""How a checkpoint is written: whole or not at all, whatever happens meanwhile."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO

from lit_cls.training.checkpoints import LAST, PREVIOUS, is_intact, read_checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, flushes to disk, verifies, then renames.

    Lightning's own goes through memory and the temporary folder, which may be another, smaller file
    system (Lightning-AI/pytorch-lightning#19970).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves; the target is the old file or the new one, never half of it.

        The last state before a new one is kept, as `previous.ckpt`.
        """

        def write(stream: BinaryIO) -> None:
            torch.save(checkpoint, stream)

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _replace(Path(path), write)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Loads tensors and plain values; nothing else is ever unpickled."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes a checkpoint of this run that a newer one replaces."""
        Path(path).unlink(missing_ok=True)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copies a checkpoint, in one step like any other that is written."""

    def write(stream: BinaryIO) -> None:
        with source.open("rb") as original:
            shutil.copyfileobj(original, stream, 1 << 22)

    _replace(target, write)


def _replace(target: Path, write: Callable[[BinaryIO], None]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    try:
        with partial.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if not is_intact(partial):
            raise OSError(f"{partial} does not hold what was written to it: the disk is damaged")
        if target.name == LAST and target.exists():
            # Killed between the two: the one before is found, and it is whole.
            os.replace(target, target.with_name(PREVIOUS))
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with suppress(OSError, AttributeError):  # not everywhere; without it a power cut may undo the renaming
        folder = os.open(target.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
