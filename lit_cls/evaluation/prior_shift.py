"""What the figures would be at another mix of labels: each text weighs as much more or less as its label does.

Text i of the label y counts for w(y) = share of y in the other mix / share of y among the texts at hand. This
takes the texts of a label to be the same in both (Saerens et al., Neural Computation 14, 2002: prior shift).
torchmetrics takes no weights, so the closed forms stand here; with weights of 1 they are the plain figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_cls.evaluation.figures import (
    Answers,
    Figures,
    LabelFigures,
    calibration_error,
    is_finite,
    log_loss,
    mean,
    reliability,
)


@dataclass(frozen=True)
class NaturalMix:
    """The shares of the labels in the whole source, and what each text weighs for it."""

    shares: tuple[float, ...]
    weights: tuple[float, ...] | None
    """By class; None where a label has no text at hand that could be weighed."""

    def as_dict(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Plain types, for JSON."""
        weights = self.weights or (None,) * len(self.shares)
        return {
            "shares": dict(zip(label_names, self.shares, strict=True)),
            "weights": dict(zip(label_names, weights, strict=True)),
        }


def natural_mix(counts: Sequence[int], labels: Tensor) -> NaturalMix:
    """Weighs texts.

    Args:
        counts: texts of each class in the whole source.
        labels: (N,) classes of the texts at hand.
    """
    shares = tuple(count / sum(counts) for count in counts)
    here = torch.bincount(labels, minlength=len(counts)).tolist()
    if not all(n for n, share in zip(here, shares, strict=True) if share):
        return NaturalMix(shares, None)
    weights = (share * len(labels) / n if n else 0.0 for share, n in zip(shares, here, strict=True))
    return NaturalMix(shares, tuple(weights))


def reweighted(answers: Answers, mix: NaturalMix) -> Figures | None:
    """The figures at that mix; None where a label has no text.

    `n`, `correct` and `confusion` stay what was counted; the accuracy has no interval, which would be of another
    number of texts.
    """
    if mix.weights is None or not len(answers.labels):
        return None
    weights = torch.tensor(mix.weights, dtype=torch.float64)[answers.labels]  # (N,)
    n_classes = len(answers.label_names)
    counts, mass = np.zeros((n_classes, n_classes), dtype=np.int64), np.zeros((n_classes, n_classes))
    places = (answers.labels.numpy(), answers.predicted.numpy())
    np.add.at(counts, places, 1)
    np.add.at(mass, places, weights.numpy())
    labels = tuple(_label(answers, k, counts, mass, weights) for k in range(n_classes))
    bins = reliability(answers, weights)
    two = n_classes == 2
    positive = labels[answers.positive] if two else None
    return Figures(
        n=len(answers.labels),
        correct=int(counts.trace()),
        accuracy=float(mass.trace() / mass.sum()),
        wilson_95=None,
        balanced_accuracy=mean([label.recall for label in labels]),
        f1_macro=mean([label.f1 for label in labels]),
        mcc=_correlation(mass),
        auroc=positive.auroc if positive else mean([label.auroc for label in labels]),
        average_precision=positive.average_precision if positive else mean([x.average_precision for x in labels]),
        positive=positive.label if positive else None,
        log_loss=log_loss(answers, weights),
        calibration_error=calibration_error(bins),
        labels=labels,
        confusion=tuple(tuple(row) for row in counts.tolist()),
        reliability=bins,
    )


def _label(answers: Answers, k: int, counts: np.ndarray, mass: np.ndarray, weights: Tensor) -> LabelFigures:
    texts, answered = int(counts[k].sum()), int(counts[:, k].sum())
    name = answers.label_names[k]
    if not texts:
        return LabelFigures(name, 0, answered)
    hit, given, said = float(mass[k, k]), float(mass[k].sum()), float(mass[:, k].sum())
    auroc = average_precision = None
    if is_finite(answers):
        auroc, average_precision = ranking(
            answers.probabilities[:, k].numpy(), (answers.labels == k).numpy(), weights.numpy()
        )
    precision = hit / said if answered else None
    return LabelFigures(
        name, texts, answered, precision, hit / given, 2 * hit / (given + said), auroc, average_precision
    )


def ranking(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[float | None, float]:
    """Area under the ROC curve, and average precision, of weighted texts.

    Args:
        scores: (N,) higher for what is taken to be positive.
        positive: (N,) which texts are; at least one.
        weights: (N,)

    Returns:
        The area, None without a negative text; and the average precision.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of the texts of one score
    hits = np.append(0.0, np.cumsum((positive * weights)[order])[last])
    alarms = np.append(0.0, np.cumsum((~positive * weights)[order])[last])
    precision = hits[1:] / (hits[1:] + alarms[1:])
    average_precision = float((np.diff(hits) * precision).sum() / hits[-1])
    if positive.all():
        return None, average_precision
    area = (np.diff(alarms) * (hits[1:] + hits[:-1])).sum() / 2
    return float(area / (hits[-1] * alarms[-1])), average_precision


def _correlation(mass: np.ndarray) -> float | None:
    """Gorodkin's coefficient for K classes (Computational Biology and Chemistry 28, 2004); of two, Matthews'."""
    given, said, total = mass.sum(axis=1), mass.sum(axis=0), mass.sum()
    spread = (total**2 - (given**2).sum()) * (total**2 - (said**2).sum())
    if np.count_nonzero(given) < 2 or np.count_nonzero(said) < 2:
        return None
    return float((mass.trace() * total - given @ said) / math.sqrt(spread))
