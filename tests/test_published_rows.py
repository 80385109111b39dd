"""The rows: their files, their published figures, and how they are chosen."""

import csv
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, SHARED

from lit_cls.commands.train import TrainCommand
from lit_cls.errors import UserError
from lit_cls.experiments.rows import ROWS, TableRow, choose_rows
from lit_cls.runs.presets import PRESETS

NUMBERS = list(range(1, 20))
PUBLISHED = PRESETS["published"]
LORA = {"rank": 16, "scaling": "alpha", "targets": ["all_linear", "head"]}

# What each row changes of row 1, the whole of it.
CHANGES: dict[int, dict[str, Any]] = {
    1: {},
    2: {"model.token_position": "first"},
    3: {"model.trainable_layers": "last_layer"},
    4: {"model.trainable_layers": "last_two_blocks"},
    5: {"model.trainable_layers": "all"},
    6: {"model.size": "gpt2-medium"},
    7: {"model.size": "gpt2-large"},
    8: {"model.size": "gpt2-xl"},
    9: {"model.size": "gpt2-xl", "model.trainable_layers": "all"},
    10: {"model.weights": "random", "model.trainable_layers": "all"},
    11: {
        "model.trainable_layers": "last_layer",
        "model.adapter": {"class_path": "LoRA", "init_args": {**LORA, "alpha": 16}},
    },
    12: {
        "model.size": "gpt2-xl",
        "model.trainable_layers": "last_layer",
        "model.adapter": {"class_path": "LoRA", "init_args": {**LORA, "alpha": 8}},
    },
    13: {"data.padding": "context_length"},
    14: {"data.padding": "none", "data.batch_size": 1},
    15: {"data.padding": "none", "data.batch_size": 1, "trainer.accumulate_grad_batches": 8},
    16: {"model.token_position": "flexible"},
    17: {"model.causal": False},
    18: {"model.ignore_index": 50256},
    19: {"model.token_position": "mean"},
}

# The table's words for settings.
POSITIONS = {"last real token (flexible)": "flexible", "mean over all tokens": "mean", "first": "first", "last": "last"}
PADDINGS = {
    "longest training example (120)": "longest_in_train",
    "model context length (1024)": "context_length",
    "no padding": "none",
}


