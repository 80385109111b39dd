"""A folder that is whole or not there: written under another name, renamed when all of it is checked."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_cls.errors import UserError


def check_new(out: Path) -> None:
    """Nothing is overwritten.

    Raises:
        UserError: there is something at `out` other than an empty folder.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"{out} exists already and is not an empty folder: choose another with --out")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes `out` when the block ends well and is deleted when not.

    Killed in between, it stays, under a name that ends in `.partial`.

    Raises:
        UserError: as `check_new`.
    """
    check_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, number = out.with_name(f"{out.name}.partial"), 0
    while True:
        try:
            partial.mkdir()
            break
        except FileExistsError:  # of an export that was killed: it may hold what somebody wants to look at
            number += 1
            partial = out.with_name(f"{out.name}.{number}.partial")
    try:
        yield partial
        _readable(partial)
        check_new(out)
        if out.exists():
            out.rmdir()
        os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _readable(folder: Path) -> None:
    """Gives every file the rights of any new one: some libraries write for their own user alone."""
    new = folder / ".new"
    new.touch()
    rights = new.stat().st_mode
    new.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(rights)
