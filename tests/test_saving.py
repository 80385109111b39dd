"""What a training saves, and when; that nothing of it fails in silence."""

import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stopped_runs import CPU, NANO, At, DiedError, assert_same, fit

from lit_cls.commands.train import TrainCommand
from lit_cls.errors import RunError
from lit_cls.training import saving
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import read_checkpoint
from lit_cls.training.metrics_file import MetricsFile
from lit_cls.training.saving import Saver
from lit_cls.training.signals import StopSignals


def words(reviews: str, folder: Path, *options: str) -> list[str]:
    data = ["--data.path", reviews, "--data.balance", "none", "--trainer.max_epochs", "2"]
    return [*data, *NANO, *CPU, "--trainer.default_root_dir", str(folder), *options]


def saved_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    steps: list[int] = []
    write = AtomicCheckpointIO.save_checkpoint

    def noted(self: AtomicCheckpointIO, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        steps.append(checkpoint["global_step"])
        write(self, checkpoint, *args, **kwargs)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", noted)
    return steps


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [10, 20]),
        (["--save_every_n_steps", "4"], [4, 8, 10, 12, 16, 20]),
        # Every step once, though it is made of two batches.
        (["--save_every_n_steps", "2", "--trainer.accumulate_grad_batches", "2"], [2, 4, 5, 6, 8, 10]),
    ],
)
def test_when_it_saves(
    options: list[str], expected: list[int], reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = saved_steps(monkeypatch)
    fit(words(reviews, tmp_path, "--keep", "last", *options))
    assert steps == expected


def test_best_is_saved_with_the_weights_that_were_validated(reviews: str, tmp_path: Path) -> None:
    """In the middle of an accumulation too, where the next batch steps."""
    options = ["--trainer.val_check_interval", "3", "--trainer.accumulate_grad_batches", "2"]
    folder = fit(words(reviews, tmp_path, *options))
    best, run = read_checkpoint(folder / "best.ckpt"), read_checkpoint(folder / "best.ckpt")["lit_cls_run"]
    assert run["place"]["batches"] % 3 == 0
    again = TrainCommand(
        ["validate", "--ckpt_path", str(folder / "best.ckpt"), "--trainer.default_root_dir", str(tmp_path)]
    )
    again.start()
    assert float(again.trainer.callback_metrics["val_loss"]) == pytest.approx(run["best_loss"], abs=1e-7)
    open_window = run["place"]["batches"] % 2
    assert bool(run["processes"][0]["gradients"]) is bool(open_window)
    assert best["global_step"] == run["place"]["steps"]


def test_a_full_disk_is_reported_and_earlier_checkpoints_stay(
    reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = torch.save, []

    def full(content: Any, stream: Any, **kwargs: Any) -> None:
        calls.append(content)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        write(content, stream, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        RunError, match=r"after 20 steps could not be saved.*No space left.*Checkpoints there: last.ckpt"
    ):
        fit(words(reviews, tmp_path, "--keep", "last"))
    assert read_checkpoint(tmp_path / "fit" / "version_0" / "last.ckpt")["lit_cls_run"]["place"]["steps"] == 10
    assert not list(tmp_path.rglob("*.partial"))


def test_killed_between_the_best_and_the_last(reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best checkpoint is written first: the run that goes on finds it the best once more."""
    straight = fit(words(reviews, tmp_path / "straight"))
    copy, calls = saving.copy_checkpoint, []

    def dies(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise DiedError
        copy(source, target)

    monkeypatch.setattr(saving, "copy_checkpoint", dies)
    command = TrainCommand(["fit", *words(reviews, tmp_path / "stopped")])
    with pytest.raises(DiedError):
        command.start()
    folder = command.run.folder
    TrainCommand(["fit", "--config", str(folder / "config.yaml")], resumed=folder).start()
    assert_same(straight, folder)


def test_the_best_so_far_goes_with_a_run_into_its_new_folder(reviews: str, tmp_path: Path) -> None:
    first = fit(words(reviews, tmp_path))
    # So large a step that no later validation is better.
    options = ["--ckpt_path", str(first / "last.ckpt"), "--trainer.max_epochs", "3", "--model.learning_rate", "1"]
    command = TrainCommand(["fit", *options, "--trainer.default_root_dir", str(tmp_path)])
    command.start()
    best = [read_checkpoint(folder / "best.ckpt") for folder in (first, command.run.folder)]
    assert command.run.folder != first
    for name, tensor in best[0]["state_dict"].items():
        assert torch.equal(best[1]["state_dict"][name], tensor)


def test_signals_of_a_finished_training_are_not_deferred(reviews: str, tmp_path: Path) -> None:
    command = TrainCommand(["fit", *words(reviews, tmp_path)])
    command.start()
    assert not command.run.signals.deferring
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_places(reviews: str, tmp_path: Path) -> None:
    command = TrainCommand(["fit", *words(reviews, tmp_path)])
    command.trainer.callbacks.insert(0, At("on_train_batch_end", 13, signal.SIGTERM))  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        command.start()
    state = read_checkpoint(command.run.folder / "last.ckpt")["lit_cls_run"]
    assert state["place"] == {"epochs": 1, "batches": 3, "steps": 13}
    assert state["settings"]["trainer"]["max_epochs"] == 2


def test_a_loss_that_is_no_number_is_the_highest() -> None:
    signals = StopSignals()
    saver = Saver(MetricsFile(Path()), signals)
    signals.deferring = True
    found = []
    for loss in (math.nan, 5.0, math.nan, 5.0, 4.0):
        saver._best_is_due = False
        trainer = SimpleNamespace(callback_metrics={"val_loss": torch.tensor(loss)})
        saver.on_validation_end(trainer, None)  # type: ignore[arg-type]
        found.append(saver._best_is_due)
    assert found == [True, True, False, False, True]
    assert saver.best_loss == 4.0
