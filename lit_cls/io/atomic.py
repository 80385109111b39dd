"""Files and folders that appear whole or not at all, and locks: the one place that writes, renames and refuses.

A file is written under a new name beside its own, flushed to disk, renamed, and the folder flushed: what is under the
name is the old content or the new, whoever else writes it and whenever the power goes.
"""

import csv
import io
import itertools
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lit_cls.errors import RunError, UserError


@contextmanager
def whole_file(path: Path, overwrite: bool = True) -> Iterator[BinaryIO]:
    """A stream whose content becomes `path` when the block ends, and is deleted when the block raises.

    A UserError refuses to replace a file that exists by then, unless `overwrite`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each writer: with one for all, the second to rename finds its file gone.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as stream:
            yield stream
            flush(stream)
        if not overwrite and os.path.lexists(path):
            raise UserError(f"{path} was created meanwhile, and nothing is overwritten: give another name")
        rename(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str, overwrite: bool = True) -> None:
    """Writes a UTF-8 file as a whole; see `whole_file`."""
    with whole_file(path, overwrite) as stream:
        stream.write(content.encode("utf-8"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file as a whole."""
    write_text(path, csv_text([columns, *rows]))


def csv_text(rows: Iterable[Sequence[object]], **form: Any) -> str:
    """CSV lines. Before Python 3.11 NUL is the escape character unless another is given: here one without a meaning."""
    stream = io.StringIO(newline="")
    csv.writer(stream, escapechar="\U0010ffff" if sys.version_info < (3, 11) else None, **form).writerows(rows)
    return stream.getvalue()


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Writes a JSON file as a whole."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def flush(stream: BinaryIO) -> None:
    """Waits until what was written is on the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def rename(partial: Path, path: Path) -> None:
    """Gives a flushed file its final name, durably."""
    os.replace(partial, path)
    with suppress(OSError, AttributeError):  # not everywhere; without it a power cut may undo the renaming
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_new_file(path: Path, option: str = "--out") -> None:
    """Refuses, before any work, a file that could not be written or would replace another, with a UserError."""
    if os.path.lexists(path):
        raise UserError(f"{option} {path} exists already, and nothing is overwritten: give another name")
    if not os.path.isdir(path.parent):
        raise UserError(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: the folder {path.parent} cannot be written to")


def check_new_folder(out: Path) -> None:
    """Refuses anything at `out` other than an empty folder, with a UserError."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"{out} exists already and is not an empty folder: choose another with --out")


def first_free_folder(candidates: Iterable[Path]) -> Path:
    """Creates the first of these folders that does not exist; two processes never get the same one."""
    for folder in candidates:
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise FileExistsError("every name is taken")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes `out` when the block ends and is deleted when the block raises.

    If the process is killed in between, it stays, under a name that ends in `.partial`.
    """
    check_new_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # One that exists is of an export that was killed: somebody may want to look at it.
    numbers = itertools.chain([""], (f".{n}" for n in itertools.count(1)))
    partial = first_free_folder(out.with_name(f"{out.name}{number}.partial") for number in numbers)
    try:
        yield partial
        # Gives every file the rights of any new one: some libraries write for their own user alone.
        new = partial / ".new"
        new.touch()
        for path in filter(Path.is_file, partial.rglob("*")):
            shutil.copymode(new, path)
        new.unlink()
        check_new_folder(out)
        if out.exists():
            out.rmdir()
        os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_output_file(path: Path, option: str) -> None:
    """Refuses, before any work, a file that `output_file` could not write: its name is too long, say."""
    check_new_file(path, option)
    partial = _partial(path)
    left = os.path.lexists(partial)
    try:
        with _locked_file(partial, option):
            if not left:
                partial.unlink()
    except OSError as error:
        written = f"{option} {path} is written as {partial.name} first, which cannot be created: {error.strerror}"
        raise UserError(f"{written}. Give another name") from error


@contextmanager
def output_file(path: Path, option: str, log: Callable[[str], None]) -> Iterator[BinaryIO]:
    """A new file that takes long to write: `<name>.partial` until it is whole, and kept if the command is stopped.

    `option` names it in messages; `log` prints a line about what an earlier attempt has left. A UserError if another
    process is writing it, a RunError if it cannot be written.
    """
    partial = _partial(path)
    try:
        with _locked_file(partial, option) as stream:
            if stream.tell():
                log(f"note: {partial}, of an attempt that was stopped, is overwritten")
                stream.truncate(0)
            yield stream
            flush(stream)
            if path.exists():
                raise RunError(f"{path} was created meanwhile, and nothing is overwritten: all is in {partial}")
            rename(partial, path)
    except BrokenPipeError:
        raise
    except OSError as error:
        kept = f"; what was written is in {partial}" if os.path.isfile(partial) else ""
        raise RunError(f"{path} cannot be written: {error.strerror}{kept}") from error


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


@contextmanager
def _locked_file(partial: Path, option: str) -> Iterator[BinaryIO]:
    """A file to append to; of two processes that write the same one, the second is refused."""
    with partial.open("ab") as stream:
        _lock(stream.fileno(), f"another process is writing {partial}: give another name with {option}")
        if not partial.exists() or not os.path.samestat(os.fstat(stream.fileno()), partial.stat()):
            raise UserError(f"another process has just written {partial}: give another name with {option}")
        yield stream


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Locks a folder, at most until this process ends; a UserError if another has it, unless this is to `wait`."""
    with ExitStack() as held:
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=held.close)  # a worker that outlives its run must not hold the folder
        with suppress(OSError):  # Windows opens no folders
            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            _lock(handle, f"{folder} belongs to a run that is still running: stop that one first", wait)
        yield


def _lock(handle: int, refusal: str, wait: bool = False) -> None:
    """Locks an open file, or raises a UserError if another process holds it and this one is not to `wait`."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise UserError(refusal) from error
    except (ImportError, OSError):  # Windows, where an open file cannot be renamed anyway; a disk without locks
        return
