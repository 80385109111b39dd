"""`lit_cls merge`: the same answers from a checkpoint without adapters."""

import re
from pathlib import Path

import pytest
import torch
from altered import TEXTS, altered
from conftest import closed_pipe
from safetensors.torch import save_file
from small_fits import data

import lit_cls
from lit_cls.cli import main
from lit_cls.commands import merge as merge_module
from lit_cls.commands.checkpoint_options import TrainedCheckpoint
from lit_cls.errors import UserError
from lit_cls.inference import classifier_of
from lit_cls.model.adapters import LoRA
from lit_cls.model.decision import Decision
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoints import KEY, RUN_KEY, decision_of, read_checkpoint

LORA = {"adapter": LoRA(targets=("query", "value", "mlp_in", "mlp_out", "head"))}


def test_a_merged_checkpoint_gives_the_same_logits(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "base.safetensors"
    torch.manual_seed(1)
    save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), weights)
    decision = Decision(1.5, 0, 0.4, "a test")
    path = altered(tmp_path, reviews, {**LORA, "weights": str(weights)}, decision=decision)
    before = lit_cls.load(path, precision="32-true").logits(TEXTS)
    assert main(["merge", "--ckpt_path", str(path)]) == 0
    out = capsys.readouterr().out
    n_texts = len(data(reviews).splits["validation"].rows.texts)
    assert re.search(
        rf"logits on the validation split, merged and before: largest .*, 0 of {n_texts} labels differ", out
    )
    assert f"13 adapters merged: {tmp_path / 'merged.ckpt'}" in out

    with closed_pipe():
        assert main(["merge", "--ckpt_path", str(path), "--out", str(tmp_path / "unread.ckpt")]) == 0
    assert (tmp_path / "unread.ckpt").is_file()

    weights.unlink()  # all is in the checkpoint
    merged = lit_cls.load(tmp_path / "merged.ckpt", precision="32-true")
    torch.testing.assert_close(merged.logits(TEXTS), before, atol=1e-5, rtol=1e-5)
    assert merged.decision == decision
    content = read_checkpoint(tmp_path / "merged.ckpt")
    assert not any("lora" in name for name in content["state_dict"])
    assert content[KEY]["model"]["adapter"] is None
    assert RUN_KEY not in content
    assert "optimizer_states" not in content

    assert main(["merge", "--ckpt_path", str(tmp_path / "merged.ckpt")]) == 2
    assert "has no adapter to merge" in capsys.readouterr().err


