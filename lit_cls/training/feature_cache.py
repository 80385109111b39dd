"""The frozen layers' outputs, computed once for every text and used in every epoch.

Below the first layer that trains, nothing changes from step to step. The output of that part is kept for every
text, at the positions that the logits depend on, and each step starts from it: in float32 the same numbers but
for rounding.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lit_cls.data.batches import Batch, TextDataset
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.io.progress import Progress
from lit_cls.model.classifier import TextClassifier
from lit_cls.training import feature_files
from lit_cls.training.features import Features, also_in, compute, count_kept, kept_positions, starts_of, why_not
from lit_cls.training.settings import TrainingSettings

if TYPE_CHECKING:
    from lit_cls.training.module import ClassifierModule


@dataclass(frozen=True)
class _Training:
    """A training that the cache works for."""

    trainer: Trainer
    module: "ClassifierModule"
    data: ClassificationData
    log: Callable[[str], None]
    scratch: Path

    @property
    def net(self) -> TextClassifier:
        assert self.module.net is not None, "configure_model has run"
        return self.module.net

    def dataset(self, split: SplitName) -> TextDataset:
        return cast("TextDataset", self.data.whole_split(split).dataset)

    def weights(self) -> str:
        """sha256 of the frozen tensors' file, or of themselves; a checkpoint may have brought others since."""
        return self.module.weights_sha256 or feature_files.frozen_sha256(self.net)

    def key(self, dataset: TextDataset, weights: str) -> feature_files.FeatureKey:
        precision = str(self.trainer.precision)
        return feature_files.feature_key(self.net, dataset.token_ids, dataset.pad_to, weights, precision)


