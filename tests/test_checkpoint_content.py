"""Checkpoints that were changed by hand: each wrong value is named."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_fits import data, module, save

import lit_cls
from lit_cls.errors import UserError
from lit_cls.model.adapters import LoRA, adapter_as_dict
from lit_cls.training.checkpoint_content import problem_of

OURS, DATA = "lit_cls", "ClassificationData"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trained")
    lines = ["text,label", *(f"{'good' if i % 2 else 'poor'} film {i},{'yes' if i % 2 else 'no'}" for i in range(60))]
    (folder / "reviews.csv").write_text("\n".join(lines))
    saved: dict[str, Any] = torch.load(save(folder, module(), data(str(folder / "reviews.csv"))), weights_only=True)
    return saved


CHANGES: list[tuple[list[str], object]] = [
    ([OURS], 5),
    ([OURS, "model"], 5),
    ([OURS, "model", "size"], "x"),
    ([OURS, "model", "size"], [1]),
    ([OURS, "model", "weights"], 5),
    ([OURS, "model", "adapter"], {"rank": 10**12}),
    ([OURS, "model", "adapter"], {**adapter_as_dict(LoRA()), "rank": 10**12}),
    ([OURS, "model", "adapter"], {**adapter_as_dict(LoRA()), "rank": True}),
    ([OURS, "model", "adapter"], {**adapter_as_dict(LoRA()), "alpha": "16"}),
    ([OURS, "model", "adapter"], {**adapter_as_dict(LoRA()), "targets": [1]}),
    ([OURS, "model", "adapter"], {**adapter_as_dict(LoRA()), "targets": "query"}),
    ([OURS, "model", "adapter"], {**adapter_as_dict(LoRA()), "more": 1}),
    ([OURS, "model", "adapter"], {**adapter_as_dict(LoRA()), "name": "os.system"}),
    ([OURS, "model", "adapter"], {**adapter_as_dict(LoRA()), "name": ["LoRA"]}),
    ([OURS, "model", "adapter"], 5),
    ([OURS, "model", "causal"], "x"),
    ([OURS, "label_names"], 5),
    ([OURS, "label_names"], ["a"] * 10),
    ([OURS, "label_names"], [1, 2]),
    ([OURS, "label_names"], ["no", "yes\x1b[2J"]),
    ([DATA, "label_names"], ["no", "yes\n"]),
    ([OURS, "precision"], [5]),
    ([OURS, "weights_sha256"], "x"),
    ([DATA], 5),
    ([DATA, "settings"], 5),
    ([DATA, "settings", "truncation"], "x"),
    ([DATA, "cut_to"], -5),
    ([DATA, "cut_to"], 10**9),
    ([DATA, "pad_to"], 10**12),
    ([DATA, "pad_to"], -1),
    (["state_dict"], 5),
    (["state_dict"], {5: torch.zeros(1)}),
    (["state_dict", "net.backbone.tok_emb.weight"], 5),
    (["state_dict", "net.out_head.weight"], torch.zeros(2, 48).to_sparse()),
    (["state_dict", "net.out_head.weight"], torch.zeros(2, 48, dtype=torch.complex64)),
]


@pytest.mark.parametrize(("keys", "value"), CHANGES, ids=lambda part: str(part)[:40])
def test_a_wrong_value_is_named(keys: list[str], value: object, content: dict[str, Any], tmp_path: Path) -> None:
    assert problem_of(content) is None
    changed = copy.deepcopy(content)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    torch.save(changed, tmp_path / "sent.ckpt")
    with pytest.raises(UserError, match=r"sent\.ckpt is damaged: "):
        lit_cls.load(tmp_path / "sent.ckpt")


def test_tensors_of_another_shape(content: dict[str, Any], tmp_path: Path) -> None:
    changed = {**content, "state_dict": {**content["state_dict"], "net.out_head.weight": torch.zeros(1)}}
    torch.save(changed, tmp_path / "sent.ckpt")
    with pytest.raises(UserError, match=r"not whole: 1 tensors of another shape \['out_head\.weight'\]"):
        lit_cls.load(tmp_path / "sent.ckpt")


RUN: dict[str, Any] = {
    "settings": {"trainer": {"max_epochs": 2}, "keep": "best"},
    "metrics_rows": 4,
    "best_loss": 0.5,
    "should_stop": False,
    "processes": [{"random": {}, "train_loss": {}, "gradients": {}}],
    "order": {"seed_everything": 123},
    "place": {"epochs": 1, "batches": 0, "steps": 10},
}


@pytest.mark.parametrize(
    "change",
    [
        {"settings": 5},
        {"settings": {"trainer": [1]}},
        {"metrics_rows": -1},
        {"metrics_rows": "4"},
        {"best_loss": "low"},
        {"should_stop": 1},
        {"processes": {}},
        {"processes": [{"random": {}}]},
        {"order": {"seed_everything": "x"}},
        {"place": {"epochs": 1, "batches": -1, "steps": 10}},
        {"place": {"epochs": 1}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_place_that_was_changed(change: dict[str, Any]) -> None:
    assert problem_of({"lit_cls_run": RUN}) is None
    assert problem_of({"lit_cls_run": {**RUN, "best_loss": None}}) is None
    told = problem_of({"lit_cls_run": {**RUN, **change}})
    assert told is not None
    assert told.startswith("lit_cls_run is ")
    assert problem_of({"lit_cls_run": 5}) == "lit_cls_run is 5"
