"""The table of tuning: scikit-learn's figures."""

import numpy as np
import torch
from rich.console import Console
from sklearn.metrics import precision_recall_fscore_support

from lit_cls.commands.tune import figures_of, tuning_table
from lit_cls.evaluation.figures import Predictions
from lit_cls.evaluation.tuning import Goal
from lit_cls.model.decision import Decision


def tuned(decision: Decision, labels: np.ndarray, predicted: np.ndarray, goal: Goal, names: str) -> dict[str, str]:
    given = Predictions(torch.eye(3)[predicted], torch.tensor(labels), torch.tensor(predicted), tuple(names.split()))
    return figures_of(decision, torch.eye(3)[predicted], given, goal)


def test_every_class_has_its_figures() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    predicted[:40] = labels[:40]
    names = "[ads] letters news"
    goal = Goal("cost", costs=(2.0, 0.5, 1.0))
    before = tuned(Decision(), labels, predicted, goal, names)
    after = tuned(Decision(2.0, 0, 0.25), labels, labels, goal, names)
    console = Console(width=140)
    with console.capture() as capture:
        console.print(tuning_table("a [title]", before, after))
    rows = {cells[1].strip(): cells[2:4] for line in capture.get().splitlines() if len(cells := line.split("│")) > 3}
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted)
    for k, name in enumerate(names.split()):
        for figure, value in (("precision", precision[k]), ("recall", recall[k])):
            assert rows[f"{name}: {figure}"][0].strip().startswith(f"{value:.2%} (")
            assert rows[f"{name}: {figure}"][1].strip().startswith("100.00% (")
        assert rows[f"{name}: F1"][0].strip() == f"{f1[k]:.4f}"
    wrong = labels[labels != predicted]
    expected = 2 * (wrong == 0).sum() + 0.5 * (wrong == 1).sum() + (wrong == 2).sum()
    assert float(rows["cost of wrong predictions"][0]) == expected > 0
    assert rows["cost of wrong predictions"][1].strip() == "0"
    assert rows["rule"][1].strip() == "temperature 2, [ads] if at least 0.25"
    assert "a [title]" in capture.get()


def test_a_class_without_texts_and_predictions() -> None:
    both = np.array([0, 1])
    given = tuned(Decision(), both, both, Goal("f1"), "a b c")
    console = Console(width=140)
    with console.capture() as capture:
        console.print(tuning_table("", given, given))
    lines = {
        figure: line for line in capture.get().splitlines() for figure in ("c: precision", "c: F1") if figure in line
    }
    assert lines["c: precision"].count("n/a (0 of 0)") == 2
    assert lines["c: F1"].count("n/a") == 2
    assert "cost" not in capture.get()
