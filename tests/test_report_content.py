"""The report of real runs: its figures are those of the run's own predictions, in all three forms."""

import csv
import json
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from made_reports import Page, about, drawn, hard_file, made_report, markdown_page
from sklearn import metrics as reference

from lit_cls.cli import main
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import seen_in
from lit_cls.model.decision import Decision
from lit_cls.report import content as report_content
from lit_cls.report.content import write_report
from lit_cls.report.run_info import reported_settings
from lit_cls.report.split_results import evaluate_split
from lit_cls.training.pad_invariance import Padded, PadTest

NANO = ("fit", "--config", str(REPOSITORY / "configs" / "quickstart.yaml"))


def run(*words: str) -> dict[str, Any]:
    """Runs a verb in this process; the content of its report.json, without what JSON does not know."""
    assert main([*words, "--run_name", "run", "--trainer.accelerator", "cpu"]) == 0

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    text = (newest() / "report" / "report.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return content


def newest() -> Path:
    return max(Path("checkpoints/run").glob("version_*"))


def predictions(split: str) -> list[dict[str, str]]:
    with (newest() / f"predictions_{split}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def check_against_predictions(content: dict[str, Any], split: str = "test") -> None:
    """Every figure once more, by scikit-learn, from the file of predictions."""
    rows, names = predictions(split), content["data"]["label_names"]
    labels = [names.index(row["label"]) for row in rows]
    chances = np.asarray([[float(row[f"probability_{name}"]) for name in names] for row in rows])
    predicted = [names.index(row["predicted"]) for row in rows]
    figures = content["figures"]
    assert (figures["n"], figures["correct"]) == (
        len(rows),
        sum(a == b for a, b in zip(labels, predicted, strict=True)),
    )
    assert figures["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert figures["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, predicted), abs=1e-6)
    assert figures["log_loss"] == pytest.approx(
        reference.log_loss(labels, chances / chances.sum(axis=1, keepdims=True)), rel=1e-4
    )
    for k, label in enumerate(figures["labels"]):
        is_label = np.asarray(labels) == k
        assert label["auroc"] == pytest.approx(reference.roc_auc_score(is_label, chances[:, k]), abs=1e-4)
        assert label["average_precision"] == pytest.approx(
            reference.average_precision_score(is_label, chances[:, k]),
            abs=5e-4,  # in the file's six digits some probabilities are equal that were not
        )
    wrong = sorted(max(p) for p, a, b in zip(chances, labels, predicted, strict=True) if a != b)[::-1]
    assert content["n_errors"] == len(wrong)
    assert [error["probability"] for error in content["errors"]] == pytest.approx(wrong[:20], rel=1e-5)
    sources = {int(row["source_row"]): row for row in rows}
    for error in content["errors"]:
        row = sources[error["source_row"]]
        assert (error["label"], error["answer"]) == (row["label"], row["predicted"])
        assert (error["text"], error["characters"]) == (row["text"][:300], len(row["text"]))


def check_forms(content: dict[str, Any]) -> None:
    """Markdown and HTML have the same tables, with the figures of the content."""
    folder = newest() / "report"
    markdown = markdown_page((folder / "report.md").read_text(encoding="utf-8")).cells()
    assert markdown == Page((folder / "report.html").read_text(encoding="utf-8")).cells()
    told = [" ".join(row) for table in markdown for row in table]
    figures = content["figures"]
    for line in (
        f"MCC {figures['mcc']:.4f}",
        f"log-loss, nats {figures['log_loss']:.4f}",
        f"calibration error, 15 bins {figures['calibration_error']:.4f}",
        *(f"{one['name']} {one['figures']['accuracy']:.2%}" for one in content["baselines"]),
    ):
        assert any(row.startswith(line) for row in told), line


def test_three_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = {"cold": "snow ice frost wind", "warm": "sun beach heat sand", "wet": "rain flood river storm"}
    lines = ["text,label"]
    for i in range(180):
        label = ("cold", "warm", "warm", "wet")[i % 4]
        other = words[("cold", "warm", "wet")[i % 3]].split()
        chosen = [words[label].split()[(i + k) % 4] if (i + k) % 3 else other[k % 4] for k in range(1 + i % 5)]
        lines.append(f"{' '.join(chosen)} {'day' if i % 3 else i},{label}")
    Path("weather.csv").write_text("\n".join(lines) + "\n")
    content = run(
        *(*NANO, "--data.source", "file", "--data.path", "weather.csv", "--trainer.max_epochs", "1"),
        *("--data.max_length", "5", "--data.split", "[0.5,0.1,0.4]"),
    )
    out = capsys.readouterr().out
    check_against_predictions(content)
    check_forms(content)
    assert content["data"]["label_names"] == ["cold", "warm", "wet"]
    assert content["figures"]["positive"] is None
    # Left out to balance: 45 of 90 warm.
    mix = content["natural_mix"]
    assert mix["shares"] == {"cold": 0.25, "warm": 0.5, "wet": 0.25}
    assert mix["weights"] == pytest.approx({"cold": 0.75, "warm": 1.5, "wet": 0.75})
    recalls = [label["recall"] for label in content["figures"]["labels"]]
    assert mix["figures"]["accuracy"] == pytest.approx(np.dot(recalls, [0.25, 0.5, 0.25]))
    # Cut and seen, counted from the run's files.
    parts = {part["name"]: part["figures"] for part in content["slices"]}
    rows = predictions("test")
    seen = seen_in([row["text"] for row in predictions("train")], [row["text"] for row in rows])
    for name, flag in (("seen in train", True), ("unseen in train", False)):
        right = [row["label"] == row["predicted"] for row, known in zip(rows, seen, strict=True) if known is flag]
        assert (parts[name]["n"], parts[name]["correct"]) == (len(right), sum(right))
    assert parts["cut"]["n"] == content["data"]["splits"][2]["cut"] > 0
    assert parts["cut"]["n"] + parts["uncut"]["n"] == len(rows) == content["figures"]["n"]
    assert parts["cut"]["correct"] + parts["uncut"]["correct"] == content["figures"]["correct"]
    # What it is of.
    provenance = json.loads((newest() / "provenance.json").read_text())
    assert content["provenance"] == provenance
    assert content["settings"]["data.max_length"] == 5
    assert content["settings"]["keep"] == "best"
    assert "best.ckpt, after" in content["tested"]["told"]
    assert content["padding"]["verdict"] == "passed"
    assert f"report: {newest() / 'report' / 'report.html'}" in out
    for line in (
        "test by label",
        f"MCC {content['figures']['mcc']:.4f}",
        "baselines: majority",
        "in the train split too",
    ):
        assert line in out
    told = out[out.index("test by label") : out.index("report: ")]
    assert told.count("\n") <= 12
    # Its checkpoint alone gives the same figures.
    again = run("test", "--ckpt_path", str(newest() / "best.ckpt"))
    for name in ("figures", "slices", "natural_mix", "errors", "padding", "tested"):
        assert again[name] == content[name], name
    assert [row["split"] for row in again["accuracy"]] == ["test"]
    assert not (newest() / "report" / "learning.svg").exists()
    check_forms(again)


def test_at_the_natural_mix_the_majority_is_that_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rare label has the first name, and trains with as many texts as the other."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{'stolen card' if i % 5 == 0 else 'paid'} {i},{'fraud' if i % 5 == 0 else 'ok'}" for i in range(100)]
    Path("cards.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    content = run(*NANO, "--data.source", "file", "--data.path", "cards.csv", "--trainer.max_epochs", "1")
    [majority] = [row["figures"] for row in content["natural_mix"]["baselines"] if row["name"] == "majority"]
    assert majority["accuracy"] == pytest.approx(0.8)


@pytest.mark.shared
def test_the_published_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sms_file: Path) -> None:
    monkeypatch.chdir(tmp_path)
    content = run(
        *(*NANO, "--data.source", "sms_spam", "--data.path", str(sms_file), "--data.split", "ch06"),
        *("--trainer.max_epochs", "1", "--model.token_position", "last", "--data.max_length", "60"),
    )
    check_against_predictions(content)
    check_forms(content)
    assert content["figures"]["positive"] == "spam"
    assert {one["name"]: one["figures"]["correct"] for one in content["baselines"]} == {
        "majority": 141,
        "TF-IDF words": 287,
        "TF-IDF characters": 292,
    }
    mix = content["natural_mix"]
    assert mix["shares"] == pytest.approx({"ham": 4825 / 5572, "spam": 747 / 5572})
    ham, spam = content["figures"]["labels"]
    caught, alarms = 747 / 5572 * spam["recall"], 4825 / 5572 * (1 - ham["recall"])
    assert mix["figures"]["labels"][1]["precision"] == pytest.approx(caught / (caught + alarms))
    assert mix["figures"]["labels"][1]["precision"] < spam["precision"]
    assert "re-weights the same predictions" in mix["told"]
    # The last position is that of a pad: nothing of this is hidden.
    assert content["padding"]["verdict"] == "depends"
    assert content["padding"]["largest_difference"] > 0
    assert "data.padding longest_in_train pads all texts alike" in content["padding"]["told"]


