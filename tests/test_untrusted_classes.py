"""Naming a class runs code: what others wrote may name few."""

import re
import sys
from pathlib import Path

import pytest
from jsonargparse import _common

from lit_cls.cli import main
from lit_cls.commands.config_safety import only_allowed_classes
from lit_cls.commands.train import TrainCommand
from lit_cls.model.adapters import LoRA

SPEC = "{class_path: evilmod.Evil, init_args: {x: 2}}"


@pytest.fixture
def evilmod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the current folder that leaves a mark when it is imported; the mark."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evilmod", raising=False)
    (tmp_path / "evilmod.py").write_text("import os\nos.makedirs('imported', exist_ok=True)\nclass Evil: pass\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "name.yaml").write_text("evilmod.Evil")
    (tmp_path / "trainer.yaml").write_text(f"callbacks: [{SPEC}]")
    return tmp_path / "imported"


FOREIGN_WORDS = [
    ["--trainer.callbacks", "evilmod.Evil"],
    ["--trainer.callbacks=evilmod.Evil"],
    ["--trainer.callbacks+=evilmod.Evil"],
    ["--trainer.callbacks+", "evilmod.Evil"],
    ["--trainer.callbacks", "[evilmod.Evil]"],
    ["--trainer.callbacks", SPEC],
    ["--trainer.callbacks.class_path", "evilmod.Evil"],
    ["--trainer.callbacks.help", "evilmod.Evil"],
    ["--trainer.callbacks", "spec.yaml"],
    ["--trainer.logger", "name.yaml"],
    ["--trainer.logger", "evilmod.Evil"],
    ["--trainer.profiler", "evilmod.Evil"],
    ["--trainer.plugins", f"[{SPEC}]"],
    ["--trainer.strategy", SPEC],
    ["--trainer.accelerator", SPEC],
    ["--trainer", "trainer.yaml"],
    ["--trainer", f"{{callbacks: [{SPEC}]}}"],
    ["--model.adapter", "evilmod.Evil"],
    ["--model.adapter", "spec.yaml"],
    ["--model", "{adapter: {class_path: evilmod.Evil}}"],
    ["--config", f"{{trainer: {{callbacks: [{SPEC}]}}}}"],
    ["--trainer.callbacks", "lightning.pytorch.callbacks.LambdaCallback", "--trainer.callbacks.setup", "evilmod.Evil"],
    ["--trainer.logger", "{class_path: subprocess.Popen, init_args: {args: [mkdir, imported]}}"],
]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one message with which `test` refuses these words, before it looks for the checkpoint's content."""
    assert main(["test", "--ckpt_path", "nowhere.ckpt", *words]) == 2
    message = capsys.readouterr().err
    assert message.count("lit_cls: error: ") == 1
    assert _common.get_parsing_setting("import_paths_enforced") is False  # a later fit is free again
    return message


@pytest.mark.parametrize("words", FOREIGN_WORDS, ids=" ".join)
def test_foreign_classes_among_the_words(words: list[str], evilmod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(words, capsys)
    assert not evilmod.exists()


def test_the_message_names_the_class_and_the_rule(evilmod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--trainer.callbacks", "evilmod.Evil"], ["--trainer.callbacks.help", "evilmod.Evil"]):
        assert re.search(
            r"trainer\.callbacks\S* names evilmod\.Evil: .* can only name classes of lightning", refused(words, capsys)
        )


FOREIGN_FILES = [
    f"trainer: {{callbacks: [{SPEC}]}}",
    f"trainer: {{callbacks: {SPEC}}}",
    f'trainer: {{callbacks: "{SPEC}"}}',
    "trainer: {callbacks: evilmod.Evil}",
    "trainer: {callbacks+: evilmod.Evil}",
    "trainer.callbacks: evilmod.Evil",
    "trainer.callbacks.class_path: evilmod.Evil",
    "trainer: {logger: ./spec.yaml}",
    "trainer: {logger: name.yaml}",
    "trainer: trainer.yaml",
    "config: nested.yaml",
    f"trainer: {{strategy: {SPEC}}}",
    f"trainer: {{profiler: {SPEC}}}",
    f"trainer: {{plugins: [{SPEC}]}}",
    "model: {adapter: {class_path: evilmod.Evil}}",
    "other: {deep: [{class_path: evilmod.Evil}]}",
    "x: &a {class_path: evilmod.Evil}\ntrainer: {<<: *a}",
    "trainer: {callbacks: {class_path: lightning.pytorch.callbacks.LambdaCallback, init_args: {setup: evilmod.Evil}}}",
    # Names of ours that lead elsewhere.
    "trainer: {callbacks: {class_path: torch.os.system}}",
    "trainer: {callbacks: {class_path: torch.utils.cpp_extension.subprocess.Popen, init_args: {args: [ls]}}}",
    "trainer: {callbacks: {class_path: torch.__builtins__.exec}}",
    "trainer: {callbacks: {class_path: lightning.pytorch.cli.os.mkdir}}",
    "trainer: {callbacks: {class_path: lit_cls.__main__.main}}",
    # An argument of the type `object`, which takes any class, and one of torch's that starts a process.
    "trainer: {strategy: {class_path: lightning.pytorch.strategies.DDPStrategy, init_args: {ddp_comm_state: "
    "{class_path: torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler}}}}",
]


@pytest.mark.parametrize("text", FOREIGN_FILES)
def test_foreign_classes_in_a_file(
    text: str, evilmod: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that a file names lie beside it, or in the current folder."""
    folder = tmp_path / "sent"
    folder.mkdir()
    for name in ("spec.yaml", "name.yaml", "trainer.yaml"):
        (tmp_path / name).rename(folder / name)
    (folder / "nested.yaml").write_text(f"trainer: {{callbacks: [{SPEC}]}}")
    (folder / "c.yaml").write_text(text)
    refused(["--config", "sent/c.yaml"], capsys)
    assert not evilmod.exists()


def test_classes_that_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "trainer:\n"
        "  default_root_dir: my.runs\n"
        "  devices: '1'\n"
        "  callbacks:\n"
        "  - ModelSummary\n"
        "  - class_path: lightning.pytorch.callbacks.ModelSummary\n"
        "    init_args: {max_depth: 2}\n"
        "  - class_path: LearningRateMonitor\n"
        "  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: my.logs}}\n"
        "model: {size: gpt2-nano, weights: random, adapter: {class_path: LoRA, init_args: {rank: 4}}}\n"
        "data: {source: demo}\n"
    )
    with only_allowed_classes("resume"):  # resume parses as fit does, by the rule of others' files
        command = TrainCommand(["fit", "--config", "c.yaml"])
    assert [type(callback).__name__ for callback in command.trainer.callbacks][:3] == [
        *("ModelSummary", "ModelSummary", "LearningRateMonitor")
    ]
    assert command.model.settings.adapter == LoRA(rank=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: !!python/object/apply:os.mkdir [imported]", "could not determine a constructor"),
        (b"a: [", "Problems parsing config"),
        (b"a: '\xff'", "not UTF-8"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "cannot be read"),
    ],
    ids=["code", "no_yaml", "latin", "brackets"],
)
def test_configurations_that_are_refused(
    content: bytes, message: str, evilmod: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    assert message in refused(["--config", "c.yaml"], capsys)
    assert not evilmod.exists()


def test_aliases_that_multiply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of 400 bytes would stand for 9 ** 9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "many.yaml").write_text("\n".join(lines))
    (tmp_path / "group.yaml").write_text(f"trainer: {tmp_path / 'many.yaml'}\n")
    for words in ("fit --config many", "test --config many", "fit --trainer many", "fit --config group"):
        *options, name = words.split()
        assert main([*options, str(tmp_path / f"{name}.yaml")]) == 2
        message = "the configuration has 72 YAML aliases, more than 10: write out what they stand for"
        assert message in capsys.readouterr().err
    few = "trainer: {max_epochs: &n 0, log_every_n_steps: *n}\nmodel: {learning_rate: -1}"
    (tmp_path / "few.yaml").write_text(few)
    assert main(["fit", "--config", str(tmp_path / "few.yaml")]) == 2
    assert "learning_rate" in capsys.readouterr().err
