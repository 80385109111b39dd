"""Paired comparisons against scipy, brute force, closed forms and published values."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from lit_cls.evaluation.paired import Comparison, compare, holm, newcombe_interval, sign_flip_test

GRID = [(won, lost) for won, lost in itertools.product(range(9), repeat=2) if won + lost]
Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def answers(seed: int, n_seeds: int, n_texts: int) -> list[list[bool]]:
    chance = np.random.default_rng(seed)
    return (chance.random((n_seeds, n_texts)) < 0.7).tolist()


def one_seed(both: int, neither: int, won: int, lost: int) -> tuple[list[list[bool]], list[list[bool]]]:
    """Answers before and after whose two by two table has these cells."""
    cells = [((True, True), both), ((False, False), neither), ((False, True), won), ((True, False), lost)]
    pairs = [pair for pair, n in cells for _ in range(n)]
    return [[before for before, _ in pairs]], [[after for _, after in pairs]]


# The test.


@pytest.mark.parametrize(("won", "lost"), [*GRID, (3, 40), (60, 100), (300, 0)])
def test_one_seed_is_mcnemars_exact_test(won: int, lost: int) -> None:
    expected = binomtest(min(won, lost), won + lost, 0.5).pvalue
    assert sign_flip_test([1] * won + [-1] * lost + [0] * 5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_several_seeds_equal_an_enumeration_of_all_flips(seed: int) -> None:
    changes = np.random.default_rng(seed).integers(-3, 4, size=1 + seed % 9).tolist()
    flips = list(itertools.product((-1, 1), repeat=len(changes)))
    sums = [abs(sum(sign * change for sign, change in zip(flip, changes, strict=True))) for flip in flips]
    as_far = sum(total >= abs(sum(changes)) for total in sums)
    assert sign_flip_test(changes) == pytest.approx(as_far / len(flips), rel=1e-12)


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("changes", [[1, 1, 1, 1, -1], [1] * 6, [3, -1, 2, 2, 0, 1, 1]])
def test_repeating_a_seed_is_no_new_evidence(changes: list[int], k: int) -> None:
    once = sign_flip_test(changes)
    assert sign_flip_test([k * change for change in changes]) == pytest.approx(once, rel=1e-12)
    assert once < 1  # something that could have changed


def test_a_text_counts_once_however_large_its_change() -> None:
    # One text that five seeds get right: pooled into one table, 5 against 0 would have p = 0.0625.
    assert sign_flip_test([5]) == 1.0
    assert sign_flip_test([1] * 5) == 0.0625


@pytest.mark.parametrize("changes", [[], [0], [0, 0, 0], [1], [-1], [2, -2]])
def test_no_evidence_of_a_change(changes: list[int]) -> None:
    assert sign_flip_test(changes) == 1.0


@pytest.mark.parametrize("changes", [[1, 1, 1, 1, -1, 0], [3, -1, 2, 2, 0, 1], [2] * 9 + [-1] * 3])
def test_the_test_is_two_sided(changes: list[int]) -> None:
    assert sign_flip_test([-change for change in changes]) == sign_flip_test(changes) < 1


# The comparison.


def test_counts_by_hand() -> None:
    """Two seeds, four texts, whose net changes are 0, 0, 2 and 1."""
    before = [[True, True, False, False], [True, False, False, False]]
    after = [[True, False, True, False], [True, True, True, True]]
    found = compare(before, after)
    assert (found.n_texts, found.n_seeds, found.won, found.lost) == (4, 2, 4, 1)
    assert found.difference == 3 / 8
    assert found.p_value == 0.5  # 2 + 1 and -2 - 1, of four ways to sign them
    # Changes 0, 0, 1, 1/2: mean 1.5 / 6 and variance (1.25 + 1) / 6 - 1/16 with half a text in each cell.
    half = Z * math.sqrt(0.3125 / 6)
    assert found.interval == pytest.approx((0.25 - half, 0.25 + half), rel=1e-12)


@pytest.mark.parametrize("cells", [(250, 20, 25, 5), (90, 8, 1, 1), (0, 0, 6, 10), (10, 2, 0, 0), (280, 5, 0, 15)])
def test_one_seed_has_the_interval_of_agresti_and_min(cells: tuple[int, int, int, int]) -> None:
    both, neither, won, lost = (n + 0.5 for n in cells)
    total = both + neither + won + lost
    difference = (won - lost) / total
    half = Z * math.sqrt((won + lost - (won - lost) ** 2 / total) / total**2)
    found = compare(*one_seed(*cells))
    assert (found.won, found.lost) == (cells[2], cells[3])
    assert found.difference == pytest.approx((cells[2] - cells[3]) / sum(cells), rel=1e-12)
    assert found.interval == pytest.approx((difference - half, difference + half), rel=1e-12)


@pytest.mark.parametrize("n_texts", [1, 2, 10, 300])
@pytest.mark.parametrize("cells", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_an_interval_has_a_width_whatever_happens(n_texts: int, cells: tuple[int, int, int, int]) -> None:
    """All texts in one cell of the table, nothing that differs among them."""
    found = compare(*one_seed(*(n * n_texts for n in cells)))
    low, high = found.interval
    assert -1 <= low <= found.difference <= high <= 1
    assert low < high


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("n_seeds", "n_texts"), [(1, 3), (1, 300), (5, 3), (5, 40)])
def test_the_interval_contains_the_difference_and_mirrors(seed: int, n_seeds: int, n_texts: int) -> None:
    before, after = answers(seed, n_seeds, n_texts), answers(1000 + seed, n_seeds, n_texts)
    found, swapped = compare(before, after), compare(after, before)
    low, high = found.interval
    assert low < found.difference < high
    assert (swapped.won, swapped.lost, swapped.difference) == (found.lost, found.won, -found.difference)
    assert swapped.interval == pytest.approx((-high, -low), abs=1e-12)
    assert swapped.p_value == found.p_value


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_same_answers_again_make_nothing_surer(n_seeds: int, k: int) -> None:
    before, after = answers(1, n_seeds, 60), answers(2, n_seeds, 60)
    once, again = compare(before, after), compare(before * k, after * k)
    assert again.n_seeds == k * n_seeds
    assert (again.won, again.lost) == (k * once.won, k * once.lost)
    assert again.difference == pytest.approx(once.difference, abs=1e-12)
    assert again.interval == pytest.approx(once.interval, abs=1e-12)
    assert again.p_value == pytest.approx(once.p_value, rel=1e-9)


def test_the_order_of_texts_and_seeds_does_not_matter() -> None:
    before, after = np.array(answers(1, 3, 60)), np.array(answers(2, 3, 60))
    texts, seeds = np.random.default_rng(0).permutation(60), [2, 0, 1]
    found = compare(before.tolist(), after.tolist())
    moved = compare(before[seeds][:, texts].tolist(), after[seeds][:, texts].tolist())
    assert (moved.won, moved.lost, moved.difference) == (found.won, found.lost, found.difference)
    assert moved.p_value == pytest.approx(found.p_value, rel=1e-12)
    assert moved.interval == pytest.approx(found.interval, rel=1e-12)


def test_the_same_classifier_twice() -> None:
    same = answers(3, 2, 50)
    found = compare(same, same)
    assert (found.won, found.lost, found.difference, found.p_value) == (0, 0, 0.0, 1.0)
    assert found.interval[0] == -found.interval[1] < 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([[True, False]], [[True]]),
        ([[True, False]], [[True, False]] * 2),
        ([[True, False], [True]], [[True, False], [True]]),
        ([[True, False]], [[True, False], [True]]),
        ([True, False], [True, False]),
        ([], []),
        ([[]], [[]]),
    ],
)
def test_what_cannot_be_compared(before: list, after: list) -> None:
    with pytest.raises(ValueError, match="not the same texts and seeds|inhomogeneous"):
        compare(before, after)


@pytest.mark.parametrize("n_seeds", [1, 4])
def test_intervals_cover_the_truth(n_seeds: int) -> None:
    """RunInfo 95 % of 600 samples of 100 texts, though the seeds agree on most texts."""
    chance = np.random.default_rng(5)
    covered = 0
    for _ in range(600):
        # One text in five is easier for `after` (8 seeds in 10), one in ten harder; the others stay right.
        kind = chance.choice(3, p=(0.7, 0.2, 0.1), size=100)
        before = np.tile(kind != 1, (n_seeds, 1))
        after = chance.random((n_seeds, 100)) < np.array([1.0, 0.8, 0.2])[kind]
        low, high = compare(before.tolist(), after.tolist()).interval
        covered += low <= 0.2 * 0.8 - 0.1 * 0.8 <= high
    assert 0.93 <= covered / 600 <= 0.98


def test_a_comparison_keeps_what_it_found() -> None:
    found = compare([[True, False]], [[True, True]])
    assert found == Comparison(2, 1, 1, 0, 0.5, (0.5,), found.interval, 1.0)


# Two shares that are not paired.


@pytest.mark.parametrize(
    ("before", "after", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), p. 873, table II, method 10; its p1 - p2 is our after - before.
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((2, 7), (6, 7), 0.0582, 0.8062),
        ((0, 29), (5, 56), -0.0381, 0.1926),
        ((0, 20), (0, 10), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((0, 20), (10, 10), 0.6791, 1.0),
        ((0, 10), (10, 10), 0.6075, 1.0),
    ],
)
def test_newcombe_interval(before: tuple[int, int], after: tuple[int, int], low: float, high: float) -> None:
    assert newcombe_interval(before, after) == pytest.approx((low, high), abs=6e-5)
    assert newcombe_interval(after, before) == pytest.approx((-high, -low), abs=6e-5)


def test_newcombe_interval_of_a_mean_over_seeds() -> None:
    """286.5 of 300 right lies between 286 and 287."""
    bounds = [newcombe_interval((280, 300), (right, 300)) for right in (286, 286.5, 287)]
    assert bounds == sorted(bounds)
    assert sorted(high for _, high in bounds) == [high for _, high in bounds]
    assert len(set(bounds)) == 3


# Many tests at once.


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, 0.9, 0.6]) == pytest.approx([0.06, 1.0, 1.0])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_holm_keeps_the_order_and_never_lowers(seed: int) -> None:
    chance = np.random.default_rng(seed)
    p_values = chance.choice([0.001, 0.01, 0.01, 0.04, 0.2, 0.7, 1.0], size=12).tolist()
    adjusted = holm(p_values)
    by_p = sorted(range(12), key=p_values.__getitem__)
    assert [adjusted[i] for i in by_p] == sorted(adjusted)
    assert all(p <= q <= min(1.0, 12 * p) for p, q in zip(p_values, adjusted, strict=True))
    order = chance.permutation(12)
    assert holm([p_values[i] for i in order]) == [adjusted[i] for i in order]
