"""Re-weighted figures against scikit-learn's sample weights, and against texts that are really repeated."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from test_figures import normalized, predictions

from lit_cls.evaluation.figures import Predictions, figures_of, shifted_figures
from lit_cls.evaluation.prior_shift import prior_shift, weighted_ranking


@pytest.mark.parametrize(("n_classes", "ties"), [(2, False), (2, True), (4, False)])
def test_figures_are_scikit_learns_with_sample_weights(n_classes: int, ties: bool) -> None:
    given = predictions(400, n_classes, ties=ties)
    counts = [1000, 150, 40, 7][:n_classes]
    mix = prior_shift(counts, given.labels)
    found = shifted_figures(given, mix)
    assert found is not None
    labels, predicted, probabilities = given.labels.numpy(), given.predicted.numpy(), given.probabilities.numpy()
    assert mix.weights is not None
    weights = np.asarray(mix.weights)[labels]
    assert weights.max() > 5 * weights.min()
    assert weights.sum() == pytest.approx(400)
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predicted, sample_weight=weights))
    assert found.mcc == pytest.approx(reference.matthews_corrcoef(labels, predicted, sample_weight=weights))
    loss = reference.log_loss(labels, normalized(given), sample_weight=weights)
    assert found.log_loss == pytest.approx(loss, rel=1e-5)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(labels, predicted, sample_weight=weights)
    assert [label.precision for label in found.labels] == pytest.approx(precision)
    assert [label.recall for label in found.labels] == pytest.approx(recall)
    assert [label.f1 for label in found.labels] == pytest.approx(f1)
    for k, label in enumerate(found.labels):
        area = reference.roc_auc_score(labels == k, probabilities[:, k], sample_weight=weights)
        average = reference.average_precision_score(labels == k, probabilities[:, k], sample_weight=weights)
        assert (label.auroc, label.average_precision) == (pytest.approx(area), pytest.approx(average))


def test_weights_of_whole_numbers_are_repeated_texts() -> None:
    """Three times as many texts of the first label: the calibration error too is theirs."""
    given = predictions(200, 2)
    n = torch.bincount(given.labels)
    again = torch.cat([torch.arange(200), *[(given.labels == 0).nonzero()[:, 0]] * 2])
    repeated = figures_of(
        Predictions(given.probabilities[again], given.labels[again], given.predicted[again], given.label_names, 0)
    )
    found = shifted_figures(given, prior_shift([3 * int(n[0]), int(n[1])], given.labels))
    assert found is not None
    for name in ("accuracy", "mcc", "auroc", "average_precision", "log_loss", "calibration_error", "f1_macro"):
        assert getattr(found, name) == pytest.approx(getattr(repeated, name), abs=1e-6), name
    assert found.wilson_95 is None
    assert found.confusion == figures_of(given).confusion  # counts stay counts


def test_the_mix_at_hand_changes_nothing() -> None:
    given = predictions(300, 3)
    mix = prior_shift(torch.bincount(given.labels).tolist(), given.labels)
    assert mix.weights == pytest.approx([1, 1, 1])
    found, plain = shifted_figures(given, mix), figures_of(given)
    assert found is not None
    for name in ("accuracy", "balanced_accuracy", "mcc", "auroc", "average_precision", "log_loss", "calibration_error"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), abs=1e-6), name


def test_precision_by_hand() -> None:
    """9 of 10 spam are caught, 1 of 10 ham is taken for it; of a hundred natural messages five are spam."""
    labels = torch.tensor([0] * 10 + [1] * 10)
    predicted = torch.tensor([1] + [0] * 9 + [1] * 9 + [0])
    p = torch.where(predicted == 1, 0.8, 0.2)
    given = Predictions(torch.stack([1 - p, p], dim=1), labels, predicted, ("ham", "spam"))
    mix = prior_shift([950, 50], labels)
    assert mix.as_dict(("ham", "spam")) == {"shares": {"ham": 0.95, "spam": 0.05}, "weights": {"ham": 1.9, "spam": 0.1}}
    found = shifted_figures(given, mix)
    assert found is not None
    assert found.labels[1].precision == pytest.approx(0.05 * 0.9 / (0.05 * 0.9 + 0.95 * 0.1))
    assert found.accuracy == pytest.approx(0.9)
    assert figures_of(given).labels[1].precision == pytest.approx(0.9)


def test_a_label_without_a_text_cannot_be_weighed() -> None:
    given = predictions(50, 3)
    two = given.where((given.labels != 1).tolist())
    mix = prior_shift([10, 10, 80], two.labels)
    assert mix.weights is None
    assert mix.shares == (0.1, 0.1, 0.8)
    assert shifted_figures(two, mix) is None
    assert mix.as_dict(("a", "b", "c"))["weights"] == {"a": None, "b": None, "c": None}


def test_ranking_without_a_negative_text() -> None:
    area, average = weighted_ranking(np.array([0.3, 0.3, 0.9]), np.array([True] * 3), np.ones(3))
    assert area is None
    assert average == 1
