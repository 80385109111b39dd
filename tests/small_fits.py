"""Parts of a fit of gpt2-nano for tests, put together without the command line."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.data.datamodule import ClassificationData
from lit_cls.model.adapters import LoRA
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.module import ClassifierModule
from lit_cls.training.trainer import ClassifierTrainer


def pad_rows(rows: list[list[int]], T: int, pad: int = 96) -> tuple[Tensor, Tensor]:
    """Token ids right-padded to T, and their lengths; the pad id is also an ordinary token of the tiny vocabulary."""
    ids = torch.tensor([row + [pad] * (T - len(row)) for row in rows])
    return ids, torch.tensor([len(row) for row in rows])


def data(reviews: str, **options: object) -> ClassificationData:
    return ClassificationData(path=reviews, balance="none", **options)  # type: ignore[arg-type]


def training(layers: object, **lora: Any) -> dict[str, Any]:
    """The options of a network that train these layers; `"lora"` stands for adapters beside the head."""
    return {"adapter": LoRA(**lora)} if layers == "lora" else {"trainable_layers": layers}


def module(**options: object) -> ClassifierModule:
    """A module of gpt2-nano that trains all layers; of `trainable_layers`, `"lora"` is as for `training`."""
    layers = options.pop("trainable_layers", None if "adapter" in options else "all")
    chosen = {"size": "gpt2-nano", "weights": "random", "learning_rate": 1e-3, **training(layers), **options}
    return ClassifierModule(**chosen)


def trainer(tmp_path: Path, **options: object) -> ClassifierTrainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    chosen = {"accelerator": "cpu", "precision": "32-true", "max_epochs": 1, "enable_checkpointing": False}
    chosen["plugins"] = [AtomicCheckpointIO()]
    return ClassifierTrainer(**{**quiet, **chosen, "default_root_dir": tmp_path, **options})  # type: ignore[arg-type]


def save(tmp_path: Path, trained: ClassifierModule, texts: ClassificationData, **options: object) -> Path:
    runner = trainer(tmp_path, **options)
    runner.fit(trained, datamodule=texts)
    runner.save_checkpoint(tmp_path / "some.ckpt")
    return tmp_path / "some.ckpt"
