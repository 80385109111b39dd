"""Accuracy with its 95 % interval and its baseline."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mode
from typing import Any

Z_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution, for two-sided 95 % intervals."""


@dataclass(frozen=True)
class Accuracy:
    """How many predictions of a split are the given label."""

    split: str
    n: int
    correct: int
    majority: float
    """Accuracy of always predicting the most frequent label of the train split."""

    @property
    def value(self) -> float:
        """Share of correct predictions; NaN without texts."""
        return self.correct / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval."""
        return wilson_interval(self.correct, self.n)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON, which has no NaN."""
        shares = {"accuracy": self.value, "majority": self.majority} if self.n else {"accuracy": None, "majority": None}
        return asdict(self) | shares | {"wilson_95": list(self.interval)}


def accuracy(split: str, labels: Sequence[int], predicted: Sequence[int], majority_class: int) -> Accuracy:
    """Compares the given with the predicted class ids of a split; `majority_class` is that of the train split."""
    correct = sum(label == guess for label, guess in zip(labels, predicted, strict=True))
    majority = sum(label == majority_class for label in labels)
    return Accuracy(split, len(labels), correct, majority / len(labels) if labels else math.nan)


def majority_class(labels: Sequence[int]) -> int:
    """The most frequent class; of equally frequent ones the lowest id."""
    return mode(sorted(labels))


def wilson_interval(correct: float, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, "Probable Inference", JASA 22, 1927); 0 to 1 without trials.

    The number of successes need not be whole (a mean over runs).
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} successes out of {n} trials")
    if n == 0:
        return 0.0, 1.0
    p, z = correct / n, Z_95
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the formula is 0 and 1 but for rounding.
    low = (centre - half) / scale if correct else 0.0
    high = (centre + half) / scale if correct < n else 1.0
    return low, high
