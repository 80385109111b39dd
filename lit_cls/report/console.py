"""What an evaluation leaves behind: a table for people, files for machines."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lit_cls.evaluation.metrics import Accuracy
from lit_cls.io.atomic import write_text
from lit_cls.report.numbers import count, decimal, percent

_LABELS = 6  # rows of the table on the console


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


def told_figures(content: Mapping[str, Any]) -> list[Table | str]:
    """What a person is told of a report at once: a table by label, and some lines.

    Args:
        content: of report.json.
    """
    figures, split = content["figures"], content["split"]
    if not figures["n"]:
        return []
    table = Table(title=f"{split} by label", title_justify="left", box=None, pad_edge=False)
    for column in ("label", "texts", "precision", "recall", "F1"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for label in figures["labels"][:_LABELS]:
        shares = (percent(label[name]) for name in ("precision", "recall", "f1"))
        table.add_row(Text(label["label"]), count(label["texts"]), *shares)
    told: list[Table | str] = [table]
    if (more := len(figures["labels"]) - _LABELS) > 0:
        told.append(f"and {more} more labels, in the report")
    told.append(
        f"balanced accuracy {percent(figures['balanced_accuracy'])}  MCC {decimal(figures['mcc'])}  "
        f"AUROC {decimal(figures['auroc'])}  log-loss {decimal(figures['log_loss'])}  "
        f"calibration error {decimal(figures['calibration_error'])}"
    )
    if content["baselines"]:
        shares = (f"{one['name']} {percent(one['figures']['accuracy'])}" for one in content["baselines"])
        told.append(f"baselines: {'  '.join(shares)}")
    told += [f"note: no baseline {line}" for line in content["baselines_missing"] if content["baselines"]]
    parts = {part["name"]: part["figures"] for part in content["slices"]}
    seen, unseen = parts["seen in train"], parts["unseen in train"]
    told.append(
        f"{count(seen['n'])} of these texts are in the train split too (accuracy {percent(seen['accuracy'])}), "
        f"{count(unseen['n'])} are not ({percent(unseen['accuracy'])})"
    )
    if content["padding"]["verdict"] in ("FAIL", "depends"):
        told.append(f"padding self-test: {content['padding']['told']}")
    if content["pictures_missing"] and content["baselines"]:
        told.append(f"note: {content['pictures_missing']}")
    return told


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
    content = io.StringIO(newline="")
    writer = csv.writer(content)
    writer.writerow(["source_row", "text", "label", "predicted", *(f"probability_{name}" for name in label_names)])
    for row, text, label, answer, shares in zip(source_rows, texts, labels, predicted, probabilities, strict=True):
        writer.writerow([row, text, label, answer, *(f"{share:.6g}" for share in shares)])
    write_text(path, content.getvalue())
