"""Checkpoints of format 1, the one without a number, are read as those of today."""

import copy
from typing import Any

import pytest
import torch
from small_fits import data, module, save

import lit_cls
from lit_cls.model.adapters import LoRA, adapter_as_dict
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoint_content import problem_of
from lit_cls.training.checkpoint_formats import FORMAT, upgrade
from lit_cls.training.checkpoints import describe_network, read_checkpoint

OLD_LORA = {
    "rank": 4,
    "alpha": 8.0,
    "dropout": 0.1,
    "scaling": "alpha",
    "targets": ["W_query", "ff", "out_head"],
    "train_head": True,
}
EVERY = ["W_query", "W_key", "W_value", "out_proj", "ff"]


def old_model(layers: str | int = "last_block", lora: Any = None) -> dict[str, Any]:
    """The options of a network as format 1 has them."""
    new = ModelSettings("gpt2-nano", "random").as_dict()
    del new["adapter"]
    return {**new, "trainable_layers": layers, "lora": lora}


def old(layers: str | int = "last_block", lora: Any = None) -> dict[str, Any]:
    described = describe_network(ModelSettings("gpt2-nano", "random"), ("no", "yes"), None)
    del described["format"]
    names = ("net.tok_emb.weight", "net.trf_blocks.0.att.W_query.weight", "net.out_head.weight", "net.out_head.bias")
    return {
        "lit_cls": {**described, "model": old_model(layers, lora)},
        "state_dict": {name: torch.full((2,), float(i)) for i, name in enumerate(names)},
        "lit_cls_run": {
            "settings": {"model": {**old_model(layers, lora), "learning_rate": 1e-3}, "trainer": {"max_epochs": 2}},
            "metrics_rows": 4,
            "best_loss": None,
            "should_stop": False,
            "processes": [{"random": {}, "train_loss": {}, "gradients": {"net.final_norm.scale": torch.ones(2)}}],
            "order": {"seed_everything": 1},
            "place": {"epochs": 1, "batches": 0, "steps": 10},
        },
    }


def test_names_of_tensors() -> None:
    checkpoint = old()
    before = dict(checkpoint["state_dict"])
    upgrade(checkpoint)
    assert checkpoint["lit_cls"]["format"] == FORMAT == 2
    assert list(checkpoint["state_dict"]) == [
        "net.backbone.tok_emb.weight",
        "net.backbone.trf_blocks.0.att.W_query.weight",
        "net.out_head.weight",
        "net.out_head.bias",
    ]
    for tensor, same in zip(checkpoint["state_dict"].values(), before.values(), strict=True):
        assert tensor is same
    [process] = checkpoint["lit_cls_run"]["processes"]
    assert list(process["gradients"]) == ["net.backbone.final_norm.scale"]
    assert problem_of(checkpoint) is None


@pytest.mark.parametrize(
    ("layers", "lora", "new_layers", "adapter"),
    [
        ("last_block", None, "last_block", None),
        (2, None, 2, None),
        ("all", None, "all", None),
        (
            "lora",
            OLD_LORA,
            "last_layer",
            {**OLD_LORA, "targets": ["query", "mlp_in", "mlp_out", "head"]},
        ),
        ("lora", {**OLD_LORA, "targets": EVERY}, "last_layer", {**OLD_LORA, "targets": ["all_linear"]}),
        (
            "lora",
            {**OLD_LORA, "targets": (*EVERY, "out_head")},
            "last_layer",
            {**OLD_LORA, "targets": ["all_linear", "head"]},
        ),
        ("lora", {**OLD_LORA, "targets": ["out_proj"]}, "last_layer", {**OLD_LORA, "targets": ["output"]}),
    ],
)
def test_options(layers: str | int, lora: Any, new_layers: str | int, adapter: Any) -> None:
    checkpoint = old(layers, copy.deepcopy(lora))
    upgrade(checkpoint)
    model, settings = checkpoint["lit_cls"]["model"], checkpoint["lit_cls_run"]["settings"]["model"]
    for options in (model, settings):
        assert "lora" not in options
        assert options["trainable_layers"] == new_layers
    assert model["adapter"] == (None if adapter is None else {"name": "LoRA", **adapter})
    assert settings["adapter"] == (
        None if adapter is None else {"class_path": "lit_cls.model.adapters.LoRA", "init_args": adapter}
    )
    assert problem_of(checkpoint) is None
    found = ModelSettings.from_dict(model)
    assert found.adapter == (None if adapter is None else LoRA(**{**adapter, "targets": tuple(adapter["targets"])}))


