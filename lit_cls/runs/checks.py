"""Checks before a run begins: batches, weights, room on the disk."""

import os
import shutil
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from lit_cls.data.datamodule import ClassificationData
from lit_cls.errors import UserError
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.weights import match_weights
from lit_cls.training.checkpoints import trained_tensors
from lit_cls.training.feature_files import check_folder
from lit_cls.training.module import ClassifierModule


def check_batches(trainer: Trainer, data: ClassificationData) -> None:
    """Refuses limits that Lightning would refuse where they apply: after the training, perhaps."""
    n_batches = {stage: len(getattr(data, f"{stage}_dataloader")()) for stage in ("train", "val", "test", "predict")}
    for stage, n in n_batches.items():
        limit = getattr(trainer, f"limit_{stage}_batches")
        if isinstance(limit, float) and limit > 0 and int(limit * n) < 1:
            raise UserError(
                f"trainer.limit_{stage}_batches {limit:g} of {n} {'batch' if n == 1 else 'batches'} is less than one: "
                "give a larger share, or a whole number of batches"
            )
    interval, n = trainer.val_check_interval, n_batches["train"]
    if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > n:
        raise UserError(
            f"trainer.val_check_interval {interval} is more than the {n} batches of an epoch: give fewer, "
            "or --trainer.check_val_every_n_epoch null to count over epochs"
        )


def check_weights_and_disk(module: ClassifierModule, n_labels: int, root: Path, copies: int) -> None:
    """Refuses weights that do not fit the network, and a run whose checkpoints do not fit below `root`."""
    with torch.device("meta"):
        net = module.settings.build(n_labels)
    weights = module.settings.weights_path()
    if weights is not None:
        match_weights(net, weights)
    if copies:
        check_disk(root, net, frozen_are_named=weights is not None, copies=copies)
    if module.options.cache_dir is not None:
        check_folder(Path(os.path.expanduser(module.options.cache_dir)))


def checkpoint_size(net: TextClassifier, frozen_are_named: bool) -> int:
    """Bytes of one checkpoint: its tensors of the network, and AdamW's two averages of what trains."""
    sizes = {name: 4 * p.numel() for name, p in net.named_parameters()}
    kept = trained_tensors(net) if frozen_are_named else sizes
    return sum(sizes[name] for name in kept) + sum(2 * sizes[n] for n, p in net.named_parameters() if p.requires_grad)


def check_disk(folder: Path, net: TextClassifier, frozen_are_named: bool, copies: int) -> None:
    """Refuses a run that could not be saved; `copies` are the files at once, the one being written among them.

    `folder`, of all runs, need not exist yet; the checkpoint leaves out what did not train if `frozen_are_named`.
    """
    one = checkpoint_size(net, frozen_are_named)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if one * copies > free:
        raise UserError(
            f"a checkpoint of this run takes {one / 1e9:.2f} GB, {copies} copies exist at once, and {folder} has "
            f"{free / 1e9:.2f} GB left: make room, or choose another folder with --trainer.default_root_dir"
        )
