"""Temperature and threshold: against brute force, scipy, scikit-learn and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss, precision_recall_curve

from lit_cls.errors import UserError
from lit_cls.evaluation.metrics import wilson_interval
from lit_cls.evaluation.tuning import (
    COLDEST,
    HOTTEST,
    Goal,
    choose_threshold,
    cost_of,
    fit_temperature,
    nll,
    parse_goal,
    texts_needed,
)
from lit_cls.model.decision import Decision

NAMES = ("ham", "spam")


def texts(n: int, K: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) that know something of the labels (N,), of which the last is rare."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=[0.8 / (K - 1)] * (K - 1) + [0.2])
    return sharpness * (rng.normal(size=(n, K)) + 1.2 * np.eye(K)[labels]), labels


def probabilities(logits: np.ndarray) -> np.ndarray:
    return Decision().probabilities(torch.tensor(logits)).numpy()


# The temperature.


@pytest.mark.parametrize("K", [2, 3, 7])
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 2.0, 9.0])
def test_the_temperature_is_the_minimum_that_scipy_finds(K: int, sharpness: float) -> None:
    logits, labels = texts(300, K, 1, sharpness)
    found, trouble = fit_temperature(logits, labels)
    bounds = (math.log(COLDEST), math.log(HOTTEST))
    best = minimize_scalar(
        lambda log_t: nll(logits, labels, math.exp(log_t)), bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    assert trouble is None
    assert found == pytest.approx(math.exp(best.x), rel=1e-5)
    assert found == pytest.approx(fit_temperature(1.2 * logits, labels)[0] / 1.2, rel=1e-9)


def test_nll_is_scikit_learns() -> None:
    logits, labels = texts(100, 3, 2)
    shares = np.exp(logits / 1.7)
    expected = log_loss(labels, shares / shares.sum(1, keepdims=True), labels=[0, 1, 2])
    assert nll(logits, labels, 1.7) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "temperature", "told"),
    [
        ([[3.0, 0.0], [0.0, 3.0]], 1.0, "every prediction is correct"),
        ([[900.0, 0.0], [0.0, 900.0]], 1.0, "every prediction is correct"),
        ([[1.0, 1.0], [2.0, 2.0]], 1.0, "the logits of all classes are the same"),
        ([[0.0, 3.0], [3.0, 0.0]], HOTTEST, "a higher temperature than 20 would fit better"),
        # One slightly wrong among 100: the minimum is there, far below the lower bound.
        ([[0.3, 0.0], [0.0, 0.3]] * 50 + [[0.0, 3e-4]], COLDEST, "a lower temperature than 0.05 would fit better"),
    ],
)
def test_where_the_texts_settle_no_temperature(logits: list[list[float]], temperature: float, told: str) -> None:
    labels = np.arange(len(logits)) % 2
    found, trouble = fit_temperature(np.array(logits), labels)
    assert found == temperature
    assert trouble is not None
    assert told in trouble


# The threshold.


def by_hand(shares: np.ndarray, labels: np.ndarray, label: int, threshold: float) -> np.ndarray:
    """Answers of the rule itself, as `predict` has them."""
    return Decision(label=label, threshold=threshold).labels(torch.tensor(shares)).numpy()


def worth(goal: Goal, shares: np.ndarray, labels: np.ndarray, label: int, threshold: float) -> tuple[float, ...] | None:
    """How good a threshold is, by counting; None where it does not do."""
    answers = by_hand(shares, labels, label, threshold)
    right, answered = int(((answers == label) & (labels == label)).sum()), int((answers == label).sum())
    precision = right / answered if answered else 0.0
    recall = right / max(1, int((labels == label).sum()))
    match goal.kind:
        case "precision":
            return (recall, precision) if precision >= goal.least else None
        case "recall":
            return (precision, recall) if recall >= goal.least else None
        case "f1":
            return (2 * precision * recall / (precision + recall or 1.0),)
    return (-cost_of(answers, labels, goal),)


GOALS = (
    *(Goal("precision", least=x) for x in (0.5, 0.8, 0.99, 1.0)),
    *(Goal("recall", least=x) for x in (0.3, 0.9, 1.0)),
    Goal("f1"),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct probabilities, so that there are ties; also 0 and 1, as rounding makes them."""
    K, n = draw(st.integers(2, 4)), draw(st.integers(2, 25))
    rows = draw(st.lists(st.lists(st.sampled_from([0, 0, 1, 2, 3, 5, 60]), min_size=K, max_size=K).filter(any),
                         min_size=n, max_size=n))  # fmt: skip
    shares = np.array(rows, dtype=np.float32)
    labels = draw(st.lists(st.integers(0, K - 1), min_size=n, max_size=n))
    return shares / shares.sum(1, keepdims=True), np.array(labels)


