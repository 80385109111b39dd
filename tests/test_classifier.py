"""The head, the position it reads, and what trains."""

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from conftest import pairwise
from small_fits import pad_rows, training
from torch import Tensor, nn

from lit_cls.errors import UserError
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.adapters import LoRA
from lit_cls.model.adapters.lora import LoRALinear
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.backbones.base import run_blocks
from lit_cls.model.head import TokenPosition, count_positions
from lit_cls.model.layers import AttentionMask
from lit_cls.model.settings import ModelSettings

TINY = GPTConfig(vocab_size=97, context_length=32, emb_dim=16, n_heads=4, n_layers=3)
EVERY_LAYER = ("all_linear", "head")


def classifier(**choices: object) -> GPTClassifier:
    """A tiny network that tells positions apart: weights far larger than the initial ones."""
    torch.manual_seed(0)
    net = GPTClassifier(TINY, num_classes=3, **choices)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return net.eval()


ROWS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14], [15, 16, 17, 18]]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", ["flexible", "mean_flexible", "first"])
@torch.no_grad()
def test_pads_and_neighbours_change_nothing(position: str, causal: bool) -> None:
    net = classifier(token_position=position, causal=causal)
    alone = torch.cat([net(*pad_rows([row], len(row))) for row in ROWS])
    assert alone.std(dim=0).min() > 0.01  # different texts, different answers
    for T in (7, 8, 20, 32):
        torch.testing.assert_close(net(*pad_rows(ROWS, T)), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(net(*pad_rows(ROWS[::-1], 32)), alone.flip(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", ["last_layer", "last_block", "all", "lora"])
@pytest.mark.parametrize("position", get_args(TokenPosition))
@torch.no_grad()
def test_from_token_embeddings_on_it_is_the_same(position: str, layers: str) -> None:
    for causal in (True, False):
        net = classifier(token_position=position, causal=causal, **training(layers))
        ids, lengths = pad_rows(ROWS, 12)
        assert torch.equal(net.forward_embedded(net.backbone.tok_emb(ids), lengths), net(ids, lengths))
    with pytest.raises(UserError, match="a batch of 33 tokens exceeds the model's context length of 32"):
        net.forward_embedded(torch.zeros(1, 33, 16), torch.tensor([33]))


@pytest.mark.parametrize("position", ["last", "mean"])
@torch.no_grad()
def test_last_and_mean_read_pads_by_definition(position: str) -> None:
    net = classifier(token_position=position)
    short, long = net(*pad_rows(ROWS, 7)), net(*pad_rows(ROWS, 20))
    assert not torch.allclose(short, long, atol=1e-3)


@torch.no_grad()
def test_a_token_with_the_pad_id_is_read_like_any_other() -> None:
    net = GPTClassifier(replace(TINY, vocab_size=50257)).eval()
    ids = torch.tensor([[7, 50256, 9, 50256, 50256]])
    four, three = net(ids, torch.tensor([4])), net(ids, torch.tensor([3]))
    torch.testing.assert_close(four, net(ids[:, :4], torch.tensor([4])), atol=1e-5, rtol=0)
    assert not torch.allclose(four, three)


@torch.no_grad()
def test_each_position_is_what_it_says() -> None:
    ids, lengths = pad_rows(ROWS, 9)
    net = classifier(token_position="last")
    trunk = net.backbone
    x = trunk.final_norm(run_blocks(trunk.trf_blocks, trunk.add_positions(trunk.tok_emb(ids)), AttentionMask(True)))
    real = torch.arange(9) < lengths[:, None]
    expected = {
        "first": x[:, 0],
        "last": x[:, 8],
        "flexible": torch.stack([row[length - 1] for row, length in zip(x, lengths, strict=True)]),
        "mean": x.mean(1),
        "mean_flexible": torch.stack([row[mask].mean(0) for row, mask in zip(x, real, strict=True)]),
    }
    for position, read in expected.items():
        got = classifier(token_position=position)(ids, lengths)
        torch.testing.assert_close(got, net.out_head(read), atol=1e-5, rtol=1e-5, msg=position)


@torch.no_grad()
@pytest.mark.parametrize("position", ["first", "last", "flexible", "mean", "mean_flexible"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_text_without_tokens_still_gets_an_answer(position: str, causal: bool) -> None:
    net = classifier(token_position=position, causal=causal)
    logits = net(torch.tensor([[96, 96], [4, 5]]), torch.tensor([0, 2]))
    assert logits.isfinite().all()


def test_a_batch_without_rows_has_a_loss_of_zero_and_zero_gradients() -> None:
    # A process of a distributed run may get no row of the last batch.
    net = classifier(trainable_layers="all")
    logits = net(torch.empty(0, 1, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    torch.nn.functional.cross_entropy(logits, torch.empty(0, dtype=torch.int64), reduction="sum").backward()
    assert logits.shape == (0, 3)
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


NEW = {"out_head.weight", "out_head.bias"}


def trained_names(net: GPTClassifier) -> set[str]:
    return {name for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("layers", "blocks", "norm"),
    [
        ("last_layer", set(), False),
        ("last_block", {2}, True),
        ("last_two_blocks", {1, 2}, True),
        (1, {2}, True),
        (3, {0, 1, 2}, True),
    ],
)
def test_what_trains(layers: str | int, blocks: set[int], norm: bool) -> None:
    net = classifier(trainable_layers=layers)
    names = trained_names(net)
    assert {int(name.split(".")[2]) for name in names if name.startswith("backbone.trf_blocks.")} == blocks
    assert ("backbone.final_norm.scale" in names) is norm
    assert names >= NEW
    assert not names & {"backbone.tok_emb.weight", "backbone.pos_emb.weight"}
    for index in blocks:  # whole blocks
        inside = {name for name, _ in net.named_parameters() if name.startswith(f"backbone.trf_blocks.{index}.")}
        assert inside
        assert inside <= names


def test_all_trains_all() -> None:
    net = classifier(trainable_layers="all")
    assert trained_names(net) == {name for name, _ in net.named_parameters()}


@pytest.mark.parametrize(
    ("choices", "trained"),
    [
        ({"trainable_layers": "last_layer"}, 1_538),
        ({"trainable_layers": "last_block"}, 7_090_946),
        ({"trainable_layers": "all"}, 124_441_346),
        ({"adapter": LoRA(8, targets=EVERY_LAYER, train_head=False)}, 1_333_264),
        ({"adapter": LoRA(8, targets=EVERY_LAYER)}, 1_334_802),
    ],
)
def test_parameter_counts_of_gpt2_small(choices: dict, trained: int) -> None:
    with torch.device("meta"):
        net = GPTClassifier(GPTConfig(), **choices)
    counts = {name: p.numel() for name, p in net.named_parameters()}
    assert sum(n for name, n in counts.items() if ".lora_" not in name) == 124_441_346
    assert sum(counts[name] for name in trained_names(net)) == trained


def test_frozen_parameters_keep_their_values_and_get_no_gradient() -> None:
    net = classifier(trainable_layers="last_block")
    before = {name: p.clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    net(*pad_rows(ROWS, 7)).logsumexp(-1).sum().backward()
    optimizer.step()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert not torch.equal(parameter, before[name]), name
        else:
            assert parameter.grad is None, name
            torch.testing.assert_close(parameter, before[name], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"num_classes": 1}, "num_classes 1 is less than 2"),
        ({"token_position": "middle"}, "token_position 'middle' is not one of first, last"),
        ({"trainable_layers": 0}, "trainable_layers 0 is not between 1 and the model's 3 blocks"),
        ({"trainable_layers": 4}, "trainable_layers 4 is not between 1 and the model's 3 blocks"),
        ({"trainable_layers": "some"}, "trainable_layers 'some' is neither a number of blocks nor one of last_layer"),
        ({"trainable_layers": True}, "trainable_layers True is neither"),
        ({"trainable_layers": "lora"}, "trainable_layers 'lora' is neither a number of blocks nor one of last_layer"),
        ({"adapter": LoRA(0)}, "model.adapter.rank 0 is less than 1"),
    ],
)
def test_wrong_choices_are_refused(choices: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GPTClassifier(TINY, **choices)


def test_settings_survive_a_checkpoint() -> None:
    lora = LoRA(4, 8, scaling="alpha", targets=("query", "mlp_in", "mlp_out"), train_head=True)
    settings = ModelSettings("gpt2-nano", "random", "mean", 2, False, lora, 0.1)
    again = ModelSettings.from_dict(settings.as_dict())
    assert again == settings
    assert ModelSettings.from_dict(ModelSettings().as_dict()) == ModelSettings()


def test_what_trains_by_default() -> None:
    assert ModelSettings().trainable_layers == "last_block"
    assert ModelSettings(adapter=LoRA()).trainable_layers == "last_layer"
    assert trained_names(GPTClassifier(TINY)) == trained_names(GPTClassifier(TINY, trainable_layers="last_block"))
    beside = trained_names(GPTClassifier(TINY, adapter=LoRA(), trainable_layers="last_block"))
    assert beside > trained_names(GPTClassifier(TINY, trainable_layers="last_block"))
    adapters = {name for name in beside if ".lora_" in name}
    assert trained_names(GPTClassifier(TINY, adapter=LoRA())) == adapters | NEW


def test_settings_build_the_network_they_describe() -> None:
    net = ModelSettings("gpt2-nano", "random", "first", 2, False, None, 0.25).build(num_classes=4)
    assert net.config == replace(BACKBONES["gpt2-nano"].config, drop_rate=0.25)
    assert (net.token_position, net.first_trained_block, net.causal, net.out_head.out_features) == (
        "first",
        1,
        False,
        4,
    )


@pytest.mark.parametrize("adapter", [None, LoRA(2)])
def test_new_parameters_are_the_same_whatever_the_backbone(adapter: LoRA | None, tmp_path) -> None:
    """With weights of a file, only new tensors draw random numbers: the head first, then the adapter."""
    from safetensors.torch import save_file

    settings = ModelSettings("gpt2-nano", str(tmp_path / "backbone.safetensors"), adapter=adapter)
    plain = ModelSettings("gpt2-nano", "random").build(3).backbone.named_parameters()
    backbone: dict[str, Tensor] = {name: p.detach().clone() for name, p in plain}
    found = []
    for scale in (1.0, 2.0):
        save_file({name: t * scale for name, t in backbone.items()}, settings.weights)
        torch.manual_seed(5)
        net, notes = settings.load(3, Path(settings.weights))
        assert notes == []
        assert torch.equal(net.backbone.tok_emb.weight, backbone["tok_emb.weight"] * scale)
        assert not any(p.is_meta for p in net.parameters())
        found.append(
            {name: p.clone() for name, p in net.named_parameters() if name in NEW or name in net.adapter_names}
        )
        torch.manual_seed(5)
        assert torch.equal(torch.nn.Linear(48, 3).weight, net.out_head.weight)
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 2 + (0 if adapter is None else 3 * 6 * 2)
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
    assert found[0]["out_head.weight"].std() > 0.01


@pytest.mark.parametrize(
    ("layers", "causal", "position"),
    pairwise(
        ["last_layer", "last_block", "last_two_blocks", "all", "lora"], [True, False], ["first", "last", "flexible"]
    ),
)
def test_the_last_block_at_one_position_is_the_whole_block_at_it(position: str, causal: bool, layers: str) -> None:
    """The fast path against its plain twin: logits, and every gradient."""
    net = classifier(token_position=position, causal=causal, **training(layers))
    ids, lengths = pad_rows(ROWS, 9)
    found = []
    for net.fast in (True, False):
        net.zero_grad()
        logits = net(ids, lengths)
        F.cross_entropy(logits, torch.tensor([0, 1, 1, 2])).backward()
        found.append((logits.detach(), {n: p.grad for n, p in net.named_parameters() if p.requires_grad}))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    assert set(found[0][1]) == set(found[1][1])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-5, rtol=1e-4)


def test_with_dropout_all_positions_are_computed() -> None:
    """Else the random numbers would depend on which path ran."""
    torch.manual_seed(0)
    net = GPTClassifier(replace(TINY, drop_rate=0.5), token_position="first")
    ids, lengths = pad_rows(ROWS, 9)
    found = []
    for net.fast in (True, False):
        torch.manual_seed(3)
        found.append(net(ids, lengths))
    assert torch.equal(found[0], found[1])


# Work that is left out.

POSITIONS = ("first", "last", "flexible", "mean", "mean_flexible")


@pytest.mark.parametrize(
    ("layers", "causal", "position"), pairwise(["last_layer", "last_block", 2, "all", "lora"], [True, False], POSITIONS)
)
def test_columns_that_are_trimmed_change_nothing(position: str, causal: bool, layers: str | int) -> None:
    """Logits and every gradient; and where pads are read none is trimmed."""
    net = classifier(token_position=position, causal=causal, **training(layers))
    ids, lengths = pad_rows(ROWS, 20)
    assert net.needs == {"last": "all", "mean": "all", "first": "first" if causal else "text"}.get(position, "text")
    found = []
    for net.fast in (False, True):
        net.zero_grad()
        trimmed = net.trim(ids, lengths)
        assert trimmed.shape[1] == ({"all": 20, "text": 7, "first": 1}[net.needs] if net.fast else 20)
        assert torch.equal(trimmed, ids[:, : trimmed.shape[1]])
        logits = net(trimmed, lengths)
        F.cross_entropy(logits, torch.tensor([0, 1, 1, 2])).backward()
        found.append({"logits": logits.detach(), **{n: p.grad for n, p in net.named_parameters() if p.requires_grad}})
    assert found[0].keys() == found[1].keys()
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=2e-5, rtol=1e-4, msg=name)


def test_nothing_is_trimmed_with_dropout_or_of_no_rows() -> None:
    net = GPTClassifier(replace(TINY, drop_rate=0.5), token_position="first")
    ids, lengths = pad_rows(ROWS, 9)
    assert net.trim(ids, lengths) is ids
    net = classifier(token_position="first")
    assert net.trim(ids[:0], lengths[:0]).shape == (0, 9)
    # An empty text has one position, as the head reads one.
    assert classifier().trim(ids[:1], torch.tensor([0])).shape == (1, 1)


def test_counts_of_positions() -> None:
    lengths = torch.tensor([3, 1, 0])
    assert count_positions("first", lengths, 5).tolist() == [1, 1, 1]
    assert count_positions("text", lengths, 5).tolist() == [3, 1, 1]
    assert count_positions("all", lengths, 5).tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("layers", "position", "fast"),
    pairwise(["last_layer", "last_block", "last_two_blocks", 3, "all", "lora"], POSITIONS, [True, False]),
)
@torch.no_grad()
def test_features_are_of_what_does_not_train(layers: str | int, position: str, fast: bool) -> None:
    net = classifier(token_position=position, **training(layers))
    net.fast = fast
    ids, lengths = pad_rows(ROWS, 9)
    before, x = net(ids, lengths), net.features(ids, lengths)
    assert net.head_alone is (layers == "last_layer")
    assert net.first_trained_block == {"last_layer": 3, "last_block": 2, "last_two_blocks": 1}.get(str(layers), 0)
    assert x.shape == ((4, 1, 16) if layers == "last_layer" else (4, 9, 16))
    assert torch.equal(net.from_features(x, lengths), before)
    # With blocks frozen, whatever training changes, their output stays.
    if layers in ("all", "lora"):
        return
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(net.features(ids, lengths), x)
    assert not torch.allclose(net.from_features(x, lengths), before, atol=0.1)


def test_nothing_is_frozen_behind_embeddings_that_train() -> None:
    net = classifier(trainable_layers="last_layer")
    assert (net.head_alone, net.first_trained_block) == (True, 3)
    net.embeddings.requires_grad_(True)
    assert (net.head_alone, net.first_trained_block) == (False, 0)


# Frozen matrices in bfloat16.


@pytest.mark.parametrize(
    ("layers", "position", "causal", "fast"),
    pairwise(["last_layer", "last_block", "last_two_blocks", "lora"], POSITIONS, [True, False], [True, False]),
)
def test_frozen_matrices_held_in_bfloat16_change_no_bit_under_autocast(
    layers: str, position: str, causal: bool, fast: bool
) -> None:
    plain = classifier(token_position=position, causal=causal, **training(layers))
    plain.fast = fast
    held = copy.deepcopy(plain)
    held.hold_frozen(torch.bfloat16)
    ids, lengths = pad_rows(ROWS, 9)
    found = []
    for net in (plain, held):
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(ids, lengths)
        logits.float().logsumexp(-1).sum().backward()
        found.append([logits, *(p.grad for p in net.parameters() if p.requires_grad)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("layers", ["last_layer", "last_block", "lora", "all"])
def test_what_is_held_in_bfloat16(layers: str) -> None:
    net = classifier(**training(layers))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net.hold_frozen(torch.bfloat16)
    held = {name for name, p in net.named_parameters() if p.dtype == torch.bfloat16}
    linear = {
        f"{name}.{kind}"
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear | LoRALinear)
        for kind in ("weight", "bias")
    }
    assert held == linear - trained_names(net)
    assert bool(held) is (layers != "all")
    for name, parameter in net.named_parameters():
        assert parameter.dtype == (torch.bfloat16 if name in held else torch.float32), name
        torch.testing.assert_close(parameter, before[name].to(parameter.dtype), atol=0, rtol=0, msg=name)
    assert trained_names(net) == trained_names(classifier(**training(layers)))


# Gradient checkpointing.


@pytest.mark.parametrize(
    ("layers", "position", "drop_rate"), pairwise(["all", "lora", "last_block", 2], ["flexible", "mean"], [0.0, 0.3])
)
def test_recomputing_changes_neither_loss_nor_gradients(layers: str | int, position: str, drop_rate: float) -> None:
    torch.manual_seed(0)
    trains = training(layers, rank=2, dropout=drop_rate)
    net = GPTClassifier(replace(TINY, drop_rate=drop_rate), token_position=position, **trains).train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    ids, lengths = pad_rows(ROWS, 9)
    found, counts = [], []
    for net.recompute in (False, True):
        calls: Counter[int] = Counter()
        hooks = [
            block.ff.register_forward_pre_hook(lambda *_, i=i, calls=calls: calls.update([i]))
            for i, block in enumerate(net.backbone.trf_blocks)
        ]
        net.zero_grad()
        torch.manual_seed(3)
        loss = F.cross_entropy(net(ids, lengths), torch.tensor([0, 1, 1, 0]))
        loss.backward()
        for hook in hooks:
            hook.remove()
        counts.append([calls[i] for i in range(3)])
        found.append((loss.detach(), {n: p.grad for n, p in net.named_parameters() if p.requires_grad}))
    assert torch.equal(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-6, rtol=1e-5, msg=name)
    # What trains is computed twice; a block that is needed at one position alone keeps the little it has.
    alone = position == "flexible" and not drop_rate
    trained = {"all": 3, "lora": 3, "last_block": 1, 2: 2}[layers]
    assert counts[0] == [1, 1, 1]
    assert counts[1] == [1] * (3 - trained) + [2] * (trained - 1) + [1 if alone else 2]


def test_recomputing_is_for_training_alone() -> None:
    net = classifier(trainable_layers="all")
    net.recompute = True
    calls: Counter[bool] = Counter()
    net.backbone.trf_blocks[0].ff.register_forward_pre_hook(lambda *_: calls.update([net.training]))
    ids, lengths = pad_rows(ROWS, 9)
    for net.training, gradients, times in ((True, False, 1), (False, True, 1), (True, True, 2)):
        calls.clear()
        with torch.set_grad_enabled(gradients):
            logits = net(ids, lengths)
        assert logits.isfinite().all()
        if gradients:
            logits.sum().backward()
        assert calls == Counter({net.training: times})


@pytest.mark.parametrize("layers", ["all", "lora"])
def test_a_network_without_numbers_has_the_same_tensors(layers: str) -> None:
    settings = ModelSettings("gpt2-nano", "random", **training(layers))
    empty, made = (dict(build(3).named_parameters()) for build in (settings.build_empty, settings.build))
    assert list(empty) == list(made)
    assert all(parameter.is_meta for parameter in empty.values())
    for name, parameter in made.items():
        assert (empty[name].shape, empty[name].requires_grad) == (parameter.shape, parameter.requires_grad)
    assert made["backbone.tok_emb.weight"].std() > 0.01  # numbers are drawn again
