"""Operations and bytes of a step, counted without memory, against formulas and against a real step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import pairwise
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lit_cls.experiments import step_counts
from lit_cls.experiments.step_counts import StepCounts, count_step
from lit_cls.model.adapters import LoRA
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.head import TokenPosition
from lit_cls.model.selection import TrainableLayers
from lit_cls.model.settings import ModelSettings

NANO = ModelSettings(size="gpt2-nano", weights="random", trainable_layers="all", token_position="mean")
B, T, C, LAYERS = 4, 16, 48, 3


def test_operations_follow_from_the_shape() -> None:
    """A block has 12 C² weights, each used once a token; scores and sums over values take 4 T C a token."""
    counts = count_step(NANO, 2, B, T, "32-true")
    forward = LAYERS * (B * T * 24 * C**2 + B * 4 * T**2 * C) + 2 * B * C * 2
    assert (counts.features, counts.forward) == (0, forward)
    assert 2 * forward <= counts.backward < 2.2 * forward  # attention's weights are computed again
    frozen = count_step(replace(NANO, trainable_layers="last_layer"), 2, B, T, "32-true")
    assert (frozen.features, frozen.forward) == (forward - 2 * B * C * 2, 2 * B * C * 2)
    assert frozen.bytes_per_position == 4 * C


def test_only_what_is_needed_is_counted() -> None:
    everything = count_step(NANO, 2, B, T, "32-true")
    one_position = count_step(
        replace(NANO, token_position="flexible", trainable_layers="last_block"), 2, B, T, "32-true"
    )
    assert one_position.forward < 0.5 * everything.forward / LAYERS
    assert count_step(NANO, 2, B, T, "32-true", gradient_checkpointing=True).backward > 1.3 * everything.backward
    # The gradients of frozen matrices are not computed.
    adapted = count_step(replace(NANO, trainable_layers="last_layer", adapter=LoRA(rank=1)), 2, B, T, "32-true")
    assert adapted.backward < 0.7 * everything.backward


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_saved_bytes_are_those_of_a_real_step(precision: str) -> None:
    net = NANO.build(2)
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids, lengths = torch.zeros(B, T, dtype=torch.int64), torch.full((B,), T)
    mixed = precision == "bf16-mixed"
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), saved_tensors_hooks(note, lambda x: x):
        loss = F.cross_entropy(net(ids, lengths).float(), torch.zeros(B, dtype=torch.int64))
    assert loss.requires_grad
    assert count_step(NANO, 2, B, T, precision).saved == pytest.approx(sum(saved.values()), rel=0.01)


def test_gradient_checkpointing_saves_one_block_and_the_inputs_of_all() -> None:
    plain = count_step(NANO, 2, B, T, "32-true")
    checkpointed = count_step(NANO, 2, B, T, "32-true", gradient_checkpointing=True)
    inputs = 4 * LAYERS * B * T * C
    assert plain.saved / LAYERS + inputs <= checkpointed.saved < plain.saved / LAYERS + 3 * inputs < plain.saved


CHOICES: list[tuple[TrainableLayers, TokenPosition, bool, str, bool]] = [
    ("last_layer", "last", True, "bf16-true", True),
    ("last_block", "flexible", False, "bf16-mixed", False),
    ("last_two_blocks", "mean", True, "32-true", True),
    (3, "flexible", True, "bf16-true", False),
    ("all", "mean_flexible", False, "32-true", False),
    ("all", "flexible", True, "bf16-mixed", True),
]


@pytest.mark.parametrize(("choices", "adapter"), pairwise(CHOICES, [None, LoRA(rank=2)], strength=1))
def test_counts_of_a_deep_network_follow_from_two_shallow_ones(
    choices: tuple[TrainableLayers, TokenPosition, bool, str, bool],
    adapter: LoRA | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven blocks, so that the shallow networks differ from the deep one for every choice."""
    trainable_layers, token_position, causal, precision, checkpointing = choices
    spec = BACKBONES["gpt2-nano"]
    deep = replace(spec, config=replace(spec.config, n_layers=7, emb_dim=12))
    monkeypatch.setitem(BACKBONES, "gpt2-nano", deep)
    settings = replace(NANO, trainable_layers=trainable_layers, adapter=adapter)
    settings = replace(settings, token_position=token_position, causal=causal)
    built, original = [], step_counts._count

    def count(net: TextClassifier, *options: Any) -> StepCounts:
        built.append(net.config.n_layers)
        return original(net, *options)

    monkeypatch.setattr(step_counts, "_count", count)
    count_step.cache_clear()
    counts = count_step(settings, 2, 2, 5, precision, True, checkpointing)
    assert max(built) < 7
    assert counts.trained_blocks == 7 - settings.build_empty(2).first_trained_block
    monkeypatch.setattr(step_counts, "n_selected_blocks", lambda *_: 7)  # count the whole network
    count_step.cache_clear()
    built.clear()
    assert counts == count_step(settings, 2, 2, 5, precision, True, checkpointing)
    assert set(built) == {7}
    count_step.cache_clear()
