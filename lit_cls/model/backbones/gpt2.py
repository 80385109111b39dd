"""GPT-2: the network, its sizes, and the names that Hugging Face's files have for its parameters.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019): a decoder-only transformer with
layer norm before each sub-layer, learned positions and tanh-GELU. Sub-module and parameter names are those of
Raschka's "Build a Large Language Model (From Scratch)", chapter 4.

Shapes: B batch, T tokens, C emb_dim, V vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_cls.errors import UserError
from lit_cls.model.backbones.base import Family, run_blocks
from lit_cls.model.layers import AttentionMask, FeedForward, LayerNorm, MultiHeadAttention, pick, round_for_autocast
from lit_cls.model.weight_files import StoredTensor


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
    """Dropout on embeddings, attention weights and both residual branches while training."""
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


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm1(x)), then x + ff(norm2(x))."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.att = MultiHeadAttention(config.emb_dim, config.n_heads, config.qkv_bias, config.drop_rate)
        self.ff = FeedForward(config.emb_dim)
        self.norm1 = LayerNorm(config.emb_dim)
        self.norm2 = LayerNorm(config.emb_dim)
        self.drop_resid = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor, mask: AttentionMask, at: Tensor | None = None) -> Tensor:
        """(B, T, C) to (B, T, C); see `lit_cls.model.backbones.base.Backbone`.

        Args:
            x: (B, T, C) states.
            mask: which positions are seen.
            at: (B,) the one position of each row that is wanted: the result is (B, 1, C). Keys and values
                are still those of all positions; all else is computed at that position alone.
        """
        attended = self.drop_resid(self.att(round_for_autocast(self.norm1(x)), mask, at))
        x = (x if at is None else pick(x, at)) + attended
        return x + self.drop_resid(self.ff(round_for_autocast(self.norm2(x))))


class GPT2(nn.Module):
    """Embeddings, blocks and final norm, with GPT-2's random initialisation."""

    causal = True

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.emb_dim)
        self.pos_emb = nn.Embedding(config.context_length, config.emb_dim)
        self.drop_emb = nn.Dropout(config.drop_rate)
        self.trf_blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.final_norm = LayerNorm(config.emb_dim)
        _initialize(self)

    @property
    def family(self) -> Family:
        """GPT-2's entry."""
        return FAMILY

    def add_positions(self, x: Tensor) -> Tensor:
        """Token embeddings to the input of the first block: (B, T, C) to (B, T, C).

        Raises:
            UserError: T exceeds the position table. On a GPU the look-up itself would be an
                assertion that ends the process (huggingface/transformers#4501).
        """
        T = x.shape[1]
        if self.config.context_length < T:
            raise UserError(
                f"a batch of {T} tokens exceeds the model's context length of {self.config.context_length}: "
                "truncate the texts first (data.max_length, data.truncation)"
            )
        return self.drop_emb(x + self.pos_emb(torch.arange(T, device=x.device)))  # (B, T, C)


class GPTModel(GPT2):
    """GPT-2 as a language model.

    The output layer is a matrix of its own, as in the published code; `load_weights` ties it to the
    token embedding when a file has none.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.out_head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Next-token logits: (B, T) int64 to (B, T, V)."""
        x = run_blocks(self.trf_blocks, self.add_positions(self.tok_emb(input_ids)), AttentionMask(causal=True))
        return self.out_head(self.final_norm(x))


@torch.no_grad()
def _initialize(backbone: GPT2) -> None:
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


