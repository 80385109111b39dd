"""fit, validate and test: options, files and checkpoints; wrong input gives one message and exit code 2.

The command's own main(), in this process: what a user types, without the seconds of a new Python.
"""

import json
import shlex
import shutil
import warnings
from pathlib import Path

import pytest
from safetensors.torch import save_file

from lit_cls.cli import main
from lit_cls.model.settings import ModelSettings

NANO = ["--model.size", "gpt2-nano", "--model.weights", "random"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs the command; what it says on standard error after exit code 2 and before any training."""
    capsys.readouterr()
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("lit_cls: error: ")
    assert "Traceback" not in printed.err
    assert "epoch 1" not in printed.out
    return printed.err


def labelled(rows: list[tuple[str, str]], path: str = "data.csv") -> str:
    Path(path).write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return path


def twelve(a: str = "ham", b: str = "spam") -> list[tuple[str, str]]:
    return [(f"text number {i}", b if i % 2 else a) for i in range(12)]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (twelve("spam", "Spam"), [], "Unicode form alone: 'Spam' (6 rows) and 'spam'"),
        (twelve("ham", "ham"), [], "at least two different labels, the data has only 'ham' (12 rows)"),
        ([*twelve(), ("one", "rare")], [], "at least 3 of each label are needed): 'rare' has 1"),
        ([*twelve(), ("", "ham"), ("  ", "spam")], [], "2 rows (row 13, 14) have no text. Pass --data.empty drop"),
        ([*twelve(), ("text", "")], [], "row 13 has no label"),
        (twelve(), ["--data.text_column", "body"], "no column 'body' for the texts; its columns are 'text', 'label'"),
        (twelve(), ["--data.label_column", "5"], "no column '5' for the labels"),
        (twelve(), ["--data.padding", "none"], "data.padding none needs data.batch_size 1, not 8"),
        (
            twelve(),
            ["--data.padding", "1025"],
            "data.padding 1025 is not between 1 and the model's context length, 1024",
        ),
        (twelve(), ["--data.max_length", "0"], "data.max_length 0 is not between 1"),
        (twelve(), ["--data.batch_size", "0"], "data.batch_size 0 is less than 1"),
        (twelve(), ["--data.split", "[0.9,0.1,0.1]"], "three positive fractions"),
        (twelve(), ["--data.split", "ch06"], "sha256"),
        (twelve(), ["--model.trainable_layers", "9"], "trainable_layers 9 is not between 1 and the model's 3 blocks"),
        (twelve(), ["--model.adapter", "LoRA", "--model.adapter.train_head", "false"], "would stay random"),
        (twelve(), ["--model.adapter", "LoRA", "--model.adapter.rank", "0"], "model.adapter.rank 0 is less than 1"),
        (
            twelve(),
            ["--model.adapter", "LoRA", "--model.adapter.targets", "[mlp_gate]"],
            "model.adapter.targets mlp_gate: the network has no such layer",
        ),
        (twelve(), ["--model.weights", "gone.safetensors"], "there is no weights file gone.safetensors"),
        (twelve(), ["--model.weights", "x" * 300], "there is no weights file xxx"),
        (twelve(), ["--model.weights", "pretrained"], "no pretrained weights for gpt2-nano"),
        (twelve(), ["--model.weights", "pretrained", "--model.size", "gpt2-large"], "LIT_CLS_OFFLINE is set"),
        (twelve(), ["--trainer.precision", "16-mixed"], "trainer.precision 16-mixed needs a GPU"),
        (twelve(), ["--trainer.accelerator", "gpu"], "finds no GPU on this machine"),
        (twelve(), ["--trainer.strategy", "nope"], "invalid strategy name"),
        (twelve(), ["--trainer.default_root_dir", "data.csv"], "cannot be saved below data.csv/fit"),
        (twelve(), ["--run_name", "../other"], "run_name '../other' is not a plain folder name"),
        (
            twelve(),
            ["--trainer.limit_val_batches", "0"],
            "keep best compares val_loss, but trainer.limit_val_batches is 0",
        ),
        (twelve(), ["--data.padding", "50", "--data.max_length", "60"], "data.max_length is 60: give one of them"),
        (twelve(), ["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches 0 is less than 1"),
        (twelve(), ["--seed_everything", "-5"], "seed_everything -5 is not between 0 and 4294967295"),
        (twelve(), ["--trainer.strategy", "ddp_spawn"], "keeps its processes' predictions to itself: use ddp instead"),
        (
            twelve(),
            ["--trainer.val_check_interval", "5"],
            "val_check_interval 5 is more than the 1 batches of an epoch",
        ),
        (
            twelve(),
            ["--trainer.limit_test_batches", "0.3"],
            "trainer.limit_test_batches 0.3 of 1 batch is less than one",
        ),
        (twelve(), ["--trainer.logger", "CometLogger"], "the configuration cannot be instantiated: Problem with given"),
        (twelve(), ["--trainer.devices", "abc"], "the trainer cannot be created"),
        (twelve(), ["--trainer.default_root_dir", "null"], "trainer.default_root_dir is null"),
        (twelve(), ["--model.drop_rate", "2"], "drop_rate 2.0 is not in [0, 1)"),
        (
            twelve(),
            ["--model.class_weights", "{eggs: 2}"],
            "'eggs' is not a label of the data. The labels are 'ham', 'spam'",
        ),
        (twelve(), ["--model.class_weights.ham", "-1"], "model.class_weights: 'ham' is -1.0, not between"),
        (twelve(), ["--model.label_smoothing", "1"], "model.label_smoothing 1.0 is not in [0, 1)"),
        (twelve(), ["--model.focal_gamma", "-2"], "model.focal_gamma -2.0 is not a number of at least 0"),
        (twelve(), ["--trainer.overfit_batches", "2"], "trainer.overfit_batches replaces the order of texts"),
        (twelve(), ["--trainer.use_distributed_sampler", "true"], "trainer.use_distributed_sampler repeats rows"),
        (twelve(), ["--data.source", "demo"], "data.source demo makes its own messages: leave data.path data.csv out"),
    ],
)
def test_wrong_input(rows: list, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = refused(["fit", "--data.path", labelled(rows), *NANO, *options], capsys)
    assert message in printed
    assert not list(Path().glob("checkpoints/*/version_*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no data: pass --data.path FILE"),
        (["--data.path", "gone.csv"], "there is no file gone.csv: check data.path"),
        (["--data.path", "."], ". is a folder: give one file"),
        (["--data.source", "sms_spam"], "pass --data.path .../SMSSpamCollection"),
        (["--data.source", "file"], "no data: pass --data.path FILE"),
        (["--data.split", "[a.csv,b.csv,c.csv]"], "there is no file a.csv"),
        (["--data.split", "[a.csv,b.csv,c.csv]", "--data.path", "d.csv"], "leave data.path and data.source out"),
    ],
)
def test_no_data(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(["fit", *NANO, *options], capsys)


def test_undecodable_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data.csv").write_bytes(b"text,label\n\x81\x8d,ham\n")
    printed = refused(["fit", "--data.path", "data.csv", *NANO], capsys)
    assert "data.csv is neither UTF-8 (line 2, byte 11) nor cp1252 (byte 11): save it as UTF-8" in printed


def test_weights_that_do_not_fit_leave_no_run_behind(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("nano.safetensors")
    save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), path)
    words = ["fit", "--data.path", labelled(twelve()), "--model.weights", str(path)]
    assert "looks like gpt2-nano: pass --model.size gpt2-nano" in refused(
        [*words, "--model.size", "gpt2-small"], capsys
    )
    path.write_bytes(path.read_bytes()[:100_000])
    assert "cannot be read (truncated" in refused([*words, "--model.size", "gpt2-nano"], capsys)
    assert not Path("checkpoints").exists()


def fit(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    words = ["fit", "--data.path", labelled(twelve()), *NANO, "--trainer.max_epochs", "1", *options]
    assert main(words) == 0
    return capsys.readouterr().out


def test_checkpoints_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    fit(capsys)
    best = "checkpoints/fit/version_0/best.ckpt"
    printed = refused(["test", "--ckpt_path", best, "--model.size", "gpt2-small"], capsys)
    assert "model.size is gpt2-small, the checkpoint's is gpt2-nano" in printed
    printed = refused(["test", "--ckpt_path", best, "--model.token_position", "mean"], capsys)
    assert "model.token_position is mean, the checkpoint's is flexible" in printed
    printed = refused(["test", "--ckpt_path", best, "--data.path", labelled(twelve("no", "yes"), "other.csv")], capsys)
    assert "the data's labels are no, yes, the checkpoint's ham, spam" in printed
    resumed = ["fit", *NANO, "--ckpt_path", best, "--data.path", "other.csv"]
    assert "the data's labels are no, yes" in refused(resumed, capsys)
    for options in (["--data.padding", "context_length"], ["--data.max_length", "2"], ["--data.truncation", "tail"]):
        printed = refused(["test", "--ckpt_path", best, *options], capsys)
        assert f"{options[0][2:]} is {options[1]}, the checkpoint was trained with" in printed
    assert "there is no checkpoint gone.ckpt" in refused(["test", "--ckpt_path", "gone.ckpt"], capsys)
    Path("bad.ckpt").write_bytes(Path(best).read_bytes()[:5000])
    assert "bad.ckpt cannot be read" in refused(["test", "--ckpt_path", "bad.ckpt"], capsys)
    assert len(list(Path().glob("checkpoints/*/version_*"))) == 1


def test_other_data_replaces_the_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint of the demo messages, tested on a file, then on three."""
    words = ["fit", "--data.source", "demo", *NANO, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    assert main(words) == 0
    labelled(twelve())
    best = ["--ckpt_path", "checkpoints/fit/version_0/best.ckpt"]
    for options in (["--data.path", "data.csv"], ["--data.split", "[data.csv,data.csv,data.csv]"]):
        assert main(["test", *best, *options]) == 0
        out = capsys.readouterr().out
        assert "data.csv, " in out
        assert "split that the checkpoint was trained with" in out


def test_a_path_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data[").mkdir()
    words = ["fit", "--data.path", labelled(twelve(), "data[/old]:fire:.csv".replace("/", "-")), *NANO]
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    assert "Data: data[-old]:fire:.csv, 12 rows" in capsys.readouterr().out


def test_many_labels_are_all_shown(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"text {i}", f"label {i % 9}") for i in range(45)]
    assert main(["fit", "--data.path", labelled(rows), *NANO, "--trainer.max_epochs", "1"]) == 0
    out = capsys.readouterr().out
    listed = ", ".join(f"label {i} 3" for i in range(9))
    assert f"labels of the train split: {listed}" in out


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "precision", ["bf16-mixed", "64-true", pytest.param("32-true", marks=SLOW), pytest.param("bf16-true", marks=SLOW)]
)
def test_a_checkpoint_brings_its_precision(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit(capsys, "--trainer.precision", precision)
    best = ["--ckpt_path", "checkpoints/fit/version_0/best.ckpt"]
    assert main(["test", *best, "--run_name", "again"]) == 0
    assert f"precision: {precision}" in Path("checkpoints/again/version_0/config.yaml").read_text()
    runs = [Path("checkpoints") / name / "version_0" / "predictions_test.csv" for name in ("fit", "again")]
    assert runs[0].read_text() == runs[1].read_text()
    capsys.readouterr()
    assert main(["predict", *best, "a text", "🙂"]) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_commands_without_a_checkpoint_name_the_command_that_would_work(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("data:\n  path: data.csv\nmodel:\n  size: gpt2-nano\n  weights: random\n")
    labelled(twelve())
    for name in ("validate", "test", "predict"):
        printed = refused([name, "--config", "mine.yaml", *(["a text"] if name == "predict" else [])], capsys)
        assert f"{name} needs a trained checkpoint: train one first\n  lit_cls fit --config mine.yaml\n" in printed
        printed = refused([name, "--config", "mine.yaml", "--ckpt_path", "best"], capsys)
        assert "no run of 'mine' below checkpoints has a best.ckpt: train one first" in printed
    assert main(["fit", "--config", "mine.yaml", "--trainer.max_epochs", "1"]) == 0
    printed = refused(["test", "--config", "mine.yaml"], capsys)
    command = printed.splitlines()[-1].split()
    assert command == [
        "lit_cls",
        "test",
        "--config",
        "mine.yaml",
        "--ckpt_path",
        "checkpoints/mine/version_0/best.ckpt",
    ]
    assert main(command[1:]) == 0
    printed = refused(["predict", "--config", "mine.yaml", "a text"], capsys)
    assert main(shlex.split(printed.splitlines()[-1])[1:]) == 0


def test_a_run_without_a_configuration_is_found_again(capsys: pytest.CaptureFixture[str]) -> None:
    fit(capsys, "--keep", "last")
    printed = refused(["test"], capsys)
    assert "lit_cls test --ckpt_path checkpoints/fit/version_0/last.ckpt" in printed
    assert main(["test", "--ckpt_path", "last"]) == 0


@pytest.mark.parametrize("three_files", [pytest.param(False, marks=SLOW), True])
def test_the_saved_configuration_means_the_same_elsewhere(
    three_files: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), "nano.safetensors")
    if three_files:
        labelled(twelve())
        words = ["fit", "--data.split", "[data.csv,data.csv,data.csv]", *NANO, "--trainer.max_epochs", "1"]
        assert main([*words, "--model.weights", "nano.safetensors"]) == 0
    else:
        fit(capsys, "--model.weights", "nano.safetensors")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["fit", "--config", str(tmp_path / "checkpoints/fit/version_0/config.yaml")]) == 0
    runs = [folder / "checkpoints" / "fit" / "version_0" / "predictions_test.csv" for folder in (tmp_path, Path())]
    assert runs[0].read_text() == runs[1].read_text()


@pytest.mark.parametrize("size", [100, 200_000_000_000])
def test_disk_is_checked_before_training(
    size: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, size))  # type: ignore[attr-defined]
    words = ["fit", "--data.path", labelled(twelve()), *NANO, "--trainer.max_epochs", "1"]
    if size == 100:
        assert "4 copies exist at once, and checkpoints has 0.00 GB left" in refused(words, capsys)
        assert not Path("checkpoints").exists()
    else:
        assert main(words) == 0


