"""Estimates of a run's memory, disk and time, from the operations and bytes of one step and a measured matrix product.

The time that is left is corrected by the runs that have finished (see `series`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from lit_cls.data.batches import TextDataset
from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.experiments.fit import Fit
from lit_cls.experiments.step_counts import StepCounts, count_step
from lit_cls.model.backbones import BackboneName
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.head import count_positions
from lit_cls.model.pretrained import hub_file, is_downloaded
from lit_cls.model.settings import ModelSettings
from lit_cls.runs.checks import checkpoint_size
from lit_cls.training.feature_files import GB, feature_key
from lit_cls.training.features import count_kept, kept_positions, why_not
from lit_cls.training.precision import MIXED, TRUE

_LIBRARIES = 500_000_000  # bytes of a process that has imported torch and Lightning
_REACHED = 0.7  # share of the matrix-product rate that blocks reach (rows 1 and 10, two cores)
_SECONDS_PER_STEP = 0.004  # of Lightning and Python, whatever the network
_SECONDS_PER_UPDATE = 1e-9  # of AdamW, for each number that trains


@dataclass(frozen=True)
class Cost:
    """Estimates for one run."""

    memory: int
    """Bytes, on the device that trains."""
    disk: int
    """Bytes that it leaves: its checkpoints and predictions."""
    seconds: float
    """Training and evaluation."""
    shared_disk: int = 0
    """Bytes for outputs of frozen layers in `model.cache_dir`, which runs with the same `shared_name` share."""
    shared_name: str = ""
    host_memory: int = 0
    """Bytes beside a GPU, to which Lightning moves what was trained when a run ends; 0 without one."""


def download_size(size: BackboneName) -> int:
    """Bytes of the pretrained weights, 0 where they are on this machine; a UserError for a size without any."""
    hub_file(size)
    if is_downloaded(size):
        return 0
    return 4 * sum(p.numel() for p in ModelSettings(size=size).build_empty(2).parameters())


class Estimate:
    """The estimates for one fit, which share its network, without memory, and its texts."""

    def __init__(self, run: Fit) -> None:
        self.run, self.settings, self.data = run, run.model.settings, run.datamodule
        self.precision, self.fast = str(run.trainer.precision), run.model.options.fast
        self.on_cpu = run.trainer.strategy.root_device.type == "cpu"
        self.batch_size = self.data.options.batch_size
        self.from_file = self.settings.weights != "random"
        self.net: TextClassifier = self.settings.build_empty(len(self.data.label_names))
        self.net.fast = self.fast
        self.n_parameters = sum(p.numel() for p in self.net.parameters())
        self.n_trained = sum(p.numel() for p in self.net.parameters() if p.requires_grad)
        self.datasets: dict[SplitName, TextDataset] = {
            name: cast("TextDataset", self.data.whole_split(name).dataset) for name in SPLIT_NAMES
        }
        self.lengths = {name: self._lengths(dataset) for name, dataset in self.datasets.items()}
        self.step = self._count_step(max(self.lengths["train"]))

    def cost(self, rate: float) -> Cost:
        """The estimate; `rate` is operations per second of a matrix product on the fit's device, in its precision."""
        copies = {None: 0, "last": 1, "best": 2}[self.run.run.keep]
        disk = copies * checkpoint_size(self.net, frozen_are_named=self.from_file) + 1_000_000
        features, features_in_memory = self._features()
        in_folder = self.run.model.options.cache_dir is not None
        # A CPU reads from the mapped file what is kept in a folder.
        memory = self._memory() + (0 if self.on_cpu and in_folder else features_in_memory)
        # At its end a run on a GPU moves network, gradients and averages to the host, beside the file's tensors.
        beside_gpu = _LIBRARIES + 4 * self.n_parameters * (1 + self.from_file) + 12 * self.n_trained
        host_memory = 0 if self.on_cpu else beside_gpu
        if in_folder and features:
            return Cost(memory, disk, self._seconds(rate), features, self._features_name(), host_memory)
        return Cost(memory, disk + features - features_in_memory, self._seconds(rate), host_memory=host_memory)

    def _count_step(self, n_tokens: int) -> StepCounts:
        settings, sizes = replace(self.settings, weights="random"), (len(self.data.label_names), self.batch_size)
        checkpointing = self.run.model.options.gradient_checkpointing
        return count_step(settings, *sizes, n_tokens, self.precision, self.fast, checkpointing)

    def _memory(self) -> int:
        """Weights, gradients, AdamW's two averages, and what the backward pass needs of the forward pass."""
        net = self.net.to(TRUE.get(self.precision, torch.float32))
        if self.fast and (dtype := MIXED.get(self.precision)):
            net.hold_frozen(dtype)
        held = sum(p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in net.parameters())
        if self.from_file and self.on_cpu:  # the file's own numbers stay, where a parameter is not they
            held += sum(4 * p.numel() for p in net.parameters() if p.requires_grad or p.dtype != torch.float32)
        return held + self.step.saved + (_LIBRARIES if self.on_cpu else 0)

    def _seconds(self, rate: float) -> float:
        epochs = max(1, self.run.trainer.max_epochs or 1)
        train = self.lengths["train"]
        n_tokens = round(sum(train) / len(train))
        step = self._count_step(n_tokens)
        operations = 0.0
        for name, trained, evaluated in zip(SPLIT_NAMES, (epochs, 0, 0), (1, epochs + 1, 1), strict=True):
            frozen = 1 if self._is_cached(name) else trained + evaluated
            one_pass = frozen * step.features + (trained + evaluated) * step.forward + trained * step.backward
            operations += one_pass * sum(self.lengths[name]) / (n_tokens * self.batch_size)
        n_steps = epochs * len(train) / self.batch_size
        updates = self.n_trained * _SECONDS_PER_UPDATE if self.on_cpu else 0.0
        return operations / (_REACHED * rate) + n_steps * (_SECONDS_PER_STEP + updates)

    def _lengths(self, dataset: TextDataset) -> list[int]:
        """Tokens of each text that are computed; of a batch padded to its own longest, the text's own."""
        lengths = torch.tensor([len(ids) for ids in dataset.token_ids])
        needs = self.net.needs if self.fast else "all"
        if needs == "all" and dataset.pad_to is None:
            needs = "text"
        return cast("list[int]", count_positions(needs, lengths, dataset.pad_to or 0).tolist())

    def _is_cached(self, name: SplitName) -> bool:
        return self.fast and why_not(self.net, self.datasets[name]) is None

    def _features(self) -> tuple[int, int]:
        """Bytes of the frozen layers' outputs that are kept, and of those splits that the budget lets into memory."""
        total = in_memory = 0
        for name in filter(self._is_cached, SPLIT_NAMES):
            dataset = self.datasets[name]
            size = int(count_kept(kept_positions(self.net, dataset), dataset).sum()) * self.step.bytes_per_position
            total += size
            if in_memory + size <= self.run.model.options.cache_gb * GB:
                in_memory += size
        return total, in_memory

    def _features_name(self) -> str:
        """The name that the train split's file would have; all splits follow from the same options."""
        weights, dataset = self.settings.weights, self.datasets["train"]
        if weights == "random":
            weights += str(self.run.settings()["seed_everything"])
        key = feature_key(self.net, dataset.token_ids, dataset.pad_to, weights, self.precision)
        return key.path(Path(), kept_positions(self.net, dataset)).name
