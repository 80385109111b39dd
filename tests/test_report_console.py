"""What an evaluation leaves behind."""

import csv
from pathlib import Path

from made_reports import hard_file, made_report
from rich.console import Console

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.sources import LabelledTexts
from lit_cls.evaluation.metrics import Accuracy
from lit_cls.report.console import accuracy_table, describe_figures
from lit_cls.report.split_results import write_predictions
from lit_cls.training.pad_invariance import Padded, PadTest


def test_the_table_has_every_figure() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(accuracy_table([Accuracy("train", 1045, 1010, 0.5072), Accuracy("test", 300, 285, 0.47)]))
    train, test = (line for line in capture.get().splitlines() if "train" in line or "test" in line)
    for figure in ("1,045", "1,010", "96.65%", "95.38% – 97.58%", "50.72%"):
        assert figure in train
    for figure in ("300", "285", "95.00%", "91.92% – 96.95%", "47.00%"):
        assert figure in test


def test_predictions_survive_any_text(tmp_path: Path) -> None:
    texts = ['He said "hi", twice', "two\nlines", "NA", "", "naïve 🙂 <|endoftext|>"]
    path = tmp_path / "predictions_test.csv"
    shares = [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0], [1 / 3, 2 / 3], [1e-9, 1.0]]
    rows = LabelledTexts(texts, ["ham", "spam", "ham", "ham", "spam"], [7, 1, 2, 9, 4], "")
    write_predictions(path, rows, ("ham", "spam"), shares)
    with path.open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [row["text"] for row in found] == texts
    assert [row["source_row"] for row in found] == ["7", "1", "2", "9", "4"]
    assert [row["predicted"] for row in found] == ["spam", "ham", "ham", "spam", "spam"]
    assert found[3]["probability_spam"] == "0.666667"
    assert found[4]["probability_ham"] == "1e-09"


def test_a_person_is_told_the_figures_at_once(tmp_path: Path) -> None:
    labels = tuple(f"[bold]topic {k}" for k in range(8))
    content = made_report(tmp_path, ClassificationData(path=hard_file(tmp_path, labels, each=10)))
    console = Console(width=120)
    with console.capture() as capture:
        for thing in describe_figures(content):
            console.print(thing, markup=False, highlight=False)
    out = capture.get()
    figures = content["figures"]
    first = next(line for line in out.splitlines() if line.startswith("[bold]topic 0"))
    for name in ("precision", "recall", "f1"):
        assert (f"{figures['labels'][0][name]:.2%}" if figures["labels"][0][name] is not None else "n/a") in first
    assert "and 2 more labels, in the report" in out
    assert f"MCC {figures['mcc']:.4f}  AUROC {figures['auroc']:.4f}  log-loss {figures['log_loss']:.4f}" in out
    assert "baselines: majority 12.50%  TF-IDF words" in out
    assert f"{content['slices'][2]['figures']['n']} of these texts are in the train split too" in out
    assert "padding self-test" not in out
    assert out.count("\n") <= 13


def test_a_self_test_that_fails_is_told_at_once(tmp_path: Path) -> None:
    failed = PadTest(16, False, 1e-3, (Padded(1, 16, 0.5, 2),))
    content = made_report(tmp_path, ClassificationData(source="demo"), padding=failed)
    assert any(str(thing).startswith("padding self-test: FAIL") for thing in describe_figures(content))
    assert describe_figures(made_report(tmp_path, ClassificationData(source="demo"), limit=0)) == []
