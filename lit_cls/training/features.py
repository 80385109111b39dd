"""The frozen layers' outputs for the texts of a split: which positions are kept, how they are computed and indexed.

Shapes: B batch, T tokens, C emb_dim, N texts of a split, P kept positions of all its texts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_cls.data.batches import Batch, TextDataset
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.head import Positions, count_positions

Kept = Positions | Literal["read"]
"""The positions that are kept; `read` is the one vector that the head reads."""

# Under the causal mask nothing depends on what stands to the right: where more is held, less is too.
_IS_IN: dict[Kept, tuple[Kept, ...]] = {"read": (), "first": ("text", "all"), "text": ("all",), "all": ()}


@dataclass(frozen=True)
class Features:
    """The frozen layers' output for the texts of one split.

    Args:
        values: (P, C), in memory or mapped from a file.
        starts: (N,) where each text's positions begin.
        counts: (N,) how many of them a step needs.
    """

    values: Tensor
    starts: Tensor
    counts: Tensor

    def index(self, row_ids: Tensor) -> Tensor:
        """(B,) rows to (B, T) places in `values`, T the most that one of the rows needs.

        Past its own last position a row has that one again: nothing reads it.
        """
        counts = self.counts[row_ids]
        steps = torch.arange(int(counts.max()) if len(counts) else 1)
        return self.starts[row_ids][:, None] + torch.minimum(steps, counts[:, None] - 1)


def why_not(net: TextClassifier, dataset: TextDataset) -> str | None:
    """The reason why the frozen layers cannot be computed once; None when they can."""
    if not net.first_trained_block:
        return "no block is frozen"
    if net.config.drop_rate:
        return f"model.drop_rate {net.config.drop_rate:g} draws anew in the frozen blocks in every step"
    if net.needs == "all" and dataset.pad_to is None and not dataset.unpadded:
        return f"token_position {net.token_position} reads pads, of which every batch has another number"
    return None


def kept_positions(net: TextClassifier, dataset: TextDataset) -> Kept:
    """The positions of the frozen layers' output that a step needs."""
    if net.head_alone:
        return "read"
    return "text" if net.needs == "all" and dataset.unpadded else net.needs


def also_in(kept: Kept, net: TextClassifier, dataset: TextDataset) -> tuple[Kept, ...]:
    """The wider choices that hold these positions with the same numbers."""
    wider = _IS_IN[kept] if net.causal else ()
    return tuple(positions for positions in wider if positions != "all" or dataset.pad_to is not None)


def count_kept(kept: Kept, dataset: TextDataset) -> Tensor:
    """(N,) how many positions of each text that is."""
    lengths = torch.tensor([len(ids) for ids in dataset.token_ids], dtype=torch.int64)
    return count_positions("first" if kept == "read" else kept, lengths, dataset.pad_to or 0)


def starts_of(counts: Tensor) -> Tensor:
    """(N,) counts to (N,) sums of those before."""
    return counts.cumsum(0) - counts


@torch.no_grad()
def compute(net: TextClassifier, batches: Iterable[Batch], states: Features) -> Iterator[int]:
    """Fills `states` batch by batch; yields how many texts are done."""
    was_training = net.training
    net.eval()
    device, done = net.embeddings.weight.device, 0
    for batch in batches:
        rows, lengths = batch["row_ids"], batch["lengths"]
        ids = net.trim(batch["input_ids"], lengths)
        x = net.features(ids.to(device), lengths.to(device))  # (B, T, C)
        steps = torch.arange(x.shape[1])
        is_kept = steps < states.counts[rows][:, None]  # (B, T)
        places = (states.starts[rows][:, None] + steps)[is_kept]
        states.values[places.to(states.values.device)] = x[is_kept.to(device)].to(states.values)
        done += len(rows)
        yield done
    net.train(was_training)