@examples(few=40)
@given(table=tables(), costs=st.lists(st.sampled_from([0.0, 0.5, 1.0, 10.0]), min_size=4, max_size=4))
def test_no_threshold_is_better(table: tuple[np.ndarray, np.ndarray], costs: list[float]) -> None:
    """Every observed probability, every middle and both ends are tried."""
    shares, labels = table
    K = shares.shape[1]
    for label in range(K):
        known = np.unique(shares[:, label]).astype(float)
        tried = [1e-30, *known[known > 0], *((known[1:] + known[:-1]) / 2), 1.1]
        for goal in (*GOALS, Goal("cost", costs=tuple(costs[:K]))):
            found = [worth(goal, shares, labels, label, float(np.float32(t))) for t in tried]
            reachable = [value for value in found if value is not None]
            try:
                chosen = choose_threshold(shares, labels, label, goal)
            except UserError:
                assert not reachable or goal.kind != "cost"
                assert not reachable or not 0 < (labels == label).sum() < len(labels)
                continue
            mine = worth(goal, shares, labels, label, chosen.threshold)
            assert mine == pytest.approx(max(reachable), abs=1e-9), (goal, label)
            answers = by_hand(shares, labels, label, chosen.threshold)
            assert chosen.predicted == (answers == label).sum()
            assert chosen.correct == ((answers == label) & (labels == label)).sum()
            assert chosen.of_label == (labels == label).sum()
            if goal.kind == "cost":
                assert chosen.cost == pytest.approx(cost_of(answers, labels, goal))
            # Not on the edge of a text, unless floats leave no room.
            gap = [p for p in (0.0, *known, 1.0) if p < chosen.threshold]
            above = [p for p in (*known, 1.0) if p >= chosen.threshold]
            if above and above[0] - gap[-1] > 1e-3:
                assert chosen.threshold == pytest.approx((gap[-1] + above[0]) / 2, abs=1e-6)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("least", [0.5, 0.7, 0.8, 0.9])
def test_precision_and_recall_are_those_of_scikit_learns_curve(K: int, least: float) -> None:
    logits, labels = texts(400, K, 4)
    shares = probabilities(logits)
    precision, recall, _ = precision_recall_curve(labels == K - 1, shares[:, K - 1])
    precision, recall = precision[:-1], recall[:-1]  # the last point answers nothing
    for goal, served, held in (("precision", recall, precision), ("recall", precision, recall)):
        found = choose_threshold(shares, labels, K - 1, Goal(goal, least=least))  # type: ignore[arg-type]
        reached = {"precision": found.correct / found.predicted, "recall": found.correct / found.of_label}
        assert reached[goal] >= least
        other = "recall" if goal == "precision" else "precision"
        assert reached[other] == pytest.approx(served[held >= least].max())


def test_of_equals_the_widest_gap_is_taken_and_its_middle() -> None:
    spam = np.array([0.1, 0.2, 0.5, 0.9, 0.95], dtype=np.float32)  # texts at 0.5 and 0.9 cost the same either way
    shares, labels = np.stack([1 - spam, spam], axis=1), np.array([0, 0, 1, 0, 1])
    found = choose_threshold(shares, labels, 1, Goal("cost", costs=(1.0, 1.0)))
    assert found.cost == 1
    assert found.threshold == pytest.approx(0.35)  # (0.2, 0.5], not the narrow (0.9, 0.95]
    separated = choose_threshold(shares[[0, 1, 4]], labels[[0, 1, 4]], 1, Goal("precision", least=0.99))
    assert separated.threshold == pytest.approx((0.2 + 0.95) / 2)


def test_a_cost_decides_how_sure_an_answer_must_be() -> None:
    """Where probabilities are true, spam is the answer from ham's cost / (ham's + spam's) on (Elkan, 2001)."""
    rng = np.random.default_rng(6)
    spam = rng.random(200_000).astype(np.float32)
    labels = (rng.random(len(spam)) < spam).astype(int)
    for ham in (1.0, 3.0, 9.0):
        found = choose_threshold(np.stack([1 - spam, spam], axis=1), labels, 1, Goal("cost", costs=(ham, 1.0)))
        assert found.threshold == pytest.approx(ham / (ham + 1), abs=0.02)


