"""GPT-2, the whole network in one file.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019): a decoder-only
transformer with layer norm before each sub-layer, learned positions and tanh-GELU. Sub-module and
parameter names are those of Raschka's "Build a Large Language Model (From Scratch)", chapter 4, so
that weight files in that naming load without translation.

Shapes: B batch, T tokens, C emb_dim, H heads, D head dim (C = H * D), V vocabulary.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_cls.errors import UserError

_STORED_SCORES = 512  # tokens up to which all scores may be kept: 0.5 MB a head in bfloat16


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT-2; the defaults are those of the 124M model."""

    vocab_size: int = 50257
    """Number of token ids (GPT-2's byte-pair vocabulary)."""
    context_length: int = 1024
    """Rows of the position table: the longest text the network can read, in tokens."""
    emb_dim: int = 768
    """Width of the residual stream (C)."""
    n_heads: int = 12
    """Attention heads per block; must divide emb_dim."""
    n_layers: int = 12
    """Transformer blocks."""
    drop_rate: float = 0.0
    """Dropout on embeddings, attention weights and both residual branches, while training."""
    qkv_bias: bool = True
    """Whether the query, key and value projections have a bias (GPT-2's do)."""

    def __post_init__(self) -> None:
        if self.emb_dim % self.n_heads:
            raise UserError(
                f"emb_dim {self.emb_dim} is not a multiple of n_heads {self.n_heads}: "
                "every head must get as many dimensions"
            )
        if not 0.0 <= self.drop_rate < 1.0:
            raise UserError(f"drop_rate {self.drop_rate} is not in [0, 1)")


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
    """Self-attention; no mask is stored."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.drop_rate = config.drop_rate
        self.W_query = nn.Linear(config.emb_dim, config.emb_dim, bias=config.qkv_bias)
        self.W_key = nn.Linear(config.emb_dim, config.emb_dim, bias=config.qkv_bias)
        self.W_value = nn.Linear(config.emb_dim, config.emb_dim, bias=config.qkv_bias)
        self.out_proj = nn.Linear(config.emb_dim, config.emb_dim)

    def forward(self, x: Tensor, causal: bool, key_mask: Tensor | None, at: Tensor | None = None) -> Tensor:
        """(B, T, C) to (B, T, C), or to (B, 1, C); see `TransformerBlock.forward`."""
        queries = x if at is None else _pick(x, at)
        if at is not None and causal:
            visible = (torch.arange(x.shape[1], device=x.device) <= at[:, None])[:, None, None, :]  # (B, 1, 1, T)
            key_mask, causal = visible, False
        # An adapter may draw dropout on its input, position by position: its projections are computed.
        if at is not None and type(self.W_key) is type(self.W_value) is nn.Linear:
            return self.out_proj(self._attend_once(x, self.W_query(queries), key_mask))

        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, T, D)

        context = attention(
            heads(self.W_query(queries)),
            heads(self.W_key(x)),
            heads(self.W_value(x)),
            key_mask,
            causal,
            self.drop_rate if self.training else 0.0,
        )
        return self.out_proj(context.transpose(1, 2).flatten(2))  # (B, T or 1, C)

    def _attend_once(self, x: Tensor, query: Tensor, key_mask: Tensor | None) -> Tensor:
        """Attention of one query a row, without keys and values: (B, T, C) and (B, 1, C) to (B, 1, C).

        The key's matrix is moved to the query's side, q · (W_k x) = (W_k' q) · x, and the value's
        behind the sum, sum_t a_t (W_v x_t) = W_v (sum_t a_t x_t): two products with B rows each in
        place of two with B T rows (the absorbed form of DeepSeek-V2's attention, section 2.1.2).
        """
        assert isinstance(self.W_key, nn.Linear)
        assert isinstance(self.W_value, nn.Linear)
        q = query[:, 0].unflatten(-1, (self.n_heads, -1)).transpose(0, 1)  # (H, B, D)
        to_keys = self.W_key.weight.unflatten(0, (self.n_heads, -1))  # (H, D, C)
        wanted = (q @ to_keys).transpose(0, 1)  # (B, H, C)
        scores = wanted @ x.transpose(1, 2)  # (B, H, T)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if self.W_key.bias is not None:
            # The same for every t, so that softmax takes it out again: the bias gets its gradient, 0.
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

    That is bfloat16 on a processor: 18 ms against 6 ms, forward and backward, for 8 texts of 120
    tokens in 12 heads on two cores (torch 2.13). Scores are then rounded to bfloat16, as q, k and v are.

    Args:
        q: (B, H, S, D) queries.
        k: (B, H, T, D) keys.
        v: (B, H, T, D) values.
        key_mask: False where nothing may look; of a shape that goes with (B, H, S, T).
        causal: query s sees keys 0 to s; with S = T and no `key_mask`.
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
    """The position-wise network of a block, four times as wide inside."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.emb_dim, 4 * config.emb_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * config.emb_dim, config.emb_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.layers(x)


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm1(x)), then x + ff(norm2(x))."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.att = MultiHeadAttention(config)
        self.ff = FeedForward(config)
        self.norm1 = LayerNorm(config.emb_dim)
        self.norm2 = LayerNorm(config.emb_dim)
        self.drop_resid = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor, causal: bool, key_mask: Tensor | None, at: Tensor | None = None) -> Tensor:
        """(B, T, C) to (B, T, C); see `GPTBackbone.run_blocks` for the masks.

        Args:
            x: (B, T, C) hidden states.
            causal: whether a position sees only itself and what is before it.
            key_mask: what nothing may look at.
            at: (B,) the one position of each row that is wanted: the result is (B, 1, C). Keys and
                values are still those of all positions, all else is done there alone.
        """
        attended = self.drop_resid(self.att(_rounded(self.norm1(x)), causal, key_mask, at))
        x = (x if at is None else _pick(x, at)) + attended
        return x + self.drop_resid(self.ff(_rounded(self.norm2(x))))


