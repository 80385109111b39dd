"""LoRA against its closed form and against peft."""

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from small_fits import pad_rows
from torch import nn

from lit_cls.errors import UserError
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.adapters import LoRA, adapter_as_config, adapter_as_dict, adapter_from_dict
from lit_cls.model.adapters.lora import LoRALinear
from lit_cls.model.selection import parameter_groups

TINY = GPTConfig(vocab_size=97, context_length=32, emb_dim=16, n_heads=4, n_layers=2)


EVERY = {"att.W_query", "att.W_key", "att.W_value", "att.out_proj", "ff.layers.0", "ff.layers.2"}


def adapted(rank: int = 3, scale: float = 0.7, dropout: float = 0.0, bias: bool = True) -> LoRALinear:
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(6, 5, bias=bias), rank, scale, dropout)
    with torch.no_grad():
        layer.lora_B.normal_()  # zero at the start: every comparison below would hold without an adapter
    return layer


def test_output_is_the_closed_form() -> None:
    layer, x = adapted(), torch.randn(4, 7, 6)
    expected = x @ layer.weight.T + layer.bias + 0.7 * x @ layer.lora_A.T @ layer.lora_B.T
    torch.testing.assert_close(layer(x), expected)
    assert not torch.allclose(layer(x), x @ layer.weight.T + layer.bias, atol=0.1)


def test_a_new_adapter_changes_nothing() -> None:
    torch.manual_seed(1)
    linear, x = nn.Linear(6, 5), torch.randn(3, 6)
    torch.testing.assert_close(LoRALinear(linear, 2, 1.0)(x), linear(x), atol=0, rtol=0)


def test_output_and_gradients_equal_pefts() -> None:
    torch.manual_seed(2)
    base = nn.Sequential(nn.Linear(6, 5))
    ours = LoRALinear(copy.deepcopy(base[0]), rank=3, scale=8 / 3)
    theirs = get_peft_model(base, LoraConfig(r=3, lora_alpha=8, target_modules=["0"], lora_dropout=0.0))
    peft_layer = theirs.base_model.model[0]
    with torch.no_grad():
        peft_layer.lora_A["default"].weight.copy_(ours.lora_A)
        ours.lora_B.normal_()
        peft_layer.lora_B["default"].weight.copy_(ours.lora_B)
    x = torch.randn(4, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    for output in (ours(x), theirs(x)):
        output.square().sum().backward()
    torch.testing.assert_close(ours.lora_A.grad, peft_layer.lora_A["default"].weight.grad)
    torch.testing.assert_close(ours.lora_B.grad, peft_layer.lora_B["default"].weight.grad)


def test_weight_and_bias_are_taken_over_not_copied() -> None:
    linear = nn.Linear(6, 5)
    layer = LoRALinear(linear, 2, 1.0)
    assert layer.weight is linear.weight
    assert set(layer.state_dict()) == {"weight", "bias", "lora_A", "lora_B"}
    assert "bias" not in LoRALinear(nn.Linear(6, 5, bias=False), 2, 1.0).state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_merged_layer_is_plain_and_answers_the_same(bias: bool, dtype: torch.dtype) -> None:
    layer = adapted(bias=bias).to(dtype)
    before, x = layer.weight.detach().clone(), torch.randn(4, 6, dtype=dtype)
    apart = layer(x)
    plain = layer.merged()
    assert type(plain) is nn.Linear
    assert (plain.in_features, plain.out_features) == (6, 5)
    assert set(plain.state_dict()) == {"weight", "bias"} - (set() if bias else {"bias"})
    assert plain.bias is layer.bias
    torch.testing.assert_close(plain(x), apart, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0.02)
    exact = before.float() + 0.7 * (layer.lora_B.float() @ layer.lora_A.float())
    torch.testing.assert_close(plain.weight, exact.to(dtype), atol=0, rtol=0)  # one rounding, of the float32 sum


def test_dropout_is_on_the_adapters_input_in_training_alone() -> None:
    layer, x = adapted(dropout=0.5), torch.randn(4, 6)
    plain = x @ layer.weight.T + layer.bias
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x) - plain, 0.7 * x @ layer.lora_A.T @ layer.lora_B.T, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (("query",), {"att.W_query"}),
        (("mlp_in",), {"ff.layers.0"}),
        (("mlp_in", "mlp_out"), {"ff.layers.0", "ff.layers.2"}),
        (("key", "value", "output"), {"att.W_key", "att.W_value", "att.out_proj"}),
        (("all_linear",), EVERY),
        (("all_linear", "query"), EVERY),
    ],
)
def test_targets_are_the_layers_named(targets: tuple, names: set[str]) -> None:
    net = GPTClassifier(TINY, adapter=LoRA(2, targets=targets))
    found = {name for name, module in net.named_modules() if isinstance(module, LoRALinear)}
    assert found == {f"backbone.trf_blocks.{i}.{name}" for i in range(2) for name in names}
    assert net.adapter_names == {f"{name}.lora_{matrix}" for name in found for matrix in "AB"}


