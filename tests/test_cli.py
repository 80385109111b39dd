"""The command as a user runs it: its own process, its own exit code, its own files."""

import csv
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPOSITORY, SHARED, OncePerOptions, closed_pipe
from forked import Forked, fork

import lit_cls
from lit_cls.cli import main

CONFIGS = REPOSITORY / "configs"


def lit(*words: str, cwd: Path, code: int = 0, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs `lit_cls` in a process of its own, without a terminal and without a network."""
    command = [str(Path(sys.executable).with_name("lit_cls")), *words]
    offline = {**os.environ, "LIT_CLS_OFFLINE": "1", "COLUMNS": "200", **(env or {})}
    told = subprocess.run(command, cwd=cwd, env=offline, capture_output=True, text=True, timeout=240, check=False)
    assert told.returncode == code, f"exit code {told.returncode}\n{told.stdout}\n{told.stderr}"
    return told


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The quickstart, word for word; its folder and what it printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    told = lit("fit", "--config", str(CONFIGS / "quickstart.yaml"), cwd=folder)
    assert told.stderr == ""
    return folder, told.stdout


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from lit_cls.cli import main; code = main([sys.argv[1]]);"
        "print([m for m in ('torch', 'lightning', 'numpy', 'tiktoken', 'rich', 'jsonargparse') if m in sys.modules]);"
        "sys.exit(code)"
    )
    for word in ("--help", "--version"):
        told = subprocess.run([sys.executable, "-c", script, word], capture_output=True, text=True, check=True)
        assert told.stdout.splitlines()[-1] == "[]"
    assert lit("--version", cwd=tmp_path).stdout == f"lit_cls {lit_cls.__version__}\n"
    told = lit("--help", cwd=tmp_path)
    for name in ("fit", "validate", "test", "predict"):
        assert re.search(rf"^  {name} +\w", told.stdout, re.MULTILINE)


def test_quickstart_prints_and_stores_everything(quickstart: tuple[Path, str]) -> None:
    folder, out = quickstart
    run = folder / "checkpoints" / "quickstart" / "version_0"
    assert "synthetic" in out
    for part in (
        "What trains",
        "median tokens",
        "epoch 5/5",
        "texts/s",
        "95 % interval",
        "majority baseline",
        str(run.relative_to(folder)),
    ):
        assert part in out
    assert {file.name for file in run.iterdir()} == {
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
        "config.yaml",
        "metrics.csv",
        "provenance.json",
        "report",
        *(f"predictions_{split}.csv" for split in ("train", "validation", "test")),
    }
    report = json.loads((run / "report" / "report.json").read_text())
    accuracy = {row["split"]: row for row in report["accuracy"]}
    assert list(accuracy) == ["train", "validation", "test"]
    for split, row in accuracy.items():
        predictions = rows_of(run / f"predictions_{split}.csv")
        assert len(predictions) == row["n"]
        assert sum(p["label"] == p["predicted"] for p in predictions) == row["correct"]
        assert row["majority"] == 0.5
        # Hard messages and noisy labels: neither chance nor all.
        assert 0.75 < row["accuracy"] < 0.995
    metrics = rows_of(run / "metrics.csv")
    assert {"epoch", "step", "train_loss", "val_loss", "val_acc", "test_acc"} <= set(metrics[0])
    [tested] = [row["test_acc"] for row in metrics if row["test_acc"]]
    assert float(tested) == pytest.approx(accuracy["test"]["accuracy"])
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["command"][:2] == ["lit_cls", "fit"]
    assert provenance["split_sha256"] == {part["name"]: part["sha256"] for part in report["data"]["splits"]}


def test_the_kept_checkpoint_tests_the_same_in_a_new_process(
    quickstart: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = quickstart
    first = folder / "checkpoints" / "quickstart" / "version_0"
    before = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    told = fork("test", "--ckpt_path", str(first / "best.ckpt"), "--run_name", "again", cwd=folder)
    assert (told.returncode, told.stderr) == (0, "")
    again = folder / "checkpoints" / "again" / "version_0"
    assert rows_of(again / "predictions_test.csv") == rows_of(first / "predictions_test.csv")
    monkeypatch.chdir(folder)
    assert main(["validate", "--config", str(CONFIGS / "quickstart.yaml"), "--ckpt_path", "best"]) == 0
    second = folder / "checkpoints" / "quickstart" / "version_1"
    assert rows_of(second / "predictions_validation.csv") == rows_of(first / "predictions_validation.csv")
    assert {file: file.read_bytes() for file in before} == before


def test_predict_prints_label_and_probabilities(quickstart: tuple[Path, str]) -> None:
    folder, _ = quickstart
    best = folder / "checkpoints" / "quickstart" / "version_0" / "best.ckpt"
    texts = ["Winner! Claim your gift card at prizes.example today", "see you at the station at 7", "123", "- x: {", ""]
    told = lit("predict", "--ckpt_path", str(best), "--", *texts, cwd=folder)
    assert told.stderr == ""
    lines = told.stdout.splitlines()
    assert len(lines) == len(texts)
    for text, line, prediction in zip(texts, lines, lit_cls.load(best).predict(texts), strict=True):
        shares = "  ".join(f"{label} {share:.4f}" for label, share in prediction.probabilities.items())
        assert line == f"{prediction.label}\t{shares}\t{text}"
    assert [line.split("\t")[0] for line in lines[:2]] == ["spam", "ham"]
    words = ["--config", str(CONFIGS / "quickstart.yaml"), "--ckpt_path", "last", "w " * 1500]
    long = fork("predict", *words, cwd=folder)
    assert long.returncode == 0, long.stderr
    assert "(truncated: longer than the classifier reads)" in long.stdout


def test_a_saved_configuration_repeats_the_run(
    finished_run: OncePerOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.yaml alone, in another folder, gives the same weights bit for bit."""
    first = finished_run()
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(first / "config.yaml"), "--trainer.default_root_dir", "elsewhere"]) == 0
    again = tmp_path / "elsewhere" / "shared" / "version_0"
    states = [torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (first, again)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=0, rtol=0, msg=name)
    assert rows_of(again / "predictions_test.csv") == rows_of(first / "predictions_test.csv")