class FeatureCache:
    """The frozen layers' outputs of each split, for one module; every process of several holds all of them.

    Args:
        options: `fast`, `cache_gb` and `cache_dir` of the module.
    """

    def __init__(self, options: TrainingSettings) -> None:
        self._options = options
        self.folder = None if options.cache_dir is None else Path(os.path.expanduser(options.cache_dir))
        self._reset()

    def _reset(self) -> None:
        self.splits: dict[SplitName, Features] = {}
        """The outputs by split."""
        self.seconds: dict[SplitName, float] = {}
        """Time to compute each split; where a file was found, the time of the run that wrote it."""
        self.found: set[SplitName] = set()
        """Splits whose outputs an earlier run had kept."""
        self._in_memory: dict[SplitName, int] = {}  # bytes
        self._given_up: set[SplitName] = set()  # for want of room
        self._training: _Training | None = None

    def start(self, trainer: Trainer, module: "ClassifierModule", log: Callable[[str], None], scratch: Path) -> None:
        """Begins anew for a training whose weights are in place, and prepares the train split.

        In the folder `scratch` a file is mapped when outputs are too large for memory; nothing is left there.

        Raises:
            UserError: the disk has no room for the outputs.
        """
        self._reset()
        training = _Training(trainer, module, trainer.datamodule, log, scratch)  # type: ignore[attr-defined]
        reason = self._why_not(training)
        if reason is None:
            self._training = training
            self._check_room(training)
            self.prepare("train")
        elif training.net.first_trained_block or self.folder is not None:
            log(f"note: the frozen layers are computed in every step: {reason}")

    def get(self, split: SplitName, data: object) -> Features | None:
        """The outputs for a split of this data module, where they are known."""
        return self.splits.get(split) if self._training is not None and data is self._training.data else None

    def forget_other_weights(self, net: TextClassifier, state: dict[str, Tensor]) -> None:
        """Drops everything where a checkpoint's frozen tensors are not those of the network."""
        frozen = ((name, p) for name, p in net.named_parameters() if not p.requires_grad)
        if self.splits and not all(torch.equal(p.detach().cpu(), state[name].to(p.dtype)) for name, p in frozen):
            self.splits.clear()

    def prepare(self, split: SplitName) -> None:
        """Computes or finds the outputs for a split, once.

        Raises:
            UserError, OSError: the train split cannot be kept; others are computed in every step then.
        """
        training = self._training
        if training is None or split in self.splits or split in self._given_up:
            return
        if training.trainer.datamodule is not training.data:  # type: ignore[attr-defined]
            return
        started = time.perf_counter()
        loader = training.data.whole_split(split)
        try:
            keep = self._keep_unnamed if self.folder is None else self._find_or_keep
            features, where = keep(training, split, loader)
        except (UserError, OSError) as error:
            if split == "train":
                raise
            # Others have filled the disk since the start: no reason to lose the training.
            self._given_up.add(split)
            training.log(f"note: the frozen layers of the {split} split are computed in every step: {error}")
            return
        self.splits[split] = features
        took = time.perf_counter() - started
        self.seconds.setdefault(split, took)
        size = features.values.numel() * features.values.element_size() / feature_files.GB
        training.log(
            f"frozen layers, {split}: {len(features.counts):,} texts, {int(features.counts.sum()):,} positions, "
            f"{took:.1f} s, {size:.2f} GB {where}"
        )

    def _why_not(self, training: _Training) -> str | None:
        trainer, data = training.trainer, training.data
        if not self._options.fast:
            return "model.fast is false"
        if not training.module.is_whole:
            return f"trainer.strategy {type(trainer.strategy).__name__} keeps weights in parts"
        n_batches = float("inf")
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            n_batches = trainer.max_epochs * trainer.num_training_batches
        if trainer.max_steps >= 0:
            n_batches = min(n_batches, trainer.max_steps * trainer.accumulate_grad_batches)
        if n_batches * data.options.batch_size * trainer.world_size < len(data.splits["train"].token_ids):
            return "fewer texts are trained on than the train split has"
        return why_not(training.net, training.dataset("train"))

    def _check_room(self, training: _Training) -> None:
        """Before any is computed: refuses outputs of all splits together for which the disk has no room."""
        splits: list[SplitName] = ["train"]
        splits += ["validation"] if is_whole(training.trainer.limit_val_batches) else []
        splits += ["test"] if is_whole(training.trainer.limit_test_batches) else []
        weights = "" if self.folder is None else training.weights()
        in_memory = on_disk = 0
        for split in splits:
            dataset = training.dataset(split)
            size = _size(training.net, dataset)
            if self.folder is None and in_memory + size <= self._options.cache_gb * feature_files.GB:
                in_memory += size
            elif self.folder is None or self._find(training, dataset, weights) is None:
                on_disk += size
        if not on_disk:
            return
        if self.folder is None:
            training.scratch.mkdir(parents=True, exist_ok=True)
        else:
            feature_files.check_folder(self.folder)
        feature_files.check_room(self.folder or training.scratch, on_disk)

    def _keep_unnamed(self, training: _Training, split: SplitName, loader: DataLoader[Batch]) -> tuple[Features, str]:
        """In memory, or in a mapped file that ends with the process."""
        net, dataset = training.net, cast("TextDataset", loader.dataset)
        weight = net.embeddings.weight
        counts = count_kept(kept_positions(net, dataset), dataset)
        n, width = int(counts.sum()), weight.shape[1]
        if self._takes(split, _size(net, dataset)):
            values, where = torch.empty(n, width, dtype=weight.dtype, device=weight.device), "in memory"
        else:
            training.scratch.mkdir(parents=True, exist_ok=True)
            path, values = feature_files.new_file(training.scratch, n, width, weight.dtype)
            where = f"on disk (model.cache_gb is {self._options.cache_gb:g})"
            path.unlink()  # the file lives as long as it is mapped
        features = Features(values, starts_of(counts), counts)
        _compute_all(training, split, loader, features)
        return features, where

    def _find_or_keep(self, training: _Training, split: SplitName, loader: DataLoader[Batch]) -> tuple[Features, str]:
        """In a file that later runs find."""
        assert self.folder is not None, "asked for where it is given"
        net, dataset = training.net, cast("TextDataset", loader.dataset)
        weights = training.weights()  # hashed now, not once a training
        if (found := self._find(training, dataset, weights)) is not None:
            features, self.seconds[split] = found
            self.found.add(split)
            return self._place(training, features, split), f"found in {self.folder}"
        started = time.perf_counter()
        kept = kept_positions(net, dataset)
        counts = count_kept(kept, dataset)
        feature_files.check_folder(self.folder)
        weight = net.embeddings.weight
        partial, values = feature_files.new_file(self.folder, int(counts.sum()), weight.shape[1], weight.dtype)
        features = Features(values, starts_of(counts), counts)
        try:
            _compute_all(training, split, loader, features)
            key = training.key(dataset, weights)
            feature_files.publish(partial, key.path(self.folder, kept), key, kept, time.perf_counter() - started)
        finally:
            partial.unlink(missing_ok=True)
        return self._place(training, features, split), f"in {self.folder}"

    def _find(self, training: _Training, dataset: TextDataset, weights: str) -> tuple[Features, float] | None:
        """The outputs of an earlier run, and the seconds that it took to compute them."""
        assert self.folder is not None, "asked for where it is given"
        net, weight = training.net, training.net.embeddings.weight
        kept, key = kept_positions(net, dataset), training.key(dataset, weights)
        for positions in (kept, *also_in(kept, net, dataset)):
            held = count_kept(positions, dataset)
            path = key.path(self.folder, positions)
            if (found := feature_files.find(path, int(held.sum()), weight.shape[1], weight.dtype)) is not None:
                return Features(found[0], starts_of(held), count_kept(kept, dataset)), found[1]
        return None

    def _place(self, training: _Training, features: Features, split: SplitName) -> Features:
        """On a GPU, in its memory when the budget allows; a CPU reads the mapped file."""
        device, values = training.net.embeddings.weight.device, features.values
        if device.type == "cpu" or not self._takes(split, values.numel() * values.element_size()):
            return features
        return replace(features, values=values.to(device))

    def _takes(self, split: SplitName, size: int) -> bool:
        """Whether the budget allows so many bytes in memory, beside those in use; they are counted then."""
        in_use = sum(self._in_memory.get(other, 0) for other in self.splits)
        if in_use + size > self._options.cache_gb * feature_files.GB:
            return False
        self._in_memory[split] = size
        return True