def test_never_and_always_are_answers_too() -> None:
    spam = np.array([0.2, 0.6, 0.7, 1.0], dtype=np.float32)
    shares, labels = np.stack([1 - spam, spam], axis=1), np.array([0, 1, 0, 0])
    never = choose_threshold(shares, labels, 1, Goal("cost", costs=(1.0, 0.0)))
    assert (never.predicted, never.cost) == (0, 0)
    assert by_hand(shares, labels, 1, never.threshold).tolist() == [0, 0, 0, 0]
    always = choose_threshold(shares, labels, 1, Goal("cost", costs=(0.0, 1.0)))
    assert (always.cost, always.correct) == (0, 1)


def test_what_no_threshold_reaches() -> None:
    spam = np.array([0.2, 0.6, 0.7, 0.9], dtype=np.float32)
    shares, labels = np.stack([1 - spam, spam], axis=1), np.array([0, 1, 1, 0])
    with pytest.raises(
        UserError,
        match=r"no threshold reaches precision>=0.9 on the 4 texts: the highest precision is 0.6667, with a recall of "
        r"1.0000 \(threshold 0.4\)",
    ):
        choose_threshold(shares, labels, 1, Goal("precision", least=0.9))


@pytest.mark.parametrize(("labels", "which"), [([0, 0], "no text of it"), ([1, 1], "no text of another label")])
def test_a_label_that_is_not_there_or_alone(labels: list[int], which: str) -> None:
    shares = np.array([[0.4, 0.6], [0.8, 0.2]], dtype=np.float32)
    for goal in GOALS:
        with pytest.raises(UserError, match=which):
            choose_threshold(shares, np.array(labels), 1, goal)


# The words of a goal.


@pytest.mark.parametrize(
    ("text", "goal", "told"),
    [
        ("precision>=0.99", Goal("precision", least=0.99), "precision>=0.99"),
        (" recall >= 1 ", Goal("recall", least=1.0), "recall>=1"),
        ("recall>=.5", Goal("recall", least=0.5), "recall>=0.5"),
        ("f1", Goal("f1"), "f1"),
        ("cost ham=10,spam=1", Goal("cost", costs=(10.0, 1.0)), "cost ham=10,spam=1"),
        ("cost  spam=2.5", Goal("cost", costs=(1.0, 2.5)), "cost ham=1,spam=2.5"),
        ("cost spam=0, ham=1e3", Goal("cost", costs=(1000.0, 0.0)), "cost ham=1000,spam=0"),
    ],
)
def test_goals(text: str, goal: Goal, told: str) -> None:
    assert parse_goal(text, NAMES) == goal
    assert goal.describe(NAMES) == told
    assert parse_goal(told, NAMES) == goal


def test_labels_of_any_characters_have_costs() -> None:
    names = ("a", "a=1", "a,b", "x y.*")
    assert parse_goal("cost a,b=2,a=1=3,x y.*=4,a=5", names).costs == (5.0, 3.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--goal '' is not a goal: give precision>=X or recall>=X"),
        ("accuracy", "--goal 'accuracy' is not a goal"),
        ("precision>0.9", "is not a goal"),
        ("precision>=0", "with X above 0 and at most 1"),
        ("precision>=1.5", "is not a goal"),
        ("precision>=0.9.9", "is not a goal"),
        ("precision>=99%", "is not a goal"),
        ("cost", "--goal cost '' is not LABEL=C,LABEL=C with labels of the checkpoint: 'ham', 'spam'"),
        ("cost eggs=3", "'eggs=3' is not LABEL=C"),
        ("cost ham=3,,spam=2", "is not LABEL=C"),
        ("cost ham=3,ham=2", "ham=2 is not one cost between 0 and 1e9"),
        ("cost ham=-1", "ham=-1 is not one cost between 0"),
        ("cost ham=nan", "ham=nan is not one cost"),
        ("cost ham=many", "ham=many is not one cost"),
        ("cost ham=0,spam=0", "all costs are 0"),
    ],
)
def test_what_is_no_goal(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse_goal(text, NAMES)


@pytest.mark.parametrize("least", [0.5, 0.9, 0.95, 0.99])
def test_how_many_texts_a_claim_takes(least: float) -> None:
    n = texts_needed(least)
    assert n is not None
    assert wilson_interval(n, n)[0] >= least > wilson_interval(n - 1, n - 1)[0]
    assert texts_needed(1.0) is None
