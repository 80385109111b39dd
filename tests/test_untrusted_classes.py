"""Naming a class runs code: what others wrote may name few."""

import sys
from pathlib import Path

import pytest
from jsonargparse import _common

from lit_cls.cli import main
from lit_cls.commands.config_safety import check_class_paths, only_allowed_classes
from lit_cls.errors import UserError

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


@pytest.mark.parametrize("verb", ["validate", "test", "resume"])
@pytest.mark.parametrize("words", FOREIGN_WORDS, ids=" ".join)
def test_foreign_classes_among_the_words(words: list[str], verb: str, evilmod: Path) -> None:
    with pytest.raises(UserError, match=rf"names (evilmod\.Evil|subprocess\.Popen): a configuration for {verb} may"):
        check_class_paths(verb, words)
    check_class_paths("fit", words)  # one's own command
    assert not evilmod.exists()


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


@pytest.mark.parametrize("option", ["--config=", "-c", "--config"])
@pytest.mark.parametrize("text", FOREIGN_FILES)
def test_foreign_classes_in_a_file(text: str, option: str, evilmod: Path, tmp_path: Path) -> None:
    """Files that a file names lie beside it, or in the current folder."""
    folder = tmp_path / "sent"
    folder.mkdir()
    for name in ("spec.yaml", "name.yaml", "trainer.yaml"):
        (tmp_path / name).rename(folder / name)
    (folder / "nested.yaml").write_text(f"trainer: {{callbacks: [{SPEC}]}}")
    (folder / "c.yaml").write_text(text)
    words = [option + "sent/c.yaml"] if option != "--config" else [option, "sent/c.yaml"]
    with pytest.raises(UserError, match=r"names [\w.]+: a configuration for test may only name classes of lightning"):
        check_class_paths("test", words)
    check_class_paths("fit", words)
    assert not evilmod.exists()


def test_classes_that_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "trainer:\n"
        "  default_root_dir: my.runs\n"
        "  max_time: 00:12:00:00\n"
        "  devices: '0,1'\n"
        "  strategy: {class_path: lightning.pytorch.strategies.DDPStrategy, init_args: {ddp_comm_hook: torch.add}}\n"
        "  callbacks:\n"
        "  - ModelSummary\n"
        "  - class_path: lightning.pytorch.callbacks.ModelSummary\n"
        "    init_args: {max_depth: 2}\n"
        "  - class_path: LearningRateMonitor\n"
        "  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: ./my.logs}}\n"
        "data: {path: reviews.csv, split: [a.csv, b.csv, c.csv]}\n"
        "model: {weights: gpt2.safetensors, adapter: {class_path: LoRA, init_args: {rank: 4}}}\n"
        "run_name: some.name\n"
    )
    check_class_paths("test", ["--config", "c.yaml", "--data.path", "os.system"])
    check_class_paths("test", ["os.system", "{class_path: subprocess.Popen}", "--run_name"])
    check_class_paths("test", ["--config", "nowhere.yaml"])  # the parser says so


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: !!python/object/apply:os.mkdir [imported]", "c.yaml cannot be read: could not determine a constructor"),
        (b"a: [", "c.yaml cannot be read: while parsing"),
        (b"a: '\xff'", "c.yaml is not UTF-8 or cannot be read"),
        (b"a: " + b"x" * (1 << 20), "c.yaml is larger than 1 MB: not a configuration"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "cannot be read|nested too deeply"),
        (b"a: " + b"{a: " * 100 + b"}" * 100, r"nested too deeply at a\.a"),
        (
            b"trainer: {logger: {class_path: 'x y.z'}}",
            r"trainer\.logger\.class_path is not the name of a class: 'x y\.z'",
        ),
        (
            b"trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: my.logs}}}",
            r"a file's name, write \./ before",
        ),
    ],
    ids=["code", "no_yaml", "latin", "large", "brackets", "deep", "no_name", "file_name"],
)
def test_configurations_that_are_refused(content: bytes, message: str, evilmod: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        check_class_paths("test", ["--config", "c.yaml"])
    assert not evilmod.exists()


def test_a_small_file_that_is_a_huge_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten aliases of ten aliases, nine times: a billion ways to one text, and a branch that holds itself."""
    monkeypatch.chdir(tmp_path)
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (tmp_path / "c.yaml").write_text("\n".join([*lines, "config: c.yaml", "loop: &l [*l]"]))
    check_class_paths("test", ["--config", "c.yaml"])


@pytest.mark.parametrize("words", FOREIGN_WORDS, ids=" ".join)
def test_the_parser_knows_the_rule_too(words: list[str], evilmod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Were a way to name a class forgotten above, the parser would not import it."""
    with only_allowed_classes("test"):
        assert main(["test", "--ckpt_path", "nowhere.ckpt", *words]) == 2
    assert not evilmod.exists()
    assert capsys.readouterr().err.count("lit_cls: error: ") == 1
    assert _common.get_parsing_setting("import_paths_enforced") is False