# Hugging Face's names to ours, within a block and outside. Its linear layers are Conv1D, stored (in, out).
_HUB_BLOCK = {
    "ln_1.weight": "norm1.scale",
    "ln_1.bias": "norm1.shift",
    "ln_2.weight": "norm2.scale",
    "ln_2.bias": "norm2.shift",
    "attn.c_proj.weight": "att.out_proj.weight",
    "attn.c_proj.bias": "att.out_proj.bias",
    "mlp.c_fc.weight": "ff.layers.0.weight",
    "mlp.c_fc.bias": "ff.layers.0.bias",
    "mlp.c_proj.weight": "ff.layers.2.weight",
    "mlp.c_proj.bias": "ff.layers.2.bias",
}
_HUB_TOP = {
    "wte.weight": "tok_emb.weight",
    "wpe.weight": "pos_emb.weight",
    "ln_f.weight": "final_norm.scale",
    "ln_f.bias": "final_norm.shift",
    "lm_head.weight": "out_head.weight",
}
_QKV = ("W_query", "W_key", "W_value")
_TO_HUB_BLOCK = {ours: theirs for theirs, ours in _HUB_BLOCK.items()} | {
    f"att.{part}.{kind}": f"attn.c_attn.{kind}" for part in _QKV for kind in ("weight", "bias")
}
_TO_HUB_TOP = {ours: f"transformer.{theirs}" for theirs, ours in _HUB_TOP.items()} | {"out_head.weight": "score.weight"}
# Causal masks that older code stored beside the weights.
_MASK_SUFFIXES = (".attn.bias", ".attn.masked_bias", ".att.mask")


def from_hub_names(tensors: Mapping[str, StoredTensor]) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of a GPT-2 file by our names, and the names of stored causal masks.

    Names of the published code, which are ours too, stay as they are.
    """
    ours: dict[str, StoredTensor] = {}
    masks: list[str] = []
    for full_name, tensor in tensors.items():
        name = full_name.removeprefix("transformer.")
        if name.endswith(_MASK_SUFFIXES):
            masks.append(full_name)
        elif name in _HUB_TOP:
            ours[_HUB_TOP[name]] = tensor
        elif name.startswith("h.") and name.count(".") > 1:
            _, index, rest = name.split(".", 2)
            ours.update(_from_hub_block(f"trf_blocks.{index}", rest, full_name, tensor))
        else:
            ours[full_name] = tensor
    return ours, masks


def _from_hub_block(block: str, rest: str, full_name: str, tensor: StoredTensor) -> dict[str, StoredTensor]:
    is_matrix = len(tensor.shape) == 2
    if rest in ("attn.c_attn.weight", "attn.c_attn.bias") and tensor.shape:
        kind = rest.rpartition(".")[2]
        thirds = [tensor.third(part) for part in range(3)]
        if is_matrix:
            thirds = [third.transposed() for third in thirds]
        return {f"{block}.att.{name}.{kind}": third for name, third in zip(_QKV, thirds, strict=True)}
    if rest in _HUB_BLOCK:
        return {f"{block}.{_HUB_BLOCK[rest]}": tensor.transposed() if is_matrix else tensor}
    return {full_name: tensor}


def hub_name(name: str) -> str:
    """What `GPT2ForSequenceClassification` calls a classifier's parameter; its head has no bias."""
    if not name.startswith("trf_blocks."):
        return _TO_HUB_TOP[name]
    _, index, rest = name.split(".", 2)
    return f"transformer.h.{index}.{_TO_HUB_BLOCK[rest]}"


def to_hub_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's tensors as `GPT2ForSequenceClassification` names, joins and stores them.

    Args:
        tensors: by our names; without adapters and without a bias of the head.
    """
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".att.W_key." in name or ".att.W_value." in name:
            continue
        parts = [tensors[name.replace("W_query", part)] for part in _QKV] if ".att.W_query." in name else [tensor]
        joined = torch.cat(parts) if len(parts) > 1 else tensor  # (3C, C) or (3C,)
        is_conv1d = name.startswith("trf_blocks.") and tensor.ndim == 2
        theirs[hub_name(name)] = (joined.t() if is_conv1d else joined).contiguous()
    return theirs


def hub_config(config: GPTConfig) -> dict[str, Any]:
    """The arguments of transformers' `GPT2Config`."""
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.emb_dim,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.drop_rate),
    }


FAMILY = Family(
    backbone=GPT2,
    tokenizer="gpt2",
    token_position="flexible",
    roles={
        "query": ("att.W_query",),
        "key": ("att.W_key",),
        "value": ("att.W_value",),
        "output": ("att.out_proj",),
        "mlp_in": ("ff.layers.0",),
        "mlp_out": ("ff.layers.2",),
    },
    from_hub_names=from_hub_names,
    to_hub_names=to_hub_names,
    hub_config=hub_config,
)
