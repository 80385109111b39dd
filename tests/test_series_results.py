"""Counts of rows and baselines, by hand, and the files they are written to."""

import csv
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from experiment_folders import answers, baseline, record, results, row_result

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.split_data import SplitData
from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.experiments.counts import interval, share
from lit_cls.experiments.results import BaselineResult, Results, natural_mix, run_baselines, write_results
from lit_cls.io.atomic import write_text

NAMES = ("ham", "spam")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# The natural mix.


def test_natural_mix_by_hand() -> None:
    """Four ham of which one is called spam, two spam of which one is called ham; nine texts in ten are ham."""
    found = natural_mix([0, 0, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0], [0.9, 0.1], NAMES)
    assert found["accuracy"] == pytest.approx(0.9 * 3 / 4 + 0.1 * 1 / 2)
    ham, spam = found["labels"]["ham"], found["labels"]["spam"]
    assert list(found["labels"]) == ["ham", "spam"]
    assert (ham["share"], ham["recall"], ham["precision_counted"]) == (0.9, [3, 4], [3, 4])
    assert (spam["share"], spam["recall"], spam["precision_counted"]) == (0.1, [1, 2], [1, 2])
    assert ham["precision"] == pytest.approx(0.675 / (0.675 + 0.05))
    assert spam["precision"] == pytest.approx(0.05 / (0.05 + 0.225))


def test_natural_mix_in_the_shares_of_the_texts_is_what_is_counted() -> None:
    labels = [0] * 12 + [1] * 5 + [2] * 3
    predicted = [0] * 9 + [1] * 2 + [2] + [1] * 4 + [0] + [2, 2, 1]
    found = natural_mix(labels, predicted, [12 / 20, 5 / 20, 3 / 20], ("a", "b", "c"))
    assert found["accuracy"] == pytest.approx((9 + 4 + 2) / 20)
    counted = {name: figures["precision_counted"] for name, figures in found["labels"].items()}
    assert counted == {"a": [9, 10], "b": [4, 7], "c": [2, 3]}
    for figures in found["labels"].values():
        k, n = figures["precision_counted"]
        assert figures["precision"] == pytest.approx(k / n)


def test_an_answer_that_was_never_given_has_no_precision() -> None:
    found = natural_mix([0, 0, 1], [0, 0, 0], [0.9, 0.1], NAMES)
    spam = found["labels"]["spam"]
    assert (spam["precision"], spam["precision_counted"], spam["recall"]) == (None, [0, 0], [0, 1])
    assert found["accuracy"] == pytest.approx(0.9)
    assert found["labels"]["ham"]["precision"] == pytest.approx(0.9)


def test_a_label_without_a_text() -> None:
    found = natural_mix([0, 0], [0, 1], [0.5, 0.5], NAMES)
    assert found["labels"]["spam"] == {
        "share": 0.5,
        "recall": [0, 0],
        "precision": 0.0,
        "precision_counted": [0, 1],
    }


# The baselines.


@pytest.fixture
def parts(tmp_path: Path) -> SplitData:
    """40 texts of `no` and 120 of `yes`, 80 of which balancing leaves out; some texts occur more than once."""
    lines = ["text,label"]
    for i in range(160):
        word = ("poor", "dull", "fine")[i % 3] if i % 4 == 0 else ("good", "fine", "great")[i % 3]
        lines.append(f"{word} film about {'abcdefghi'[i % 9]}{'uvwxyz'[i % 6]},{'no' if i % 4 == 0 else 'yes'}")
    path = tmp_path / "unbalanced.csv"
    path.write_text("\n".join(lines) + "\n")
    return ClassificationData(path=str(path)).split_data


@pytest.fixture
def run(parts: SplitData, tmp_path: Path) -> dict[str, BaselineResult]:
    found = run_baselines(parts, tmp_path / "baselines")
    assert [fitted.name for fitted in found] == ["majority", "TF-IDF words", "TF-IDF characters"]
    return {fitted.name: fitted for fitted in found}


def test_baselines_leave_their_predictions(parts: SplitData, run: dict[str, BaselineResult], tmp_path: Path) -> None:
    folders = {"majority": "majority", "TF-IDF words": "tf-idf_words", "TF-IDF characters": "tf-idf_characters"}
    assert {path.name for path in (tmp_path / "baselines").iterdir()} == set(folders.values())
    for name, folder in folders.items():
        for split in SPLIT_NAMES:
            lines = table(tmp_path / "baselines" / folder / f"predictions_{split}.csv")
            rows = parts.splits[split].rows
            assert [line["text"] for line in lines] == rows.texts
            assert [line["label"] for line in lines] == rows.labels
            assert [int(line["source_row"]) for line in lines] == rows.numbers
            right = [line["label"] == line["predicted"] for line in lines]
            assert (sum(right), len(right)) == run[name].counts[split]
            if split == "test":
                assert right == run[name].test_right
                assert rows.numbers == run[name].test_rows