def test_a_merged_checkpoint_can_be_tested_and_predict_and_start_a_training(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = altered(tmp_path, reviews, LORA)
    assert main(["merge", "--ckpt_path", str(path)]) == 0
    merged = str(tmp_path / "merged.ckpt")
    assert main(["merge", "--ckpt_path", str(path), "--out", merged]) == 2
    assert f"{merged} exists already" in capsys.readouterr().err

    accuracies = []
    for checkpoint in (str(path), merged):
        assert main(["test", "--ckpt_path", checkpoint, "--trainer.accelerator", "cpu"]) == 0
        accuracies.append(next(line for line in capsys.readouterr().out.splitlines() if "test" in line and "%" in line))
    assert accuracies[0] == accuracies[1]
    for checkpoint in (str(path), merged):
        assert main(["predict", "--ckpt_path", checkpoint, "--trainer.precision", "32-true", *TEXTS[:3]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == lines[3:]

    assert main(["fit", "--ckpt_path", merged, "--trainer.max_epochs", "9"]) == 2
    assert "no training can be resumed from it" in capsys.readouterr().err
    words = ["fit", "--data.path", reviews, "--model.size", "gpt2-nano", "--model.weights", merged]
    assert main([*words, "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]) == 0
    assert f"the head is that of {merged}" in capsys.readouterr().out


def test_logits_that_differ_too_much_are_not_written(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A million times the weight: in float32 their sum has lost the weight's last digits."""
    path = altered(tmp_path, reviews, LORA, adapter=1e6)
    assert main(["merge", "--ckpt_path", str(path)]) == 1
    error = capsys.readouterr().err
    assert "at most 1e-04 and no label may differ: nothing was written" in error
    assert "--format peft keeps the adapters apart" in error
    assert not list(tmp_path.glob("merged*"))


def test_a_flip_alone_is_too_much(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threshold stands between a text's probability before and after."""
    path = altered(tmp_path, reviews, LORA)
    classifier = classifier_of(path, read_checkpoint(path), torch.device("cpu"), precision="32-true", packed=False)
    share = classifier.logits(data(reviews).splits["validation"].rows.texts).softmax(1)[0, 1].item()
    (tmp_path / "tuned").mkdir()
    tuned = altered(tmp_path / "tuned", reviews, LORA, decision=Decision(1.0, 1, share - 1e-6, "a test"))
    assert main(["merge", "--ckpt_path", str(tuned), "--out", str(tmp_path / "kept.ckpt")]) == 0
    whole = merge_module.merged

    def moved(*args: object) -> dict[str, object]:
        content = whole(*args)  # type: ignore[arg-type]
        content["state_dict"]["net.out_head.bias"] -= torch.tensor([0.0, 2e-5])
        return content

    monkeypatch.setattr(merge_module, "merged", moved)
    capsys.readouterr()
    assert main(["merge", "--ckpt_path", str(tuned), "--out", str(tmp_path / "flipped.ckpt")]) == 1
    error = capsys.readouterr().err
    assert re.search(r"largest difference 2\.\de-05, [1-9]\d* of \d+ labels differ", error)
    assert not (tmp_path / "flipped.ckpt").exists()


def test_trained_in_lower_precision(tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = altered(tmp_path, reviews, LORA, precision="bf16-mixed")
    assert main(["merge", "--ckpt_path", str(path), "--trainer.accelerator", "cpu"]) == 0
    assert "note: everything is computed in float32 on the CPU, not in bf16-mixed on cpu" in capsys.readouterr().out
    content = read_checkpoint(tmp_path / "merged.ckpt")
    assert content[KEY]["precision"] == "32-true"
    assert {tensor.dtype for tensor in content["state_dict"].values()} == {torch.float32}
    assert decision_of(content) == Decision()


def test_the_data_may_have_moved_but_must_be_there(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = altered(tmp_path, reviews, LORA)
    moved = Path(reviews).rename(tmp_path / "moved.csv")
    assert main(["merge", "--ckpt_path", str(path)]) == 2
    assert f"there is no file {reviews}" in capsys.readouterr().err
    assert main(["merge", "--ckpt_path", str(path), "--data.path", str(moved)]) == 0
    out = str(moved / "below" / "a.ckpt")
    assert main(["merge", "--ckpt_path", str(path), "--data.path", str(moved), "--out", out]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_what_did_not_train_with_lora_is_complete(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = altered(tmp_path, reviews, {"trainable_layers": "last_block"})
    assert main(["merge", "--ckpt_path", str(path)]) == 2
    assert "has no adapter to merge: it was trained with model.trainable_layers last_block" in (capsys.readouterr().err)


def test_the_new_checkpoint_has_a_name_of_its_own(tmp_path: Path) -> None:
    trained = TrainedCheckpoint(tmp_path / "best.ckpt", {}, torch.device("cpu"), None, None)
    for name in ("merged.ckpt", "merged_1.ckpt", "merged_2.ckpt"):
        assert trained.new_path(None, "merged") == tmp_path / name
        (tmp_path / name).touch()
    assert trained.new_path(str(tmp_path / "a.ckpt"), "merged") == tmp_path / "a.ckpt"
    with pytest.raises(UserError, match="best.ckpt is what a training saves, give another name"):
        trained.new_path(str(tmp_path / "best.ckpt"), "merged")
