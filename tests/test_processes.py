"""Several processes: the same run as one process, in whichever number it is stopped and resumed."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from forked import fork
from stopped_runs import CPU, NANO, At, fit

from lit_cls.commands.train import TrainCommand
from lit_cls.training.checkpoints import read_checkpoint
from lit_cls.training.signals import Stopped

DDP = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "4"]
ONE = ["--trainer.devices", "1", "--trainer.strategy", "auto", "--data.batch_size", "8"]
FSDP2 = {
    "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
    "init_args": {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False},
}


def words(reviews: str, *options: str) -> list[str]:
    data = ["--data.path", reviews, "--data.balance", "none", "--data.padding", "longest_in_train"]
    return [*data, *NANO, *CPU, "--model.learning_rate", "1e-4", "--trainer.max_epochs", "2", *options]


def launch(folder: Path, *options: str, code: int = 0) -> str:
    """`lit_cls fit` as a command, which starts its other processes itself."""
    command = [sys.executable, "-m", "lit_cls", "fit", *options]
    path = os.pathsep.join([str(REPOSITORY / "tests"), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": path, "LIT_CLS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert told.returncode == code, told.stdout + told.stderr
    return told.stdout


def two_processes(folder: Path, *options: str, code: int = 0) -> str:
    """The same, but that the other process is there already, as in a cluster: neither imports torch anew."""
    done = fork("fit", *options, cwd=folder, env={"OMP_NUM_THREADS": "1"}, processes=2)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def stop_after(folder: Path, batches: int) -> list[str]:
    spec = {"class_path": "stopped_runs.Terminated", "init_args": {"hook": "on_train_batch_end", "count": batches}}
    (folder / "stop.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [spec]}}))
    return ["--config", str(folder / "stop.yaml"), "--run_name", "many"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def assert_close(one: Path, other: Path) -> None:
    """The same rows in the same order, and figures that differ by rounding."""
    for split in ("train", "validation", "test"):
        ours, theirs = (rows(run / f"predictions_{split}.csv") for run in (one, other))
        assert [row["source_row"] for row in ours] == [row["source_row"] for row in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert float(a["probability_yes"]) == pytest.approx(float(b["probability_yes"]), abs=2e-3)
    for name in ("train_loss", "val_loss", "val_acc", "test_acc"):
        values = [[float(row[name]) for row in rows(run / "metrics.csv") if row[name]] for run in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_from_two_processes_to_one_and_back(reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Weights by name have to come along with the checkpoint: nothing repeats them below.
    loss = ["--model.class_weights", "{'yes': 3}", "--model.label_smoothing", "0.1", "--model.focal_gamma", "0.5"]
    straight = fit(words(reviews, *loss, *ONE))
    out = launch(tmp_path, *words(reviews, *loss, *DDP), *stop_after(tmp_path, 3), code=143)
    assert "stopped by SIGTERM after 3 steps" in out
    many = tmp_path / "checkpoints" / "many"
    place = read_checkpoint(many / "version_0" / "last.ckpt")["lit_cls_run"]
    assert place["place"] == {"epochs": 0, "batches": 3, "steps": 3}
    assert len(place["processes"]) == 2
    command = TrainCommand(["fit", "--ckpt_path", str(many / "version_0" / "last.ckpt"), "--run_name", "many", *ONE])
    command.trainer.callbacks.insert(0, At("on_train_batch_end", 11, signal.SIGTERM))  # type: ignore[attr-defined]
    with pytest.raises(Stopped):
        command.start()
    assert len(read_checkpoint(many / "version_1" / "last.ckpt")["lit_cls_run"]["processes"]) == 1
    out = two_processes(tmp_path, "--ckpt_path", "last", "--run_name", "many", *DDP)
    assert "note: trainer.devices is 2; until now it was 1" in out
    assert "note: model" not in out
    assert "class weights (by name; the texts of the train split weigh 1 on average): no 0.5, yes 1.5" in out
    assert "after 14 steps, 1 epochs and 4 batches" in out
    assert_close(straight, many / "version_2")


def test_weights_in_parts(reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FSDP2 on the CPU: stopped, resumed, tested; adapters train among frozen weights."""
    monkeypatch.chdir(tmp_path)
    options = ["--model.adapter", "LoRA", "--model.adapter.rank", "2", "--trainer.accumulate_grad_batches", "2"]
    straight = fit(words(reviews, *options, *ONE))
    (tmp_path / "parts.yaml").write_text(yaml.safe_dump({"trainer": {"devices": 2, "strategy": FSDP2}}))
    parts = ["--config", str(tmp_path / "parts.yaml"), "--data.batch_size", "4", "--run_name", "many"]
    # In the middle of a step: it is completed first.
    two_processes(tmp_path, *words(reviews, *options), *stop_after(tmp_path, 3), *parts, code=143)
    many = tmp_path / "checkpoints" / "many"
    last = read_checkpoint(many / "version_0" / "last.ckpt")
    assert last["lit_cls_run"]["place"] == {"epochs": 0, "batches": 4, "steps": 2}
    two_processes(tmp_path, "--ckpt_path", "last", *parts)
    assert_close(straight, many / "version_1")