def by_option(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as `group.option`; an adapter's stay together."""
    groups = {name: value for name, value in settings.items() if name in ("trainer", "model", "data")}
    plain = {name: value for name, value in settings.items() if name not in groups}
    return plain | {f"{name}.{option}": value for name, group in groups.items() for option, value in group.items()}


def in_file(path: Path) -> dict[str, Any]:
    return by_option(yaml.safe_load(path.read_text(encoding="utf-8")))


@cache
def parsed(number: int) -> dict[str, Any]:
    """Every value that a fit with the row's file would use."""
    return by_option(TrainCommand(["fit", "--config", str(ROWS[number].config)]).settings())


@cache
def published_lines() -> dict[int, dict[str, str]]:
    with (SHARED / "reference" / "published_rows.csv").open(encoding="utf-8", newline="") as stream:
        return {int(line["row"]): line for line in csv.DictReader(stream)}


# The files.


def test_nineteen_rows_each_with_one_file() -> None:
    assert list(ROWS) == NUMBERS
    assert [row.number for row in ROWS.values()] == NUMBERS
    assert [row.config for row in ROWS.values()] == sorted((REPOSITORY / "configs" / "rows").iterdir())
    assert len({row.title for row in ROWS.values()}) == 19


@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_holds_nothing_but_what_the_row_is_about(number: int) -> None:
    lines = ROWS[number].config.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# Row {number}: ")
    assert next(line for line in lines if not line.startswith("#")) == "preset: published"
    settings = yaml.safe_load("\n".join(lines))
    assert set(settings) <= {"preset", "model", "data", "trainer"}
    stated = by_option(settings)
    assert stated.pop("preset") == "published"
    assert stated == CHANGES[number]
    assert [name for name, value in stated.items() if name in PUBLISHED and PUBLISHED[name] == value] == []


@pytest.mark.parametrize("number", NUMBERS)
def test_a_row_differs_from_row_1_in_what_it_is_about_alone(number: int) -> None:
    ours, first = parsed(number), parsed(1)
    assert ours.keys() == first.keys()
    differing = {name for name, value in ours.items() if value != first[name]}
    assert differing - {"run_name"} == set(CHANGES[number])
    changed = {name: deepcopy(ours[name]) for name in CHANGES[number]}
    if "model.adapter" in changed:
        assert changed["model.adapter"]["class_path"] == "lit_cls.model.adapters.LoRA"
        changed["model.adapter"]["class_path"] = "LoRA"
        assert changed["model.adapter"]["init_args"].pop("dropout") == 0
        del changed["model.adapter"]["init_args"]["train_head"]  # the head is a target
    assert changed == CHANGES[number]


def test_row_1_is_the_preset() -> None:
    assert {name: parsed(1)[name] for name in PUBLISHED} == PUBLISHED


def test_the_configuration_for_a_gpu_is_row_12() -> None:
    ours = in_file(REPOSITORY / "configs" / "xl_lora.yaml")
    assert ours.pop("trainer.accelerator") == "gpu"
    assert ours == in_file(ROWS[12].config)


def test_what_a_file_says_of_the_model() -> None:
    assert ROWS[1].model == {}
    assert ROWS[10].model == {"weights": "random", "trainable_layers": "all"}
    assert ROWS[14].model == {}  # it is about the data


def test_a_row_without_a_file() -> None:
    with pytest.raises(UserError, match=r"the configuration of row 20 is not in .*rows: install lit_cls again"):
        TableRow(20, "none", {}, 0.1).config  # noqa: B018


# The published figures.


@pytest.mark.shared
@pytest.mark.parametrize("number", NUMBERS)
def test_counts_give_the_published_percentages(number: int) -> None:
    row, line = ROWS[number], published_lines()[number]
    told = {"train": line["train_acc"], "validation": line["val_acc"], "test": line["test_acc"]}
    if number == 8:
        assert told.pop("validation") == "99.81"
    assert {split: f"{100 * k / n:.2f}" for split, (k, n) in row.published.items()} == told
    texts = {"train": 1045 if number in (14, 15) else 1040, "validation": 149, "test": 300}
    assert {split: n for split, (_, n) in row.published.items()} == {split: texts[split] for split in told}
    assert row.minutes == float(line["train_minutes_a100"])


@pytest.mark.shared
def test_every_published_row_is_a_row() -> None:
    assert list(published_lines()) == NUMBERS


def test_row_8_has_a_figure_that_cannot_be() -> None:
    assert set(ROWS[8].published) == {"train", "test"}
    assert "99.81" not in {f"{100 * k / 149:.2f}" for k in range(150)}
    assert f"{100 * 1038 / 1040:.2f}" == "99.81"
    assert all("validation" in row.published for number, row in ROWS.items() if number != 8)


@pytest.mark.shared
def test_the_train_split_lacks_what_the_loader_dropped() -> None:
    """No count of all its 1,045 texts gives these percentages; the other rows' could be of either number."""
    of_all = {f"{100 * k / 1045:.2f}" for k in range(1046)}
    impossible = {number for number, line in published_lines().items() if line["train_acc"] not in of_all}
    assert impossible == {1, 2, 3, 6, 13, 16, 18, 19}
    assert not impossible & {number for number, row in ROWS.items() if row.published["train"][1] == 1045}


@pytest.mark.shared
@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_is_the_published_row(number: int) -> None:
    line, settings = published_lines()[number], parsed(number)
    assert settings["model.size"] == line["model"].split()[0]
    assert settings["model.weights"] == line["weights"]
    assert settings["model.token_position"] == POSITIONS[line["token_position"]]
    is_lora = line["trainable_layers"] == "lora"
    assert settings["model.trainable_layers"] == ("last_layer" if is_lora else line["trainable_layers"])
    assert settings["model.causal"] == {"yes": True, "no": False}[line["causal_mask"]]
    assert settings["data.padding"] == PADDINGS[line["max_length"]]
    assert settings["data.batch_size"] == int(line["batch_size"])
    assert settings["trainer.accumulate_grad_batches"] == int(line["accumulate_grad_batches"])
    assert bool(line["lora_rank"]) is is_lora
    if is_lora:
        lora = settings["model.adapter"]["init_args"]
        assert (lora["rank"], lora["alpha"]) == (int(line["lora_rank"]), float(line["lora_alpha"]))
        assert (line["note"], lora["scaling"]) == ("scale is alpha, not alpha/rank", "alpha")
    else:
        assert settings["model.adapter"] is None


# How they are chosen.


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("all", NUMBERS),
        ("1", [1]),
        ("1,2,16-19", [1, 2, 16, 17, 18, 19]),
        ("16-19,2,1", [1, 2, 16, 17, 18, 19]),
        ("5,5,4-6,5", [4, 5, 6]),
        (" 3 , 7-8 ", [3, 7, 8]),
        ("19-19", [19]),
        ("1-19", NUMBERS),
    ],
)
def test_rows_are_chosen_in_the_order_of_the_table(given: str, numbers: list[int]) -> None:
    assert choose_rows(given) == [ROWS[number] for number in numbers]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("20", "--rows 20: the table has the rows 1 to 19, not 20"),
        ("0", "--rows 0: the table has the rows 1 to 19, not 0"),
        ("18-21", "the table has the rows 1 to 19, not 21"),
        ("1,30,25", "the table has the rows 1 to 19, not 30"),
        ("20-40", "the table has the rows 1 to 19, not 20"),
        ("x", "--rows x: 'x' is no row: give all, or numbers such as 1,2,16-19"),
        ("", "--rows : '' is no row"),
        ("1,,2", "--rows 1,,2: '' is no row"),
        ("1,All", "'All' is no row"),
        ("-1", "'-1' is no row"),
        ("1-", "'1-' is no row"),
        ("1-3-5", "'1-3-5' is no row"),
        ("1.5", "'1.5' is no row"),
        ("3-1", "--rows 3-1"),
    ],
)
def test_what_is_no_row(given: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        choose_rows(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [("3-1,5", "'3-1' is no row"), ("1-9999999999", "the table has the rows 1 to 19, not 9999999999")],
)
def test_ranges_that_are_none(given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_rows(given)
