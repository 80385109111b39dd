"""provenance.json: the command, data, weights, versions and device that a run's figures come from."""

import hashlib
import json
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from lightning.pytorch import Trainer

import lit_cls
from lit_cls.data.datamodule import DataSummary
from lit_cls.io.atomic import write_json
from lit_cls.training.module import ClassifierModule

_PACKAGES = ("torch", "lightning", "torchmetrics", "tiktoken", "numpy", "safetensors", "jsonargparse")
NAME = "provenance.json"


def write_provenance(
    folder: Path, command: list[str], summary: DataSummary, module: ClassifierModule, trainer: Trainer
) -> None:
    """Writes the file of a run that begins, whose config.yaml is written and whose weights are loaded."""
    device = trainer.strategy.root_device
    name = device.type
    if name == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        name = torch.cuda.get_device_name(device)
    config = folder / "config.yaml"
    content = {
        "command": ["lit_cls", *command],
        "started": _now(),
        "data_sha256": summary.sha256,
        "split_sha256": {split.name: split.sha256 for split in summary.splits},
        "weights": module.settings.weights,
        "weights_sha256": module.weights_sha256,
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest() if config.exists() else None,
        "versions": {
            "lit_cls": lit_cls.__version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        "commit": _commit(),
        "device": f"{name} x {trainer.world_size}",
        "machine": platform.platform(),
    }
    write_json(folder / NAME, content)


def add_resumption(folder: Path, command: list[str], step: int) -> None:
    """Adds to the file of a run that it was resumed, by a command and from a step of the optimizer."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # written by an earlier version, and cut off with the power
        content = {}
    entry = {"command": ["lit_cls", *command], "started": _now(), "step": step}
    write_json(path, {**content, "resumed": [*content.get("resumed", []), entry]})


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """The commit of a checkout; None for an installed package."""
    folder = Path(lit_cls.__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        described = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return described.stdout.strip() or None