def test_counts_of_a_baseline_add_up(parts: SplitData, run: dict[str, BaselineResult]) -> None:
    for fitted in run.values():
        assert {split: n for split, (_, n) in fitted.counts.items()} == {"train": 56, "validation": 8, "test": 16}
        assert (fitted.seen[0] + fitted.unseen[0], fitted.seen[1] + fitted.unseen[1]) == fitted.counts["test"]
        assert fitted.seen[1] > 0
        assert fitted.unseen[1] > 0
    assert run["majority"].counts == {"train": (28, 56), "validation": (4, 8), "test": (8, 16)}
    assert run["TF-IDF words"].counts["train"][0] > 28


def test_the_natural_mix_of_a_baseline_is_that_of_the_whole_source(
    parts: SplitData, run: dict[str, BaselineResult]
) -> None:
    """Answers to test texts and to those left out; a split that answers `no` alone is right in a quarter."""
    assert len(parts.left_out.texts) == 80
    texts = Counter(parts.left_out.labels) + Counter(parts.splits["test"].rows.labels)
    for fitted in run.values():
        labels = fitted.natural["labels"]
        assert {name: figures["share"] for name, figures in labels.items()} == {"no": 0.25, "yes": 0.75}
        assert {name: figures["recall"][1] for name, figures in labels.items()} == texts == {"no": 8, "yes": 88}
        counted = sum(figures["precision_counted"][1] for figures in labels.values())
        assert counted == 16 + 80
        # Only `yes` was left out: `no` is answered in the test split alone.
        answered = zip(fitted.test_right, parts.splits["test"].rows.labels, strict=True)
        assert labels["no"]["recall"][0] == sum(ok for ok, label in answered if label == "no")
    assert run["majority"].natural["accuracy"] == 0.25
    assert run["majority"].natural["labels"]["yes"]["precision"] is None
    words = run["TF-IDF words"].natural["labels"]
    rightly, wrongly = words["no"]["recall"][0] / 8 * 0.25, (88 - words["yes"]["recall"][0]) / 88 * 0.75
    assert words["no"]["precision"] == pytest.approx(rightly / (rightly + wrongly))


def test_baselines_where_nothing_is_left_out(reviews: str, tmp_path: Path) -> None:
    found = run_baselines(ClassificationData(path=reviews, balance="none").split_data, tmp_path)
    for fitted in found:
        recalls = [figures["recall"] for figures in fitted.natural["labels"].values()]
        assert [sum(pair) for pair in zip(*recalls, strict=True)] == list(fitted.counts["test"])
    assert found[1].counts["test"] == (22, 22)  # one word tells
    assert found[1].natural["accuracy"] == pytest.approx(1)


# Rows.


def test_a_row_is_the_mean_over_its_seeds(tmp_path: Path) -> None:
    runs = {
        seed: record(tmp_path / f"version_{seed}", answers(k, 10), train=answers(5 + k, 20), seconds=seconds)
        for seed, k, seconds in ((123, 7, 10.0), (1, 9, 12.0), (2, 9, 20.0))
    }
    found = row_result(4, runs)
    assert found.mean("test") == (pytest.approx(25 / 3), 10)
    assert found.mean("train") == (pytest.approx(40 / 3), 20)
    assert found.mean("validation") == (4, 5)
    assert found.mean_seconds() == pytest.approx(14)


def test_rows_without_a_run_are_not_among_the_finished(tmp_path: Path) -> None:
    done, part = record(tmp_path / "version_0", answers(1, 2)), record(tmp_path / "version_1", answers(1, 2))
    rows = [row_result(7, {1: done}), row_result(8, {}, ("skipped",)), row_result(2, {1: part}, ("failed",))]
    assert list(results(rows).finished()) == [7, 2]


def test_what_is_missing_is_told_with_its_reason(written: tuple[Results, Path]) -> None:
    found, _ = written
    assert found.missing() == [
        "row 5 (all layers), 2 of 3 runs finished: RuntimeError: no, not again",
        "row 8 (XL), 0 of 3 runs finished: needs about 20.0 GB of memory",
        "row 16 (last real token), 0 of 1 runs finished",  # it waits: there is no reason yet
    ]
    assert results([row_result(5, found.rows[0].runs)]).missing() == []


# Files.


