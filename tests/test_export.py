"""`lit_cls export`: its messages, refusals, and that no partial folder is left."""

import subprocess
import sys
from pathlib import Path

import pytest
from altered import altered
from conftest import OncePerOptions, closed_pipe
from small_fits import data

from lit_cls.cli import main
from lit_cls.commands.export import FORMATS
from lit_cls.exports import huggingface
from lit_cls.exports.parity import ODD_TEXTS
from lit_cls.exports.source import ReferenceOutputs
from lit_cls.model.adapters import LoRA
from lit_cls.model.decision import Decision


def test_a_folder_is_written(
    tmp_path: Path, shared_reviews: str, altered_checkpoint: OncePerOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    path = altered_checkpoint({"adapter": LoRA()}, decision=Decision(1.25, goal="a test"))
    out = tmp_path / "exported"
    words = ["export", "--ckpt_path", str(path), "--format", "huggingface", "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    n_texts = len(ODD_TEXTS) + len(data(shared_reviews).splits["validation"].rows.texts)
    assert "exported with the decision rule: temperature 1.25 (tuned: a test)" in printed
    assert f", 0 of {n_texts} labels differ" in printed
    assert printed.endswith(f"huggingface: {out}\n")
    assert {file.name for file in out.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "NOTICE", "README.md"),
    }
    assert main(words) == 2
    assert f"{out} exists already and is not an empty folder" in capsys.readouterr().err
    with closed_pipe():
        assert main([*words[:-1], str(tmp_path / "unread")]) == 0
    assert (tmp_path / "unread" / "config.json").is_file()


def test_the_data_may_have_moved(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = altered(tmp_path, reviews, {"adapter": LoRA()})
    moved = Path(reviews).rename(tmp_path / "moved.csv")
    compared: list[int] = []

    def write(source: object, net: object, reference: ReferenceOutputs, *_: object) -> None:
        compared.append(len(reference.texts))

    monkeypatch.setitem(FORMATS, "huggingface", (FORMATS["huggingface"][0], write))
    words = ["export", "--ckpt_path", str(path), "--format", "huggingface", "--out"]
    assert main([*words, str(tmp_path / "odd")]) == 0
    printed = capsys.readouterr().out
    assert f"note: compared on {len(ODD_TEXTS)} odd texts alone, without the validation split: there is no" in printed
    assert main([*words, str(tmp_path / "all"), "--data.path", str(moved)]) == 0
    assert compared == [len(ODD_TEXTS), len(ODD_TEXTS) + len(data(str(moved)).splits["validation"].rows.texts)]
    assert main([*words, str(tmp_path / "third"), "--data.path", str(tmp_path / "none.csv")]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert main([*words, str(moved / "below")]) == 1
    assert "could not be written" in capsys.readouterr().err


def test_nothing_is_left_of_an_export_that_falls_short(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = altered(tmp_path, reviews, {"adapter": LoRA()})
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(huggingface, "merge_adapter", lambda net: None)  # the adapters are lost
    words = ["export", "--ckpt_path", str(path), "--format", "huggingface", "--out", str(tmp_path / "out")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "logits, transformers and the checkpoint, batches of 1" in error
    assert "at most 1e-04 and no label may differ: nothing was written" in error
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "pickle"], "invalid choice: 'pickle'"),
        ([], "the following arguments are required: --format"),
        (["--format", "peft"], "has no LoRA adapters"),
        (["--format", "huggingface"], "model.token_position is first"),
    ],
)
def test_what_is_refused(
    words: list[str],
    message: str,
    tmp_path: Path,
    altered_checkpoint: OncePerOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = altered_checkpoint({"token_position": "first"})
    assert main(["export", "--ckpt_path", str(path), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_small_commands_start_without_heavy_imports() -> None:
    code = (
        "import sys; import lit_cls.commands.tune, lit_cls.commands.explain, lit_cls.commands.merge\n"
        "from lit_cls.cli import main\n"
        "try: main(['export', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'lightning', 'sklearn', 'scipy', 'transformers', 'peft', 'onnx', 'onnxruntime', 'tokenizers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--format {huggingface,onnx,peft}" in done.stdout
