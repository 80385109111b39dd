"""`lit_cls sweep`: any grid of options, as a command."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import lit

from lit_cls.commands.sweep import parse_grid, sweep
from lit_cls.errors import UserError

CONFIG = """
data:
  source: demo
model:
  size: gpt2-nano
  weights: random
trainer:
  max_epochs: 1
  limit_train_batches: 4
"""
LAYERS = "model.trainable_layers=last_layer,1,2,all"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    return tmp_path


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_layers_one_after_the_other(here: Path) -> None:
    words = ["--config", "mine.yaml", "--vary", LAYERS, "--out", "out"]
    told = lit("sweep", *words, cwd=here)
    assert told.stderr == ""
    lines = lines_of(here / "out" / "results.csv")
    assert [line["model.trainable_layers"] for line in lines] == ["last_layer", "1", "2", "all"]
    trained = [int(line["trained_parameters"]) for line in lines]
    assert trained[0] == 2 * 48 + 2
    assert trained == sorted(set(trained))
    assert trained[-1] == int(lines[-1]["parameters"])
    runs = json.loads((here / "out" / "results.json").read_text())["runs"]
    assert [run["state"] for run in runs] == ["finished"] * 4
    table = (here / "out" / "table.md").read_text()
    for line in lines:
        assert f"({line['test_correct']}/{line['test_n']})" in table
        # A run of the sweep is a run like any other: its checkpoint classifies.
        assert (here / "out" / line["folder"] / "best.ckpt").exists()
    for name in ("sweep.png", "sweep.svg"):
        assert (here / "out" / name).stat().st_size > 5000
    before = sorted((here / "out" / "runs").rglob("*"))
    again = lit("sweep", *words, cwd=here)
    assert "4 of 4 runs finished" in again.stdout
    assert sorted((here / "out" / "runs").rglob("*")) == before


def test_a_grid_of_an_own_file_goes_on_after_a_kill(here: Path) -> None:
    rows = "".join(f"text {'good' if i % 2 else 'poor'} {i},{'yes' if i % 2 else 'no'}\n" for i in range(60))
    (here / "mine.csv").write_text("text,label\n" + rows)
    words = ["sweep", "--data.path", "mine.csv", "--model.size", "gpt2-nano", "--model.weights", "random"]
    words += [
        "--trainer.max_epochs",
        "1",
        "--vary",
        "seed_everything=1,2",
        "--vary",
        "data.split=[0.6,0.2,0.2],[0.5,0.3,0.2]",
    ]
    command = [sys.executable, "-m", "lit_cls", *words, "--out", "out"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "trained in" in line:
                break
        child.send_signal(signal.SIGKILL)
    told = lit(*words, "--out", "out", cwd=here)
    assert "1 of 4 runs finished" in told.stdout or "2 of 4 runs finished" in told.stdout
    lines = lines_of(here / "out" / "results.csv")
    assert [(line["seed_everything"], line["data.split"]) for line in lines] == [
        ("1", "[0.6,0.2,0.2]"),
        ("1", "[0.5,0.3,0.2]"),
        ("2", "[0.6,0.2,0.2]"),
        ("2", "[0.5,0.3,0.2]"),
    ]
    assert [int(line["validation_n"]) for line in lines] == [12, 18, 12, 18]


def test_grids() -> None:
    assert parse_grid(["a.b=1,2", "--c=[1,2],[3,4],x"]) == {"a.b": ["1", "2"], "c": ["[1,2]", "[3,4]", "x"]}
    lora = '{"class_path": "LoRA", "init_args": {"rank": 4, "targets": ["mlp_in", "head"]}}'
    assert parse_grid([f"model.adapter={lora},null"]) == {"model.adapter": [lora, "null"]}
    assert parse_grid(["d={a: 1, b: 2},{a: 3, b: 4}"]) == {"d": ["{a: 1, b: 2}", "{a: 3, b: 4}"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: --vary"),
        ("--vary a", "--vary a: give option=a,b,c"),
        ("--vary a=1,,2", "--vary a=1,,2: give option=a,b,c"),
        ("--vary =1,2", "--vary =1,2: give option=a,b,c"),
        ("--vary a=1,1", "--vary a=1,1: a value is given twice"),
        ("--vary a=1 --vary a=2", "--vary a is given twice: put all its values into one"),
        ("--vary a=1,2 --a=3", "--a is varied: leave it out"),
        ("--vary run_name=a,b", "run_name cannot be varied: runs are named after the varied values"),
        ("--vary config=a,b", "config cannot be varied: one --config is for all runs"),
        ("--vary seed_everything=1,2 --run_name x", "--run_name is no option of lit_cls sweep: runs are named after"),
        ("--vary model.sise=1,2 --data.source demo", "there is no option --model.sise"),
        ("--vary model.trainable_layers=1,13 --data.source demo", "trainable_layers 13 is not between 1 and"),
        ("--vary seed_everything=1,2 --config gone.yaml", "gone.yaml"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(words: str, message: str, here: Path) -> None:
    with pytest.raises(UserError) as refused:
        sweep(words.split())
    assert message in str(refused.value)
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


def test_values_that_a_folder_name_cannot_have_get_folders_of_their_own(here: Path) -> None:
    (here / "a b.csv").write_text("text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(20)))
    (here / "a-b.csv").write_text("text,label\n" + "".join(f"u {i},{i % 2}\n" for i in range(20)))
    words = ["--config", "mine.yaml", "--data.source", "file", "--vary", "data.path=a b.csv,a-b.csv", "--out", "out"]
    assert sweep(words) == 0
    folders = [line["folder"] for line in lines_of(here / "out" / "results.csv")]
    assert folders == ["runs/path=a-b.csv/version_0", "runs/path=a-b.csv_1/version_0"]