def _rounded(x: Tensor) -> Tensor:
    """What autocast makes of x for every product that it enters, once for all of them."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _pick(x: Tensor, at: Tensor) -> Tensor:
    """(B, T, C) to (B, 1, C): one position of each row."""
    return x[torch.arange(x.shape[0], device=x.device), at][:, None]


class GPTBackbone(nn.Module):
    """Embeddings, blocks and final norm: what the language model and the classifier share."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # blocks' insides in the backward pass instead of keeping them: gradient checkpointing
        self.tok_emb = nn.Embedding(config.vocab_size, config.emb_dim)
        self.pos_emb = nn.Embedding(config.context_length, config.emb_dim)
        self.drop_emb = nn.Dropout(config.drop_rate)
        self.trf_blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.final_norm = LayerNorm(config.emb_dim)
        initialize_backbone(self)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token plus position embeddings: (B, T) int64 to (B, T, C).

        Raises:
            UserError: T exceeds the position table. On a GPU the look-up itself would be an
                assertion that ends the process (huggingface/transformers#4501).
        """
        return self.add_positions(self.tok_emb(input_ids))

    def add_positions(self, x: Tensor) -> Tensor:
        """The second half of `embed`, from token embeddings on: (B, T, C) to (B, T, C)."""
        T = x.shape[1]
        if self.config.context_length < T:
            raise UserError(
                f"a batch of {T} tokens exceeds the model's context length of {self.config.context_length}: "
                "cut the texts first (data.max_length, data.truncation)"
            )
        positions = torch.arange(T, device=x.device)
        return self.drop_emb(x + self.pos_emb(positions))  # (B, T, C)

    def run_blocks(self, blocks: Iterable[nn.Module], x: Tensor, causal: bool, key_mask: Tensor | None) -> Tensor:
        """Applies blocks in order: (B, T, C) to (B, T, C).

        Args:
            blocks: some or all of `trf_blocks`.
            x: (B, T, C) hidden states.
            causal: whether a position sees only itself and what is before it.
            key_mask: (B, 1, 1, T) bool, False where nothing may look; only without `causal`.
        """
        recompute = self.recompute and self.training and torch.is_grad_enabled()
        for block in blocks:
            # The reentrant kind trains nothing above a frozen embedding (huggingface/transformers#21381).
            run = partial(checkpoint, block, use_reentrant=False) if recompute else block
            x = run(x, causal, key_mask)
        return x


class GPTModel(GPTBackbone):
    """GPT-2 as a language model.

    The output layer is a matrix of its own, as in the published code; `weights.load_weights` ties
    it to the token embedding when a file has none.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.out_head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Next-token logits: (B, T) int64 to (B, T, V)."""
        x = self.run_blocks(self.trf_blocks, self.embed(input_ids), causal=True, key_mask=None)
        return self.out_head(self.final_norm(x))


@torch.no_grad()
def initialize_backbone(backbone: GPTBackbone) -> None:
    """GPT-2's initialisation (section 2.3 of the paper and its released code).

    Weights are normal with deviation 0.02, biases zero; the two projections that write into the
    residual stream are divided by sqrt(2 * n_layers), its number of additions.
    """
    for module in (backbone.tok_emb, backbone.pos_emb):
        nn.init.normal_(module.weight, std=0.02)
    for name, module in backbone.trf_blocks.named_modules():
        if isinstance(module, nn.Linear):
            into_residual = name.endswith(("att.out_proj", "ff.layers.2"))
            scale = 1 / math.sqrt(2 * backbone.config.n_layers) if into_residual else 1.0
            nn.init.normal_(module.weight, std=0.02 * scale)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
