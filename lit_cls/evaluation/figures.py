"""All figures of one evaluation, each computed once over all of its texts.

An undefined figure is None, "n/a" in a report: never 0, and no mean over fewer labels than there are.
Shapes: N texts, K classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lit_cls.evaluation.metrics import wilson_interval
from lit_cls.evaluation.prior_shift import PriorShift, shifted_confusion, weighted_correlation, weighted_ranking

N_BINS = 15
"""Of equal width, for the calibration error (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""

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
        p, labels, predicted = self.probabilities[mask], self.labels[mask], self.predicted[mask]
        return replace(self, probabilities=p, labels=labels, predicted=predicted)

    @property
    def correct(self) -> list[bool]:
        """Whether each prediction is the given label."""
        return (self.labels == self.predicted).tolist()

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
    answered: int
    """Number of texts for which the label was predicted."""
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

    def compact(self) -> dict[str, Any]:
        """Plain types, for JSON, without the confusion matrix and the bins."""
        return asdict(replace(self, confusion=(), reliability=()))


def figures_of(predictions: Predictions, shift: PriorShift | None = None) -> Figures:
    """Computes all figures; there may be no texts.

    With a `shift`, which must have weights, texts are weighted. `n`, `correct` and `confusion` stay counts, and there
    is no interval, because few texts may have most of the weight.
    """
    from torchmetrics.functional.classification import multiclass_matthews_corrcoef

    names, n, counts = predictions.label_names, len(predictions.labels), predictions.confusion()
    correct = int(counts.diagonal().sum())
    accuracy = correct / n if n else None
    mcc, mass, weights = None, counts.float(), None
    if shift is not None:
        weights = torch.tensor(shift.weights, dtype=torch.float64)[predictions.labels]  # (N,)
        shifted = shifted_confusion(counts.numpy(), shift.shares)
        accuracy, mcc = float(shifted.trace() / shifted.sum()), weighted_correlation(shifted)
        mass = torch.from_numpy(shifted)
    elif min(len(predictions.labels.unique()), len(predictions.predicted.unique())) > 1:  # otherwise undefined
        mcc = float(multiclass_matthews_corrcoef(predictions.predicted, predictions.labels, len(counts)))
    labels, bins = _label_figures(predictions, mass, weights), reliability(predictions, weights)
    ranked = [labels[predictions.positive]] if len(names) == 2 else labels
    return Figures(
        n=n,
        correct=correct,
        accuracy=accuracy,
        wilson_95=wilson_interval(correct, n) if n and shift is None else None,
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


def shifted_figures(predictions: Predictions, shift: PriorShift) -> Figures | None:
    """The figures under another label distribution; None where there are no weights or no texts."""
    return figures_of(predictions, shift) if shift.weights is not None and len(predictions.labels) else None


def _label_figures(predictions: Predictions, mass: Tensor, weights: Tensor | None) -> tuple[LabelFigures, ...]:
    """The figures of each label, from (K, K) counts or weights of the given labels (rows) by prediction (columns)."""
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

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
        scores, positive = predictions.probabilities[:, k], predictions.labels == k
        auroc, average_precision = None, None
        if predictions.finite and weights is not None:
            auroc, average_precision = weighted_ranking(scores.numpy(), positive.numpy(), weights.numpy())
        elif predictions.finite:
            if not positive.all():
                auroc = float(binary_auroc(scores, positive.long(), validate_args=False))
            average_precision = float(binary_average_precision(scores, positive.long(), validate_args=False))
        figures = precision[k] if predicted else None, recall[k], f1[k]
        found.append(LabelFigures(name, texts, predicted, *figures, auroc, average_precision))
    return tuple(found)


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

    Not torchmetrics': it gives a confidence of exactly 1 a bin of its own, and float32 rounds many to 1. The confidence
    is the probability of the predicted class, even if it is not the highest; `weights` (N,) are None for equal weights.
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
    # An empty bin has no figures, and no weight.
    gaps = [bin.n * abs((bin.accuracy or 0.0) - (bin.confidence or 0.0)) for bin in bins]
    return sum(gaps) / total if total else None
