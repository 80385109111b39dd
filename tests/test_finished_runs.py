"""What a finished run left, read back."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from experiment_folders import answers, finished_run, record

from lit_cls.cli import main
from lit_cls.errors import UserError
from lit_cls.experiments.finished_run import is_finished, read_finished_run
from lit_cls.io.atomic import write_csv

RIGHT = {"train": answers(9, 12), "validation": answers(4, 5), "test": [False, True, True, True, False, True, True]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "runs" / "some" / "version_3", RIGHT, in_train=3)  # type: ignore[arg-type]


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in (*value, *(value.values() if isinstance(value, dict) else ())):
            yield from texts_in(inner)


# What a record has.


def test_counts_and_answers(folder: Path) -> None:
    found = read_finished_run(folder)
    assert found.counts == {"train": (9, 12), "validation": (4, 5), "test": (5, 7)}
    assert found.test_right == RIGHT["test"]
    assert found.test_rows == [1, 2, 3, 4, 5, 6, 7]
    assert found.folder == folder


def test_a_nul_character_is_read_on_every_python(folder: Path) -> None:
    path, before = folder / "predictions_test.csv", read_finished_run(folder)
    with path.open(encoding="utf-8", newline="") as stream:
        columns, first, *others = csv.reader(stream)
    first[columns.index("text")] += "\0"
    write_csv(path, columns, [first, *others])
    assert read_finished_run(folder) == before


def test_test_rows_are_in_the_order_of_the_file(folder: Path) -> None:
    path = folder / "predictions_test.csv"
    names, *lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([names, *reversed(lines)]) + "\n", encoding="utf-8")
    found = read_finished_run(folder)
    assert found.test_rows == [7, 6, 5, 4, 3, 2, 1]
    assert found.test_right == RIGHT["test"][::-1]


def test_settings_are_those_of_the_configuration(tmp_path: Path) -> None:
    chosen = {"seed_everything": 7, "model": {"size": "gpt2-nano", "adapter": None}, "preset": "published"}
    assert record(tmp_path / "version_0", answers(1, 2), settings=chosen).settings == chosen


def test_test_texts_that_occur_in_train_are_counted_apart(folder: Path) -> None:
    """Three of them: word for word, with other digits, punctuation and case, word for word."""
    with (folder / "predictions_train.csv").open(encoding="utf-8", newline="") as stream:
        train = [line["text"] for line in csv.DictReader(stream)]
    with (folder / "predictions_test.csv").open(encoding="utf-8", newline="") as stream:
        test = [line["text"] for line in csv.DictReader(stream)]
    assert [text in train for text in test] == [True, False, True, False, False, False, False]
    found = read_finished_run(folder)
    assert (found.seen, found.unseen) == ((2, 3), (3, 4))


@pytest.mark.parametrize(("in_train", "seen", "unseen"), [(0, (0, 0), (3, 4)), (4, (3, 4), (0, 0))])
def test_no_test_text_or_every_one_occurs_in_train(
    tmp_path: Path, in_train: int, seen: tuple[int, int], unseen: tuple[int, int]
) -> None:
    found = record(tmp_path / "version_0", answers(3, 4), in_train=in_train)
    assert (found.seen, found.unseen) == (seen, unseen)


def test_costs(tmp_path: Path) -> None:
    costs = {"seconds": 61.25, "parameters": 1234, "trained": 56, "peak_gpu_memory": 7_000_000_000}
    found = record(tmp_path / "version_0", answers(1, 2), **costs)
    assert (found.seconds, found.parameters, found.trained, found.peak_gpu_memory) == tuple(costs.values())
    assert record(tmp_path / "version_1", answers(1, 2)).peak_gpu_memory is None


def test_the_curve_has_a_point_an_epoch(folder: Path) -> None:
    """The last lines of metrics.csv are the test of the kept weights, not an epoch."""
    lines = (folder / "metrics.csv").read_text().splitlines()
    assert lines[-1].startswith("2,20,")
    first, second = read_finished_run(folder).curve
    assert first == {"epoch": 1, "train_loss": 0.5, "val_acc": 0.5, "val_loss": 0.6}
    assert second == {"epoch": 2, "train_loss": 0.4, "val_acc": 0.6, "val_loss": 0.5}


def test_an_epoch_without_validation_has_a_loss_alone(folder: Path) -> None:
    lines = (folder / "metrics.csv").read_text().splitlines()
    validated = next(line for line in lines if line.startswith("0,9,,,,,"))
    (folder / "metrics.csv").write_text("\n".join(line for line in lines if line != validated) + "\n")
    first, second = read_finished_run(folder).curve
    assert first == {"epoch": 1, "train_loss": 0.5}
    assert set(second) == {"epoch", "train_loss", "val_acc", "val_loss"}


def test_without_an_epoch_there_is_no_curve(tmp_path: Path) -> None:
    assert record(tmp_path / "version_0", answers(1, 2), epochs=0).curve == []


def test_any_text_is_read_back(folder: Path) -> None:
    """Longer than csv takes by itself, with line breaks, quotes and commas."""
    path = folder / "predictions_test.csv"
    with path.open("a", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerow([99, 'two\nlines, "quoted" ' + 200_000 * "x", "ham", "ham", 0.9, 0.1])
    report = json.loads((folder / "report" / "report.json").read_text())
    for line in report["accuracy"]:
        if line["split"] == "test":
            line.update(correct=line["correct"] + 1, n=line["n"] + 1)
    (folder / "report" / "report.json").write_text(json.dumps(report))
    found = read_finished_run(folder)
    assert (found.test_rows[-1], found.test_right[-1], found.unseen) == (99, True, (4, 5))


# Written down.


def test_a_record_as_plain_types(folder: Path) -> None:
    found = read_finished_run(folder)
    plain = found.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["folder"] == found.place == "runs/some/version_3"
    assert (plain["train"], plain["validation"], plain["test"]) == ([9, 12], [4, 5], [5, 7])
    assert (plain["test_seen_in_train"], plain["test_not_seen_in_train"]) == ([2, 3], [3, 4])
    assert (plain["parameters"], plain["trained_parameters"], plain["seconds_training"]) == (100, 20, 12.5)
    assert plain["provenance"]["versions"]["torch"] == "2.6.0"


def test_what_is_written_down_holds_no_absolute_path(folder: Path, tmp_path: Path) -> None:
    found = read_finished_run(folder)
    assert any(str(tmp_path) in text for text in texts_in(found.provenance))  # the command, as it was typed
    assert [text for text in texts_in(found.as_dict()) if str(tmp_path) in text or text.startswith("/")] == []


# Finished or not.


def test_a_run_is_finished_when_it_has_a_report(folder: Path) -> None:
    assert is_finished(folder)
    (folder / "report" / "report.json").unlink()
    assert not is_finished(folder)
    assert not is_finished(folder.with_name("version_4"))


def test_half_a_report_is_none(folder: Path) -> None:
    """The file is written aside and then renamed."""
    report = folder / "report" / "report.json"
    report.rename(report.with_name("report.json.partial"))
    assert not is_finished(folder)


# What is wrong with it.


def refused(folder: Path) -> str:
    """What reading says is wrong."""
    with pytest.raises(UserError) as told:
        read_finished_run(folder)
    before, after = f"the finished run {folder} cannot be read (", "): move that folder away and run again"
    assert str(told.value).startswith(before)
    assert str(told.value).endswith(after)
    return str(told.value).removeprefix(before).removesuffix(after)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_missing_predictions(folder: Path, name: str) -> None:
    file = folder / f"predictions_{name}.csv"
    file.unlink()
    assert refused(folder) == f"FileNotFoundError: [Errno 2] No such file or directory: '{file}'"


@pytest.mark.parametrize("path", ["report/report.json", "provenance.json", "metrics.csv", "config.yaml"])
def test_a_missing_file(folder: Path, path: str) -> None:
    (folder / path).unlink()
    assert refused(folder) == f"FileNotFoundError: [Errno 2] No such file or directory: '{folder / path}'"


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("report/report.json", b'{"accuracy": [', "JSONDecodeError: Expecting value: line 1 column 15"),
        ("report/report.json", b"{}", "KeyError: 'accuracy'"),
        ("provenance.json", b"", "JSONDecodeError: Expecting value: line 1 column 1"),
        ("config.yaml", b"model: {size: gpt2-nano", "ParserError: while parsing a flow mapping"),
        ("config.yaml", b"\xff\xfe", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0"),
        (
            "predictions_test.csv",
            b"source_row,text,label,predicted\n1,\xff\xfe,ham,ham\n",
            "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 34",
        ),
        (
            "predictions_test.csv",
            b"source_row,text\n1,a text\n",
            "ValueError: predictions_test.csv and report.json do not agree",
        ),
        (
            "predictions_train.csv",
            b"source_row,message\n1,a text\n",
            "ValueError: predictions_train.csv and report.json do not agree",
        ),
        (
            "metrics.csv",
            b"epoch,step,train_loss\nsecond,1,0.5\n",
            "ValueError: could not convert string to float: 'second'",
        ),
        ("metrics.csv", b"epoch,step,train_loss\n1,1,low\n", "ValueError: could not convert string to float: 'low'"),
    ],
)
def test_a_damaged_file(folder: Path, path: str, content: bytes, told: str) -> None:
    (folder / path).write_bytes(content)
    assert refused(folder).startswith(told)


@pytest.mark.parametrize(
    "name", ["accuracy", "correct", "seconds_training", "parameters", "trained", "peak_gpu_memory"]
)
def test_a_report_that_lacks_something(folder: Path, name: str) -> None:
    path = folder / "report" / "report.json"
    text = path.read_text(encoding="utf-8")
    assert f'"{name}"' in text
    path.write_text(text.replace(f'"{name}"', '"other"'), encoding="utf-8")
    assert refused(folder) == f"KeyError: '{name}'"


# The real thing.


def described(value: Any) -> Any:
    """The names in a JSON value, without what they stand for."""
    if isinstance(value, dict):
        return {name: described(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [described(inner) for inner in value if isinstance(inner, dict)]
    return "a value"


def test_a_real_run_leaves_what_these_tests_make(folder: Path, reviews: str, tmp_path: Path) -> None:
    words = ["--data.path", reviews, "--data.balance", "none", "--model.size", "gpt2-nano", "--model.weights", "random"]
    words += ["--trainer.max_epochs", "2", "--trainer.enable_checkpointing", "false", "--run_name", "real"]
    assert main(["fit", *words, "--trainer.log_every_n_steps", "3", "--trainer.default_root_dir", str(tmp_path)]) == 0
    real = tmp_path / "real" / "version_0"

    def names(of: Path) -> list[str]:
        return sorted(str(path.relative_to(of)) for path in of.rglob("*") if path.is_file())

    # The report for people beside report.json is not read back.
    assert [name for name in names(real) if Path(name).suffix not in (".md", ".html", ".svg")] == names(folder)
    read = {of: json.loads((of / "provenance.json").read_text(encoding="utf-8")) for of in (real, folder)}
    assert described(read[folder]) == described(read[real])
    read = {of: json.loads((of / "report" / "report.json").read_text(encoding="utf-8")) for of in (real, folder)}
    assert set(read[folder].pop("data")) <= set(read[real].pop("data"))
    assert described(read[folder]) == described({name: read[real][name] for name in read[folder]})
    with (real / "metrics.csv").open() as one, (folder / "metrics.csv").open() as other:
        assert next(one) == next(other)
    with (real / "predictions_test.csv").open() as one, (folder / "predictions_test.csv").open() as other:
        assert next(one).split(",")[:4] == next(other).split(",")[:4]

    found = read_finished_run(real)
    assert {split: list(count) for split, count in found.counts.items()} == {
        line["split"]: [line["correct"], line["n"]] for line in read[real]["accuracy"]
    }
    assert (sum(found.test_right), len(found.test_rows)) == found.counts["test"]
    assert found.seen[1] + found.unseen[1] == found.counts["test"][1]
    assert [set(point) for point in found.curve] == [{"epoch", "train_loss", "val_acc", "val_loss"}] * 2
    assert [point["epoch"] for point in found.curve] == [1, 2]
    assert 0 < found.trained < found.parameters
    assert found.seconds > 0


@pytest.fixture
def small_folder(tmp_path: Path) -> Path:
    right = {"train": answers(9, 10), "validation": answers(4, 5), "test": answers(5, 7)}
    return finished_run(tmp_path / "runs" / "a" / "version_0", right)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("report/report.json", "[]"),
        ("report/report.json", '{"accuracy": null}'),
        ("provenance.json", "[]"),
        ("config.yaml", ""),
        ("config.yaml", "[1]"),
    ],
)
def test_a_file_of_another_shape(small_folder: Path, path: str, content: str) -> None:
    (small_folder / path).write_text(content)
    with pytest.raises(UserError, match="version_0 cannot be read"):
        read_finished_run(small_folder)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@pytest.mark.parametrize("cut", ["in the text", "after a number", "after a line"])
def test_predictions_that_were_cut_short(small_folder: Path, name: str, cut: str) -> None:
    path = small_folder / f"predictions_{name}.csv"
    text = path.read_text()
    last = text.rstrip("\n").rindex("\n") + 1
    comma = text.index(",", last)
    path.write_text(text[: {"in the text": comma + 4, "after a number": comma, "after a line": last}[cut]])
    with pytest.raises(UserError, match="ends in the middle of a line|do not agree"):
        read_finished_run(small_folder)


def test_no_path_of_a_machine_is_written_down(tmp_path: Path) -> None:
    run = record(tmp_path / "version_0", answers(1, 2), weights="/models/gpt2-small.safetensors")
    assert "/models" not in json.dumps(run.as_dict())
