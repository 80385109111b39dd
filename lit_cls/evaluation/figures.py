"""Every figure of one evaluation, each computed once over all of its texts.

A figure that is not defined is None, "n/a" on paper: never 0, and never a mean over fewer labels than there are.
Shapes: N texts, K classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lit_cls.evaluation.metrics import wilson_interval

N_BINS = 15
"""Of equal width, for the calibration error (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""

# log-loss of a probability that float32 rounds to 0: a softmax never means it.
_LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Answers:
    """What a classifier says of texts whose labels are known."""

    probabilities: Tensor
    """(N, K)"""
    labels: Tensor
    """(N,) the given classes."""
    predicted: Tensor
    """(N,) the answers; not always the most probable classes: a threshold may have been tuned."""
    label_names: tuple[str, ...]
    positive: int = 1
    """Of two classes, the one that ranking figures are about."""

    def where(self, chosen: Sequence[bool]) -> "Answers":
        """Those to some of the texts."""
        kept = torch.tensor(chosen, dtype=torch.bool)
        return Answers(
            self.probabilities[kept], self.labels[kept], self.predicted[kept], self.label_names, self.positive
        )

    @property
    def right(self) -> list[bool]:
        """Whether each answer is the given label."""
        found: list[bool] = (self.labels == self.predicted).tolist()
        return found

    @property
    def confidences(self) -> Tensor:
        """(N,) the probability of each answer."""
        return self.probabilities.gather(1, self.predicted[:, None])[:, 0]


@dataclass(frozen=True)
class LabelFigures:
    """Figures of one label against all others."""

    label: str
    texts: int
    """That have the label."""
    answered: int
    """To which it was the answer."""
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    auroc: float | None = None
    average_precision: float | None = None


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence; an empty one has no means."""

    low: float
    high: float
    n: float
    """How many answers; a sum of weights where they have some."""
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Figures:
    """All of them; see docs/report.md for how each is read."""

    n: int
    correct: int
    accuracy: float | None
    wilson_95: tuple[float, float] | None
    balanced_accuracy: float | None
    """The mean recall."""
    f1_macro: float | None
    mcc: float | None
    """Matthews correlation coefficient; for more than two labels Gorodkin's."""
    auroc: float | None
    """Of two labels that of the positive one, of more the mean of each against all others."""
    average_precision: float | None
    """The same."""
    positive: str | None
    """Label that the last two are about; None where they are means."""
    log_loss: float | None
    """In nats a text."""
    calibration_error: float | None
    labels: tuple[LabelFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Texts of each given label (rows), by answer (columns)."""
    reliability: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    def compact(self) -> dict[str, Any]:
        """The same without the tables behind the figures."""
        return asdict(replace(self, confusion=(), reliability=()))


def figures_of(answers: Answers) -> Figures:
    """Computes all figures of some answers; none at all is allowed."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_matthews_corrcoef

    n, names = len(answers.labels), answers.label_names
    counts = (
        multiclass_confusion_matrix(answers.predicted, answers.labels, len(names), validate_args=False)
        if n
        else torch.zeros(len(names), len(names), dtype=torch.int64)
    )
    given, answered, correct = counts.sum(dim=1), counts.sum(dim=0), int(counts.diagonal().sum())
    labels = _by_label(answers, given.tolist(), answered.tolist())
    # One label alone, given or answered, correlates with nothing.
    correlates = n > 0 and int((given > 0).sum()) > 1 and int((answered > 0).sum()) > 1
    mcc = multiclass_matthews_corrcoef(answers.predicted, answers.labels, len(names)) if correlates else None
    bins = reliability(answers)
    return Figures(
        n=n,
        correct=correct,
        accuracy=correct / n if n else None,
        wilson_95=wilson_interval(correct, n) if n else None,
        balanced_accuracy=mean([label.recall for label in labels]),
        f1_macro=mean([label.f1 for label in labels]),
        mcc=None if mcc is None else float(mcc),
        auroc=_of_positive(answers, [label.auroc for label in labels]),
        average_precision=_of_positive(answers, [label.average_precision for label in labels]),
        positive=names[answers.positive] if len(names) == 2 else None,
        log_loss=log_loss(answers),
        calibration_error=calibration_error(bins),
        labels=labels,
        confusion=tuple(tuple(row) for row in counts.tolist()),
        reliability=bins,
    )


def _by_label(answers: Answers, given: list[int], answered: list[int]) -> tuple[LabelFigures, ...]:
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        multiclass_f1_score,
        multiclass_precision,
        multiclass_recall,
    )

    names, n = answers.label_names, sum(given)
    if not n:
        return tuple(LabelFigures(name, 0, 0) for name in names)
    precision, recall, f1 = (
        metric(answers.predicted, answers.labels, len(names), average=None, validate_args=False).tolist()
        for metric in (multiclass_precision, multiclass_recall, multiclass_f1_score)
    )
    ranked = is_finite(answers)
    found = []
    for k, name in enumerate(names):
        if not given[k]:
            found.append(LabelFigures(name, 0, answered[k]))
            continue
        scores, is_label = answers.probabilities[:, k], (answers.labels == k).long()
        found.append(
            LabelFigures(
                name,
                given[k],
                answered[k],
                precision[k] if answered[k] else None,
                recall[k],
                f1[k],
                float(binary_auroc(scores, is_label, validate_args=False)) if ranked and given[k] < n else None,
                float(binary_average_precision(scores, is_label, validate_args=False)) if ranked else None,
            )
        )
    return tuple(found)


def is_finite(answers: Answers) -> bool:
    """Whether the probabilities are numbers: those of a network that has diverged are not."""
    return bool(answers.probabilities.isfinite().all())


def mean(values: Sequence[float | None]) -> float | None:
    """None where one of them is: a mean over fewer labels would be another figure."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _of_positive(answers: Answers, values: Sequence[float | None]) -> float | None:
    return values[answers.positive] if len(values) == 2 else mean(values)


def log_loss(answers: Answers, weights: Tensor | None = None) -> float | None:
    """Mean negative logarithm of the probability of the given label.

    Args:
        answers: the probabilities and the labels.
        weights: (N,) what each text counts for; by default all the same.
    """
    if not len(answers.labels) or not is_finite(answers):
        return None
    given = answers.probabilities.double().gather(1, answers.labels[:, None])[:, 0].clamp_min(_LEAST)
    weights = torch.ones_like(given) if weights is None else weights
    return float(-(given.log() * weights).sum() / weights.sum())


def reliability(answers: Answers, weights: Tensor | None = None) -> tuple[Bin, ...]:
    """Bins of confidence, with how often the answers in each are right.

    Not torchmetrics': it gives a confidence of exactly 1 a bin of its own, and float32 rounds many to 1.

    Args:
        answers: the confidence is the probability of the answer, whether or not it is the highest.
        weights: (N,) what each text counts for; by default all the same.

    Returns:
        `N_BINS` bins, each open below and closed above; none without texts.
    """
    if not len(answers.labels) or not is_finite(answers):
        return ()
    confidences = answers.confidences.double()
    weights = torch.ones_like(confidences) if weights is None else weights
    at = ((confidences * N_BINS).ceil().long() - 1).clamp(0, N_BINS - 1)
    right = (answers.labels == answers.predicted).double()
    empty = torch.zeros(N_BINS, dtype=torch.float64)
    sums = [empty.clone().index_add(0, at, value * weights) for value in (torch.ones_like(right), confidences, right)]
    return tuple(
        Bin(k / N_BINS, (k + 1) / N_BINS, n, sure / n if n else None, hits / n if n else None)
        for k, (n, sure, hits) in enumerate(zip(*(total.tolist() for total in sums), strict=True))
    )


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """The gap between confidence and accuracy, the mean over all answers; None without any."""
    total = sum(bin.n for bin in bins)
    gaps = [
        bin.n * abs(bin.accuracy - bin.confidence)
        for bin in bins
        if bin.accuracy is not None and bin.confidence is not None
    ]
    return sum(gaps) / total if total else None
