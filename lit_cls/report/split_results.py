"""Results of the evaluated splits, and the file with their predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.sources import LabelledTexts
from lit_cls.data.splits import SplitName
from lit_cls.evaluation.figures import Predictions
from lit_cls.evaluation.metrics import Accuracy, accuracy, majority_class
from lit_cls.io.atomic import write_csv
from lit_cls.model.decision import Decision


@dataclass(frozen=True)
class SplitResult:
    """Predictions for the rows of one split."""

    split: SplitName
    rows: list[int]
    """Of the split: all, unless Lightning was limited to fewer batches."""
    predictions: Predictions


def evaluate_split(
    split: SplitName, data: ClassificationData, row_ids: Tensor, logits: Tensor, decision: Decision
) -> SplitResult:
    """The predictions that follow from the logits (N, K) of some rows (N,) of a split."""
    label_ids, rows, names = data.splits[split].label_ids, row_ids.tolist(), data.label_names
    counts = data.split_data.source_counts()
    # Ranking figures are about the rarer of two labels; of equally frequent ones about the second, as is the custom.
    positive = 0 if counts[0] < counts[1] else 1
    labels = torch.tensor([label_ids[row] for row in rows], dtype=torch.int64)
    probabilities = decision.probabilities(logits if rows else torch.empty(0, len(names)))
    predictions = Predictions(probabilities, labels, decision.labels(probabilities), names, positive)
    return SplitResult(split, rows, predictions)


def accuracies(results: Sequence[SplitResult], data: ClassificationData) -> list[Accuracy]:
    """The accuracy on each split."""
    majority = majority_class(data.splits["train"].label_ids)
    return [
        accuracy(result.split, result.predictions.labels.tolist(), result.predictions.predicted.tolist(), majority)
        for result in results
    ]


def write_split(folder: Path, result: SplitResult, data: ClassificationData) -> None:
    """Writes `predictions_<split>.csv`."""
    path, rows = folder / f"predictions_{result.split}.csv", data.splits[result.split].rows.pick(result.rows)
    shares, predicted = result.predictions.probabilities.tolist(), result.predictions.predicted.tolist()
    write_predictions(path, rows, data.label_names, shares, predicted)


def write_predictions(
    path: Path,
    rows: LabelledTexts,
    label_names: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    predicted: Sequence[int] | None = None,
) -> None:
    """Writes predictions for labelled texts as CSV; `predicted`, class ids, defaults to the most probable ones."""
    if predicted is None:
        predicted = [max(range(len(shares)), key=shares.__getitem__) for shares in probabilities]
    columns = ["source_row", "text", "label", "predicted", *(f"probability_{name}" for name in label_names)]
    cells = zip(rows.numbers, rows.texts, rows.labels, predicted, probabilities, strict=True)
    lines = [[*row, label_names[k], *(f"{share:.6g}" for share in shares)] for *row, k, shares in cells]
    write_csv(path, columns, lines)
