"""All figures of one evaluation, each computed once over all of its texts.

An undefined figure is None, "n/a" in a report: never 0, and no mean over fewer labels than there are.
Shapes: N texts, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lit_cls.evaluation.metrics import wilson_interval

N_BINS = 15
"""Of equal width, for the calibration error (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""

Ranking = Callable[[Tensor, Tensor], tuple[float | None, float | None]]
"""Scores (N,) and which texts are positive (N,) to AUROC and average precision."""

# A probability that float32 rounds to 0 counts as this in the log-loss: a softmax never means 0.
_SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Predictions:
    """Predictions for texts whose labels are known."""

    probabilities: Tensor
    """(N, K)"""
    labels: Tensor
    """(N,) the given classes."""
    predicted: Tensor
    """(N,) the predicted classes; with a tuned threshold not always the most probable ones."""
    label_names: tuple[str, ...]
    positive: int = 1
    """With two classes, the one that ranking figures are about."""

    def where(self, chosen: Sequence[bool]) -> "Predictions":
        """The predictions for some of the texts."""
        mask = torch.tensor(chosen, dtype=torch.bool)
        return replace(
            self, probabilities=self.probabilities[mask], labels=self.labels[mask], predicted=self.predicted[mask]
        )

    @property
    def correct(self) -> list[bool]:
        """Whether each prediction is the given label."""
        matches: list[bool] = (self.labels == self.predicted).tolist()
        return matches

    @property
    def confidences(self) -> Tensor:
        """(N,) the probability of each predicted class."""
        return self.probabilities.gather(1, self.predicted[:, None])[:, 0]

    @property
    def finite(self) -> bool:
        """Whether all probabilities are numbers: those of a network that has diverged are not."""
        return bool(self.probabilities.isfinite().all())

    def confusion(self) -> Tensor:
        """(K, K) int64 counts of the given labels (rows) by prediction (columns)."""
        K = len(self.label_names)
        return torch.bincount(self.labels * K + self.predicted, minlength=K * K).view(K, K)


@dataclass(frozen=True)
class LabelFigures:
    """Figures of one label against all others."""

    label: str
    texts: int
    """Number of texts with the label."""
    answered: int
    """Number of texts for which it was predicted."""
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    auroc: float | None = None
    average_precision: float | None = None


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same confidence; an empty bin has no means."""

    low: float
    high: float
    n: float
    """Number of predictions, or the sum of their weights."""
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Figures:
    """All figures; docs/report.md explains each."""

    n: int
    correct: int
    accuracy: float | None
    wilson_95: tuple[float, float] | None
    balanced_accuracy: float | None
    """Mean recall over labels."""
    f1_macro: float | None
    mcc: float | None
    """Matthews correlation coefficient; for more than two labels Gorodkin's."""
    auroc: float | None
    """With two labels that of the positive one, else the mean of each against all others."""
    average_precision: float | None
    """As for `auroc`."""
    positive: str | None
    """Label that the last two are about; None where they are means."""
    log_loss: float | None
    """In nats per text."""
    calibration_error: float | None
    labels: tuple[LabelFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Number of texts of each given label (rows), by prediction (columns)."""
    reliability: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    def compact(self) -> dict[str, Any]:
        """The same without the confusion matrix and the bins."""
        return asdict(replace(self, confusion=(), reliability=()))


def figures_of(predictions: Predictions) -> Figures:
    """Computes all figures; there may be no texts."""
    from torchmetrics.functional.classification import multiclass_matthews_corrcoef

    n, counts = len(predictions.labels), predictions.confusion()
    correct = int(counts.diagonal().sum())
    # The correlation is undefined if one label alone was given or predicted.
    defined = n > 0 and all(int((counts.sum(dim=axis) > 0).sum()) > 1 for axis in (0, 1))
    mcc = multiclass_matthews_corrcoef(predictions.predicted, predictions.labels, len(counts)) if defined else None
    return assemble(
        predictions,
        accuracy=correct / n if n else None,
        wilson_95=wilson_interval(correct, n) if n else None,
        mcc=None if mcc is None else float(mcc),
        labels=label_figures(predictions, counts.float(), _ranking),
    )


def assemble(
    predictions: Predictions,
    accuracy: float | None,
    wilson_95: tuple[float, float] | None,
    mcc: float | None,
    labels: tuple[LabelFigures, ...],
    weights: Tensor | None = None,
) -> Figures:
    """Adds the figures that follow from those of the labels, or that have one formula with and without weights.

    `accuracy`, `wilson_95`, `mcc` and `labels` are those of `Figures`; `weights` (N,) are None for equal weights.
    """
    names, counts, bins = predictions.label_names, predictions.confusion(), reliability(predictions, weights)
    ranked = [labels[predictions.positive]] if len(names) == 2 else labels
    return Figures(
        n=len(predictions.labels),
        correct=int(counts.diagonal().sum()),
        accuracy=accuracy,
        wilson_95=wilson_95,
        balanced_accuracy=_mean([label.recall for label in labels]),
        f1_macro=_mean([label.f1 for label in labels]),
        mcc=mcc,
        auroc=_mean([label.auroc for label in ranked]),
        average_precision=_mean([label.average_precision for label in ranked]),
        positive=names[predictions.positive] if len(names) == 2 else None,
        log_loss=log_loss(predictions, weights),
        calibration_error=calibration_error(bins),
        labels=labels,
        confusion=tuple(tuple(row) for row in counts.tolist()),
        reliability=bins,
    )


def label_figures(predictions: Predictions, mass: Tensor, ranking: Ranking) -> tuple[LabelFigures, ...]:
    """The figures of each label, from (K, K) counts or weights of the given labels (rows) by prediction (columns)."""
    counts = predictions.confusion()
    hits, of_label, as_label = mass.diagonal(), mass.sum(dim=1), mass.sum(dim=0)
    precision, recall, f1 = (
        (x / y).tolist() for x, y in ((hits, as_label), (hits, of_label), (2 * hits, of_label + as_label))
    )
    found = []
    for k, name in enumerate(predictions.label_names):
        texts, predicted = int(counts[k].sum()), int(counts[:, k].sum())
        if not texts:
            found.append(LabelFigures(name, 0, predicted))
            continue
        ranked = (
            ranking(predictions.probabilities[:, k], predictions.labels == k) if predictions.finite else (None, None)
        )
        found.append(
            LabelFigures(name, texts, predicted, precision[k] if predicted else None, recall[k], f1[k], *ranked)
        )
    return tuple(found)


def _ranking(scores: Tensor, positive: Tensor) -> tuple[float | None, float | None]:
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    area = None if positive.all() else float(binary_auroc(scores, positive.long(), validate_args=False))
    return area, float(binary_average_precision(scores, positive.long(), validate_args=False))


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one value is: a mean over fewer labels would be another figure."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def log_loss(predictions: Predictions, weights: Tensor | None = None) -> float | None:
    """Mean negative logarithm of the probability of the given label; `weights` (N,) are None for equal weights."""
    if not len(predictions.labels) or not predictions.finite:
        return None
    given = predictions.probabilities.double().gather(1, predictions.labels[:, None])[:, 0].clamp_min(_SMALLEST)
    weights = torch.ones_like(given) if weights is None else weights
    return float(-(given.log() * weights).sum() / weights.sum())


def reliability(predictions: Predictions, weights: Tensor | None = None) -> tuple[Bin, ...]:
    """`N_BINS` bins of confidence, each open below and closed above, with the accuracy in each; none without texts.

    Not torchmetrics': it gives a confidence of exactly 1 a bin of its own, and float32 rounds many to 1. The
    confidence is the probability of the predicted class, even if it is not the highest; `weights` (N,) are None for
    equal weights.
    """
    if not len(predictions.labels) or not predictions.finite:
        return ()
    confidences = predictions.confidences.double()
    weights = torch.ones_like(confidences) if weights is None else weights
    at = ((confidences * N_BINS).ceil().long() - 1).clamp(0, N_BINS - 1)
    correct = (predictions.labels == predictions.predicted).double()
    empty = torch.zeros(N_BINS, dtype=torch.float64)
    sums = [empty.index_add(0, at, value * weights) for value in (torch.ones_like(correct), confidences, correct)]
    return tuple(
        Bin(k / N_BINS, (k + 1) / N_BINS, n, sure / n if n else None, hits / n if n else None)
        for k, (n, sure, hits) in enumerate(zip(*(total.tolist() for total in sums), strict=True))
    )


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error: the mean gap between confidence and accuracy; None without predictions."""
    total = sum(bin.n for bin in bins)
    gaps = [
        bin.n * abs(bin.accuracy - bin.confidence)
        for bin in bins
        if bin.accuracy is not None and bin.confidence is not None
    ]
    return sum(gaps) / total if total else None
