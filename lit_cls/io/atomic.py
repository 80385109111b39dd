"""Files and folders that appear whole or not at all, and a lock for a folder."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_cls.errors import UserError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run's folder: one process at a time adds to a run. The lock goes with the process, however it ends.

    Args:
        folder: the run's.

    Raises:
        UserError: another process holds it.
    """
    try:
        import fcntl  # not on Windows

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder} belongs to a run that is still going on: stop that one first") from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


_held: set[int] = set()


def _let_go() -> None:
    # A data worker that outlives its run must not hold the folder.
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file in one step."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """Writes a file in one step: what is there is the old content or the new, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name for each writer: with one for all, the second to rename finds its file gone.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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
