"""Lightning's Trainer with one more word for the precision, which leaves no data worker behind."""

import multiprocessing
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from small_fits import data, module
from small_fits import trainer as small_trainer
from stopped_runs import At, DiedError

from lit_cls.training import trainer
from lit_cls.training.trainer import ClassifierTrainer

QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}


@pytest.mark.parametrize("best", ["bf16-mixed", "32-true"])
def test_auto_is_what_the_device_does_well(best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(trainer, "auto_precision", lambda accelerator: asked.append(accelerator) or (best, "so"))
    assert ClassifierTrainer(**QUIET).precision == best
    assert ClassifierTrainer(precision="auto", **QUIET).precision == best
    assert asked == ["cpu", "cpu"]


@pytest.mark.parametrize("chosen", ["32-true", "bf16-mixed", "bf16-true", "64-true", None])
def test_any_other_word_is_lightnings(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "auto_precision", lambda accelerator: pytest.fail("asked"))
    assert ClassifierTrainer(precision=chosen, **QUIET).precision == Trainer(precision=chosen, **QUIET).precision


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_batch_end"])
def test_wherever_a_fit_stops_no_data_worker_is_left(hook: str, reviews: str, tmp_path: Path) -> None:
    """They ignore SIGTERM: the process would wait for them at its end."""
    before = set(multiprocessing.active_children())
    runner = small_trainer(tmp_path, callbacks=[At(hook, 1, None)], limit_train_batches=2)
    with pytest.raises(DiedError):
        runner.fit(module(), datamodule=data(reviews, num_workers=1))
    assert set(multiprocessing.active_children()) <= before
