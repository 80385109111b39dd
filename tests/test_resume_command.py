"""`lit_cls resume`, and fit from a checkpoint: which state, which options, which messages."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked
from stopped_runs import CPU, NANO, At, DiedError, assert_same, fit

from lit_cls.cli import main
from lit_cls.commands.train import TrainCommand
from lit_cls.training.checkpoints import read_checkpoint


@pytest.fixture(scope="module")
def stopped_once(shared_reviews: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    words = ["--data.path", shared_reviews, "--data.balance", "none", "--trainer.max_epochs", "2", *NANO, *CPU]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = TrainCommand(["fit", *words])
        command.trainer.callbacks.insert(0, At("on_train_batch_end", 13, signal.SIGTERM))  # type: ignore[attr-defined]
        with pytest.raises(SystemExit):
            command.start()
    return folder / "checkpoints"


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, below the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stopped_once, "checkpoints")
    return Path("checkpoints/fit/version_0")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("lit_cls: error: ")
    return told


def test_what_is_no_run_to_resume(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run folder gone" in refused(["resume", "gone"], capsys)
    assert "there is no run folder xxx" in refused(["resume", "x" * 300], capsys)
    assert "resume takes the folder of a run, not a checkpoint" in refused(["resume", f"{stopped}/last.ckpt"], capsys)
    Path("empty").mkdir()
    assert "it has no config.yaml" in refused(["resume", "empty"], capsys)
    Path("empty/config.yaml").write_text("- a list\n")
    assert "is not the folder of a training" in refused(["resume", "empty"], capsys)
    Path("empty/config.yaml").write_text("{")
    assert "config.yaml cannot be read" in refused(["resume", "empty"], capsys)
    assert main(["test", "--ckpt_path", f"{stopped}/last.ckpt", "--run_name", "tested"]) == 0
    assert "is not the folder of a training" in refused(["resume", "checkpoints/tested/version_0"], capsys)
    assert main(["resume", "--help"]) == 0
    assert "usage: lit_cls resume RUN_FOLDER" in capsys.readouterr().out


def test_a_complete_run_stays_as_it_is(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(stopped)]) == 0
    before = {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert main(["resume", str(stopped)]) == 0
    out = capsys.readouterr().out
    assert "is complete" in out
    assert "is complete" in refused(["resume", str(stopped), "--trainer.max_epochs", "3"], capsys)
    command = out.splitlines()[-1].replace(" N", " 3").split()
    assert main(command[1:]) == 0  # the way out works as it is printed
    assert read_checkpoint("checkpoints/fit/version_1/last.ckpt")["lit_cls_run"]["place"]["epochs"] == 3
    assert {file: file.read_bytes() for file in before} == before


def test_a_run_is_resumed_from_another_folder_and_after_it_was_moved(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moved").mkdir()
    stopped.rename(tmp_path / "moved" / "version_7")
    monkeypatch.chdir("/")
    assert main(["resume", str(tmp_path / "moved" / "version_7")]) == 0
    assert (tmp_path / "moved" / "version_7" / "report" / "report.json").exists()
    assert not (tmp_path / "moved" / "version_7" / "config_0.yaml").exists()
    assert not (tmp_path / "checkpoints" / "fit" / "version_1").exists()


def test_changed_options_are_named_and_the_earlier_ones_kept(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (stopped / "config.yaml").read_text()
    capsys.readouterr()
    options = ["--trainer.max_epochs", "3", "--model.learning_rate", "1e-4", "--data.num_workers", "1"]
    assert main(["resume", str(stopped), *options]) == 0
    out = capsys.readouterr().out
    assert "note: trainer.max_epochs is 3; until now it was 2" in out
    assert "note: model.learning_rate is 0.0001; until now it was 0.003" in out
    assert "note: data.num_workers is 1; until now it was 0" in out
    assert out.count("until now it was") == 3
    assert (stopped / "config_0.yaml").read_text() == before
    [resumed] = json.loads((stopped / "provenance.json").read_text())["resumed"]
    assert f"after {resumed['step']} steps, 1 epochs" in out
    assert resumed["step"] > 0
    assert "max_epochs: 3" in (stopped / "config.yaml").read_text()
    assert "epoch 3/3" in out


OTHER_RUNS = [
    (["--data.batch_size", "4"], "from the middle of epoch 2.*data.batch_size times trainer.devices is 4, not 8"),
    (["--seed_everything", "7"], "from the middle of epoch 2.*seed_everything is 7, not 123"),
    (["--trainer.accumulate_grad_batches", "2"], "accumulate_grad_batches is 2, not 1"),
    (["--model.trainable_layers", "all"], "model.trainable_layers is all, the checkpoint's is last_block"),
    (["--model.size", "gpt2-small"], "model.size is gpt2-small, the checkpoint's is gpt2-nano"),
    (["--model.token_position", "last"], "model.token_position is last, the checkpoint's is flexible"),
    (["--data.padding", "context_length"], "data.padding is context_length, the checkpoint was trained with"),
    (["--trainer.limit_train_batches", "5"], "trainer.limit_train_batches is 5, not 1.0"),
    (["--data.split_seed", "5"], "the train, validation, test split is not the one"),
]


def assert_refused(
    command: str, options: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["resume", str(run)] if command == "resume" else ["fit", "--ckpt_path", str(run / "last.ckpt")]
    error = refused([*start, *options], capsys)
    assert re.search(message, " ".join(error.split())), error
    assert len(list(Path("checkpoints/fit").iterdir())) == 1


@pytest.mark.parametrize(("number", "options", "message"), [(n, *case) for n, case in enumerate(OTHER_RUNS)])
def test_options_that_would_make_another_run(
    number: int, options: list[str], message: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused("resume" if number % 2 else "fit", options, message, stopped, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "message"), OTHER_RUNS)
@pytest.mark.parametrize("command", ["resume", "fit"])
def test_options_that_would_make_another_run_with_each_command(
    command: str, options: list[str], message: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(command, options, message, stopped, capsys)


def test_at_the_end_of_an_epoch_its_order_may_change(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(stopped)]) == 0
    last = ["--ckpt_path", str(stopped / "last.ckpt")]
    capsys.readouterr()
    assert main(["fit", *last, "--trainer.max_epochs", "3", "--data.batch_size", "4", "--seed_everything", "5"]) == 0
    assert "note: data.batch_size is 4; until now it was 8" in capsys.readouterr().out
    assert "has trained 2 epochs, and trainer.max_epochs is 2: give more" in refused(["fit", *last], capsys)


def test_a_damaged_newest_one_is_reported_and_the_one_before_it_used(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (stopped / "previous.ckpt").exists()
    content = bytearray((stopped / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1  # one bit, in the middle of a tensor: torch itself would not see it
    (stopped / "last.ckpt").write_bytes(content)
    torch.load(stopped / "last.ckpt", weights_only=True, mmap=True)
    capsys.readouterr()
    assert main(["resume", str(stopped)]) == 0
    out = capsys.readouterr().out
    assert "last.ckpt cannot be read (truncated, damaged, or not one): a checksum is wrong; the one before it" in out
    assert "previous.ckpt: after 10 steps" in out


def test_when_all_are_damaged_nothing_is_begun(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in stopped.glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-100])
    before = sorted(path.name for path in stopped.iterdir())
    assert "cannot be read" in refused(["resume", str(stopped)], capsys)
    assert sorted(path.name for path in stopped.iterdir()) == before


def test_a_run_that_never_saved_begins_again_in_its_folder(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in stopped.glob("*.ckpt"):
        path.unlink()
    assert main(["resume", str(stopped)]) == 0
    lines = (stopped / "metrics.csv").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 1 + 20 + 2 + 2 + 2  # steps, epochs, validations, and the two after it
    assert (stopped / "report" / "report.json").exists()


def test_fit_continues_from_the_last_checkpoint_without_any_option(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint brings the options of its run; the new folder has the whole curve."""
    before = {file: file.read_bytes() for file in stopped.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert main(["fit", "--ckpt_path", "last"]) == 0
    assert "until now it was" not in capsys.readouterr().out
    new = stopped.with_name("version_1")
    assert main(["resume", str(stopped)]) == 0
    for name in ("metrics.csv", "predictions_test.csv"):
        assert (new / name).read_bytes() == (stopped / name).read_bytes()
    assert before[stopped / "config.yaml"] == (stopped / "config.yaml").read_bytes()
    assert not (stopped / "config_0.yaml").exists()


def test_a_checkpoint_from_inside_a_step_is_for_testing_alone(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(stopped / "last.ckpt", weights_only=True)
    del checkpoint["lit_cls_run"]
    torch.save(checkpoint, tmp_path / "other.ckpt")
    settings = ["--data.balance", "none", *NANO, "--trainer.max_epochs", "9"]
    told = refused(["fit", "--ckpt_path", str(tmp_path / "other.ckpt"), *settings], capsys)
    assert "was not saved between two steps" in told
    assert main(["test", "--ckpt_path", str(tmp_path / "other.ckpt")]) == 0


def test_one_process_at_a_time(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lit_cls.io.atomic import locked

    with locked(stopped):
        assert "belongs to a run that is still running" in refused(["resume", str(stopped)], capsys)
    assert main(["resume", str(stopped)]) == 0


def test_options_that_the_folder_decides(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--ckpt_path", "--run_name", "--config", "--trainer.default_root_dir"):
        assert f"{option} is not an option of resume" in refused(["resume", str(stopped), option, "x"], capsys)
    assert "trains nothing that could be resumed" in refused(
        ["resume", str(stopped), "--trainer.fast_dev_run", "true"], capsys
    )


def test_a_new_run_that_never_saved_resumes_from_where_it_began(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not from the best weights that it was given on the way."""
    assert main(["resume", str(stopped)]) == 0
    words = ["--ckpt_path", str(stopped / "last.ckpt"), "--trainer.max_epochs", "3", "--model.learning_rate", "1e-4"]
    started = TrainCommand(["fit", *words])
    started.trainer.callbacks.insert(0, At("on_train_batch_start", 1, None))  # type: ignore[attr-defined]
    with pytest.raises(DiedError):
        started.start()
    assert (started.run.folder / "best.ckpt").exists()
    assert not (started.run.folder / "last.ckpt").exists()
    capsys.readouterr()
    assert main(["resume", str(started.run.folder)]) == 0
    assert "last.ckpt: after 20 steps" in capsys.readouterr().out


def test_changed_twice_all_the_options_are_kept(stopped: Path) -> None:
    (stopped / "config_1.yaml").write_text("of an earlier time\n")
    for epochs in ("3", "4"):
        words = ["--config", str(stopped / "config.yaml"), "--trainer.max_epochs", epochs]
        started = TrainCommand(["fit", *words], resumed=stopped)
        started.trainer.callbacks.insert(0, At("on_train_batch_end", 1, signal.SIGTERM))  # type: ignore[attr-defined]
        with pytest.raises(SystemExit):
            started.start()
    assert (stopped / "config_1.yaml").read_text() == "of an earlier time\n"
    kept = [(stopped / f"config{part}.yaml").read_text() for part in ("_0", "_2", "")]
    assert [re.search(r"max_epochs: (\d)", text)[1] for text in kept] == ["2", "3", "4"]  # type: ignore[index]


def test_workers_leave_signals_to_the_run(reviews: str, tmp_path: Path) -> None:
    """Ctrl-C in a terminal goes to every process of the group."""
    words = ["--data.path", reviews, "--data.balance", "none", "--data.num_workers", "2", *NANO, *CPU]
    run = Forked("fit", *words, "--trainer.max_epochs", "1000", cwd=tmp_path)
    run.wait_for("\nepoch 2/")
    assert run.process.pid is not None
    os.killpg(run.process.pid, signal.SIGINT)
    done = run.finished()
    assert done.returncode == 130, done
    assert "stopped by SIGINT after " in done.stdout
    assert done.stderr.count("SIGINT: saving after this step") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(loops={}),
        lambda content: content.update(callbacks=[]),
        lambda content: content.update(optimizer_states=[]),
        lambda content: content.update(lit_cls_epoch_log={"seconds": 1}),
        lambda content: content["lit_cls_run"]["processes"][0]["random"].update(torch=torch.zeros(3)),
        lambda content: content["lit_cls_run"]["processes"][0]["random"].update(python=5),
        lambda content: content["lit_cls_run"]["processes"][0].update(train_loss={}),
        lambda content: content["lit_cls_run"]["settings"].update(nothing=5),
        lambda content: content["lit_cls_run"]["settings"]["trainer"].update(max_epochs="many"),
        lambda content: content["lit_cls_run"].update(order={}),
        lambda content: content["lit_cls_run"].update(place=None),
    ],
)
def test_a_state_that_was_changed_by_hand(
    change: Callable[[dict[str, Any]], None], stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message, or a run; never a traceback."""
    content = torch.load(stopped / "last.ckpt", weights_only=True)
    change(content)
    torch.save(content, "changed.ckpt")
    capsys.readouterr()
    code = main(["fit", "--ckpt_path", "changed.ckpt"])
    told = capsys.readouterr().err
    assert (code, told) == (0, "") or (code == 2 and told.startswith("lit_cls: error: ")), told
    assert told.count("lit_cls: error") == (code == 2)


def test_room_is_asked_for_what_is_not_there_yet(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """last, previous and best are there: one more is written at a time."""
    size = (stopped / "last.ckpt").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))  # type: ignore[attr-defined]
    assert "1 copies exist at once" in refused(["resume", str(stopped)], capsys)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 2 * size))  # type: ignore[attr-defined]
    assert main(["resume", str(stopped)]) == 0


def test_a_run_with_a_weighted_loss_is_resumed_bit_identically(
    reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loss = ["--model.class_weights", "{'yes': 3}", "--model.label_smoothing", "0.1", "--model.focal_gamma", "1"]
    words = ["--data.path", reviews, "--data.balance", "none", "--trainer.max_epochs", "2", *loss, *NANO, *CPU]
    options = ["--trainer.accumulate_grad_batches", "2"]
    straight = fit([*words, *options, "--run_name", "straight"])
    stopped = fit([*words, *options, "--run_name", "stopped"], At("on_train_batch_end", 13, signal.SIGTERM))
    assert_same(straight, stopped)
    plain = fit([*words[: -len([*loss, *NANO, *CPU])], *NANO, *CPU, *options, "--run_name", "plain"])
    losses = [(run / "metrics.csv").read_text() for run in (straight, plain)]
    assert losses[0] != losses[1]
