"""When the frozen trunk is computed: before the first use of each split, in a training and after it."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from lit_cls.data.batches import Batch, TextDataset
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.io.progress import Progress
from lit_cls.model.classifier import GPTClassifier
from lit_cls.training.feature_cache import (
    FrozenStates,
    also_in,
    compute,
    count_kept,
    kept_positions,
    starts_of,
    why_not,
)
from lit_cls.training.feature_files import (
    GB,
    StatesKey,
    check_folder,
    check_room,
    find,
    frozen_sha256,
    new_file,
    publish,
    states_key,
)
from lit_cls.training.module import ClassifierModule


class FrozenTrunk(Callback):
    """Gives the module the frozen trunk's outputs of each split, the first time it is used.

    Every process of several computes and holds all of them.

    Args:
        log: prints a line.
        scratch: where a file is mapped when outputs are too large for memory; nothing is left there.
    """

    def __init__(self, log: Callable[[str], None], scratch: Path) -> None:
        self.log_line = log  # a callback's `log` is set by Lightning
        self.scratch = scratch
        self.seconds: dict[SplitName, float] = {}
        """Of computing each split; of the run that did, where they were found."""
        self.found: set[SplitName] = set()
        """Splits whose outputs an earlier run had kept."""
        self._in_memory: dict[SplitName, int] = {}  # bytes
        self._given_up: set[SplitName] = set()  # for want of room
        self._active = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first step: the frozen weights are what they will stay."""
        module = _module(pl_module)
        module.frozen.clear()
        module.frozen_of = _data(trainer)
        self.seconds.clear()
        self.found.clear()
        self._in_memory.clear()
        self._given_up.clear()
        reason = self._why_not(trainer, module)
        self._active = reason is None
        if self._active:
            self._check_room(trainer, module)
            self._prepare(trainer, module, "train")
        elif _net(module).n_frozen_blocks or module.cache_dir is not None:
            self.log_line(f"note: the frozen layers are computed in every step: {reason}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first validation of a training, or the one after it."""
        if _is_whole(trainer.limit_val_batches):
            self._prepare(trainer, _module(pl_module), "validation")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the test after a training."""
        if _is_whole(trainer.limit_test_batches):
            self._prepare(trainer, _module(pl_module), "test")

    def _why_not(self, trainer: Trainer, module: ClassifierModule) -> str | None:
        if not module.fast:
            return "model.fast is false"
        if not module.is_whole:
            return f"trainer.strategy {type(trainer.strategy).__name__} keeps weights in parts"
        data = _data(trainer)
        n_batches = float("inf")
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            n_batches = trainer.max_epochs * trainer.num_training_batches
        if trainer.max_steps >= 0:
            n_batches = min(n_batches, trainer.max_steps * trainer.accumulate_grad_batches)
        if n_batches * data.options.batch_size * trainer.world_size < len(data.splits["train"].token_ids):
            return "fewer texts are trained on than the train split has"
        return why_not(_net(module), cast("TextDataset", data.whole_split("train").dataset))

    def _check_room(self, trainer: Trainer, module: ClassifierModule) -> None:
        """Before any is computed: the disk has room for the outputs of every split that will be.

        Raises:
            UserError: it has not.
        """
        splits: list[SplitName] = ["train"]
        splits += ["validation"] if _is_whole(trainer.limit_val_batches) else []
        splits += ["test"] if _is_whole(trainer.limit_test_batches) else []
        weights = "" if module.cache_dir is None else _weights(module)
        in_memory = on_disk = 0
        for split in splits:
            dataset = cast("TextDataset", _data(trainer).whole_split(split).dataset)
            size = _size(_net(module), dataset)
            if module.cache_dir is None and in_memory + size <= module.cache_gb * GB:
                in_memory += size
            elif module.cache_dir is None or self._find(trainer, module, dataset, weights) is None:
                on_disk += size
        if on_disk and module.cache_dir is None:
            self.scratch.mkdir(parents=True, exist_ok=True)
            check_room(self.scratch, on_disk)
        elif on_disk:
            check_folder(_folder(module))
            check_room(_folder(module), on_disk)

    def _prepare(self, trainer: Trainer, module: ClassifierModule, split: SplitName) -> None:
        if not self._active or split in module.frozen or split in self._given_up:
            return
        if trainer.datamodule is not module.frozen_of:  # type: ignore[attr-defined]
            return
        started = time.perf_counter()
        loader = _data(trainer).whole_split(split)
        try:
            if module.cache_dir is None:
                states, where = self._compute_unnamed(trainer, module, split, loader)
            else:
                states, where = self._find_or_compute(trainer, module, split, loader)
        except (UserError, OSError) as error:
            if split == "train":
                raise
            # Others have filled the disk since the start: no reason to lose the training.
            self._given_up.add(split)
            self.log_line(f"note: the frozen layers of the {split} split are computed in every step: {error}")
            return
        module.frozen[split] = states
        took = time.perf_counter() - started
        self.seconds.setdefault(split, took)
        size = states.values.numel() * states.values.element_size() / GB
        self.log_line(
            f"frozen layers, {split}: {len(states.counts):,} texts, {int(states.counts.sum()):,} positions, "
            f"{took:.1f} s, {size:.2f} GB {where}"
        )

    def _compute_unnamed(
        self, trainer: Trainer, module: ClassifierModule, split: SplitName, loader: DataLoader[Batch]
    ) -> tuple[FrozenStates, str]:
        net, dataset = _net(module), cast("TextDataset", loader.dataset)
        weight = net.pos_emb.weight
        counts = count_kept(kept_positions(net, dataset), dataset)
        n, width = int(counts.sum()), weight.shape[1]
        if self._takes(module, split, _size(net, dataset)):
            values, where = torch.empty(n, width, dtype=weight.dtype, device=weight.device), "in memory"
        else:
            self.scratch.mkdir(parents=True, exist_ok=True)
            path, values = new_file(self.scratch, n, width, weight.dtype)
            where = f"on disk (model.cache_gb is {module.cache_gb:g})"
            path.unlink()  # the file lives as long as it is mapped
        states = FrozenStates(values, starts_of(counts), counts)
        self._compute(trainer, net, split, loader, states)
        return states, where

    def _find_or_compute(
        self, trainer: Trainer, module: ClassifierModule, split: SplitName, loader: DataLoader[Batch]
    ) -> tuple[FrozenStates, str]:
        net, dataset, folder = _net(module), cast("TextDataset", loader.dataset), _folder(module)
        # Hashed now, not once a training: a checkpoint may have brought other random weights since.
        weights = _weights(module)
        found = self._find(trainer, module, dataset, weights)
        if found is not None:
            states, self.seconds[split] = found
            self.found.add(split)
            return self._place(states, module, split), f"found in {folder}"
        started = time.perf_counter()
        kept = kept_positions(net, dataset)
        counts = count_kept(kept, dataset)
        check_folder(folder)
        partial, values = new_file(folder, int(counts.sum()), net.config.emb_dim, net.pos_emb.weight.dtype)
        states = FrozenStates(values, starts_of(counts), counts)
        try:
            self._compute(trainer, net, split, loader, states)
            key = _key(trainer, net, dataset, weights)
            publish(partial, key.path(folder, kept), key, kept, time.perf_counter() - started)
        finally:
            partial.unlink(missing_ok=True)
        return self._place(states, module, split), f"in {folder}"

    def _find(
        self, trainer: Trainer, module: ClassifierModule, dataset: TextDataset, weights: str
    ) -> tuple[FrozenStates, float] | None:
        """What an earlier run has kept, and the seconds that computing it took."""
        net = _net(module)
        kept, key = kept_positions(net, dataset), _key(trainer, net, dataset, weights)
        for positions in (kept, *also_in(kept, net, dataset)):
            held = count_kept(positions, dataset)
            path = key.path(_folder(module), positions)
            found = find(path, int(held.sum()), net.config.emb_dim, net.pos_emb.weight.dtype)
            if found is not None:
                return FrozenStates(found[0], starts_of(held), count_kept(kept, dataset)), found[1]
        return None

    def _place(self, states: FrozenStates, module: ClassifierModule, split: SplitName) -> FrozenStates:
        """On a GPU, in its memory when the budget allows; a processor reads the mapped file."""
        device, values = _net(module).pos_emb.weight.device, states.values
        if device.type == "cpu" or not self._takes(module, split, values.numel() * values.element_size()):
            return states
        return replace(states, values=values.to(device))

    def _takes(self, module: ClassifierModule, split: SplitName, size: int) -> bool:
        """Whether the budget allows so many bytes in memory, beside those in use; they are counted then."""
        in_use = sum(self._in_memory.get(other, 0) for other in module.frozen)
        if in_use + size > module.cache_gb * GB:
            return False
        self._in_memory[split] = size
        return True

    def _compute(
        self, trainer: Trainer, net: GPTClassifier, split: SplitName, loader: DataLoader[Batch], states: FrozenStates
    ) -> None:
        progress = Progress(log=self.log_line, bar=False)  # a run's console is not standard error
        with trainer.precision_plugin.forward_context():
            for done in compute(net, loader, states):
                progress.report(f"frozen layers, {split}", done, len(states.counts))
        if net.pos_emb.weight.is_cuda:
            torch.cuda.synchronize()  # for the clock


def _is_whole(limit: float) -> bool:
    """Whether all batches are evaluated: 1.0 is all of them, 1 is one."""
    return isinstance(limit, float) and limit == 1.0


def _size(net: GPTClassifier, dataset: TextDataset) -> int:
    """Bytes of the outputs for a split."""
    n_positions = int(count_kept(kept_positions(net, dataset), dataset).sum())
    return n_positions * net.config.emb_dim * net.pos_emb.weight.dtype.itemsize


def _weights(module: ClassifierModule) -> str:
    """sha256 of what is frozen."""
    return module.weights_sha256 or frozen_sha256(_net(module))


def _key(trainer: Trainer, net: GPTClassifier, dataset: TextDataset, weights: str) -> StatesKey:
    return states_key(net, dataset.token_ids, dataset.pad_to, weights, str(trainer.precision))


def _folder(module: ClassifierModule) -> Path:
    assert module.cache_dir is not None, "asked for where it is given"
    return Path(os.path.expanduser(module.cache_dir))


def _module(pl_module: LightningModule) -> ClassifierModule:
    return cast("ClassifierModule", pl_module)


def _net(module: ClassifierModule) -> GPTClassifier:
    assert module.net is not None, "configure_model has run"
    return module.net


def _data(trainer: Trainer) -> ClassificationData:
    return cast("ClassificationData", trainer.datamodule)  # type: ignore[attr-defined]
