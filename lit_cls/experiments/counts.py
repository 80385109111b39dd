"""Counts of correct predictions, and how they are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_cls.data.splits import SPLIT_NAMES, SplitName, seen_in
from lit_cls.evaluation.metrics import wilson_interval

Count = tuple[int, int]
"""Correct predictions, and texts."""
MeanCount = tuple[float, int]
"""The same; correct predictions may be a mean over seeds."""

COUNT_COLUMNS = [f"{split}_{column}" for split in SPLIT_NAMES for column in ("correct", "n")]
"""Columns of results.csv for the counts of all splits."""


@dataclass(frozen=True)
class Evaluation:
    """The predictions of one trained classifier, as far as they are compared."""

    counts: dict[SplitName, Count]
    test_rows: list[int]
    """Row of each test text in its source: two evaluations with the same ones can be paired."""
    test_right: list[bool]
    """Whether the prediction for each of them was correct."""
    seen: Count
    """Of the test texts that occur, word for word or nearly, among the evaluated ones of the train split."""
    unseen: Count
    """Of the others."""
    parameters: int
    seconds: float
    """Of training, without validation."""

    def counts_as_dict(self) -> dict[str, list[int]]:
        """All counts, for JSON."""
        plain: dict[str, list[int]] = {split: list(count) for split, count in self.counts.items()}
        return plain | {"test_seen_in_train": list(self.seen), "test_not_seen_in_train": list(self.unseen)}

    def flat_counts(self) -> list[int]:
        """The numbers in `COUNT_COLUMNS`."""
        return [number for split in SPLIT_NAMES for number in self.counts[split]]


def count_seen(train: list[str], test: list[str], right: Sequence[bool]) -> tuple[Count, Count]:
    """Counts of the test texts that also occur in the train split, and of the others."""
    seen = seen_in(train, test)
    k, n = sum(ok and is_seen for ok, is_seen in zip(right, seen, strict=True)), sum(seen)
    return (k, n), (sum(right) - k, len(right) - n)


def mean_count(counts: Sequence[Count]) -> MeanCount:
    """The mean over the seeds."""
    k, n = (sum(values) / len(counts) for values in zip(*counts, strict=True))
    return k, int(n)


def share(count: MeanCount) -> float:
    """Correct predictions as a share; NaN without texts."""
    k, n = count
    return k / n if n else math.nan


def percent(count: MeanCount) -> str:
    """A share in percent, with its correct predictions and texts."""
    k, n = count
    return f"{100 * share(count):.2f} ({k:g}/{n})" if n else "n/a"


def interval(count: MeanCount) -> str:
    """The 95 % Wilson interval of a share of the texts, in percent."""
    low, high = wilson_interval(*count)
    return f"{100 * low:.1f}–{100 * high:.1f}"
