"""The proof as a command, in its quick form; and that it finds what differs."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from stopped_runs import CPU, NANO, fit

from lit_cls.cli import main
from lit_cls.experiments.verify_resume import compare_runs


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_ends_like_an_uninterrupted_one(
    kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", str(REPOSITORY / "configs" / "quickstart.yaml"), "--trainer.max_epochs", str(kills)]
    options += ["--save_every_n_steps", "10", "--kills", str(kills), "--seed", "5", "--trainer.log_every_n_steps", "1"]
    monkeypatch.chdir(tmp_path)
    assert main(["verify-resume", *options]) == 0
    printed = capsys.readouterr().out
    killed = re.search("identical, bit by bit: an uninterrupted run, and one that was killed ([1-4]) times", printed)
    assert killed, printed
    assert max(1, kills - 1) <= int(killed[1]) <= kills  # the last ones may come after the end
    assert "DIFFERENT" not in printed
    stopped = tmp_path / "checkpoints" / "verify-resume" / "stopped" / "version_0"
    assert stopped.is_dir()
    assert not list(stopped.glob("*.partial"))
    report = json.loads((stopped / "report" / "report.json").read_text())
    assert report["texts_trained"] == kills * 694


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    lines = [f"{'good' if i % 2 else 'poor'} film {i},{'yes' if i % 2 else 'no'}" for i in range(40)]
    (folder / "data.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    words = ["--data.path", str(folder / "data.csv"), "--trainer.max_epochs", "1", *NANO, *CPU]
    return fit([*words, "--trainer.default_root_dir", str(folder)])


def copied(run: Path, folder: Path) -> Path:
    for path in run.glob("*.c*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_every_difference_is_found(run: Path, tmp_path: Path) -> None:
    other = copied(run, tmp_path)
    assert {part.difference for part in compare_runs(run, other)} == {None}
    checkpoint = torch.load(other / "last.ckpt", weights_only=True)
    checkpoint["state_dict"]["net.out_head.bias"][0] *= -1
    checkpoint["optimizer_states"][0]["state"][0]["exp_avg"].view(torch.int32).view(-1)[0] ^= 1
    checkpoint["lit_cls_run"]["processes"][0]["random"]["torch"][-1] ^= 1
    torch.save(checkpoint, other / "last.ckpt")
    (other / "best.ckpt").unlink()
    with (other / "metrics.csv").open("a") as stream:
        stream.write("\n")
    (other / "predictions_test.csv").unlink()
    different = {part.name: part.difference for part in compare_runs(run, other) if part.difference}
    assert different == {
        "last.ckpt: state_dict": ".net.out_head.bias differs",
        "last.ckpt: optimizer_states": ".0.state.0.exp_avg differs",
        "last.ckpt: place, lowest loss, random states": ".processes.0.random.torch differs",
        "best.ckpt": "only one of the runs has it",
        "metrics.csv": "not the same bytes",
        "predictions_test.csv": "not the same bytes",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kills", "0"], "--kills 0 is less than 1"),
        (["--kills", "x"], "invalid int value: 'x'"),
        (["--run_name", "mine"], "--run_name is no option of lit_cls verify-resume"),
    ],
)
def test_wrong_options(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-resume", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_fails_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-resume", "--out", str(tmp_path), "--data.path", "gone.csv"]) == 1
    assert "the run ended with 2: see" in capsys.readouterr().err
    assert "gone.csv" in (tmp_path / "verify-resume.log").read_text()
