"""Table of the figures before and after tuning, on the same texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table
from rich.text import Text

from lit_cls.evaluation.figures import Predictions, calibration_error, reliability
from lit_cls.evaluation.tuning import Goal, cost_of
from lit_cls.report.numbers import decimal, share


@dataclass(frozen=True)
class TunedPredictions:
    """Predictions under one temperature and threshold."""

    rule: str
    """In words."""
    nll: float
    predictions: Predictions


def tuning_table(before: TunedPredictions, after: TunedPredictions, goal: Goal, title: str) -> Table:
    """One row per figure; shares with their counts and 95 % Wilson intervals."""
    table = Table(title=Text(title), title_justify="left")
    for column in ("figure", "before", "after"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for (name, one), (_, other) in zip(_figures(before, goal), _figures(after, goal), strict=True):
        table.add_row(Text(name), Text(one), Text(other))
    return table


def _figures(tuned: TunedPredictions, goal: Goal) -> Sequence[tuple[str, str]]:
    predictions = tuned.predictions
    # About the probabilities alone, whatever the threshold.
    most_probable = replace(predictions, predicted=predictions.probabilities.argmax(dim=1))
    found = [
        ("rule", tuned.rule),
        ("NLL", decimal(tuned.nll)),
        ("calibration error (ECE, 15 bins)", decimal(calibration_error(reliability(most_probable)))),
        ("accuracy", share(sum(predictions.correct), len(predictions.labels))),
    ]
    if goal.kind == "cost":
        cost = cost_of(predictions.predicted.numpy(), predictions.labels.numpy(), goal)
        found.append(("cost of wrong predictions", f"{cost:,.6g}"))
    confusion = predictions.confusion()
    for k, name in enumerate(predictions.label_names):
        correct, predicted, texts = (int(n) for n in (confusion[k, k], confusion[:, k].sum(), confusion[k].sum()))
        f1 = 2 * correct / (predicted + texts) if predicted + texts else None
        found += [
            (f"{name}: precision", share(correct, predicted)),
            (f"{name}: recall", share(correct, texts)),
            (f"{name}: F1", decimal(f1)),
        ]
    return found
