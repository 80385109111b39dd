"""LoRA: a frozen linear layer plus a trained product of two thin matrices.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1:
y = x W^T + b + s * (x A^T) B^T, with A normal-like and B zero at the start, so that nothing changes
until training begins. The layer keeps the names `weight` and `bias`: a file that fits the plain
layer fits this one too.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_cls.errors import UserError

Target = Literal["W_query", "W_key", "W_value", "out_proj", "ff", "out_head"]


@dataclass(frozen=True)
class LoRAConfig:
    """Which layers get an adapter, and how large it is."""

    rank: int = 8
    """Inner dimension r of the adapter."""
    alpha: float = 16.0
    """Numerator of the scale; see `scaling`."""
    dropout: float = 0.0
    """Dropout on the adapter's input, while training."""
    scaling: Literal["alpha_over_rank", "alpha"] = "alpha_over_rank"
    """The scale s: alpha / rank (the paper's, peft's) or alpha alone (the published table's)."""
    targets: tuple[Target, ...] = ("W_query", "W_key", "W_value", "out_proj", "ff")
    """The linear layers that get an adapter; `ff` is both layers of the feed-forward network."""
    train_head: bool = True
    """Whether the new head's own linear layer trains as well."""

    def check(self) -> None:
        """Refuses values that make no adapter.

        Raises:
            UserError: which value, and why.
        """
        if self.rank < 1:
            raise UserError(f"model.lora.rank {self.rank} is less than 1")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"model.lora.dropout {self.dropout} is not in [0, 1)")
        if not self.targets:
            raise UserError("model.lora.targets is empty: name at least one layer, for example W_query")
        if not self.train_head and "out_head" not in self.targets:
            raise UserError(
                "model.lora.train_head is false and out_head is not among model.lora.targets: the new head "
                "would stay random; set train_head to true or add out_head to the targets"
            )

    @property
    def scale(self) -> float:
        """The factor s on the adapter's output."""
        return self.alpha / self.rank if self.scaling == "alpha_over_rank" else self.alpha


class LoRALinear(nn.Linear):
    """A linear layer with a LoRA adapter beside it.

    Args:
        linear: the layer to adapt; its weight and bias are taken over, not copied.
        rank: inner dimension r.
        scale: factor s on the adapter's output.
        dropout: dropout on the adapter's input, while training.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, "meta")
        self.weight = linear.weight
        self.bias = linear.bias
        self.scale = scale
        self.dropout = dropout
        self.merged = False
        self.lora_A = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_empty(linear.out_features, rank))
        self.reset_lora()

    @torch.no_grad()
    def reset_lora(self) -> None:
        """Draws A anew (Kaiming rule over the inputs, as peft) and sets B to zero.

        The published code's A lies the other way, so the same call takes the rank for the inputs and draws wider.
        """
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        y = F.linear(x, self.weight, self.bias)
        if self.merged:
            return y
        x = F.dropout(x, self.dropout, self.training)
        inner = F.linear(x, self.lora_A)
        inner = inner.reshape(-1, inner.shape[-1])  # (N, r)
        # One product that adds in place of a product, a scaling and a sum, each over all of y.
        return torch.addmm(y.reshape(-1, y.shape[-1]), inner, self.lora_B.t(), alpha=self.scale).view_as(y)

    def merge(self) -> None:
        """Adds the adapter into the weight, in float32; a second call changes nothing.

        In lower precision the sum alone can flip predictions (huggingface/peft#2502): a weight that is held
        in half precision (`GPTClassifier.hold_frozen`) rounds it, so load in `32-true` to merge.
        """
        if not self.merged:
            self._add_to_weight(1.0)
            self.merged = True

    def unmerge(self) -> None:
        """Takes the adapter out of the weight again; without a merge before, changes nothing."""
        if self.merged:
            self._add_to_weight(-1.0)
            self.merged = False

    @torch.no_grad()
    def _add_to_weight(self, sign: float) -> None:
        delta = self.scale * (self.lora_B.float() @ self.lora_A.float())  # (out, in)
        self.weight.copy_(self.weight.float() + sign * delta)


def add_lora(module: nn.Module, config: LoRAConfig) -> None:
    """Replaces the targeted linear layers of `module` by `LoRALinear`; done twice, done once."""
    for name, child in list(module.named_modules()):
        if type(child) is not nn.Linear or not _is_target(name, config.targets):
            continue
        parent_name, _, attribute = name.rpartition(".")
        adapted = LoRALinear(child, config.rank, config.scale, config.dropout)
        setattr(module.get_submodule(parent_name), attribute, adapted)


def _is_target(name: str, targets: tuple[Target, ...]) -> bool:
    return any(name.endswith(t) or (t == "ff" and ".ff.layers." in name) for t in targets)


def merge_lora(module: nn.Module) -> None:
    """Adds every adapter of `module` into its weight; done twice, done once."""
    for layer in module.modules():
        if isinstance(layer, LoRALinear):
            layer.merge()
