"""`lit_cls sweep`: any grid of options, as a command."""

import csv
import json
import signal
from pathlib import Path

import pytest
from forked import Forked, fork

from lit_cls.commands.sweep import _requests, parse_grid, sweep
from lit_cls.errors import UserError

CONFIG = """
data:
  path: mine.csv
model:
  size: gpt2-nano
  weights: random
trainer:
  max_epochs: 1
"""
WORDS = ["--config", "mine.yaml", "--vary", "model.trainable_layers=last_layer,all", "--out", "out"]
WORDS += ["--vary", "data.split=[0.6,0.2,0.2],[0.5,0.3,0.2]"]


def write_inputs(folder: Path) -> Path:
    rows = "".join(f"text {'good' if i % 2 else 'poor'} {i},{'yes' if i % 2 else 'no'}\n" for i in range(60))
    (folder / "mine.csv").write_text("text,label\n" + rows)
    (folder / "mine.yaml").write_text(CONFIG)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_inputs(tmp_path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep that was killed after its first run and resumed; its folder, and what the second command printed."""
    folder = write_inputs(tmp_path_factory.mktemp("sweep"))
    killed = Forked("sweep", *WORDS, cwd=folder)
    killed.wait_for("trained in")
    killed.process.kill()
    assert killed.finished().returncode == -signal.SIGKILL
    done = fork("sweep", *WORDS, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_combination_is_run_and_written(swept: tuple[Path, str]) -> None:
    out = swept[0] / "out"
    lines = lines_of(out / "results.csv")
    splits = ("[0.6,0.2,0.2]", "[0.5,0.3,0.2]")
    assert [(line["model.trainable_layers"], line["data.split"]) for line in lines] == [
        (layers, split) for layers in ("last_layer", "all") for split in splits
    ]
    assert [int(line["validation_n"]) for line in lines] == [12, 18, 12, 18]
    assert [int(line["trained_parameters"]) for line in lines[:2]] == [2 * 48 + 2] * 2
    assert lines[-1]["trained_parameters"] == lines[-1]["parameters"]
    runs = json.loads((out / "results.json").read_text())["runs"]
    assert [run["state"] for run in runs] == ["finished"] * 4
    table = (out / "table.md").read_text()
    for line in lines:
        assert f"({line['test_correct']}/{line['test_n']})" in table
        # A run of the sweep is a run like any other: its checkpoint classifies.
        assert (out / line["folder"] / "best.ckpt").exists()
    for name in ("sweep.png", "sweep.svg"):
        assert (out / name).stat().st_size > 5000


def test_a_killed_sweep_is_resumed(
    swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, printed = swept
    assert "1 of 4 runs finished" in printed or "2 of 4 runs finished" in printed
    before = sorted((folder / "out" / "runs").rglob("*"))
    monkeypatch.chdir(folder)
    assert sweep(WORDS) == 0
    assert "4 of 4 runs finished" in capsys.readouterr().out
    assert sorted((folder / "out" / "runs").rglob("*")) == before


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
    assert {path.name for path in here.iterdir()} == {"mine.csv", "mine.yaml"}


def test_values_that_a_folder_name_cannot_have_get_folders_of_their_own() -> None:
    requests = _requests(parse_grid(["data.path=a b.csv,a-b.csv"]), ["--x"], rerun=False)
    assert [request.name for request in requests] == ["path=a-b.csv", "path=a-b.csv_1"]
    assert [request.options for request in requests] == [("--x", f"--data.path={f}") for f in ("a b.csv", "a-b.csv")]
