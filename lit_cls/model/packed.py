"""Linear layers for answering texts in float32 on a processor, with the weights laid out for its products.

A product of few rows, one short text, reads a matrix once and does little with each number. oneDNN keeps
a matrix in blocks, so that it is read in one go and multiplied by the widest instructions there are;
torch's own product goes to MKL, which lays it out anew at every call and, on processors that are not
Intel's, uses narrower instructions. `torch.compile` packs in the same way when it freezes a network, but
takes longer to compile than most texts take to be answered.
"""

import torch
from torch import Tensor, nn

from lit_cls.model.classifier import GPTClassifier
from lit_cls.model.lora import LoRALinear


class PackedLinear(nn.Module):
    """A linear layer that no longer trains: its weight is in oneDNN's layout, and nowhere else.

    Args:
        linear: float32, on the processor.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out); with a gradient for `x` where it wants one."""
        result: Tensor = _PackedProduct.apply(x, self._weight, self._bias)
        return result


class _PackedProduct(torch.autograd.Function):
    """oneDNN's product has no gradient of its own."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight  # type: ignore[attr-defined]
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None, None]:
        [grad] = grads  # (..., out)
        return grad @ ctx.weight.to_dense(), None, None  # type: ignore[attr-defined]


def can_pack() -> bool:
    """Whether this torch has oneDNN beside MKL; with another library, packing has not been measured."""
    ops = torch.ops.mkldnn
    known = hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")
    return known and torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()


@torch.no_grad()
def pack(net: GPTClassifier) -> None:
    """Packs the blocks' linear layers, one by one; the logits are the same but for rounding.

    Adapters are added into their weights before, as `lit_cls merge` does. The last block's keys and values stay
    plain: where one position is read, its attention does without them (`MultiHeadAttention._attend_once`).

    Args:
        net: in float32, on the processor; from now on it answers, but its weights are no longer to be had.
    """
    for block in net.trf_blocks:
        for name, layer in list(block.named_modules()):
            if isinstance(layer, nn.Linear):
                parent, _, attribute = name.rpartition(".")
                plain = _plain(layer)
                absorbed = block is net.trf_blocks[-1] and attribute in ("W_key", "W_value")
                setattr(block.get_submodule(parent), attribute, plain if absorbed else PackedLinear(plain))


def _plain(layer: nn.Linear) -> nn.Linear:
    if not isinstance(layer, LoRALinear):
        return layer
    layer.merge()
    plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, "meta")
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain
