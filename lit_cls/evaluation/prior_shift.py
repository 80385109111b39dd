"""Figures under another label distribution: each text is weighted by how much more or less frequent its label is.

A text with label y has the weight share(y) in the other distribution / share(y) among the texts at hand. This
assumes that the texts of a label are the same in both (prior shift; Saerens et al., Neural Computation 14, 2002).
torchmetrics takes no weights, hence the closed forms; with weights of 1 they are the plain figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PriorShift:
    """Label shares of the whole source, and the weight of a text of each label."""

    shares: tuple[float, ...]
    weights: tuple[float, ...] | None
    """By class; None where a label of the source has no text to weight."""

    def as_dict(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Plain types, for JSON."""
        weights = self.weights or (None,) * len(self.shares)
        return {
            "shares": dict(zip(label_names, self.shares, strict=True)),
            "weights": dict(zip(label_names, weights, strict=True)),
        }


def prior_shift(counts: Sequence[int], labels: Tensor) -> PriorShift:
    """The shift from these labels (N,) to a source with so many texts of each class."""
    shares = tuple(count / sum(counts) for count in counts)
    here = torch.bincount(labels, minlength=len(counts)).tolist()
    if not all(n for n, share in zip(here, shares, strict=True) if share):
        return PriorShift(shares, None)
    weights = (share * len(labels) / n if n else 0.0 for share, n in zip(shares, here, strict=True))
    return PriorShift(shares, tuple(weights))


def shifted_confusion(confusion: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Shares of all texts by given label and prediction, if the labels have these shares.

    (K, K) counts of the given labels (rows) by prediction (columns) to (K, K); a label without a text has zeros.
    """
    totals = confusion.sum(axis=1, keepdims=True)
    return np.asarray(shares)[:, None] * confusion / np.maximum(totals, 1)


def weighted_ranking(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[float | None, float]:
    """Area under the ROC curve (None without a negative text), and average precision, of weighted texts.

    All are (N,): scores, higher for texts taken to be positive; which texts are positive, at least one; weights.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of the texts with the same score
    hits = np.append(0.0, np.cumsum((positive * weights)[order])[last])
    alarms = np.append(0.0, np.cumsum((~positive * weights)[order])[last])
    precision = hits[1:] / (hits[1:] + alarms[1:])
    average_precision = float((np.diff(hits) * precision).sum() / hits[-1])
    if positive.all():
        return None, average_precision
    area = (np.diff(alarms) * (hits[1:] + hits[:-1])).sum() / 2
    return float(area / (hits[-1] * alarms[-1])), average_precision


def weighted_correlation(mass: np.ndarray) -> float | None:
    """Gorodkin's coefficient for K classes (Computational Biology and Chemistry 28, 2004); Matthews' for two."""
    given, predicted, total = mass.sum(axis=1), mass.sum(axis=0), mass.sum()
    if np.count_nonzero(given) < 2 or np.count_nonzero(predicted) < 2:
        return None
    spread = (total**2 - (given**2).sum()) * (total**2 - (predicted**2).sum())
    return float((mass.trace() * total - given @ predicted) / math.sqrt(spread))
