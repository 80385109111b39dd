"""Files that someone sent, each in every place that takes one: a clear refusal, and nothing of theirs is run."""

import json
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_fits import data, module, save

import lit_cls
from lit_cls.cli import main
from lit_cls.commands.train import TrainCommand
from lit_cls.errors import UserError
from lit_cls.training.feature_files import find

COMMANDS = ["fit", "validate", "test"]


class Payload:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("executed",)


def zipped(file: Path) -> None:
    torch.save({"state_dict": {"a": Payload()}}, file)


def legacy(file: Path) -> None:
    torch.save({"state_dict": {"a": Payload()}}, file, _use_new_zipfile_serialization=False)


def plain(file: Path) -> None:
    file.write_bytes(pickle.dumps(Payload()))


WRITERS = [zipped, legacy, plain]


def each_once(these: Sequence[Any], those: Sequence[Any]) -> list[Any]:
    """All pairs; those beyond each value's first ones are slow."""
    pairs = [(n, m) for n in range(len(these)) for m in range(len(those))]
    fast = {(n, n % len(those)) for n in range(len(these))}
    return [pytest.param(these[n], those[m], marks=() if (n, m) in fast else pytest.mark.slow) for n, m in pairs]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; the payload does work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    pickle.loads(pickle.dumps(Payload()))
    (tmp_path / "executed").rmdir()
    return tmp_path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that ends with the user's mistake and one message; nothing was run."""
    capsys.readouterr()
    assert main(words) == 2
    told = capsys.readouterr().err
    assert not Path("executed").exists()
    assert told.count("lit_cls: error: ") == 1, told
    assert told.startswith("lit_cls: error: "), told
    assert "Traceback" not in told
    return told


def command_words(command: str, *words: str) -> list[str]:
    """A command with data, a network and texts of its own."""
    options = ["--data.source", "demo", "--model.size", "gpt2-nano"]
    return [command, *options, *words]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real one, of the demo messages."""
    folder = tmp_path_factory.mktemp("trained")
    lines = ["text,label", *(f"{'good' if i % 2 else 'poor'} film {i},{'yes' if i % 2 else 'no'}" for i in range(60))]
    (folder / "reviews.csv").write_text("\n".join(lines))
    return save(folder, module(), data(str(folder / "reviews.csv")))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_pickle_as_checkpoint(
    command: str, write: Callable[[Path], None], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "sent.ckpt")
    told = refused(command_words(command, "--model.weights", "random", "--ckpt_path", "sent.ckpt"), capsys)
    assert "sent.ckpt cannot be read" in told
    with pytest.raises(UserError, match=r"sent\.ckpt cannot be read"):
        lit_cls.load("sent.ckpt")
    assert not (here / "executed").exists()


@pytest.mark.parametrize(("suffix", "write"), each_once([".pth", ".pt", ".bin", ".ckpt", ".safetensors"], WRITERS))
def test_a_pickle_as_weights(
    suffix: str, write: Callable[[Path], None], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / f"sent{suffix}")
    told = refused(command_words("fit", "--model.weights", f"sent{suffix}"), capsys)
    assert f"sent{suffix} cannot be read" in told


@pytest.mark.parametrize(("suffix", "write"), each_once([".csv", ".tsv", ".txt", ".jsonl", ".parquet"], WRITERS))
def test_a_pickle_as_data(
    suffix: str, write: Callable[[Path], None], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / f"sent{suffix}")
    words = ["fit", "--model.size", "gpt2-nano", "--model.weights", "random", "--data.path", f"sent{suffix}"]
    assert f"sent{suffix}" in refused(words, capsys)


@pytest.mark.parametrize("entry", ["_instantiator", "hyper_parameters", "datamodule_hyper_parameters"])
def test_a_checkpoint_that_names_code(entry: str, checkpoint: Path, here: Path) -> None:
    """Lightning's `load_from_checkpoint` would import and call it; nothing of ours does."""
    content = torch.load(checkpoint, weights_only=True)
    named = {"_instantiator": "os.mkdir", "_class_path": "os.mkdir", "class_path": "os.mkdir", "name": "executed"}
    content[entry] = "os.mkdir" if entry == "_instantiator" else named
    torch.save(content, here / "sent.ckpt")
    [prediction] = lit_cls.load("sent.ckpt").predict(["good film"])
    assert prediction.label in ("yes", "no")
    assert main(["predict", "--ckpt_path", "sent.ckpt", "good film"]) == 0
    assert not (here / "executed").exists()


