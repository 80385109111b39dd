"""LoRA: a frozen linear layer plus a trained product of two thin matrices.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1:
y = x W^T + b + s * (x A^T) B^T, with A drawn and B zero at the start, so that nothing changes until
training begins. The layer keeps the names `weight` and `bias`: a file that fits the plain layer fits
this one too. Shapes: r rank.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_cls.errors import UserError
from lit_cls.model.adapters.base import Adapter, Target, replace_linear, replace_modules

if TYPE_CHECKING:
    from lit_cls.model.classifier import TextClassifier


@dataclass(frozen=True)
class LoRA(Adapter):
    """Low-rank adaptation.

    Args:
        rank: inner dimension r of the adapter.
        alpha: numerator of the scale; see `scaling`.
        dropout: dropout on the adapter's input while training.
        scaling: the scale s: `alpha_over_rank` (the paper's, peft's) or `alpha` alone (the published table's).
        targets: the linear layers that get an adapter: `all_linear` (of the blocks), `query`, `key`, `value`,
            `output`, `mlp_in`, `mlp_gate`, `mlp_out`, `head`.
        train_head: whether the new head's own linear layer trains as well.
    """

    mergeable: ClassVar[bool] = True

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    scaling: Literal["alpha_over_rank", "alpha"] = "alpha_over_rank"
    targets: tuple[Target, ...] = ("all_linear",)
    train_head: bool = True

    @property
    def draws(self) -> bool:
        """Whether dropout is drawn while training."""
        return self.dropout > 0

    @property
    def scale(self) -> float:
        """The factor s on the adapter's output."""
        return self.alpha / self.rank if self.scaling == "alpha_over_rank" else self.alpha

    def check(self, config: Any) -> None:
        """Checks the options; raises UserError."""
        if self.rank < 1:
            raise UserError(f"model.adapter.rank {self.rank} is less than 1")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"model.adapter.dropout {self.dropout} is not in [0, 1)")
        if not self.targets:
            raise UserError("model.adapter.targets is empty: name at least one layer, for example query")
        if not self.train_head and "head" not in self.targets:
            raise UserError(
                "model.adapter.train_head is false and head is not among model.adapter.targets: the new head "
                "would stay random; set train_head to true or add head to the targets"
            )

    def attach(self, net: "TextClassifier") -> None:
        """Replaces the targeted linear layers by `LoRALinear`."""
        net.out_head.requires_grad_(self.train_head)
        replace_linear(net, self.targets, lambda linear: LoRALinear(linear, self.rank, self.scale, self.dropout))

    def merge(self, module: nn.Module) -> None:
        """Replaces every `LoRALinear` of a module by a plain linear layer with the adapter in its weight."""
        replace_modules(module, lambda _, child: isinstance(child, LoRALinear), LoRALinear.merged)


class LoRALinear(nn.Linear):
    """A linear layer with a LoRA adapter beside it.

    Args:
        linear: the layer to adapt; its weight and bias are taken over, not copied.
        rank: inner dimension r.
        scale: factor s on the adapter's output.
        dropout: dropout on the adapter's input while training.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, "meta")
        self.weight = linear.weight
        self.bias = linear.bias
        self.scale = scale
        self.dropout = dropout
        self.lora_A = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_empty(linear.out_features, rank))
        # Kaiming's rule over the inputs, as in peft. The published code's A lies the other way, so that the same
        # call takes the rank for the inputs and draws wider.
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        y = F.linear(x, self.weight, self.bias)
        x = F.dropout(x, self.dropout, self.training)
        inner = F.linear(x, self.lora_A)
        inner = inner.reshape(-1, inner.shape[-1])  # (N, r)
        # One product that adds in place of a product, a scaling and a sum, each over all of y.
        return torch.addmm(y.reshape(-1, y.shape[-1]), inner, self.lora_B.t(), alpha=self.scale).view_as(y)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer with the adapter in its weight, summed in float32; `weight` is written in place.

        In lower precision the sum alone can flip predictions (huggingface/peft#2502): a weight that is held in
        half precision (`TextClassifier.hold_frozen`) rounds it, so load in `32-true` to merge.
        """
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, "meta")
        plain.weight, plain.bias = self.weight, self.bias
        delta = self.scale * (self.lora_B.float() @ self.lora_A.float())  # (out, in)
        plain.weight.copy_(self.weight.float() + delta)
        return plain
