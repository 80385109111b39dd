"""Console tables and lines about an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from lit_cls.evaluation.metrics import Accuracy
from lit_cls.report.numbers import count, decimal, interval, percent

_MAX_LABELS = 6  # rows of the table on the console


def accuracy_table(rows: Sequence[Accuracy]) -> Table:
    """One row per split, with its size, interval and baseline."""
    table = Table(title="Accuracy", title_justify="left")
    for column in ("split", "n", "correct", "accuracy", "95 % interval", "majority baseline"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for row in rows:
        shares = (percent(row.value), interval(row.interval), percent(row.majority)) if row.n else ("n/a",) * 3
        table.add_row(row.split, count(row.n), count(row.correct), *shares)
    return table


def describe_figures(content: Mapping[str, Any]) -> list[Table | str]:
    """A table by label and some lines, printed at the end of a run, from the content of report.json."""
    figures = content["figures"]
    if not figures["n"]:
        return []
    table = Table(title=f"{content['split']} by label", title_justify="left", box=None, pad_edge=False)
    for column in ("label", "texts", "precision", "recall", "F1"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for label in figures["labels"][:_MAX_LABELS]:
        shares = (percent(label[name]) for name in ("precision", "recall", "f1"))
        table.add_row(Text(label["label"]), count(label["texts"]), *shares)
    lines: list[Table | str] = [table]
    if (more := len(figures["labels"]) - _MAX_LABELS) > 0:
        lines.append(f"and {more} more labels, in the report")
    lines.append(
        f"balanced accuracy {percent(figures['balanced_accuracy'])}  MCC {decimal(figures['mcc'])}  "
        f"AUROC {decimal(figures['auroc'])}  log-loss {decimal(figures['log_loss'])}  "
        f"calibration error {decimal(figures['calibration_error'])}"
    )
    if content["baselines"]:
        shares = (f"{one['name']} {percent(one['figures']['accuracy'])}" for one in content["baselines"])
        lines.append(f"baselines: {'  '.join(shares)}")
        lines += [f"note: no baseline {line}" for line in content["baselines_missing"]]
    slices = {part["name"]: part["figures"] for part in content["slices"]}
    seen, unseen = slices["seen in train"], slices["unseen in train"]
    lines.append(
        f"{count(seen['n'])} of these texts are in the train split too (accuracy {percent(seen['accuracy'])}), "
        f"{count(unseen['n'])} are not ({percent(unseen['accuracy'])})"
    )
    if content["padding"]["verdict"] in ("FAIL", "depends"):
        lines.append(f"padding self-test: {content['padding']['told']}")
    if content["pictures_missing"] and content["baselines"]:
        lines.append(f"note: {content['pictures_missing']}")
    return lines
