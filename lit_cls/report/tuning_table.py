"""Answers of one network to the same texts, before and after tuning, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from lit_cls.evaluation.metrics import wilson_interval
from lit_cls.evaluation.tuning import Floats, Goal, Ints, calibration_error, cost_of


@dataclass(frozen=True)
class Answers:
    """What a network says of N texts with K classes, under one temperature and threshold."""

    rule: str
    """In words."""
    nll: float
    probabilities: Floats
    """(N, K)."""
    predicted: Ints
    """(N,) class ids."""


def tuning_table(
    label_names: Sequence[str], labels: Ints, before: Answers, after: Answers, goal: Goal, title: str
) -> Table:
    """One row per figure; shares with their counts and 95 % Wilson intervals."""
    table = Table(title=Text(title), title_justify="left")
    for column in ("figure", "before", "after"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    columns = [_figures(label_names, labels, answers, goal) for answers in (before, after)]
    for (name, one), (_, other) in zip(*columns, strict=True):
        table.add_row(Text(name), Text(one), Text(other))
    return table


def _figures(label_names: Sequence[str], labels: Ints, answers: Answers, goal: Goal) -> list[tuple[str, str]]:
    found = [
        ("rule", answers.rule),
        ("NLL", f"{answers.nll:.4f}"),
        ("calibration error (ECE, 15 bins)", f"{calibration_error(answers.probabilities, labels):.4f}"),
        ("accuracy", share(int((answers.predicted == labels).sum()), len(labels))),
    ]
    if goal.kind == "cost":
        found.append(("cost of wrong answers", f"{cost_of(answers.predicted, labels, goal):,.6g}"))
    for k, name in enumerate(label_names):
        right = int(((answers.predicted == k) & (labels == k)).sum())
        answered, there = int((answers.predicted == k).sum()), int((labels == k).sum())
        found += [
            (f"{name}: precision", share(right, answered)),
            (f"{name}: recall", share(right, there)),
            (f"{name}: F1", f"{2 * right / (answered + there):.4f}" if answered + there else "n/a"),
        ]
    return found


def share(right: int, n: int) -> str:
    """A share with its counts and its interval, as a person reads it."""
    if not n:
        return "n/a (0 of 0)"
    low, high = wilson_interval(right, n)
    return f"{right / n:.2%} ({right:,} of {n:,}; {low:.1%} – {high:.1%})"
