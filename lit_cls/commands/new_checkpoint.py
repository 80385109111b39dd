"""The checkpoint that a command writes beside the one it was given."""

import itertools
import os
from pathlib import Path
from typing import Any

from lit_cls.commands.parser import user_path
from lit_cls.errors import RunError, UserError
from lit_cls.io.atomic import check_output_file
from lit_cls.training.checkpoints import BEST, LAST, PREVIOUS


def new_checkpoint_path(out: str | None, source: Path, stem: str) -> Path:
    """The path of the new checkpoint: `--out`, or `<stem>.ckpt` (then `<stem>_1.ckpt`, …) beside the given one.

    A UserError if it exists already, cannot be written, or has a name that training overwrites.
    """
    if out is None:
        names = (f"{stem}_{n}.ckpt" if n else f"{stem}.ckpt" for n in itertools.count())
        target = next(path for path in map(source.with_name, names) if not os.path.lexists(path))
    else:
        target = user_path(out)
        if target.name in (BEST, LAST, PREVIOUS):
            raise UserError(f"--out {target}: {target.name} is what a training saves, give another name")
    check_output_file(target, "--out")
    return target


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint as a whole, or raises a RunError."""
    from lit_cls.training.checkpoint_io import AtomicCheckpointIO  # imports Lightning, which takes seconds

    try:
        AtomicCheckpointIO().save_checkpoint(content, path)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error}. Choose another place with --out") from error