class CacheFeatures(Callback):
    """Has a module's feature cache prepared before the first use of each split, in a training and after it."""

    def __init__(self, log: Callable[[str], None], scratch: Path) -> None:
        self.log_line = log
        self.scratch = scratch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first step: the frozen weights are what they will stay."""
        module = cast("ClassifierModule", pl_module)
        module.feature_cache.start(trainer, module, self.log_line, self.scratch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first validation of a training, or the one after it."""
        if is_whole(trainer.limit_val_batches):
            cast("ClassifierModule", pl_module).feature_cache.prepare("validation")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the test after a training."""
        if is_whole(trainer.limit_test_batches):
            cast("ClassifierModule", pl_module).feature_cache.prepare("test")


def is_whole(limit: float) -> bool:
    """Whether all batches are evaluated: 1.0 is all of them, 1 is one."""
    return isinstance(limit, float) and limit == 1.0


def _size(net: TextClassifier, dataset: TextDataset) -> int:
    """Bytes of the outputs for a split."""
    n_positions = int(count_kept(kept_positions(net, dataset), dataset).sum())
    return n_positions * net.config.emb_dim * net.embeddings.weight.dtype.itemsize


def _compute_all(training: _Training, split: SplitName, loader: DataLoader[Batch], features: Features) -> None:
    progress = Progress(log=training.log, bar=False)  # a run's console is not standard error
    with training.trainer.precision_plugin.forward_context():
        for done in compute(training.net, loader, features):
            progress.report(f"frozen layers, {split}", done, len(features.counts))
    if training.net.embeddings.weight.is_cuda:
        torch.cuda.synchronize()  # for the clock