def test_a_run_for_trying_out_has_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = run(*NANO, "--trainer.fast_dev_run", "1")
    n = content["figures"]["n"]
    assert 0 < n < 198
    assert (
        content["evaluated_in_part"]
        == f"Only {n} of the 198 test texts were evaluated, because the trainer limits them."
    )
    check_against_predictions(content)
    assert content["tested"]["told"] == "the current weights: no checkpoint was written"
    check_forms(content)


def test_a_test_of_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(*NANO, "--trainer.max_steps", "1", "--trainer.limit_test_batches", "0", "--data.batch_size", "64")
    content = run("test", "--ckpt_path", str(newest() / "last.ckpt"), "--trainer.limit_test_batches", "0")
    assert (content["figures"]["n"], content["provenance"]) == (0, {})
    assert content["padding"]["verdict"] == "not run"
    told = (newest() / "report" / "report.md").read_text()
    assert "**No test text was evaluated.**" in told


def test_validate_reports_its_split(tmp_path: Path) -> None:
    data = ClassificationData(source="demo")
    content = write_report(tmp_path, [drawn(data, "validation")], data, about())
    assert content["split"] == "validation"
    assert content["figures"]["n"] == 100
    assert "# some_run: validation report" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.plots
def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    data = ClassificationData(path=hard_file(tmp_path), max_length=64)
    files: list[dict[str, bytes]] = []
    for name in ("one", "other"):
        content = made_report(tmp_path / name, data)
        assert len(content["baselines"]) == 3
        files.append({path.name: path.read_bytes() for path in (tmp_path / name / "report").iterdir()})
    assert set(files[0]) == {"report.json", "report.md", "report.html"} | {
        f"{name}.svg" for name in ("confusion", "reliability", "curves", "learning")
    }
    jsons = [json.loads(found.pop("report.json")) for found in files]
    for content in jsons:
        for baseline in content["baselines"]:
            baseline.pop("seconds")
    assert jsons[0] == jsons[1]
    assert files[0] == files[1]