def test_a_checkpoint_with_a_payload_beside_the_rest(checkpoint: Path, here: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "extra": Payload()}, here / "sent.ckpt")
    with pytest.raises(UserError, match=r"sent\.ckpt cannot be read"):
        lit_cls.load("sent.ckpt")
    assert not (here / "executed").exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "text",
    ["trainer: !!python/object/apply:os.mkdir [executed]", "!!python/object/new:os.mkdir {args: [executed]}"],
)
def test_a_configuration_that_yaml_would_run(
    command: str, text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "c.yaml").write_text(text)
    assert "could not determine a constructor" in refused(command_words(command, "--config", "c.yaml"), capsys)


@pytest.mark.parametrize("command", ["validate", "test", "resume"])
@pytest.mark.parametrize("option", ["callbacks", "logger", "plugins", "profiler", "strategy", "accelerator"])
def test_a_configuration_that_names_foreign_code(
    option: str, command: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Importing the module is enough to run it; a known module's class would start a process."""
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.delitem(sys.modules, "sent_module", raising=False)
    (here / "sent_module.py").write_text("import os\nos.mkdir('executed')\n")
    for named in ("sent_module.Anything", "subprocess.Popen"):
        spec = {"class_path": named, "init_args": {"args": ["mkdir", "executed"]}}
        config = json.dumps({"keep": "best", "trainer": {option: [spec] if option == "callbacks" else spec}})
        (here / "sent").mkdir(exist_ok=True)
        (here / "sent" / "config.yaml").write_text(config)
        words = ["--config", "sent/config.yaml", "--ckpt_path", "sent.ckpt"] if command != "resume" else ["sent"]
        told = refused([command, *words], capsys)
        if option != "accelerator":  # of which the parser takes any value: it is refused later
            assert f"trainer.{option} names {named}: a configuration that others may have written can only name" in told
        assert not (here / "executed").exists()
    with pytest.raises(UserError):  # the marker does work: the parser alone imports it
        TrainCommand(["test", "--trainer.callbacks", "sent_module.Anything", "--ckpt_path", "sent.ckpt"])
    assert (here / "executed").exists()


def states(folder: Path, note: bytes, values: bytes) -> Path:
    (folder / "x.features").write_bytes(values)
    (folder / "x.json").write_bytes(note)
    return folder / "x.features"


@pytest.mark.parametrize(
    "note",
    [
        pickle.dumps(Payload()),
        b'{"seconds": {"class_path": "os.mkdir"}}',
        b'{"seconds": "executed"}',
        b"[1]",
        b"\xff\xfe",
        b"[" * 10_000,
    ],
    ids=["pickle", "class", "text", "list", "no_text", "deep"],
)
def test_a_note_of_the_frozen_layers_cache_that_was_changed(note: bytes, here: Path) -> None:
    """Such a file is none of ours: its positions are computed anew."""
    assert find(states(here, note, bytes(4 * 6)), 2, 3, torch.float32) is None
    assert not (here / "executed").exists()


def test_states_of_the_frozen_layers_cache_are_numbers_whatever_they_hold(here: Path) -> None:
    content = pickle.dumps(Payload()).ljust(4 * 60, b"\0")
    found = find(states(here, b'{"seconds": 1}', content), 20, 3, torch.float32)
    assert found is not None
    assert found[0].numpy().tobytes() == content
    assert not (here / "executed").exists()
    assert find(states(here, b'{"seconds": 1}', content + b"\0"), 20, 3, torch.float32) is None
    np.testing.assert_equal(found[0].shape, (20, 3))


def test_the_vocabulary_is_the_packages_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken's loader would read a cache that anybody can write, in the temporary folder."""
    from lit_cls.data.tokenizers.gpt2 import GPT2Tokenizer

    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(here))
    assert GPT2Tokenizer().encode(["hello world"]) == [[31373, 995]]
    assert list(here.iterdir()) == []
