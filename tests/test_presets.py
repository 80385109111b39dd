"""Presets: their values, what stands above them, and that every verb takes them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import pairwise

from lit_cls.cli import main
from lit_cls.runs.presets import PRESETS

PUBLISHED = PRESETS["published"]
NANO = ["--model.size", "gpt2-nano", "--model.weights", "random"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What --print_config shows of a fit, by the names of the options."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["fit", *words, "--print_config"])
    assert ended.value.code == 0
    return flat(yaml.safe_load(capsys.readouterr().out))


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Groups of options as `group.option`."""
    values: dict[str, Any] = {}
    for name, value in settings.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return values


def configuration(text: str) -> list[str]:
    Path("mine.yaml").write_text(text)
    return ["--config", "mine.yaml"]


@pytest.fixture
def file() -> str:
    rows = [f"text number {i},{'spam' if i % 2 else 'ham'}" for i in range(12)]
    Path("data.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return "data.csv"


def test_every_value_of_the_preset_is_an_option_and_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    defaults, settings = printed([], capsys), printed(["--preset", "published"], capsys)
    assert set(PUBLISHED) <= set(defaults)
    assert {name: settings[name] for name in PUBLISHED} == PUBLISHED
    changed = {name for name in defaults if settings[name] != defaults[name]}
    chosen = {"data.split", "data.padding", "model.token_position", "model.trainable_layers"}  # null: by the adapter
    assert changed == {"preset", "keep", *chosen}


def test_a_preset_can_be_named_in_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    settings = printed(configuration("preset: published\n"), capsys)
    expected = printed(["--preset", "published"], capsys)
    assert {name for name in settings if settings[name] != expected.get(name)} <= {"config"}
    assert settings["data.split"] == "ch06"


OVERRIDDEN = [
    ("seed_everything", 7),
    ("keep", "best"),
    ("data.split", [0.5, 0.2, 0.3]),
    ("data.padding", "longest_in_batch"),
    ("data.padding", 64),
    ("data.batch_size", 16),
    ("model.size", "gpt2-nano"),
    ("model.token_position", "flexible"),  # the default without the preset
    ("model.trainable_layers", 3),
    ("model.causal", False),
    ("model.learning_rate", 0.001),
    ("trainer.max_epochs", 1),
]


@pytest.mark.parametrize(
    ("overridden", "where"),
    pairwise(OVERRIDDEN, ["option", "configuration", "both in the configuration"], strength=1),
)
def test_options_and_configurations_stand_above_a_preset(
    overridden: tuple[str, Any], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    option, value = overridden
    group, _, name = option.rpartition(".")
    in_file = yaml.safe_dump({group: {name: value}} if group else {name: value})
    words = {
        "option": ["--preset", "published", f"--{option}", str(value)],
        "configuration": ["--preset", "published", *configuration(in_file)],
        "both in the configuration": configuration(in_file + "preset: published\n"),
    }[where]
    settings = printed(words, capsys)
    assert {name: settings[name] for name in PUBLISHED} == {**PUBLISHED, option: value}


def test_an_option_stands_above_the_configuration_and_both_above_the_preset(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = configuration("preset: published\nmodel:\n  learning_rate: 0.001\n  size: gpt2-medium\n")
    settings = printed([*words, "--model.size", "gpt2-large"], capsys)
    expected = {**PUBLISHED, "model.learning_rate": 0.001, "model.size": "gpt2-large"}
    assert {name: settings[name] for name in PUBLISHED} == expected


def test_no_preset_is_a_choice_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = configuration("preset: published\n")
    without = printed([*words, "--preset", "null"], capsys)
    assert {name: without[name] for name in PUBLISHED} == {name: printed([], capsys)[name] for name in PUBLISHED}


@pytest.mark.parametrize("verb", ["fit", "test"])
@pytest.mark.parametrize("in_a_configuration", [True, False])
def test_a_wrong_preset(verb: str, in_a_configuration: bool, capsys: pytest.CaptureFixture[str]) -> None:
    words = configuration("preset: publisht\n") if in_a_configuration else ["--preset", "publisht"]
    assert main([verb, *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("lit_cls: error: ")
    assert "preset must be published, not publisht" in told
    assert not list(Path().glob("checkpoints"))


def test_every_verb_takes_the_preset(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of `fit` alone are some of its settings; to the others a checkpoint says how it reads texts."""
    preset = ["--preset", "published"]
    data = ["--data.path", file, "--data.split", "[0.6,0.2,0.2]", "--data.source", "file"]
    assert main(["fit", *preset, *data, *NANO, "--trainer.max_epochs", "1", "--model.token_position", "mean"]) == 0
    assert "last.ckpt" in capsys.readouterr().out
    assert [path.name for path in Path("checkpoints/fit/version_0").glob("*.ckpt")] == ["last.ckpt"]
    last = ["--ckpt_path", "checkpoints/fit/version_0/last.ckpt"]
    for verb, n in (("test", 2), ("validate", 2)):
        assert main([verb, *preset, *data, *last]) == 0
        assert f"{n} │" in capsys.readouterr().out


def test_a_preset_does_not_take_the_place_of_a_checkpoints_data(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The preset's split is that of other data, which is neither here nor asked for."""
    assert main(["fit", "--data.path", file, *NANO, "--trainer.max_epochs", "1"]) == 0
    best = "checkpoints/fit/version_0/best.ckpt"
    capsys.readouterr()
    assert main(["test", "--preset", "published", "--ckpt_path", best]) == 0
    assert "data.csv,12rows" in "".join(capsys.readouterr().out.split())  # a long path is broken
