"""Paired comparison of two classifiers on the same texts, over one or several seeds.

A text is the unit, whatever the number of seeds: predictions of the same network, trained twice, for the same text
are not two independent observations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit_cls.evaluation.metrics import Z_95, wilson_interval

Correct = Sequence[Sequence[bool]]
"""Per seed, per text: whether the prediction was correct; the same texts in the same order."""


@dataclass(frozen=True)
class Comparison:
    """Changes from `before` to `after`."""

    n_texts: int
    n_seeds: int
    won: int
    """Predictions that only `after` gets right, over all texts and seeds (McNemar's discordant pairs)."""
    lost: int
    """Predictions that only `before` gets right."""
    difference: float
    """Accuracy of `after` minus that of `before`, mean over seeds."""
    by_seed: tuple[float, ...]
    """The same for each seed."""
    interval: tuple[float, float]
    """95 % interval of the difference for these trained networks: over the choice of texts, not of seeds."""
    p_value: float
    """See `sign_flip_test`; likewise for these networks."""


def compare(before: Correct, after: Correct) -> Comparison:
    """Paired comparison; raises a ValueError unless both have the same seeds and texts, at least one."""
    a, b = (np.asarray(correct, dtype=np.int64) for correct in (before, after))
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"not the same texts and seeds: {a.shape} and {b.shape}")
    n_seeds, n_texts = a.shape
    steps = b - a  # (seeds, texts): 1 won, -1 lost
    net = steps.sum(axis=0)
    return Comparison(
        n_texts=n_texts,
        n_seeds=n_seeds,
        won=int((steps == 1).sum()),
        lost=int((steps == -1).sum()),
        difference=float(net.sum() / (n_seeds * n_texts)),
        by_seed=tuple(steps.mean(axis=1).tolist()),
        interval=_difference_interval(net / n_seeds),
        p_value=sign_flip_test(net.tolist()),
    )


def sign_flip_test(changes: Sequence[int]) -> float:
    """Exact two-sided test of the hypothesis that each text's change is as likely up as down.

    Each text's net change over the seeds keeps its size and flips its sign with probability 1/2; the p-value is the
    share of flips whose sum is at least as far from 0. With one seed the changes are -1, 0 and 1, and this is
    McNemar's exact test (Psychometrika 12, 1947). Over several seeds it counts a text once, unlike one McNemar table
    of all predictions (Durkalski et al., Statistics in Medicine 22, 2003, on clustered pairs).
    """
    chances = np.ones(1)  # of the sum -total + 2 i, where i sums the sizes that point up
    for size in map(abs, changes):
        if size:
            chances = np.pad(chances / 2, (0, size)) + np.pad(chances / 2, (size, 0))
    sums = 2 * np.arange(len(chances)) - sum(map(abs, changes))
    return float(min(1.0, chances[np.abs(sums) >= abs(sum(changes))].sum()))


def _difference_interval(changes: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean paired difference (Agresti & Min, Statistics in Medicine 24, 2005).

    Wald's interval after adding half a text to each of the four cells (both correct, both wrong, won, lost): it never
    has width 0. With several seeds a text's change, in [-1, 1], is its mean over them.
    """
    n = len(changes) + 2
    mean = changes.sum() / n
    variance = (float(changes @ changes) + 1) / n - mean**2
    half = Z_95 * math.sqrt(variance / n)
    return float(max(-1.0, mean - half)), float(min(1.0, mean + half))


def newcombe_interval(before: tuple[float, int], after: tuple[float, int]) -> tuple[float, float]:
    """95 % interval of the difference of two shares of which only the counts are known.

    Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, method 10), from the two Wilson intervals.
    Each pair has the number of correct predictions (a mean over seeds need not be whole) and of texts.
    """
    (k1, n1), (k2, n2) = before, after
    p1, p2 = k1 / n1, k2 / n2
    (low1, high1), (low2, high2) = wilson_interval(k1, n1), wilson_interval(k2, n2)
    difference = p2 - p1
    return (
        difference - math.sqrt((p2 - low2) ** 2 + (high1 - p1) ** 2),
        difference + math.sqrt((high2 - p2) ** 2 + (p1 - low1) ** 2),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm, Scandinavian Journal of Statistics 6, 1979), in the same order."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.arange(len(order), 0, -1) * np.sort(p_values)).clip(max=1.0)
    return adjusted.tolist()
