"""The folder of a run: `<root>/<name>/version_<n>/`, new for every run and never reused."""

import itertools
import os
from pathlib import Path

from lit_cls.errors import UserError
from lit_cls.io.atomic import first_free_folder, write_text


def new_run_folder(root: Path, name: str) -> Path:
    """Creates the next free `version_<n>`; a UserError says why it cannot be written to."""
    parent = root / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        next_number = max((_number(folder) for folder in parent.glob("version_*")), default=-1) + 1
        folder = first_free_folder(parent / f"version_{n}" for n in itertools.count(next_number))
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise UserError(
            f"the run cannot be saved below {parent}: {error.strerror}. "
            "Choose another folder with --trainer.default_root_dir"
        ) from error
    return folder


def write_config(folder: Path, config: str) -> str | None:
    """Writes config.yaml; one that differs is kept as `config_<n>.yaml`, whose name is returned."""
    path, kept = folder / "config.yaml", None
    if path.exists():
        if (before := path.read_text(encoding="utf-8")) == config:
            return None
        kept = next(name for n in itertools.count() if not (folder / (name := f"config_{n}.yaml")).exists())
        write_text(folder / kept, before)
    write_text(path, config)
    return kept


def find_checkpoint(root: Path, name: str, which: str) -> Path | None:
    """`<which>.ckpt` of the newest run of that name that has one."""
    found = [folder / f"{which}.ckpt" for folder in version_folders(root / name)]
    return next((path for path in reversed(found) if os.path.exists(path)), None)


def version_folders(runs: Path) -> list[Path]:
    """The folders of all runs of one name, oldest first."""
    try:
        return sorted(runs.glob("version_*"), key=_number)
    except OSError:  # a folder that may not be read, or too long a name
        return []


def _number(folder: Path) -> int:
    digits = folder.name.removeprefix("version_")
    return int(digits) if digits.isdecimal() else -1
