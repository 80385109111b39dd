"""metrics.csv: whole lines at once, and nothing lost when a run goes on."""

import csv
from pathlib import Path

import torch

from lit_cls.training.metrics_file import MetricsFile


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def filled(folder: Path) -> MetricsFile:
    folder.mkdir(parents=True, exist_ok=True)
    metrics = MetricsFile(folder)
    metrics.log_metrics({"train_loss_step": torch.tensor(0.5)}, 1)
    metrics.log_metrics({"train_loss_step": 0.25}, 2)
    metrics.log_metrics({"val_loss": 0.125, "note": 'a, "b"'}, 2)
    return metrics


def test_rows_are_there_as_soon_as_they_are_logged(tmp_path: Path) -> None:
    metrics = filled(tmp_path / "run" / "version_3")
    assert rows(metrics.path) == [
        {"note": "", "step": "1", "train_loss_step": "0.5", "val_loss": ""},
        {"note": "", "step": "2", "train_loss_step": "0.25", "val_loss": ""},
        {"note": 'a, "b"', "step": "2", "train_loss_step": "", "val_loss": "0.125"},
    ]
    assert len(metrics.rows) == 3
    assert (metrics.name, metrics.version) == ("run", "version_3")
    assert metrics.save_dir == metrics.log_dir == str(metrics.folder)
    metrics.flush()
    assert [file.name for file in metrics.folder.iterdir()] == ["metrics.csv"]


def test_a_run_that_goes_on_ends_with_the_file_of_one_that_never_stopped(tmp_path: Path) -> None:
    straight = filled(tmp_path / "straight").path.read_bytes()
    for kept in range(4):
        stopped = filled(tmp_path / f"stopped {kept}")
        with stopped.path.open("a") as stream:
            stream.write("cut off in the mid")  # what a machine that lost its power leaves
        resumed = MetricsFile(stopped.folder)
        assert resumed.begin_with(stopped.path, kept) == 3 - kept
        assert len(resumed.rows) == kept
        again = [
            ({"train_loss_step": 0.5}, 1),
            ({"train_loss_step": 0.25}, 2),
            ({"val_loss": 0.125, "note": 'a, "b"'}, 2),
        ]
        for metrics, step in again[kept:]:
            resumed.log_metrics(metrics, step)
        assert resumed.path.read_bytes() == straight


def test_a_new_run_begins_with_the_rows_of_the_one_it_goes_on_from(tmp_path: Path) -> None:
    old = filled(tmp_path / "old")
    before = old.path.read_bytes()
    (tmp_path / "new").mkdir()
    new = MetricsFile(tmp_path / "new")
    assert new.begin_with(old.path, 2) == 1
    assert [row["step"] for row in rows(new.path)] == ["1", "2"]
    assert old.path.read_bytes() == before
    assert MetricsFile(tmp_path / "new").begin_with(tmp_path / "gone.csv", 5) == 0