def test_awkward_texts_are_ordinary_texts(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"<|endoftext|> number {i}", "b" if i % 2 else "a") for i in range(12)]
    rows += [("word " * 3000, "a"), ("NA", "b"), ("None", "a"), ("nan", "b")]
    words = ["fit", "--data.path", labelled(rows), *NANO, "--trainer.max_epochs", "1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "note: 1 texts are longer than 1024 tokens: their head is read" in out
    report = json.loads(Path("checkpoints/fit/version_0/report/report.json").read_text())
    assert sum(split["cut"] for split in report["data"]["splits"]) == 1
    assert sum(split["n"] for split in report["data"]["splits"]) == 16


@pytest.mark.parametrize(
    "options",
    [
        ["--model.adapter", "LoRA", "--model.token_position", "mean"],
        ["--model.adapter", "LoRA", "--model.adapter.rank", "2", "--model.adapter.targets", "[mlp_in,mlp_out,head]"],
        ["--data.padding", "none", "--data.batch_size", "1", "--trainer.accumulate_grad_batches", "8"],
        ["--model.causal", "false", "--model.token_position", "first", "--model.trainable_layers", "2"],
        ["--keep", "last", "--trainer.precision", "bf16-mixed", "--data.padding", "context_length"],
        ["--trainer.enable_checkpointing", "false"],
        ["--trainer.fast_dev_run", "true"],
        ["--data.num_workers", "1", "--data.balance", "none", "--data.stratify", "false"],
        ["--data.truncation", "head_tail", "--data.max_length", "2", "--model.drop_rate", "0.1"],
    ],
)
def test_choices_that_must_work_together(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = fit(capsys, *options)
    assert "majority baseline" in out
    kept = Path("checkpoints/fit/version_0") / ("last.ckpt" if "last" in options else "best.ckpt")
    assert kept.exists() is not {"--trainer.enable_checkpointing", "--trainer.fast_dev_run"}.intersection(options)


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.max_steps", "1", "--data.batch_size", "4"],
        ["--trainer.check_val_every_n_epoch", "2"],
        ["--trainer.limit_train_batches", "0"],
    ],
)
def test_a_run_that_never_validated_still_leaves_its_last_checkpoint(
    options: list[str], capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always")  # Lightning warns of the missing val_loss as well
    out = fit(capsys, *options)
    assert "nothing was validated, so there is no best checkpoint: the last is tested" in out
    assert {path.name for path in Path("checkpoints/fit/version_0").glob("*.ckpt")} == {"last.ckpt"}


def test_an_evaluation_that_is_skipped_has_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    out = fit(capsys, "--trainer.limit_test_batches", "0")
    test, validation = (
        next(line for line in out.splitlines()[-12:] if name in line) for name in (" test ", "validation")
    )
    assert "n/a" in test
    assert "n/a" not in validation
    report = json.loads(Path("checkpoints/fit/version_0/report/report.json").read_text())
    assert [(row["split"], row["n"], row["accuracy"] is None) for row in report["accuracy"]][2] == ("test", 0, True)


def test_keep_last_tests_the_last_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    fit(capsys, "--keep", "last", "--trainer.max_epochs", "2")
    assert {path.name for path in Path("checkpoints/fit/version_0").glob("*.ckpt")} == {"last.ckpt", "previous.ckpt"}


def test_a_runs_own_configuration_is_one_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    fit(capsys, "--save_every_n_steps", "1")
    capsys.readouterr()
    written = "checkpoints/fit/version_0/config.yaml"
    assert "save_every_n_steps: 1\n" in Path(written).read_text()
    for number, name in enumerate(("validate", "test"), start=1):
        assert main([name, "--config", written, "--ckpt_path", "best"]) == 0
        assert f"checkpoints/fit/version_{number}" in capsys.readouterr().out
        printed = Path(f"checkpoints/fit/version_{number}/config.yaml").read_text()
        assert "\nkeep:" not in printed
        assert "save_every" not in printed
        words = [name, "--config", written, "--ckpt_path", "best", "--keep", "last"]
        assert f"--keep is an option of fit: {name} trains nothing" in refused(words, capsys)


def test_near_duplicates_of_a_command_are_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no command 'tset'; did you mean test?" in refused(["tset"], capsys)
    assert "the command comes first" in refused(["--config", "x.yaml", "fit"], capsys)
