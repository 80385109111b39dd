"""Layers that the transformer families share: layer norm, attention, feed-forward network.

Sub-module and parameter names are those of Raschka's "Build a Large Language Model (From Scratch)",
chapters 3 and 4. Shapes: B batch, T tokens, C emb_dim, H heads, D head dim (C = H * D).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STORED_SCORES = 512  # tokens up to which all scores may be kept: 0.5 MB a head in bfloat16


@dataclass(frozen=True)
class AttentionMask:
    """Which keys a query sees."""

    causal: bool
    """Whether a position sees only itself and what is before it."""
    keys: Tensor | None = None
    """(B, 1, 1, T) bool, False at keys that are hidden; only without `causal`."""


class LayerNorm(nn.Module):
    """Layer norm over the last dimension, with the published names `scale` and `shift`."""

    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        return F.layer_norm(x, x.shape[-1:], self.scale, self.shift, eps=1e-5)


class MultiHeadAttention(nn.Module):
    """Self-attention.

    Args:
        emb_dim: C.
        n_heads: H.
        qkv_bias: whether the query, key and value projections have a bias.
        drop_rate: dropout on the attention weights while training.
    """

    def __init__(self, emb_dim: int, n_heads: int, qkv_bias: bool, drop_rate: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.drop_rate = drop_rate
        self.W_query = nn.Linear(emb_dim, emb_dim, bias=qkv_bias)
        self.W_key = nn.Linear(emb_dim, emb_dim, bias=qkv_bias)
        self.W_value = nn.Linear(emb_dim, emb_dim, bias=qkv_bias)
        self.out_proj = nn.Linear(emb_dim, emb_dim)

    def forward(self, x: Tensor, mask: AttentionMask, at: Tensor | None = None) -> Tensor:
        """(B, T, C) to (B, T, C), or to (B, 1, C) with `at` (B,), the one query position of each row."""
        queries = x if at is None else pick(x, at)
        causal, key_mask = mask.causal, mask.keys
        if at is not None and causal:
            visible = torch.arange(x.shape[1], device=x.device) <= at[:, None]  # (B, T)
            causal, key_mask = False, visible[:, None, None, :]  # (B, 1, 1, T)
        # A replaced projection may draw dropout on its input, position by position: it is computed in full.
        if at is not None and type(self.W_key) is type(self.W_value) is nn.Linear:
            return self.out_proj(self._attend_absorbed(x, self.W_query(queries), key_mask))

        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, T, D)

        q, k, v = heads(self.W_query(queries)), heads(self.W_key(x)), heads(self.W_value(x))
        context = attention(q, k, v, key_mask, causal, self.drop_rate if self.training else 0.0)
        return self.out_proj(context.transpose(1, 2).flatten(2))  # (B, T or 1, C)

    def _attend_absorbed(self, x: Tensor, query: Tensor, key_mask: Tensor | None) -> Tensor:
        """Attention of one query per row without keys and values: (B, T, C) and (B, 1, C) to (B, 1, C).

        The key's matrix moves to the query's side, q · (W_k x) = (W_k' q) · x, and the value's behind the
        sum, sum_t a_t (W_v x_t) = W_v (sum_t a_t x_t): two products with B rows each instead of two with
        B T rows (the absorbed form of DeepSeek-V2's attention, section 2.1.2).
        """
        assert isinstance(self.W_key, nn.Linear)
        assert isinstance(self.W_value, nn.Linear)
        q = query[:, 0].unflatten(-1, (self.n_heads, -1)).transpose(0, 1)  # (H, B, D)
        to_keys = self.W_key.weight.unflatten(0, (self.n_heads, -1))  # (H, D, C)
        wanted = (q @ to_keys).transpose(0, 1)  # (B, H, C)
        scores = wanted @ x.transpose(1, 2)  # (B, H, T)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if self.W_key.bias is not None:
            # The same for every t, so softmax cancels it: the bias gets its gradient, 0.
            bias = self.W_key.bias.unflatten(0, (self.n_heads, -1, 1))  # (H, D, 1)
            scores = scores + (q.to(bias.dtype) @ bias).transpose(0, 1)
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[:, 0], -math.inf)
        weights = (scores / math.sqrt(q.shape[-1])).softmax(dim=-1)
        seen = (weights.to(x.dtype) @ x).transpose(0, 1)  # (H, B, C)
        to_values = self.W_value.weight.unflatten(0, (self.n_heads, -1)).transpose(1, 2)  # (H, C, D)
        context = (seen @ to_values).transpose(0, 1).flatten(1)  # (B, C)
        if self.W_value.bias is not None:
            context = context + self.W_value.bias.to(context.dtype)
        return context[:, None]


def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, causal: bool, drop_rate: float = 0.0) -> Tensor:
    """`scaled_dot_product_attention`, or three plain products where torch's kernel is slower than these.

    That is bfloat16 on a CPU: 18 ms against 6 ms, forward and backward, for 8 texts of 120 tokens in
    12 heads on two cores (torch 2.13). Scores are then rounded to bfloat16, as q, k and v are.

    Args:
        q: (B, H, S, D) queries.
        k, v: (B, H, T, D) keys and values.
        key_mask: bool, broadcastable to (B, H, S, T); False at keys that are hidden.
        causal: query s sees keys 0 to s; requires S = T and no `key_mask`.
        drop_rate: share of the weights that is dropped.

    Returns:
        (B, H, S, D).
    """
    small = k.shape[-2] <= _STORED_SCORES
    if not (q.dtype == torch.bfloat16 and q.device.type == "cpu" and small and not drop_rate):
        return F.scaled_dot_product_attention(q, k, v, key_mask, drop_rate, causal)
    if causal:
        T = k.shape[-2]
        key_mask = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)  # (B, H, S, T)
    if key_mask is not None:
        scores = scores + torch.zeros_like(key_mask, dtype=q.dtype).masked_fill_(~key_mask, -math.inf)
    return scores.softmax(dim=-1) @ v


class FeedForward(nn.Module):
    """The position-wise network of a block, four times as wide inside, with tanh-GELU."""

    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(emb_dim, 4 * emb_dim), nn.GELU(approximate="tanh"), nn.Linear(4 * emb_dim, emb_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.layers(x)


def round_for_autocast(x: Tensor) -> Tensor:
    """Casts x once to what autocast would cast it to for each product that it enters."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def pick(x: Tensor, at: Tensor) -> Tensor:
    """One position of each row: (B, T, C) and (B,) to (B, 1, C)."""
    return x[torch.arange(x.shape[0], device=x.device), at][:, None]
