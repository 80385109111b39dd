"""What an evaluation leaves behind."""

import csv
from pathlib import Path

from rich.console import Console

from lit_cls.evaluation.metrics import Accuracy
from lit_cls.evaluation.report import accuracy_table, write_predictions


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
    write_predictions(path, texts, [7, 1, 2, 9, 4], ["ham", "spam", "ham", "ham", "spam"], shares, ("ham", "spam"))
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["text"] for row in rows] == texts
    assert [row["source_row"] for row in rows] == ["7", "1", "2", "9", "4"]
    assert [row["predicted"] for row in rows] == ["spam", "ham", "ham", "spam", "spam"]
    assert rows[3]["probability_spam"] == "0.666667"
    assert rows[4]["probability_ham"] == "1e-09"
