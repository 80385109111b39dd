"""Figures of one evaluation, each accumulated over all of its texts."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Accuracy:
    """How often the predicted label is the given one, and how sure that is."""

    split: str
    n: int
    correct: int
    majority: float
    """Accuracy of always answering the most frequent label of the train split."""

    @property
    def value(self) -> float:
        """The share of correct answers; NaN without texts."""
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
    """Compares class ids.

    Args:
        split: its name, for tables.
        labels: the given classes.
        predicted: the answers, in the same order.
        majority_class: the most frequent class of the train split.
    """
    correct = sum(label == answer for label, answer in zip(labels, predicted, strict=True))
    majority = sum(label == majority_class for label in labels)
    return Accuracy(split, len(labels), correct, majority / len(labels) if labels else math.nan)


def majority_class(labels: Sequence[int]) -> int:
    """The most frequent class; the lowest id where two are as frequent."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def wilson_interval(correct: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Interval of a share (Wilson, "Probable Inference", JASA 22, 1927); stays within 0 and 1.

    Args:
        correct: successes; a mean over several runs need not be whole.
        n: trials; without any, the interval is all of 0 to 1.
        z: quantile of the normal distribution, by default for 95 %.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} successes out of {n} trials")
    if n == 0:
        return 0.0, 1.0
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the formula is 0 and 1 but for rounding.
    low = (centre - half) / scale if correct else 0.0
    high = (centre + half) / scale if correct < n else 1.0
    return low, high
