"""Tables that a run prints before it trains: the data, and what trains."""

from typing import Any

from rich.table import Table
from rich.text import Text

from lit_cls.data.datamodule import ClassificationData, DataSummary
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.selection import parameter_groups

TABLE_LABELS = 6
"""Columns of labels in the table; more are listed below it."""


def describe_data(data: ClassificationData, token_position: str) -> list[Any]:
    """The table of the data and the lines below it."""
    summary = data.summary
    lines: list[Any] = [data_table(summary)]
    if len(summary.label_names) > TABLE_LABELS:
        train = summary.splits[0].labels
        lines.append(f"labels of the train split: {', '.join(f'{name} {n:,}' for name, n in train.items())}")
    lines += [f"note: {note}" for note in summary.notes]
    if truncated := sum(split.cut for split in summary.splits):
        kept = {"head": "their head", "tail": "their tail", "head_tail": "their head and tail"}
        lines.append(
            f"note: {truncated:,} texts are longer than {summary.max_length} tokens: "
            f"{kept[data.truncation]} is read (data.truncation, data.max_length)"
        )
    if token_position in ("last", "mean") and data.padding == "longest_in_batch":
        lines.append(
            f"note: token_position {token_position} reads pads, and data.padding longest_in_batch changes their number "
            "from batch to batch: token_position flexible or mean_flexible, or padding longest_in_train, do not"
        )
    return lines


def data_table(summary: DataSummary) -> Table:
    """One row per split: its size, its labels, its lengths, the texts that are truncated."""
    # Text, not markup: a path or a label may have brackets.
    table = Table(title=Text(f"Data: {summary.source}, {summary.n_rows:,} rows"), title_justify="left")
    labels = summary.label_names[:TABLE_LABELS]
    columns = ("split", "texts", *labels, "median tokens", "longest", f"truncated at {summary.max_length}")
    for column in columns:
        table.add_column(Text(column), justify="left" if column == "split" else "right")
    for split in summary.splits:
        counts = [f"{split.labels.get(label, 0):,}" for label in labels]
        lengths = [f"{n:,}" for n in (split.tokens_median, split.tokens_longest, split.cut)]
        table.add_row(split.name, f"{split.n:,}", *counts, *lengths)
    return table


def parameter_table(net: TextClassifier) -> Table:
    """Parameter groups, their sizes, and the share of each that trains."""
    table = Table(title="What trains", title_justify="left")
    for column in ("group", "parameters", "trained", "share"):
        table.add_column(column, justify="left" if column == "group" else "right")
    total = trained = 0
    for group, parameters in parameter_groups(net).items():
        n = sum(p.numel() for p in parameters)
        n_trained = sum(p.numel() for p in parameters if p.requires_grad)
        total, trained = total + n, trained + n_trained
        table.add_row(group, f"{n:,}", f"{n_trained:,}", f"{n_trained / n:.2%}")
    table.add_section()
    table.add_row("all", f"{total:,}", f"{trained:,}", f"{trained / total:.2%}")
    return table
