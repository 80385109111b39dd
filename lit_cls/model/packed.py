"""Linear layers for prediction on a CPU, with the weights laid out for its products.

A product of few rows, one short text, reads a matrix once and does little with each number. In oneDNN's blocked layout
it is read in one go; a plain matrix is laid out anew in every call. torch's float32 product goes to MKL, which also
uses narrower instructions on CPUs that are not Intel's. `torch.compile` packs in the same way when it freezes a
network, but compiles for longer than most lists of texts take to predict.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_cls.model.classifier import TextClassifier


class PackedLinear(nn.Module):
    """A linear layer, float32 or bfloat16, for prediction on the CPU: its weight is in oneDNN's layout alone."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out); with a gradient for `x` where it wants one."""
        rows = x.reshape(-1, x.shape[-1]).to(self._weight.dtype)  # as autocast would
        n = rows.shape[0]
        rows = F.pad(rows, (0, 0, 0, padded_rows(n) - n))
        result: Tensor = _PackedProduct.apply(rows, self._weight, self._bias)
        return result[:n].unflatten(0, x.shape[:-1])


def padded_rows(n: int) -> int:
    """At least `n`, and at most an eighth more: one of eight numbers between a power of two and the next.

    oneDNN makes a kernel for each number of rows and keeps the last 1,024, each of up to 2 MB: texts of all
    lengths in batches of all sizes would have as many.
    """
    step = 1 << max(n.bit_length() - 4, 0)
    return -(-n // step) * step


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


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN beside MKL, and oneDNN products of this type; nothing else has been measured."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    ops = torch.ops.mkldnn  # private to torch, but what `torch.compile` calls; a torch without them packs nothing
    if not (hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(ops._is_mkldnn_bf16_supported()))


@torch.no_grad()
def pack(net: TextClassifier) -> None:
    """Packs the blocks' linear layers, on the CPU, one by one; their weights can no longer be read.

    The logits are the same but for rounding. A mergeable adapter is merged into the blocks first; in bfloat16, where
    that would round it away, its layers stay as they are. So do the last block's keys and values: where one position
    is read, its attention does without them (`MultiHeadAttention._attend_absorbed`).
    """
    blocks = net.backbone.trf_blocks
    kind = next(blocks.parameters()).dtype
    if net.adapter is not None and net.adapter.mergeable and kind == torch.float32 and can_pack(kind):
        net.adapter.merge(blocks)
    for block in blocks:
        for name, layer in list(block.named_modules()):
            if type(layer) is not nn.Linear or not can_pack(layer.weight.dtype):
                continue
            parent, _, attribute = name.rpartition(".")
            if block is not blocks[-1] or attribute not in ("W_key", "W_value"):
                setattr(block.get_submodule(parent), attribute, PackedLinear(layer))