def test_adapters_without_options_have_the_defaults_of_then() -> None:
    """Which `trainable_layers: lora` alone stood for, in checkpoints too."""
    checkpoint = old("lora")
    upgrade(checkpoint)
    assert problem_of(checkpoint) is None
    found = ModelSettings.from_dict(checkpoint["lit_cls"]["model"])
    assert found.trainable_layers == "last_layer"
    assert found.adapter == LoRA(8, 16.0, 0.0, "alpha_over_rank", ("all_linear",), True)
    assert checkpoint["lit_cls_run"]["settings"]["model"]["adapter"] == {
        "class_path": "lit_cls.model.adapters.LoRA",
        "init_args": {name: value for name, value in adapter_as_dict(found.adapter).items() if name != "name"},
    }


def test_the_newest_format_stays_as_it_is() -> None:
    checkpoint = old()
    upgrade(checkpoint)
    again = copy.deepcopy(checkpoint)
    upgrade(again)
    assert again["lit_cls"] == checkpoint["lit_cls"]
    assert list(again["state_dict"]) == list(checkpoint["state_dict"])


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["lit_cls"], 5),
        (["lit_cls", "model"], 5),
        (["lit_cls", "model", "lora"], 5),
        (["lit_cls", "model", "lora"], {"rank": 10**12}),
        (["lit_cls", "model", "lora"], {**OLD_LORA, "targets": 5}),
        (["lit_cls", "model", "lora"], {**OLD_LORA, "targets": [["W_query"]]}),
        (["lit_cls", "model", "lora"], {**OLD_LORA, "more": 1}),
        (["lit_cls", "model", "lora"], {**OLD_LORA, "name": "os.system"}),
        (["state_dict"], 5),
        (["state_dict"], {5: torch.zeros(1)}),
        (["lit_cls_run"], 5),
        (["lit_cls_run", "settings"], 5),
        (["lit_cls_run", "settings", "model"], 5),
        (["lit_cls_run", "processes"], 5),
        (["lit_cls_run", "processes"], [5]),
    ],
    ids=lambda part: str(part)[:40],
)
def test_what_no_format_has_is_left_for_the_check(keys: list[str], value: object) -> None:
    checkpoint = old("lora", dict(OLD_LORA))
    place = checkpoint
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    upgrade(checkpoint)
    assert problem_of(checkpoint) is not None


@pytest.mark.parametrize("checkpoint", [{}, {"lit_cls": None}, {"state_dict": {"net.tok_emb.weight": torch.ones(1)}}])
def test_files_of_others_stay_as_they_are(checkpoint: dict[str, Any]) -> None:
    before = copy.deepcopy(checkpoint)
    upgrade(checkpoint)
    assert checkpoint == before


@pytest.mark.parametrize("layers", ["lora", "last_block"])
def test_a_checkpoint_of_old_answers_as_today(layers: str, reviews: str, tmp_path: Any) -> None:
    path = save(tmp_path, module(trainable_layers=layers), data(reviews), limit_train_batches=2)
    content = dict(torch.load(path, weights_only=True))
    content["state_dict"] = {
        name.replace("net.backbone.", "net."): tensor for name, tensor in content["state_dict"].items()
    }
    described = content["lit_cls"]
    del described["format"]
    adapter = described["model"].pop("adapter")
    described["model"]["lora"] = None
    if adapter is not None:
        del adapter["name"]
        described["model"] |= {"trainable_layers": "lora", "lora": {**adapter, "targets": EVERY}}
    torch.save(content, tmp_path / "old.ckpt")
    assert read_checkpoint(tmp_path / "old.ckpt")["lit_cls"] == read_checkpoint(path)["lit_cls"]
    texts = ["good film", "poor film poor film", ""]
    assert lit_cls.load(tmp_path / "old.ckpt").predict(texts) == lit_cls.load(path).predict(texts)
