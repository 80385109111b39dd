"""Token ids to batches: truncation, padding, and the order of an epoch, which follows from (seed, epoch) alone.

Shapes: B batch, T tokens.
"""

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lit_cls.data.options import Truncation

_GROUP = 50  # batches among which texts are sorted by length: less padding, still a fresh mix each epoch

Batch = dict[str, Any]
"""`input_ids` (B, T) int64, right-padded with the tokenizer's pad id; `lengths` (B,) int64; `row_ids` (B,) int64;
`labels` (B,) int64 unless predicting; in training `step_examples`, a number: how many examples, over
all batches and processes, share the optimizer step."""


@dataclass(frozen=True)
class PlannedBatch:
    """Which rows a batch holds; an empty one keeps the processes in step."""

    rows: list[int]
    step_examples: int | None = None


def truncate(ids: list[int], max_length: int, keep: Truncation) -> list[int]:
    """Truncates a text to `max_length` tokens, keeping its head, its tail, or half of each."""
    if len(ids) <= max_length:
        return ids
    n_tail = {"head": 0, "tail": max_length, "head_tail": max_length // 2}[keep]
    return ids[: max_length - n_tail] + ids[len(ids) - n_tail :]


@dataclass(eq=False)
class TextDataset(Dataset[Batch]):
    """Tokenised texts, indexed by whole batches: one index is a `PlannedBatch`."""

    token_ids: Sequence[list[int]]
    """Of each text, truncated, none empty."""
    labels: Sequence[int] | None
    """Class ids; None when predicting."""
    pad_to: int | None
    """T of every batch; None pads to the longest text of the batch."""
    unpadded: bool = False
    """Texts of different lengths never share a batch."""
    pad_id: int = field(kw_only=True)
    """The tokenizer's."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def __getitem__(self, planned: PlannedBatch) -> Batch:
        ids = [self.token_ids[row] for row in planned.rows]
        batch: Batch = pad(ids, self.pad_to, self.pad_id)
        batch["row_ids"] = torch.tensor(planned.rows, dtype=torch.int64)
        if self.labels is not None:
            batch["labels"] = torch.tensor([self.labels[row] for row in planned.rows], dtype=torch.int64)
        if planned.step_examples is not None:
            batch["step_examples"] = planned.step_examples
        return batch


def pad(ids: Sequence[list[int]], pad_to: int | None, pad_id: int) -> dict[str, Tensor]:
    """Right-pads texts to one length: `input_ids` (B, T) and `lengths` (B,)."""
    lengths = torch.tensor([len(text) for text in ids], dtype=torch.int64)
    T = pad_to or max((len(text) for text in ids), default=1)
    input_ids = torch.full((len(ids), T), pad_id, dtype=torch.int64)
    for row, text in enumerate(ids):
        input_ids[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
    return {"input_ids": input_ids, "lengths": lengths}


@dataclass(eq=False)
class TrainingBatches(Sampler[PlannedBatch]):
    """The batches of an epoch, in a new order each epoch.

    Each process gets its share of `batch_size * world_size` rows. Every example of an optimizer step weighs the same,
    in the last, smaller step too: batches carry the number of examples of their step
    (Lightning-AI/pytorch-lightning#19987).
    """

    lengths: Sequence[int]
    """Tokens of each text."""
    batch_size: int
    """Rows of one batch of one process."""
    seed: int
    """With the epoch, the only source of the order."""
    by_length: bool = False
    """Put texts of similar length into one batch, for fewer pads."""
    accumulate: int = 1
    """Batches of one optimizer step."""
    limit: int | None = None
    """Batches used of each epoch; None for all."""
    rank: int = 0
    world_size: int = 1
    epoch: int = field(default=0, init=False)
    _begin: int = field(default=0, init=False)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch, self._begin = epoch, 0

    def begin_at(self, batch: int) -> None:
        """Leaves out the first batches of this epoch, for a training resumed in its middle."""
        self._begin = batch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[PlannedBatch]:
        whole = self._whole_batches()
        used = len(whole) if self.limit is None else min(self.limit, len(whole))
        for i, rows in enumerate(whole[self._begin :], self._begin):
            start = i - i % self.accumulate
            step = whole[start : min(start + self.accumulate, max(used, i + 1))]
            yield PlannedBatch(rows[self.rank :: self.world_size], sum(map(len, step)))

    def _whole_batches(self) -> list[list[int]]:
        """Batches over all processes, in this epoch's order."""
        rng = np.random.default_rng([self.seed, self.epoch])
        size = self.batch_size * self.world_size
        order = rng.permutation(len(self.lengths))
        if self.by_length:
            lengths, group = np.asarray(self.lengths), size * _GROUP
            groups = [order[i : i + group] for i in range(0, len(order), group)]
            order = np.concatenate([g[np.argsort(lengths[g], kind="stable")] for g in groups])
        batches = [order[i : i + size].tolist() for i in range(0, len(order), size)]
        if self.by_length:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches


class EvaluationBatches(Sampler[PlannedBatch]):
    """Every row once, whatever the number of processes, similar lengths together.

    The batch of the longest texts comes first, so that a lack of memory shows at once. The others come in a mixed
    order, the same every time, so that a limited evaluation (`trainer.limit_val_batches`) has texts of all lengths.
    The size of a batch affects speed alone.
    """

    _TOKENS = 2048  # pads included; measured on two cores with 512 to 4,096

    def __init__(self, dataset: TextDataset, rank: int = 0, world_size: int = 1) -> None:
        lengths = np.asarray([len(ids) for ids in dataset.token_ids])
        mine = np.argsort(-lengths, kind="stable")[rank::world_size].tolist()
        self.batches: list[PlannedBatch] = []
        rows: list[int] = []
        for row in mine:
            longest = lengths[rows[0]] if rows else 0
            full = (len(rows) + 1) * (dataset.pad_to or longest) > self._TOKENS
            if rows and (full or (dataset.unpadded and lengths[row] != longest)):
                self.batches.append(PlannedBatch(rows))
                rows = []
            rows.append(row)
        if rows:
            self.batches.append(PlannedBatch(rows))
        others = self.batches[1:]
        self.batches[1:] = [others[i] for i in np.random.default_rng(0).permutation(len(others))]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PlannedBatch]:
        return iter(self.batches)


def make_loader(dataset: TextDataset, batches: Sampler[PlannedBatch], num_workers: int = 0) -> DataLoader[Batch]:
    """A loader whose sampler chooses whole batches."""
    return DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=num_workers,
        # Its own: a loader draws a number for each pass, by default from the state that dropout uses.
        generator=torch.Generator(),
        persistent_workers=num_workers > 0,
        worker_init_fn=_leave_signals,
    )


def _leave_signals(worker: int) -> None:
    """Leaves signals to the main process: a worker that dies of one would end the run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
