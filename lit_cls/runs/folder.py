"""The folder of a run: `<root>/<name>/version_<n>/`, new for every run and never used again."""

import hashlib
import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lit_cls
from lit_cls.errors import UserError
from lit_cls.model.classifier import TextClassifier
from lit_cls.training.checkpoints import trained_tensors

_PACKAGES = ("torch", "lightning", "torchmetrics", "tiktoken", "numpy", "safetensors", "jsonargparse")


def new_run_folder(root: Path, name: str) -> Path:
    """Makes the next free `version_<n>`; two runs that start together get two folders.

    Raises:
        UserError: the folder cannot be written to.
    """
    parent = root / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = max((_number(folder) for folder in parent.glob("version_*")), default=-1) + 1
        while True:
            folder = parent / f"version_{number}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
                continue
            (folder / ".writable").touch()
            (folder / ".writable").unlink()
            return folder
    except OSError as error:
        raise UserError(
            f"the run cannot be saved below {parent}: {error.strerror}. "
            "Choose another folder with --trainer.default_root_dir"
        ) from error


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


def checkpoint_size(net: TextClassifier, frozen_are_named: bool) -> int:
    """Bytes of one checkpoint: what it holds of the network, and twice what trains, for AdamW's averages."""
    kept = trained_tensors(net) if frozen_are_named else {name for name, _ in net.named_parameters()}
    sizes = {name: 4 * p.numel() for name, p in net.named_parameters()}
    return sum(sizes[name] for name in kept) + sum(2 * sizes[n] for n, p in net.named_parameters() if p.requires_grad)


def check_disk(folder: Path, net: TextClassifier, frozen_are_named: bool, copies: int) -> None:
    """Refuses to start what could not be saved.

    Args:
        folder: where runs land; it may not be there yet.
        net: the network, with or without memory.
        frozen_are_named: whether the checkpoint leaves out what did not train.
        copies: files that exist at once, one being written among them.

    Raises:
        UserError: not enough room; the message has the numbers.
    """
    one = checkpoint_size(net, frozen_are_named)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if one * copies > free:
        raise UserError(
            f"a checkpoint of this run takes {one / 1e9:.2f} GB, {copies} copies exist at once, and {folder} has "
            f"{free / 1e9:.2f} GB left: make room, or choose another folder with --trainer.default_root_dir"
        )


def provenance(
    command: list[str], data: dict[str, Any], weights: str, weights_sha256: str | None, config: Path, device: str
) -> dict[str, Any]:
    """Where a run's figures come from.

    Args:
        command: as typed.
        data: the summary of the data, its hashes among it.
        weights: the choice `model.weights`.
        weights_sha256: of that file, None for random weights.
        config: the file with the complete configuration.
        device: what it ran on.
    """
    return {
        "command": command,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "data_sha256": data["sha256"],
        "split_sha256": {split["name"]: split["sha256"] for split in data["splits"]},
        "weights": weights,
        "weights_sha256": weights_sha256,
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest() if config.exists() else None,
        "versions": {"lit_cls": lit_cls.__version__, "python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "device": device,
        "machine": platform.platform(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _commit() -> str | None:
    """The commit of a checkout; None for an installed package."""
    folder = Path(lit_cls.__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return told.stdout.strip() or None


def _number(folder: Path) -> int:
    digits = folder.name.removeprefix("version_")
    return int(digits) if digits.isdecimal() else -1
