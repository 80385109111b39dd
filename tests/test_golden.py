"""Figures of an independent float32 implementation, one case per design choice of the published table."""

import json
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.adapters import LoRA

pytestmark = pytest.mark.shared

CASES = (
    "row01_last_block",
    "row02_first_token",
    "row03_last_layer",
    "row04_last_two_blocks",
    "row05_all",
    "row11_lora",
    "row16_flexible",
    "row17_no_causal_mask",
    "row19_average",
)


@cache
def golden() -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = SHARED / "golden"
    return json.loads((folder / "public.json").read_text()), load_file(folder / "public.safetensors")


def test_every_case_is_tested() -> None:
    assert {case["name"] for case in golden()[0]["cases"]} == set(CASES)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path) -> tuple[dict[str, Any], GPTClassifier]:
    """A case and the classifier that it describes, its weights read from a file."""
    description, tensors = golden()
    case = next(case for case in description["cases"] if case["name"] == request.param)
    is_lora = case["trainable"] == "lora"
    targets = ("query", "key", "value", "output", "mlp_in", "mlp_out", "head")
    net = GPTClassifier(
        GPTConfig(**description["config"]),
        token_position="mean" if case.get("average") else case["token_position"],
        trainable_layers=None if is_lora else case["trainable"],
        causal=not case.get("disable_causal_mask", False),
        adapter=LoRA(case["lora_rank"], case["lora_alpha"], scaling="alpha", targets=targets) if is_lora else None,
    )
    weights = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
    save_file(weights, tmp_path / "golden.safetensors")
    assert net.load_weights(tmp_path / "golden.safetensors") == [
        f"the head is that of {tmp_path / 'golden.safetensors'}"
    ]
    adapters = {name: t for name, t in tensors.items() if name.startswith(f"{case['name']}.adapter.")}
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for name, tensor in adapters.items():  # stored (in, rank) and (rank, out)
            parameters[our_name(name.removeprefix(f"{case['name']}.adapter."))].copy_(tensor.T)
    return case, net


def our_name(name: str) -> str:
    name = name.replace(".lora.A", ".lora_A").replace(".lora.B", ".lora_B").replace(".linear.", ".")
    return name if name.startswith("out_head.") else f"backbone.{name}"


def loss_of(net: GPTClassifier) -> Tensor:
    tensors = golden()[1]
    return F.cross_entropy(net(tensors["input_ids"], tensors["lengths"]), tensors["labels"])


def test_logits_and_loss(case: tuple[dict[str, Any], GPTClassifier]) -> None:
    described, net = case
    tensors = golden()[1]
    logits = net(tensors["input_ids"], tensors["lengths"])
    torch.testing.assert_close(logits, tensors[f"{described['name']}.logits"], atol=1e-5, rtol=0)
    assert loss_of(net).item() == pytest.approx(described["loss"], abs=1e-5)


def test_features_and_what_follows_are_the_whole(case: tuple[dict[str, Any], GPTClassifier]) -> None:
    described, net = case
    ids, lengths = golden()[1]["input_ids"], golden()[1]["lengths"]
    logits = net.from_features(net.features(ids, lengths), lengths)
    torch.testing.assert_close(logits, golden()[1][f"{described['name']}.logits"], atol=1e-5, rtol=0)


def test_what_trains_and_its_gradients(case: tuple[dict[str, Any], GPTClassifier]) -> None:
    described, net = case
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == described["trainable_parameters"]
    loss_of(net).backward()
    expected = {our_name(name): norm for name, norm in described["grad_norms"].items()}
    assert set(expected) == set(trained)
    for name, norm in expected.items():
        gradient = trained[name].grad
        assert gradient is not None, name
        # A key's bias moves every score of a row alike, which softmax ignores: its gradient is rounding.
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-7), name
    assert all(p.grad is None for p in net.parameters() if not p.requires_grad)


def test_ten_optimizer_steps(case: tuple[dict[str, Any], GPTClassifier]) -> None:
    described, net = case
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=5e-4, weight_decay=0.1)
    losses = []
    for _ in range(10):
        loss = loss_of(net)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == pytest.approx(described["losses_10_adamw_steps_lr5e-4_wd0.1"], abs=1e-4)
