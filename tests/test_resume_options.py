"""What a checkpoint's run brings to the one that goes on, and what it may not."""

from pathlib import Path
from typing import Any

import pytest

from lit_cls.errors import UserError
from lit_cls.runs.resuming import changed_options, check_resumable, saved_settings

ORDER = {"seed_everything": 123, "data.batch_size times trainer.devices": 8, "trainer.accumulate_grad_batches": 1}


def checkpoint(**place: int) -> dict[str, Any]:
    trainer = {"max_epochs": 7, "default_root_dir": "theirs", "callbacks": [{"class_path": "a.B"}], "logger": "a.B"}
    settings = {"seed_everything": 5, "keep": "last", "trainer": trainer, "model": {"size": "gpt2-nano"}, "data": {}}
    return {
        "lit_cls": {"precision": "32-true", "model": {"size": "gpt2-nano", "causal": False, "adapter": None}},
        "ClassificationData": {"settings": {"source": "demo", "path": None, "split": "ch06", "padding": "none"}},
        "lit_cls_run": {
            "settings": settings,
            "order": ORDER,
            "place": {"epochs": 2, "batches": 0, "steps": 20, **place},
        },
    }


def test_a_training_takes_over_all_but_classes_and_places() -> None:
    taken = saved_settings(checkpoint(), other_data=False, training=True)
    assert taken == {
        "seed_everything": 5,
        "keep": "last",
        "trainer.max_epochs": 7,
        "trainer.precision": "32-true",
        "model.size": "gpt2-nano",
        "model.causal": False,
        "model.adapter": None,
        "data.source": "demo",
        "data.path": None,
        "data.split": "ch06",
        "data.padding": "none",
    }
    without = saved_settings(checkpoint(), other_data=True, training=False)
    assert without == {
        "trainer.precision": "32-true",
        "model.size": "gpt2-nano",
        "model.causal": False,
        "model.adapter": None,
        "data.padding": "none",
    }


@pytest.mark.parametrize(
    ("weights", "comes_along"),
    [
        ({"spam": 3.0, "a.b": 1}, True),
        ("balanced", True),
        (None, True),
        ({"class_path": "a.B"}, False),
        ({"spam": {"class_path": "a.B"}}, False),
        ({"spam": True}, False),
        ([1.0], False),
    ],
)
def test_class_weights_come_along_and_nothing_in_their_place(weights: object, comes_along: bool) -> None:
    found = checkpoint()
    found["lit_cls_run"]["settings"]["model"]["class_weights"] = weights
    found["lit_cls_run"]["settings"]["trainer"]["plugins"] = {"spam": 3.0}
    taken = saved_settings(found, other_data=False, training=True)
    assert ("model.class_weights" in taken) is comes_along
    assert taken.get("model.class_weights") == (weights if comes_along else None)
    assert "trainer.plugins" not in taken
    assert "model.class_weights" not in saved_settings(found, other_data=False, training=False)


def test_what_has_changed() -> None:
    now = {"seed_everything": 5, "keep": "last", "trainer": {"max_epochs": 9, "devices": 2}, "model": {}, "data": {}}
    assert changed_options(now, checkpoint()) == [
        "model.size is null; until now it was gpt2-nano",
        "trainer.callbacks is null; until now it was [{'class_path': 'a.B'}]",
        "trainer.devices is 2; until now it was null",
        "trainer.logger is null; until now it was a.B",
        "trainer.max_epochs is 9; until now it was 7",
    ]


def test_an_option_that_came_later_is_no_change_while_it_is_off() -> None:
    then = checkpoint()["lit_cls_run"]["settings"]
    now = {**then, "data": {**then["data"], "group_near_duplicates": False, "newer": None}}
    assert changed_options(now, checkpoint()) == []
    now["data"]["group_near_duplicates"] = True
    assert changed_options(now, checkpoint()) == ["data.group_near_duplicates is True; until now it was null"]


@pytest.mark.parametrize(
    ("place", "order", "max_epochs", "max_steps", "message"),
    [
        ({"batches": 3}, {"seed_everything": 1}, 5, -1, "middle of epoch 3, .*: seed_everything is 1, not 123. Leave"),
        ({}, {}, 2, -1, "trained 2 epochs, and trainer.max_epochs is 2: give more, .*--trainer.max_epochs 4"),
        ({}, {}, 1, -1, "trained 2 epochs, and trainer.max_epochs is 1"),
        ({}, {}, -1, 20, "trained 20 steps, and trainer.max_steps is 20: give more"),
    ],
)
def test_what_cannot_go_on(
    place: dict[str, int], order: dict[str, int], max_epochs: int, max_steps: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_resumable(Path("a.ckpt"), checkpoint(**place), {**ORDER, **order}, max_epochs, max_steps)


def test_what_can() -> None:
    check_resumable(Path("a.ckpt"), checkpoint(batches=3), ORDER, 3, -1)
    check_resumable(Path("a.ckpt"), checkpoint(), {**ORDER, "seed_everything": 1}, None, 21)
    check_resumable(Path("a.ckpt"), checkpoint(), ORDER, -1, -1)


def test_groups_belong_to_the_split_that_they_are_of() -> None:
    # Three files given beside the checkpoint would otherwise contradict an option that nobody gave.
    trained = checkpoint()
    trained["ClassificationData"]["settings"]["group_near_duplicates"] = True
    assert saved_settings(trained, other_data=False, training=False)["data.group_near_duplicates"]
    assert "data.group_near_duplicates" not in saved_settings(trained, other_data=True, training=False)