def test_report_json_is_the_last_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for finished runs looks for it."""

    def fail(*_: object) -> str:
        raise OSError("no room")

    monkeypatch.setattr(report_content, "render_html", fail)
    with pytest.raises(OSError, match="no room"):
        made_report(tmp_path, ClassificationData(source="demo"))
    assert (tmp_path / "report" / "report.md").exists()
    assert not (tmp_path / "report" / "report.json").exists()


def test_without_the_extra_the_rest_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        return None if name in ("matplotlib", "sklearn") else find_spec(name)

    monkeypatch.setattr(report_content, "find_spec", find)
    monkeypatch.setattr("importlib.util.find_spec", find)
    content = made_report(tmp_path, ClassificationData(source="demo"))
    assert content["pictures"] == []
    assert "pip install 'lit_cls[reports]'" in unescape((tmp_path / "report" / "report.html").read_text())
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.json", "report.md"]


def test_a_series_compares_by_itself(tmp_path: Path) -> None:
    content = made_report(tmp_path, ClassificationData(source="demo"), comparisons=False)
    assert (content["baselines"], content["pictures"]) == ([], [])
    assert content["natural_mix"]["figures"] is not None
    assert "once for the whole series" in (tmp_path / "report" / "report.md").read_text()


def test_three_files_have_no_other_mix(tmp_path: Path) -> None:
    paths = []
    for name in ("train", "validation", "test"):
        rows = "".join(f"{name} {i} {'good' if i % 3 else 'poor'},{'yes' if i % 3 else 'no'}\n" for i in range(12))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
        paths.append(str(tmp_path / f"{name}.csv"))
    data = ClassificationData(split=tuple(paths))  # type: ignore[arg-type]
    content = made_report(tmp_path, data)
    assert content["natural_mix"] is None
    assert content["figures"]["positive"] == "no"  # the rarer


def test_tuned_answers_are_those_that_are_counted(tmp_path: Path) -> None:
    data = ClassificationData(source="demo")
    decision = Decision(temperature=2.0, label=1, threshold=0.8, goal="precision of spam")
    logits = torch.randn(198, 2, generator=torch.Generator().manual_seed(1))
    found = evaluate_split("test", data, torch.arange(198), logits, decision)
    content = write_report(tmp_path, [found], data, about(decision=decision))
    spam = (logits / 2).softmax(dim=1)[:, 1] >= 0.8
    assert content["figures"]["labels"][1]["answered"] == int(spam.sum())
    told = (tmp_path / "report" / "report.md").read_text()
    assert (
        "Predictions follow from temperature 2, spam if its probability is at least 0.8 (tuned: precision of spam)."
        in told
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "data.padding longest_in_train pads all texts alike"),
        ({"padding": 40}, "does no harm in this run: every text is padded to 40 tokens"),
        ({"padding": "none", "batch_size": 1}, "does no harm in this run: no text is padded"),
    ],
)
def test_where_pads_are_read_the_way_out_is_told(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    data = ClassificationData(source="demo", **options)
    depends = PadTest(16, True, 1e-3, (Padded(1, 16, 0.02, 0), Padded(64, 16, 0.31, 3)))
    content = made_report(tmp_path, data, padding=depends)
    said = content["padding"]["told"]
    assert "change a probability by up to 0.31, and 3 of 16 predictions" in said
    assert told in said
    assert said in (tmp_path / "report" / "report.md").read_text()


def test_a_failed_or_missing_self_test_is_told(tmp_path: Path) -> None:
    data = ClassificationData(source="demo")
    failed = PadTest(16, False, 1e-3, (Padded(1, 16, 0.02, 1),))
    assert made_report(tmp_path, data, padding=failed)["padding"]["told"].startswith("FAIL: up to 64 more pads")
    assert '<p class="warning">FAIL' in (tmp_path / "report" / "report.html").read_text()
    told = made_report(tmp_path, data, padding="not run: no process holds the whole network")["padding"]
    assert told == {"verdict": "not run", "told": "Not run: no process holds the whole network."}
    assert made_report(tmp_path, data, padding=None)["padding"]["told"] == "Not run."


def test_settings_by_their_full_names() -> None:
    given = {
        "seed_everything": 3,
        "run_name": "x",
        "model": {"size": "gpt2-nano", "adapter": None},
        "data": {"split": [0.7, 0.1, 0.2]},
        "trainer": {"max_epochs": 2, "profiler": None},
    }
    assert reported_settings(given) == {
        "seed_everything": 3,
        "model.size": "gpt2-nano",
        "model.adapter": None,
        "data.split": [0.7, 0.1, 0.2],
        "trainer.max_epochs": 2,
    }
