"""Pooling: which positions of the states the head reads.

Shapes: B batch, T tokens, C emb_dim.
"""

from typing import Literal

import torch
from torch import Tensor, nn

TokenPosition = Literal["first", "last", "flexible", "mean", "mean_flexible"]
Positions = Literal["first", "text", "all"]
"""Of a padded text: the first position, those up to its last token, or all."""


def read_position(token_position: TokenPosition, lengths: Tensor, T: int) -> Tensor | None:
    """(B,) the one position that is read of each row of T, by its number of real tokens; None for a mean."""
    match token_position:
        case "first":
            return torch.zeros_like(lengths)
        case "last":
            return torch.full_like(lengths, T - 1)
        case "flexible":
            return lengths.clamp(min=1) - 1
    return None


def pool(norm: nn.Module, x: Tensor, lengths: Tensor, at: Tensor | None, reads_pads: bool) -> Tensor:
    """The final norm at the positions that are read: (B, T, C) to (B, C).

    The norm works on each position by itself, so picking the position first gives the same numbers for less
    work. `at` is as `read_position` returns it; `reads_pads` includes the pads in a mean.
    """
    if at is not None:
        return norm(x[torch.arange(x.shape[0], device=x.device), at])
    if reads_pads:
        return norm(x).mean(dim=1)
    lengths = lengths.clamp(min=1)
    real = real_positions(lengths, x.shape[1]).unsqueeze(-1)  # (B, T, 1)
    return (norm(x) * real).sum(dim=1) / lengths.unsqueeze(-1)


def count_positions(positions: Positions, lengths: Tensor, T: int) -> Tensor:
    """(B,) how many positions of each text, from the first on, these are; an empty text has one."""
    match positions:
        case "first":
            return torch.ones_like(lengths)
        case "text":
            return lengths.clamp(min=1)
    return torch.full_like(lengths, T)


def real_positions(lengths: Tensor, T: int) -> Tensor:
    """(B,) lengths to (B, T) bool, True where a token is not a pad."""
    return torch.arange(T, device=lengths.device) < lengths[:, None]