@pytest.fixture
def written(tmp_path: Path) -> tuple[Results, Path]:
    """A row with one of its three seeds failed, a row skipped, a row waiting, and two baselines."""
    run = tmp_path / "runs" / "05_all_layers-seed123" / "version_0"
    first = record(run, answers(6, 8), in_train=3, seconds=61.25, peak_gpu_memory=7_000_000_000)
    second = record(run.with_name("version_1"), answers(5, 8), train=answers(3, 4), validation=answers(1, 6))
    rows = [
        row_result(5, {123: first, 1: second}, ("failed",), "RuntimeError: no, not again"),
        row_result(8, {}, ("skipped", "skipped", "skipped"), "needs about 20.0 GB of memory"),
        row_result(16, {}, ("waiting",)),
    ]
    found = results(rows, [baseline("majority", answers(4, 8)), baseline("TF-IDF words", answers(7, 8))], size=None)
    write_results(found, tmp_path / "out")
    return found, tmp_path / "out"


def test_results_as_json(written: tuple[Results, Path]) -> None:
    found, out = written
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert (content["command"], content["options"]) == (found.command, found.options)
    fifth, eighth, sixteenth = content["rows"]
    assert (fifth["row"], fifth["title"], fifth["size"]) == (5, "all layers", "gpt2-small")
    assert (fifth["states"], fifth["reason"]) == (["finished", "finished", "failed"], "RuntimeError: no, not again")
    assert fifth["published"] == {"train": [1036, 1040], "validation": [144, 149], "test": [290, 300]}
    assert fifth["published_minutes_a100"] == 0.69
    assert [(run["seed"], run["train"], run["test"]) for run in fifth["runs"]] == [
        (123, [9, 10], [6, 8]),
        (1, [3, 4], [5, 8]),
    ]
    assert (eighth["runs"], sixteenth["runs"]) == ([], [])
    assert "validation" not in eighth["published"]
    majority, words = content["baselines"]
    assert (majority["name"], majority["test"], words["test"]) == ("majority", [4, 8], [7, 8])
    assert words["natural_mix"]["labels"]["spam"]["precision"] == 0.25


def test_results_as_a_table(written: tuple[Results, Path]) -> None:
    _, out = written
    lines = table(out / "results.csv")
    assert [(line["row"], line["what"], line["seed"], line["state"]) for line in lines] == [
        ("5", "all layers", "123", "finished"),
        ("5", "all layers", "1", "finished"),
        ("5", "all layers", "", "failed"),
        *[("8", "XL", "", "skipped")] * 3,
        ("16", "last real token", "", "waiting"),
        ("", "majority", "", "finished"),
        ("", "TF-IDF words", "", "finished"),
    ]
    assert lines[0] == {
        **{"row": "5", "what": "all layers", "size": "gpt2-small", "seed": "123", "state": "finished"},
        **{"train_correct": "9", "train_n": "10", "validation_correct": "4", "validation_n": "5"},
        **{"test_correct": "6", "test_n": "8", "test_seen_correct": "3", "test_seen_n": "3"},
        **{"test_not_seen_correct": "3", "test_not_seen_n": "5", "seconds_training": "61.250"},
        **{"trained_parameters": "20", "peak_gpu_memory": "7000000000", "device": "cpu x 1", "commit": "0123abc"},
        **{"started": "2026-01-02T03:04:05+00:00", "folder": "runs/05_all_layers-seed123/version_0"},
    }
    assert (lines[1]["validation_correct"], lines[1]["validation_n"], lines[1]["peak_gpu_memory"]) == ("1", "6", "")
    assert lines[3]["size"] == "gpt2-xl"
    assert not any(lines[3][name] for name in lines[3] if name not in ("row", "what", "size", "state"))
    words = lines[-1]
    assert (words["test_correct"], words["test_n"], words["train_n"]) == ("7", "8", "10")
    assert (words["test_seen_correct"], words["test_seen_n"], words["test_not_seen_correct"]) == ("2", "2", "5")
    assert (words["seconds_training"], words["trained_parameters"]) == ("0.250", "11")


def test_results_are_written_again_in_place(written: tuple[Results, Path]) -> None:
    found, out = written
    del found.rows[1:]
    write_results(found, out)
    assert len(json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]) == 1
    assert [line["row"] for line in table(out / "results.csv")] == ["5", "5", "5", "", ""]
    assert sorted(path.name for path in out.iterdir()) == ["results.csv", "results.json"]


def test_a_text_is_written_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    write_text(path, "first – ünï\n")
    write_text(path, "second\r\nline")
    assert path.read_bytes() == b"second\r\nline"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "a lone surrogate \ud800")
    assert path.read_bytes() == b"second\r\nline"


def test_no_partial_file_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "table.md", "some text\n")
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


# Shares.


def test_shares_and_intervals() -> None:
    assert share((285, 300)) == 0.95
    assert share((281.5, 300)) == pytest.approx(0.938333, abs=1e-6)
    assert interval((285, 300)) == "91.9–96.9"  # of the published row 1
    assert interval((0, 20)) == "0.0–16.1"
    assert interval((20, 20)) == "83.9–100.0"


def test_of_no_texts_nothing_is_known() -> None:
    assert math.isnan(share((0, 0)))
    assert interval((0, 0)) == "0.0–100.0"
