"""Writes checkpoints: whole or not at all, and verified."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO

from lit_cls.io.atomic import flush, whole_file
from lit_cls.training.checkpoints import LAST, PREVIOUS, is_intact, read_checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """Writes a new file, verifies it, then renames it.

    Lightning's own goes through memory and the temporary folder, which may be another, smaller file
    system (Lightning-AI/pytorch-lightning#19970).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves a checkpoint; the `last.ckpt` that it replaces is kept as `previous.ckpt`."""
        with _checkpoint(Path(path)) as stream:
            torch.save(checkpoint, stream)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Loads tensors and plain values; nothing else is unpickled."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes a checkpoint of this run that a newer one replaces."""
        Path(path).unlink(missing_ok=True)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copies a checkpoint, whole or not at all."""
    with _checkpoint(target) as stream, source.open("rb") as original:
        shutil.copyfileobj(original, stream, 1 << 22)


@contextmanager
def _checkpoint(target: Path) -> Iterator[BinaryIO]:
    with whole_file(target) as stream:
        yield stream
        flush(stream)
        if not is_intact(Path(stream.name)):
            raise OSError(f"{stream.name} does not hold what was written to it: the disk is damaged")
        if target.name == LAST and target.exists():
            # Killed between the two renames, the run finds the one before, and it is whole.
            os.replace(target, target.with_name(PREVIOUS))
