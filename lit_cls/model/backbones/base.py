"""The interface of a transformer family, and the loop over its blocks.

A backbone maps `(B, T)` token ids to `(B, T, C)` states. Its parameter names are those of Raschka's "Build a
Large Language Model (From Scratch)" for every family, so that selections, adapters and checkpoints need no
family's names. Shapes: B batch, T tokens, C emb_dim.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_cls.model.layers import AttentionMask
from lit_cls.model.weight_files import StoredTensor

Role = Literal["query", "key", "value", "output", "mlp_in", "mlp_gate", "mlp_out"]
"""Role of a linear layer in a block."""


class Backbone(Protocol):
    """Embeddings, blocks and final norm of a network: a module with these attributes."""

    config: Any
    """The shape: vocab_size, context_length, emb_dim, n_heads, n_layers, drop_rate; families add fields."""
    causal: bool
    """Whether the family's own attention mask is causal."""
    tok_emb: nn.Embedding
    trf_blocks: nn.ModuleList
    """Each is called as `block(x, mask, at=None)`: (B, T, C) to (B, T, C), or to (B, 1, C) where `at` (B,) names the
    one position of each row that is wanted."""

    @property
    def final_norm(self) -> nn.Module:
        """Applied where the head reads; `nn.Identity` in a family without one."""

    @property
    def family(self) -> "Family":
        """Its family's description."""

    def add_positions(self, x: Tensor) -> Tensor:
        """Token embeddings to the input of the first block: (B, T, C) to (B, T, C)."""

    # Of nn.Module.
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...  # noqa: D102
    def children(self) -> Iterator[nn.Module]: ...  # noqa: D102
    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102
    def requires_grad_(self, requires_grad: bool = True) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class Family:
    """Description of a family for the rest of the package."""

    backbone: Callable[[Any], Backbone]
    """Builds the network with random weights from a config."""
    tokenizer: str
    """A name that `lit_cls.data.tokenizers.tokenizer_for` knows."""
    token_position: str
    """The default of `model.token_position`."""
    roles: Mapping[Role, tuple[str, ...]]
    """Paths of the linear layers within a block, by what they do."""
    from_hub_names: Callable[[Mapping[str, StoredTensor]], tuple[dict[str, StoredTensor], list[str]]]
    """The tensors of a file by the backbone's names, and the names that were ignored; other names stay."""
    to_hub_names: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """The inverse, for a classifier's tensors."""
    hub_config: Callable[[Any], dict[str, Any]]
    """The arguments of transformers' configuration class."""


@dataclass(frozen=True)
class HubFile:
    """Where pretrained weights are on the Hugging Face hub."""

    repository: str
    revision: str
    """A commit, so that the file cannot change."""
    sha256: str | None = None
    """Of the file, where it is known here; otherwise the hub's own statement is used."""


@dataclass(frozen=True)
class BackboneSpec:
    """A named network: a family, a shape, and its pretrained weights."""

    family: Family
    config: Any
    pretrained: HubFile | None = None


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, mask: AttentionMask, recompute: bool = False) -> Tensor:
    """Applies blocks in order: (B, T, C) to (B, T, C).

    With `recompute`, the insides of a block are recomputed in the backward pass instead of being kept
    (gradient checkpointing).
    """
    recompute = recompute and torch.is_grad_enabled()
    for block in blocks:
        # The reentrant kind trains nothing above a frozen embedding (huggingface/transformers#21381).
        run = partial(checkpoint, block, use_reentrant=False) if recompute else block
        x = run(x, mask)
    return x
