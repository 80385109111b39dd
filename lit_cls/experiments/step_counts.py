"""Floating-point operations and memory of one training step, counted on a network without memory.

The network is built of fake tensors, which have shapes but no numbers, and runs one batch forward and backward, so
that each operation is counted where it happens. Blocks are alike: two shallow networks give the counts of a deep one.
"""

from dataclasses import astuple, dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lit_cls.model.classifier import TextClassifier
from lit_cls.model.selection import n_selected_blocks
from lit_cls.model.settings import ModelSettings
from lit_cls.training.precision import MIXED, TRUE


@dataclass(frozen=True)
class StepCounts:
    """Counts of one batch.

    Operations are those of matrix products and attention: `features` of the frozen layers, `forward` and `backward` of
    the trained ones.
    """

    features: int
    forward: int
    backward: int
    saved: int
    """Bytes kept from the forward pass for the backward pass, without parameters."""
    bytes_per_position: int
    """Of the frozen layers' output."""
    trained_blocks: int
    """Blocks from the first one that trains on."""


@cache
def count_step(
    settings: ModelSettings,
    num_classes: int,
    batch_size: int,
    n_tokens: int,
    precision: str,
    fast: bool = True,
    gradient_checkpointing: bool = False,
) -> StepCounts:
    """Counts one step on texts of `n_tokens` tokens each, as the CPU computes it."""

    def count(n_blocks: int) -> StepCounts:
        with FakeTensorMode():
            backbone = settings.spec.family.backbone(replace(settings.config, n_layers=n_blocks))
            chosen = (settings.token_position, settings.trainable_layers, settings.causal, settings.adapter)
            net = TextClassifier(backbone, num_classes, *chosen)
            return _count(net, batch_size, n_tokens, precision, fast, gradient_checkpointing)

    n_blocks = settings.config.n_layers
    # The first block, and those that are unlike any other: the last, and the selected ones.
    few = max(2, n_selected_blocks(settings.trainable_layers, 0) + 1)
    if n_blocks <= few + 1:
        counts = count(n_blocks)
    else:
        pairs = zip(astuple(count(few)), astuple(count(few + 1)), strict=True)
        counts = StepCounts(*(a + (n_blocks - few) * (b - a) for a, b in pairs))
    if gradient_checkpointing:  # the backward pass computes one block after the other again
        plain = count_step(settings, num_classes, batch_size, n_tokens, precision, fast)
        counts = replace(counts, saved=counts.saved + plain.saved // max(1, counts.trained_blocks))
    return counts


def _count(
    net: TextClassifier, batch_size: int, n_tokens: int, precision: str, fast: bool, gradient_checkpointing: bool
) -> StepCounts:
    for parameter in net.parameters():  # `net.to` cannot replace a fake tensor
        parameter.data = parameter.data.to(TRUE.get(precision, torch.float32))
    net.fast, net.recompute = fast, gradient_checkpointing
    mixed = MIXED.get(precision)
    if fast and mixed is not None:
        net.hold_frozen(mixed)
    parameters = {p.untyped_storage()._cdata for p in net.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}  # kept, so that no other one gets the same address

    def note_saved(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            saved[storage._cdata] = storage
        return tensor

    input_ids = torch.zeros(batch_size, n_tokens, dtype=torch.int64)
    lengths = torch.full((batch_size,), n_tokens)
    with torch.autocast("cpu", mixed, enabled=mixed is not None), saved_tensors_hooks(note_saved, lambda x: x):
        with _OperationCounter() as features:
            x = net.features(input_ids, lengths)  # (B, T, C)
        with _OperationCounter() as forward:
            logits = net.from_features(x, lengths).float()
    loss = F.cross_entropy(logits, torch.zeros(batch_size, dtype=torch.int64))
    with _OperationCounter() as backward:
        loss.backward()
    trained = net.config.n_layers - net.first_trained_block
    kept = sum(storage.nbytes() for storage in saved.values())
    return StepCounts(features.n, forward.n, backward.n, kept, x.shape[-1] * x.element_size(), trained)


class _OperationCounter(TorchDispatchMode):
    """torch's FlopCounterMode, without its bookkeeping by module, which takes three times as long as the step."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # no operation, and two thirds of all calls
            return args[0].fake_device
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:  # torch counts a GPU's alone
            self.n += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default:
            self.n += sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))
        elif func._overloadpacket in flop_registry:
            self.n += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out