def test_the_head_can_be_a_target() -> None:
    net = GPTClassifier(TINY, adapter=LoRA(2, targets=("head",), train_head=False))
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {"out_head.lora_A", "out_head.lora_B"}


def test_a_layer_that_the_family_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.adapter.targets mlp_gate.*query, key, value, output, mlp_in, mlp_out"):
        GPTClassifier(TINY, adapter=LoRA(2, targets=("query", "mlp_gate")))


def test_adapters_are_a_group_of_their_own_among_the_parameters() -> None:
    groups = parameter_groups(GPTClassifier(TINY, adapter=LoRA(2, targets=("query",))))
    counts = {name: sum(p.numel() for p in group if p.requires_grad) for name, group in groups.items()}
    assert counts.pop("LoRA adapters") == 2 * (2 * 16 + 2 * 16)
    assert counts.pop("head") == 2 * 16 + 2
    assert not any(counts.values())


def test_plain_values_of_an_adapter() -> None:
    lora = LoRA(4, 8, 0.1, "alpha", ("query", "head"), False)
    fields = {"rank": 4, "alpha": 8, "dropout": 0.1, "scaling": "alpha", "targets": ["query", "head"]}
    plain = {"name": "LoRA", **fields, "train_head": False}
    assert adapter_as_dict(lora) == plain
    assert adapter_from_dict(plain) == lora
    assert adapter_as_config(plain) == {
        "class_path": "lit_cls.model.adapters.LoRA",
        "init_args": {**fields, "train_head": False},
    }
    assert adapter_as_dict(None) is adapter_from_dict(None) is adapter_as_config(None) is None
    with pytest.raises(KeyError):
        adapter_from_dict({"name": "os.system"})


@pytest.mark.parametrize("position", ["mean", "flexible"])
def test_every_trained_tensor_gets_a_gradient(position: str) -> None:
    torch.manual_seed(3)
    net = GPTClassifier(TINY, token_position=position, adapter=LoRA(2))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)  # while it is zero, A has no gradient
    net(*pad_rows([[1, 2, 3, 4], [5, 6]], 6)).logsumexp(-1).sum().backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_scaling() -> None:
    assert LoRA(16, 8).scale == 0.5
    assert LoRA(16, 8, scaling="alpha").scale == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 0}, "model.adapter.rank 0 is less than 1"),
        ({"dropout": 1.0}, "model.adapter.dropout 1.0 is not in"),
        ({"targets": ()}, "model.adapter.targets is empty"),
        ({"train_head": False}, "train_head is false and head is not among .* would stay random"),
    ],
)
def test_wrong_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GPTClassifier(TINY, adapter=LoRA(**values))


def plain(layer: LoRALinear, x: torch.Tensor) -> torch.Tensor:
    """Product, scaling and sum one by one."""
    return F.linear(x, layer.weight, layer.bias) + layer.scale * F.linear(F.linear(x, layer.lora_A), layer.lora_B)


@pytest.mark.parametrize("shape", [(4, 6), (4, 7, 6), (2, 3, 5, 6), (1, 6), (0, 6), (0, 3, 6), (6,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_one_product_equals_the_plain_formula(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(6, 5, bias=bias), 3, 0.7)
    with torch.no_grad():
        layer.lora_B.normal_()
    found = []
    for formula in (layer, lambda x: plain(layer, x)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
        layer.zero_grad()
        y = formula(x)
        y.square().sum().backward()
        found.append({"y": y.detach(), "x": x.grad, **{name: p.grad.clone() for name, p in layer.named_parameters()}})
    assert found[0].keys() == found[1].keys()
    for name, tensor in found[1].items():
        torch.testing.assert_close(found[0][name], tensor, atol=1e-5, rtol=1e-5, msg=name)
        assert tensor.abs().sum() > 0 or 0 in shape


@pytest.mark.parametrize("shape", [(4, 6), (4, 7, 6)], ids=str)
def test_one_product_under_autocast(shape: tuple[int, ...]) -> None:
    layer, x = adapted(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    exact = plain(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = layer(x), plain(layer, x)
    assert got.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), exact, atol=0.05, rtol=0.02)
    torch.testing.assert_close(got, expected, atol=0.05, rtol=0.02)
    got.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters() if p.requires_grad)


def test_merging_a_network_leaves_no_adapter() -> None:
    torch.manual_seed(3)
    net = GPTClassifier(TINY, adapter=LoRA()).eval()
    adapters = [layer for layer in net.modules() if isinstance(layer, LoRALinear)]
    plain_names = {name for name, _ in GPTClassifier(TINY).named_parameters()}
    with torch.no_grad():
        for layer in adapters:
            layer.lora_B.normal_(std=0.1)
        ids, lengths = pad_rows([[1, 2, 3], [4, 5, 6, 7]], 4)
        before = net(ids, lengths)
        assert len(adapters) == 12
        for _ in range(2):  # nothing is added a second time
            LoRA().merge(net)
            assert not any(isinstance(layer, LoRALinear) for layer in net.modules())
            assert {name for name, _ in net.named_parameters()} == plain_names
            torch.testing.assert_close(net(ids, lengths), before)
