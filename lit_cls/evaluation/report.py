"""What an evaluation leaves behind: a table for people, files for machines."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lit_cls.evaluation.metrics import Accuracy


def accuracy_table(rows: Sequence[Accuracy]) -> Table:
    """One row per split, with its size, interval and baseline."""
    table = Table(title="Accuracy", title_justify="left")
    for column in ("split", "n", "correct", "accuracy", "95 % interval", "majority baseline"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for row in rows:
        low, high = row.interval
        table.add_row(
            row.split,
            f"{row.n:,}",
            f"{row.correct:,}",
            *([f"{row.value:.2%}", f"{low:.2%} – {high:.2%}", f"{row.majority:.2%}"] if row.n else ["n/a"] * 3),
        )
    return table


def write_predictions(
    path: Path,
    texts: Sequence[str],
    source_rows: Sequence[int],
    labels: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    label_names: Sequence[str],
    predicted: Sequence[str] | None = None,
) -> None:
    """Writes `predictions_<split>.csv`, in one step: one line per text, in the split's order.

    `predicted` are the answers; left out, each is the most probable label.
    """
    if predicted is None:
        predicted = [label_names[max(range(len(shares)), key=shares.__getitem__)] for shares in probabilities]
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["source_row", "text", "label", "predicted", *(f"probability_{name}" for name in label_names)])
        for row, text, label, answer, shares in zip(source_rows, texts, labels, predicted, probabilities, strict=True):
            writer.writerow([row, text, label, answer, *(f"{share:.6g}" for share in shares)])
    partial.replace(path)
