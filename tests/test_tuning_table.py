"""The table of tuning: scikit-learn's figures."""

import numpy as np
from rich.console import Console
from sklearn.metrics import precision_recall_fscore_support

from lit_cls.evaluation.tuning import Goal
from lit_cls.report.tuning_table import Answers, share, tuning_table


def test_every_class_has_its_figures() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    predicted[:40] = labels[:40]
    before = Answers("most probable", 0.5, np.eye(3)[predicted], predicted)
    after = Answers("[ads] from 0.5 on", 0.25, np.eye(3)[labels], labels)
    console = Console(width=140)
    goal = Goal("cost", costs=(2.0, 0.5, 1.0))
    with console.capture() as capture:
        console.print(tuning_table(("[ads]", "letters", "news"), labels, before, after, goal, "a [title]"))
    rows = {cells[1].strip(): cells[2:4] for line in capture.get().splitlines() if len(cells := line.split("│")) > 3}
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted)
    for k, name in enumerate(("[ads]", "letters", "news")):
        for figure, value in (("precision", precision[k]), ("recall", recall[k])):
            assert rows[f"{name}: {figure}"][0].strip().startswith(f"{value:.2%} (")
            assert rows[f"{name}: {figure}"][1].strip().startswith("100.00% (")
        assert rows[f"{name}: F1"][0].strip() == f"{f1[k]:.4f}"
    wrong = labels[labels != predicted]
    expected = 2 * (wrong == 0).sum() + 0.5 * (wrong == 1).sum() + (wrong == 2).sum()
    assert float(rows["cost of wrong answers"][0]) == expected > 0
    assert rows["cost of wrong answers"][1].strip() == "0"
    assert rows["rule"][1].strip() == "[ads] from 0.5 on"
    assert "a [title]" in capture.get()


def test_a_class_that_is_neither_there_nor_answered() -> None:
    answers = Answers("most probable", 0.1, np.eye(3)[[0, 1]], np.array([0, 1]))
    console = Console(width=140)
    with console.capture() as capture:
        console.print(tuning_table(("a", "b", "c"), np.array([0, 1]), answers, answers, Goal("f1"), ""))
    lines = {
        figure: line for line in capture.get().splitlines() for figure in ("c: precision", "c: F1") if figure in line
    }
    assert lines["c: precision"].count("n/a (0 of 0)") == 2
    assert lines["c: F1"].count("n/a") == 2
    assert "cost" not in capture.get()


def test_a_share_has_its_interval() -> None:
    assert share(285, 300) == "95.00% (285 of 300; 91.9% – 96.9%)"
    assert share(40, 40) == "100.00% (40 of 40; 91.2% – 100.0%)"
