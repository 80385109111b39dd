"""`lit_cls reproduce`, as a command: all rows at a tiny size, killed and resumed, compared."""

import csv
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY, SHARED
from forked import Finished, Forked, fork

from lit_cls.cli import main
from lit_cls.commands.reproduce import reproduce
from lit_cls.errors import UserError
from lit_cls.experiments.rows import ROWS

TINY = ["--size", "gpt2-nano", "--weights", "random", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "4"]
TINY += [
    "--trainer.limit_val_batches",
    "2",
    "--trainer.limit_test_batches",
    "4",
    "--trainer.limit_predict_batches",
    "2",
]
DATA = ["--data.path", str(SHARED / "data" / "SMSSpamCollection")]


def results_of(folder: Path) -> dict[int, dict]:
    return {line["row"]: line for line in json.loads((folder / "results.json").read_text())["rows"]}


@pytest.fixture(scope="module")
def all_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    folder = tmp_path_factory.mktemp("reproduce")
    done = fork("reproduce", *TINY, *DATA, "--seeds", "123", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", done


@pytest.mark.shared
def test_all_rows_run_and_are_written_down(all_rows: tuple[Path, Finished]) -> None:
    out, told = all_rows
    assert told.stderr == ""
    assert "19 of 19" not in told.stdout.splitlines()[1]  # the plan is told before anything has run
    assert "0 of 19 runs finished, about " in told.stdout
    rows = results_of(out)
    assert list(rows) == list(ROWS)
    for number, line in rows.items():
        (run,) = line["runs"]
        assert run["seed"] == 123
        assert f"{ROWS[number].config.stem}-seed123" in run["folder"]
        assert run["test_seen_in_train"][1] + run["test_not_seen_in_train"][1] == run["test"][1] > 0
        provenance = json.loads((out / run["folder"] / "provenance.json").read_text())
        told = {name: value for name, value in provenance.items() if name not in ("command", "weights")}
        assert run["provenance"] == told
        assert f"| {number} | {ROWS[number].title} | nano | 1 |" in (out / "table.md").read_text()
    # Rows that differ in size alone are the same at one size; the others are not.
    counts = {number: (line["runs"][0]["train"], line["runs"][0]["parameters"]) for number, line in rows.items()}
    assert counts[1] == counts[6] == counts[7] == counts[8] == counts[18]
    assert rows[3]["runs"][0]["trained_parameters"] == 2 * 48 + 2
    assert rows[5]["runs"][0]["trained_parameters"] == rows[5]["runs"][0]["parameters"]
    with (out / "results.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["row"] for line in lines] == [*map(str, ROWS), "", "", ""]
    assert str(out) not in (out / "results.json").read_text()
    report = (out / "report.md").read_text()
    assert report.count("\n## ") == 9  # seven questions, checks, plots
    assert "Row 18 gave the very same predictions as row 1" in report
    for name in ("accuracy_by_row", "accuracy_against_time", "accuracy_against_parameters", "learning_curves"):
        assert f"]({name}.png)" in report
        assert (out / f"{name}.png").stat().st_size > 5000
        assert (out / f"{name}.svg").stat().st_size > 5000


@pytest.mark.shared
def test_baselines_stand_in_the_same_table(all_rows: tuple[Path, Finished]) -> None:
    out, _ = all_rows
    baselines = {line["name"]: line for line in json.loads((out / "results.json").read_text())["baselines"]}
    assert {name: line["test"] for name, line in baselines.items()} == {
        "majority": [141, 300],
        "TF-IDF words": [287, 300],
        "TF-IDF characters": [292, 300],
    }
    spam = baselines["TF-IDF characters"]["natural_mix"]["labels"]["spam"]
    assert spam["share"] == pytest.approx(747 / 5572)
    assert baselines["majority"]["natural_mix"]["accuracy"] == pytest.approx(1 - 747 / 5572)
    assert "|  | TF-IDF characters |" in (out / "table.md").read_text()
    assert len((out / "baselines" / "majority" / "predictions_test.csv").read_text().splitlines()) > 300


@pytest.mark.shared
def test_a_finished_folder_is_not_run_again(
    all_rows: tuple[Path, Finished],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, _ = all_rows
    monkeypatch.chdir(out.parent)
    before = {path: path.read_bytes() for path in (out / "runs").rglob("*") if path.is_file()}
    rows = [line for line in (out / "table.md").read_text().splitlines() if line[2:3].isdigit()]
    assert reproduce(["--rows", "1", *TINY, *DATA, "--seeds", "123", "--out", "out"]) == 0  # the others stay in it
    assert "19 of 19 runs finished" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (out / "runs").rglob("*") if path.is_file()} == before
    again = (out / "table.md").read_text().splitlines()
    assert [line for line in again if line[2:3].isdigit()] == rows
    assert len(rows) == 2 * 19


@pytest.mark.shared
def test_the_rows_are_compared_with_the_published_counts(
    all_rows: tuple[Path, Finished], capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce(["--check", str(all_rows[0])]) == 1
    printed = capsys.readouterr().out
    assert "outside: row 1 (train" in printed
    assert "row 8's published validation figure, 99.81 %, is left out" in printed
    assert "every row ran at gpt2-nano" in printed


@pytest.mark.shared
def test_a_row_is_what_fit_makes_of_its_file(all_rows: tuple[Path, Finished], tmp_path: Path) -> None:
    out, _ = all_rows
    config = ROWS[16].config
    words = ["--config", str(config), "--model.size", "gpt2-nano", "--model.weights", "random", *TINY[4:], *DATA]
    assert main(["fit", *words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    for split in ("train", "validation", "test"):
        path = f"version_0/predictions_{split}.csv"
        alone = (tmp_path / config.stem / path).read_text()
        assert alone == (out / "runs" / "16_flexible-seed123" / path).read_text()


@pytest.mark.shared
def test_terminated_it_is_resumed(
    all_rows: tuple[Path, Finished],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After a SIGTERM; test_sweep.py kills a series by SIGKILL."""
    words = ["reproduce", *TINY, *DATA, "--seeds", "123", "--out", "out", "--rows"]
    stopped = Forked(*words, "2,1", cwd=tmp_path)
    stopped.wait_for("trained in")
    stopped.process.terminate()
    done = stopped.finished()
    assert done.returncode == 143
    assert f"stopped; to resume: lit_cls {' '.join(words)} 2,1" in done.stdout
    # The second command has other rows: the one that is finished stays in the table.
    monkeypatch.chdir(tmp_path)
    assert main([*words, "2,5"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 3 runs finished, about" in printed
    assert printed.count("trained in") == 2
    assert len(list((tmp_path / "out" / "runs").glob("*/version_*/report/report.json"))) == 3
    rows, uninterrupted = results_of(tmp_path / "out"), results_of(all_rows[0])
    assert list(rows) == [1, 2, 5]
    for number, line in rows.items():
        assert (line["states"], len(line["runs"])) == (["finished"], 1)
        (ours,), (theirs,) = line["runs"], uninterrupted[number]["runs"]
        assert [ours[s] for s in ("train", "validation", "test")] == [
            theirs[s] for s in ("train", "validation", "test")
        ]
    with pytest.raises(UserError, match="was run with other settings: trainer.limit_predict_batches 2"):
        reproduce(["--rows", "1", *TINY[:-2], *DATA, "--out", "out"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rows 20", "--rows 20: the table has the rows 1 to 19, not 20"),
        ("--seeds 1,x", "--seeds 1,x: different whole numbers"),
        ("--size gpt2-nano --data.path gone", "there are no pretrained weights for gpt2-nano: pass"),
        (
            "--trainer.fast_dev_run true",
            "--trainer.fast_dev_run is no option of lit_cls reproduce: it leaves",
        ),
        ("--size gpt3", "--size gpt3 is not one of gpt2-nano, gpt2-small"),
        ("--weights w/{name}.safetensors --rows 1", "only {size} can stand for something, not {name}"),
        ("--weights w/{size", "--weights w/{size: not a path with {size} in it"),
        ("--weights {size!z}", "--weights {size!z}: not a path with {size} in it"),
        ("--weights {size:{x}}", "--weights {size:{x}}: not a path with {size} in it"),
        ("--model.causal false", "--model.causal is no option of lit_cls reproduce: give --size and --weights"),
        ("--data.split [0.5,0.2,0.3]", "--data.split is no option of lit_cls reproduce: the file of a row in"),
        ("--keep best", "--keep is no option of lit_cls reproduce: the last epoch is tested"),
        ("--trainer.accumulate_grad_batches=2", "--trainer.accumulate_grad_batches is no option of"),
        ("--trainer.max_epoch 3 --weights random", "there is no option --trainer.max_epoch"),
        ("--data.path gone --weights random --rows 1", "there is no file gone"),
        ("--check gone", "gone/results.json: No such file or directory"),
        ("--out", "argument --out: expected one argument"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        reproduce(words.split())
    assert message in str(refused.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.shared
def test_a_template_of_weights_is_filled_in_and_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--weights", "w/{size}.safetensors", "--rows", "1,6,10", "--seeds", "1", *DATA]
    with pytest.raises(UserError, match=r"there is no weights file w/gpt2-small.safetensors"):
        reproduce(words)


def test_the_installed_package_brings_its_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = "from lit_cls.experiments.rows import ROWS; from lit_cls.experiments.questions import QUESTIONS; "
    code += "assert len(QUESTIONS) == 7; print(*(row.config for row in ROWS.values()), sep='\\n')"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    started = time.time()
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
    )
    files = [Path(line) for line in told.stdout.split()]
    assert len(files) == 19
    assert all(file.is_relative_to(tmp_path / "installed" / "lit_cls" / "configs" / "rows") for file in files)
    assert all(file.stat().st_mtime < started for file in files)