@pytest.mark.slow  # the next test and test_processes.py prove the same on less data
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    """DDP on the CPU: the same steps, every row evaluated once, in order."""
    common = ["fit", "--config", str(CONFIGS / "quickstart.yaml"), "--trainer.max_epochs", "1"]
    common += ["--trainer.accelerator", "cpu", "--data.padding", "longest_in_train", "--model.learning_rate", "1e-4"]
    common += ["--trainer.precision", "32-true"]
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "4", "--run_name", "two"]
    lit(*common, "--run_name", "one", cwd=tmp_path)
    told = lit(*common, *two, cwd=tmp_path)
    assert told.stdout.count("epoch 1/1") == 1
    runs = [tmp_path / "checkpoints" / name for name in ("one", "two")]
    assert [len(list(run.iterdir())) for run in runs] == [1, 1]
    for split in ("train", "validation", "test"):
        one, other = (rows_of(run / "version_0" / f"predictions_{split}.csv") for run in runs)
        assert [row["source_row"] for row in other] == [row["source_row"] for row in one]
        for a, b in zip(one, other, strict=True):
            assert float(b["probability_spam"]) == pytest.approx(float(a["probability_spam"]), abs=2e-3)
    metrics = [rows_of(run / "version_0" / "metrics.csv") for run in runs]
    losses = [[float(row["train_loss"]) for row in rows if row["train_loss"]] for rows in metrics]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    accuracies = [[float(row["test_acc"]) for row in rows if row["test_acc"]] for rows in metrics]
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.006)  # at most one text on the edge


def test_two_processes_start_from_the_same_frozen_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both need the same files at once; and of the last batch, one text, one of them has none."""
    lines = [f"{i} {'good' if i % 2 else 'poor'} {'film ' * (i % 5)},{'yes' if i % 2 else 'no'}" for i in range(50)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    common = ["fit", "--data.path", "texts.csv", "--data.balance", "none", "--data.stratify", "false"]
    common += ["--model.size", "gpt2-nano", "--model.weights", "random", "--model.trainable_layers", "last_layer"]
    common += ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
    common += ["--model.learning_rate", "0.01"]
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "17", "--run_name", "two"]
    monkeypatch.chdir(tmp_path)
    assert main([*common, "--data.batch_size", "34", "--run_name", "one", "--model.fast", "false"]) == 0
    told = lit(*common, *two, "--model.cache_dir", "cache", cwd=tmp_path)
    assert told.stdout.count("frozen layers, train: 35 texts") == 1
    assert told.stdout.count("epoch 2/2") == 1
    assert len(list((tmp_path / "checkpoints" / "two").iterdir())) == 1
    assert len(list((tmp_path / "cache").glob("*.features"))) == 3
    runs = [tmp_path / "checkpoints" / name / "version_0" for name in ("one", "two")]
    for split in ("train", "validation", "test"):
        one, other = (rows_of(run / f"predictions_{split}.csv") for run in runs)
        assert [row["source_row"] for row in other] == [row["source_row"] for row in one]
        for a, b in zip(one, other, strict=True):
            assert float(b["probability_yes"]) == pytest.approx(float(a["probability_yes"]), abs=1e-4)


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_runs_at_a_tiny_size(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own choices, with a network, data and a device that are at hand; the rows are in test_reproduce.py."""
    words = ["fit", "--config", str(config), "--model.size", "gpt2-nano", "--model.weights", "random"]
    words += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    settings = yaml.safe_load(config.read_text())
    if "strategy" in settings.get("trainer", {}):
        words += ["--trainer.devices", "2", "--trainer.strategy.init_args.data_parallel_size", "2"]
    if settings.get("preset") == "published" or settings.get("data", {}).get("source") == "sms_spam":
        if not SHARED.is_dir():
            pytest.skip("the published split needs the SMS Spam Collection")
        words += ["--data.path", str(SHARED / "data" / "SMSSpamCollection"), "--trainer.limit_predict_batches", "4"]
        words += ["--trainer.limit_test_batches", "4", "--trainer.limit_val_batches", "4"]
    monkeypatch.chdir(tmp_path)
    if "--trainer.devices" in words:
        done = fork(*words, cwd=tmp_path, processes=2)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "majority baseline" in done.stdout
        return
    assert main(words) == 0
    assert "majority baseline" in capsys.readouterr().out


