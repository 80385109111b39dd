"""Every figure against scikit-learn or its closed form; what is not defined is None."""

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from lit_cls.evaluation.figures import N_BINS, Predictions, calibration_error, figures_of, log_loss, reliability


def predictions(n: int, n_classes: int, seed: int = 0, skew: float = 0.0, ties: bool = False) -> Predictions:
    """Predictions that are right more often than not; with `skew` some labels are rare; with `ties` scores repeat."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.softmax(-skew * torch.arange(n_classes), dim=0)
    labels = torch.multinomial(shares, n, replacement=True, generator=generator)
    logits = torch.randn(n, n_classes, generator=generator)
    logits[torch.arange(n), labels] += 1.5
    probabilities = logits.softmax(dim=1)
    if ties:
        probabilities = (probabilities * 8).round() + 0.5
        probabilities = probabilities / probabilities.sum(dim=1, keepdim=True)
    names = tuple(f"label {k}" for k in range(n_classes))
    return Predictions(probabilities, labels, probabilities.argmax(dim=1), names, positive=0)


def normalized(given: Predictions) -> np.ndarray:
    """In float64, where scikit-learn asks for sums of 1 to many digits."""
    probabilities = given.probabilities.double()
    return (probabilities / probabilities.sum(dim=1, keepdim=True)).numpy()


def confident(confidences: list[float], right: list[bool]) -> Predictions:
    """Predictions of these probabilities, to the first of two classes."""
    p = torch.tensor(confidences)
    labels = torch.tensor([0 if ok else 1 for ok in right])
    return Predictions(torch.stack([p, 1 - p], dim=1), labels, torch.zeros_like(labels), ("a", "b"))


@pytest.mark.parametrize(
    ("n", "n_classes", "skew", "ties"),
    [(300, 2, 0.0, False), (997, 3, 1.0, False), (400, 2, 1.5, True), (2000, 20, 0.0, True)],
)
def test_figures_are_those_of_scikit_learn(n: int, n_classes: int, skew: float, ties: bool) -> None:
    given = predictions(n, n_classes, skew=skew, ties=ties)
    found = figures_of(given)
    labels, predicted, probabilities = given.labels.numpy(), given.predicted.numpy(), given.probabilities.numpy()
    assert 0.3 < found.accuracy < 0.95  # type: ignore[operator]
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert found.mcc == pytest.approx(reference.matthews_corrcoef(labels, predicted), abs=1e-6)
    assert found.log_loss == pytest.approx(reference.log_loss(labels, normalized(given)), rel=1e-5)
    assert np.array_equal(found.confusion, reference.confusion_matrix(labels, predicted))
    precision, recall, f1, support = reference.precision_recall_fscore_support(labels, predicted)
    assert [label.precision for label in found.labels] == pytest.approx(precision)
    assert [label.recall for label in found.labels] == pytest.approx(recall)
    assert [label.f1 for label in found.labels] == pytest.approx(f1)
    assert [label.texts for label in found.labels] == support.tolist()
    assert [label.answered for label in found.labels] == np.bincount(predicted, minlength=n_classes).tolist()
    assert found.f1_macro == pytest.approx(f1.mean())
    areas = [reference.roc_auc_score(labels == k, probabilities[:, k]) for k in range(n_classes)]
    averages = [reference.average_precision_score(labels == k, probabilities[:, k]) for k in range(n_classes)]
    assert [label.auroc for label in found.labels] == pytest.approx(areas)
    assert [label.average_precision for label in found.labels] == pytest.approx(averages)
    if n_classes == 2:
        assert (found.auroc, found.average_precision, found.positive) == (
            pytest.approx(areas[0]),
            pytest.approx(averages[0]),
            "label 0",
        )
    else:
        assert found.positive is None
        macro = reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
        assert found.auroc == pytest.approx(macro)
        assert found.average_precision == pytest.approx(np.mean(averages))


def test_predictions_need_not_be_the_most_probable() -> None:
    """A threshold of 0.9 for the first label: its recall falls, and what ranks texts stays."""
    plain = predictions(500, 2)
    strict = Predictions(plain.probabilities, plain.labels, (plain.probabilities[:, 0] < 0.9).long(), plain.label_names)
    one, other = figures_of(plain), figures_of(strict)
    assert other.labels[0].recall < one.labels[0].recall  # type: ignore[operator]
    assert other.labels[0].auroc == one.labels[0].auroc
    assert other.log_loss == one.log_loss
    assert strict.confidences.min() < 0.5  # the confidence is that of the answer
    assert sum(bin.n for bin in other.reliability[:7]) > 0
    assert other.calibration_error != one.calibration_error


def plain_calibration_error(confidences: Tensor, right: list[bool]) -> float:
    """The sum over bins (low, high] of |share right - mean confidence| times the bin's share, as it is written."""
    total, edges = 0.0, [k / N_BINS for k in range(N_BINS + 1)]
    for low, high in pairwise(edges):
        inside = [(float(c), ok) for c, ok in zip(confidences, right, strict=True) if low < c <= high]
        if inside:
            share = sum(ok for _, ok in inside) / len(inside)
            sure = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(right) * abs(share - sure)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_is_its_closed_form(seed: int) -> None:
    given = predictions(400, 4, seed)
    expected = plain_calibration_error(given.confidences, given.correct)
    assert figures_of(given).calibration_error == pytest.approx(expected, abs=1e-7)
    # torchmetrics' is the same where no confidence is exactly 1.
    theirs = binary_calibration_error(given.confidences, torch.tensor(given.correct).long(), n_bins=N_BINS)
    assert expected == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("K", [2, 5])
