"""Figures against closed forms and published values."""

import math

import pytest

from lit_cls.evaluation.metrics import Accuracy, accuracy, majority_class, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # Two figures of the published table, 285 and 295 of 300 messages.
        (285, 300, 0.919, 0.970),
        (295, 300, 0.962, 0.993),
    ],
)
def test_wilson_interval(correct: int, n: int, low: float, high: float) -> None:
    tolerance = 6e-5 if n != 300 else 6e-4  # as many digits as are published
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=tolerance)


@pytest.mark.parametrize("n", [1, 7, 300])
def test_wilson_interval_is_symmetric_and_within_0_and_1(n: int) -> None:
    for correct in range(n + 1):
        low, high = wilson_interval(correct, n)
        assert 0 <= low <= correct / n <= high <= 1
        assert wilson_interval(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_without_trials_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 successes out of 3 trials"):
        wilson_interval(5, 3)


def test_accuracy_counts() -> None:
    row = accuracy("test", [0, 1, 1, 2, 1], [0, 1, 0, 2, 2], majority_class=1)
    assert (row.n, row.correct, row.value, row.majority) == (5, 3, 0.6, 0.6)
    assert row.as_dict()["wilson_95"] == list(wilson_interval(3, 5))
    assert row.as_dict()["accuracy"] == 0.6


def test_accuracy_of_nothing() -> None:
    row = accuracy("test", [], [], majority_class=0)
    assert math.isnan(row.value)
    assert math.isnan(row.majority)
    assert row.interval == (0.0, 1.0)
    assert (row.as_dict()["accuracy"], row.as_dict()["majority"]) == (None, None)


def test_answers_and_labels_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        accuracy("test", [0, 1], [0], majority_class=0)


def test_majority_class() -> None:
    assert majority_class([2, 0, 2, 1]) == 2
    assert majority_class([1, 0, 0, 1]) == 0
    assert Accuracy("test", 4, 1, 0.5).value == 0.25