def test_print_config_shows_every_value_of_row_12(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(CONFIGS / "xl_lora.yaml"), "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)
    adapter, targets = settings["model"].pop("adapter"), ["all_linear", "head"]
    options = {"rank": 16, "alpha": 8, "dropout": 0, "scaling": "alpha", "targets": targets, "train_head": True}
    assert adapter == {"class_path": "lit_cls.model.adapters.LoRA", "init_args": options}
    expected = {
        "model": {
            "size": "gpt2-xl",
            "weights": "pretrained",
            "token_position": "last",
            "trainable_layers": "last_layer",
        },
        "data": {"split": "ch06", "padding": "longest_in_train", "batch_size": 8},
        "trainer": {"max_epochs": 5, "accumulate_grad_batches": 1, "accelerator": "gpu"},
    }
    for group, values in expected.items():
        assert {name: settings[group][name] for name in values} == values
    assert settings["model"]["trainable_layers"] == "last_layer"
    assert (settings["model"]["learning_rate"], settings["model"]["weight_decay"]) == (5e-5, 0.1)
    assert settings["seed_everything"] == 123


@pytest.mark.parametrize("words", ["tset", "fit --data.source nowhere", "test --ckpt_path gone.ckpt", "fit"])
def test_mistakes_return_2_with_one_message(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lit_cls: error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    told = fork("fit", "--data.source", "nowhere", cwd=tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("lit_cls: error: ")
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_exits_with_its_code(number: signal.Signals, code: int, tmp_path: Path) -> None:
    words = ["fit", "--config", str(CONFIGS / "quickstart.yaml"), "--trainer.max_epochs", "1000"]
    run = Forked(*words, "--trainer.limit_train_batches", "10", cwd=tmp_path)
    run.wait_for("\nepoch 2/")
    assert run.process.pid is not None
    os.kill(run.process.pid, number)
    done = run.finished()
    assert done.returncode == code
    assert f"stopped by {number.name} after " in done.stdout
    assert "resume with: lit_cls resume checkpoints/quickstart/version_0\n" in done.stdout
    assert done.stderr == f"\nlit_cls: {number.name}: saving after this step; a second signal ends at once\n"


def test_module_and_script_are_the_same_command(tmp_path: Path) -> None:
    told = subprocess.run([sys.executable, "-m", "lit_cls", "fti"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "did you mean fit?" in told.stderr


@pytest.mark.shared
def test_the_published_split_from_the_command_line(
    sms_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--data.split", "ch06", "--data.path", str(sms_file), "--data.padding", "longest_in_train"]
    words += ["--model.size", "gpt2-nano", "--model.weights", "random", "--trainer.max_epochs", "1"]
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--trainer.limit_train_batches", "2"]) == 0
    report = json.loads((tmp_path / "checkpoints" / "fit" / "version_0" / "report" / "report.json").read_text())
    reference = json.loads((SHARED / "reference" / "ch06_split.json").read_text())
    for part in report["data"]["splits"]:
        assert part["sha256"] == reference[part["name"]]["sha256"]
        assert part["labels"]["spam"] == reference[part["name"]]["spam"]
        assert part["tokens_longest"] == reference[part["name"]]["longest_tokens"]
    assert report["data"]["pad_to"] == 120
    assert [row["n"] for row in report["accuracy"]] == [1045, 149, 300]
    assert "truncated at 120" in capsys.readouterr().out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [
        (["data", "check", "--help"], ""),
        (["data", "check", "a.csv"], "1"),
        (["data", "check", "a.csv", "--json"], ""),
    ],
)
def test_a_full_standard_output_is_reported_in_one_line(words: list[str], unbuffered: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "hello,ham\nwin,spam\n" * 9)
    with open("/dev/full", "w") as full:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        command = [sys.executable, "-m", "lit_cls", *words]
        told = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, check=False
        )
    assert told.stderr == "lit_cls: error: standard output cannot be written: No space left on device\n"
    assert told.returncode == 1


def test_a_closed_pipe_hides_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with closed_pipe():
        assert main([]) == 0
        assert main(["data", "check", "no.csv"]) == 2
    assert "there is no file no.csv" in capsys.readouterr().err


def test_what_else_the_system_refuses_keeps_its_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(words: list[str]) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("lit_cls.commands.data.data", refused)
    with pytest.raises(OSError, match="Too many open files"):
        main(["data", "check", "a.csv"])