def test_calibration_error_of_the_most_probable_is_torchmetrics(K: int) -> None:
    given = predictions(400, K, 3)
    expected = multiclass_calibration_error(given.probabilities, given.labels, K, n_bins=N_BINS, norm="l1")
    assert calibration_error(reliability(given)) == pytest.approx(expected.item(), abs=1e-6)
    assert expected > 0.01


def test_calibration_error_by_hand() -> None:
    assert calibration_error(
        reliability(confident([1.0, 1.0, 0.95, 0.95], [True, True, True, False]))
    ) == pytest.approx(abs(3 / 4 - 3.9 / 4), abs=1e-7)
    assert calibration_error(reliability(confident([1.0, 1.0], [True, True]))) == 0
    assert calibration_error(reliability(confident([0.0, 0.0], [True, True]))) == 1
    # It is one accumulated figure: over the two halves, the mean would be 0.55.
    both = confident([0.55, 0.55], [True, False])
    halves = [calibration_error(reliability(both.where([k == 0, k == 1]))) for k in range(2)]
    assert halves == [pytest.approx(0.45), pytest.approx(0.55)]
    assert calibration_error(reliability(both)) == pytest.approx(0.05)


def test_bins_hold_every_answer_once() -> None:
    given = predictions(500, 3)
    bins = figures_of(given).reliability
    assert len(bins) == N_BINS
    assert sum(bin.n for bin in bins) == 500
    for bin in bins:
        inside = [ok for c, ok in zip(given.confidences, given.correct, strict=True) if bin.low < c <= bin.high]
        assert bin.n == len(inside)
        assert (bin.accuracy is None) == (bin.confidence is None) == (not inside)
        if inside:
            assert bin.accuracy == pytest.approx(sum(inside) / len(inside))
            assert bin.low < bin.confidence <= bin.high + 1e-9  # type: ignore[operator]


def test_a_class_without_an_example_has_no_figures_and_no_mean_leaves_it_out() -> None:
    given = predictions(60, 3)
    two = given.where((given.labels != 2).tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = figures_of(two)
    label = found.labels[2]
    assert label.answered > 0  # some texts were taken for it all the same
    assert (label.texts, label.precision, label.recall, label.f1, label.auroc, label.average_precision) == (0,) + (
        None,
    ) * 5
    assert (found.balanced_accuracy, found.f1_macro, found.auroc, found.average_precision) == (None,) * 4
    assert found.mcc is not None
    assert found.log_loss is not None


def test_a_label_that_is_never_the_answer_has_no_precision() -> None:
    given = predictions(50, 2)
    always = Predictions(given.probabilities, given.labels, torch.zeros_like(given.labels), given.label_names)
    found = figures_of(always)
    assert found.labels[1].precision is None
    assert (found.labels[1].recall, found.labels[1].f1) == (0, 0)  # these are defined
    assert found.mcc is None
    assert found.balanced_accuracy == 0.5


def test_one_class_alone() -> None:
    given = predictions(50, 2)
    found = figures_of(given.where((given.labels == 0).tolist()))
    assert found.labels[0].precision == 1
    assert found.labels[0].average_precision == 1
    assert (found.labels[0].auroc, found.auroc, found.mcc, found.balanced_accuracy) == (None,) * 4


@pytest.mark.parametrize("n_classes", [2, 5])
def test_no_texts_no_figures(n_classes: int) -> None:
    found = figures_of(predictions(10, n_classes).where([False] * 10))
    kept = asdict(found)
    assert (kept.pop("n"), kept.pop("correct"), kept.pop("reliability")) == (0, 0, ())
    assert kept.pop("positive") == ("label 0" if n_classes == 2 else None)
    assert all(value is None for name, value in kept.items() if name not in ("labels", "confusion"))
    assert [label["texts"] for label in kept["labels"]] == [0] * n_classes


def test_a_network_that_has_diverged_has_answers_and_no_probabilities() -> None:
    given = predictions(20, 2)
    broken = Predictions(torch.full((20, 2), math.nan), given.labels, given.predicted, given.label_names)
    found = figures_of(broken)
    assert found.accuracy == figures_of(given).accuracy
    assert (found.auroc, found.average_precision, found.log_loss, found.calibration_error) == (None,) * 4


def test_a_probability_of_0_costs_much_and_not_everything() -> None:
    sure = confident([1.0, 1.0], [True, False])
    assert log_loss(sure) == pytest.approx(-math.log(torch.finfo(torch.float32).tiny) / 2)


@pytest.mark.parametrize("choose", [lambda row: row < 40, lambda row: row % 3 == 0])
def test_parts_are_counted_by_themselves(choose: Callable[[int], bool]) -> None:
    given = predictions(100, 3)
    chosen = [choose(row) for row in range(100)]
    part = figures_of(given.where(chosen))
    right = [ok for ok, kept in zip(given.correct, chosen, strict=True) if kept]
    assert (part.n, part.correct) == (len(right), sum(right))


def test_a_hundred_classes() -> None:
    found = figures_of(predictions(3000, 100))
    assert len(found.labels) == 100
    assert found.auroc is not None
    assert sum(map(sum, found.confusion)) == 3000
    assert found.compact()["confusion"] == ()
