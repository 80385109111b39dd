"""Weights in oneDNN's layout answer as plain ones do."""

from pathlib import Path

import pytest
import torch
from small_fits import data, module, save
from torch import Tensor, nn

import lit_cls
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model import packed as packed_module
from lit_cls.model.adapters import LoRA
from lit_cls.model.adapters.lora import LoRALinear
from lit_cls.model.packed import PackedLinear, can_pack, pack, padded_rows

pytestmark = pytest.mark.skipif(not can_pack(torch.float32), reason="this torch has no oneDNN beside MKL")
in_bfloat16 = pytest.mark.skipif(not can_pack(torch.bfloat16), reason="the processor has no bfloat16 products")
TINY = GPTConfig(vocab_size=60, context_length=40, emb_dim=24, n_heads=4, n_layers=3)
POSITIONS = ("flexible", "first", "last", "mean", "mean_flexible")


def network(**options: object) -> GPTClassifier:
    """One whose adapters have been trained, where it has any."""
    torch.manual_seed(0)
    net = GPTClassifier(TINY, 3, **options).eval()
    for name, parameter in net.named_parameters():
        if "lora_B" in name or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return net


def batch(rows: int, T: int) -> tuple[Tensor, Tensor]:
    lengths = torch.arange(rows) % (T + 1)  # one text is empty
    return torch.randint(60, (rows, T)), lengths.flip(0)


@pytest.mark.parametrize("lora", [None, LoRA(rank=2), LoRA(rank=2, targets=("key", "mlp_in", "mlp_out", "head"))])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", POSITIONS)
def test_logits_are_the_same(position: str, causal: bool, lora: LoRA | None) -> None:
    trains = {"trainable_layers": "all"} if lora is None else {"adapter": lora}
    plain, packed = (network(token_position=position, causal=causal, **trains) for _ in range(2))
    pack(packed)
    for rows, T in ((1, 1), (1, 7), (5, 33), (16, 40)):
        input_ids, lengths = batch(rows, T)
        with torch.inference_mode():
            torch.testing.assert_close(packed(input_ids, lengths), plain(input_ids, lengths), rtol=1e-5, atol=1e-5)


def test_what_is_packed() -> None:
    """Six matrices a block, but for the last one's keys and values; no adapter is left, and no second copy."""
    net = network(adapter=LoRA(rank=2))
    pack(net)
    assert sum(isinstance(layer, PackedLinear) for layer in net.modules()) == 3 * 6 - 2
    assert not any(isinstance(layer, LoRALinear) for layer in net.backbone.trf_blocks.modules())
    matrices = [name for name, p in net.backbone.trf_blocks.named_parameters() if p.ndim == 2]
    assert matrices == ["2.att.W_key.weight", "2.att.W_value.weight"]


@in_bfloat16
def test_in_bfloat16_no_adapter_is_rounded_away() -> None:
    """Added into a rounded weight it may be lost: those layers stay, the others are packed, no answer moves."""
    lora = LoRA(rank=2, targets=("query", "mlp_in", "mlp_out"))
    plain, packed = (network(adapter=lora).requires_grad_(False) for _ in range(2))
    for net in (plain, packed):
        net.hold_frozen(torch.bfloat16)
    pack(packed)
    assert sum(isinstance(layer, LoRALinear) for layer in packed.modules()) == 3 * 3
    assert sum(isinstance(layer, PackedLinear) for layer in packed.modules()) == 3 * 3 - 2
    for rows, T in ((1, 7), (5, 33)):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(packed(*batch(rows, T)), plain(*batch(rows, T)), rtol=0.02, atol=0.02)


@in_bfloat16
@pytest.mark.parametrize("position", POSITIONS)
def test_logits_in_bfloat16(position: str) -> None:
    plain, packed = (network(token_position=position).requires_grad_(False) for _ in range(2))
    for net in (plain, packed):
        net.hold_frozen(torch.bfloat16)
    pack(packed)
    assert any(isinstance(layer, PackedLinear) for layer in packed.modules())
    for rows, T in ((1, 1), (1, 7), (5, 33)):
        torch.manual_seed(rows)
        input_ids, lengths = batch(rows, T)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(packed(input_ids, lengths), plain(input_ids, lengths), rtol=0.02, atol=0.02)


def test_few_numbers_of_rows_stand_for_all() -> None:
    for n in range(1, 5000):
        assert n <= padded_rows(n) <= n * 9 / 8
    assert [padded_rows(n) for n in (0, 1, 15, 16, 17, 18, 1023, 1025)] == [0, 1, 15, 16, 18, 18, 1024, 1152]
    assert len({padded_rows(n) for n in range(1, 2049)}) < 80


def test_rows_are_padded_to_these(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = packed_module._PackedProduct.apply

    def product(rows: Tensor, *weights: Tensor) -> Tensor:
        seen.append(len(rows))
        return plain(rows, *weights)

    monkeypatch.setattr(packed_module._PackedProduct, "apply", product)
    layer = PackedLinear(nn.Linear(8, 3))
    assert layer(torch.randn(5, 7, 8)).shape == (5, 7, 3)
    assert layer(torch.randn(0, 7, 8)).shape == (0, 7, 3)
    assert seen == [36, 0]


@pytest.mark.parametrize("shape", [(24, 24), (96, 24), (24, 96), (5, 7), (2304, 768), (1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_and_its_gradient(shape: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(shape[1], shape[0], bias=bias)
    packed = PackedLinear(linear)
    for size in ((1, shape[1]), (3, 17, shape[1])):
        x = torch.randn(size)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.testing.assert_close(packed(ours), linear(theirs), rtol=1e-5, atol=1e-5)
        packed(ours).square().sum().backward()
        linear(theirs).square().sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-4)


def test_gradients_by_embeddings_are_the_same() -> None:
    """What integrated gradients are made of."""
    plain, packed = network(), network()
    pack(packed)
    x, lengths = torch.randn(4, 9, 24), torch.tensor([9, 3, 1, 6])
    grads = []
    for net in (plain, packed):
        embedded = x.clone().requires_grad_()
        net.forward_embedded(embedded, lengths).square().sum().backward()
        grads.append(embedded.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-5)


def test_a_loaded_classifier_is_packed_where_that_is_faster(
    tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["good film 3", "", "poor film poor film poor film 4", "word " * 300]
    path = save(tmp_path, module(trainable_layers="last_block"), data(reviews), limit_train_batches=2)

    def packed_layers(**options: str) -> int:
        classifier = lit_cls.load(path, **options)
        return sum(isinstance(layer, PackedLinear) for layer in classifier.net.modules())

    assert packed_layers(precision="32-true") > 0
    assert (packed_layers(precision="bf16-mixed") > 0) is can_pack(torch.bfloat16)
    assert packed_layers(precision="64-true") == 0
    found = lit_cls.load(path, precision="32-true").logits(texts)
    monkeypatch.setattr(packed_module, "can_pack", lambda dtype: False)
    assert packed_layers(precision="32-true") == 0
    torch.testing.assert_close(found, lit_cls.load(path, precision="32-true").logits(texts), rtol=1e-5, atol=1e-5)
