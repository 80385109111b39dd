"""Temperature and threshold for a goal, chosen from the logits and labels of one split.

Shapes: N texts, K classes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from lit_cls.errors import UserError, quote
from lit_cls.evaluation.metrics import Z_95

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the fitted temperature."""


@dataclass(frozen=True)
class Goal:
    """Goal that a threshold is chosen for."""

    kind: Literal["precision", "recall", "f1", "cost"]
    least: float = 0.0
    """Lower bound of the precision or the recall."""
    costs: tuple[float, ...] = ()
    """Cost of a wrong prediction for a text of each class, by class id."""

    def describe(self, label_names: Sequence[str]) -> str:
        """The goal as `--goal` spells it."""
        if self.kind == "cost":
            costs = zip(label_names, self.costs, strict=True)
            return f"cost {','.join(f'{name}={cost:g}' for name, cost in costs)}"
        return self.kind if self.kind == "f1" else f"{self.kind}>={self.least:g}"


@dataclass(frozen=True)
class ThresholdResult:
    """A threshold for one label, and its counts on the texts it was chosen on."""

    threshold: float
    correct: int
    """Texts of the label for which it is predicted."""
    predicted: int
    """Texts for which it is predicted, correctly or not."""
    of_label: int
    cost: float
    """Total cost of all wrong predictions; 0 for goals without costs."""


def parse_goal(text: str, label_names: Sequence[str]) -> Goal:
    """Parses `precision>=0.99`, `recall>=0.95`, `f1` or `cost LABEL=C,LABEL=C`; an unnamed label costs 1."""
    share = re.fullmatch(r"\s*(precision|recall)\s*>=\s*(\d*\.?\d+|\d+\.)\s*", text)
    if share and 0 < float(share[2]) <= 1:
        return Goal("precision" if share[1] == "precision" else "recall", least=float(share[2]))
    if text.strip() == "f1":
        return Goal("f1")
    if re.match(r"\s*cost\b", text):
        return Goal("cost", costs=_parse_costs(text.strip().removeprefix("cost").strip(), label_names))
    raise UserError(
        f"--goal {quote(text)} is not a goal: give precision>=X or recall>=X with X above 0 and at most 1 "
        "(precision>=0.99), f1, or 'cost LABEL=C,LABEL=C' with the cost of a wrong prediction for a text of each label"
    )


def _parse_costs(text: str, label_names: Sequence[str]) -> tuple[float, ...]:
    # The pattern has the known labels, the longest first, because a label may contain a comma or an equals sign.
    one = rf"({'|'.join(map(re.escape, sorted(label_names, key=len, reverse=True)))})=([^,\s]+)"
    found = re.findall(one, text) if re.fullmatch(rf"{one}(\s*,\s*{one})*", text) else []
    costs: dict[str, float] = {}
    for name, number in found:
        try:
            cost = float(number)
        except ValueError:
            cost = math.nan
        if not 0 <= cost <= 1e9 or name in costs:
            raise UserError(f"--goal cost: {name}={number} is not one cost between 0 and 1e9")
        costs[name] = cost
    if not costs:
        names = ", ".join(map(quote, label_names[:10]))
        raise UserError(f"--goal cost {quote(text)} is not LABEL=C,LABEL=C with labels of the checkpoint: {names}")
    given = tuple(costs.get(name, 1.0) for name in label_names)
    if not any(given):
        raise UserError("--goal cost: all costs are 0; give one label a cost above 0")
    return given


def fit_temperature(logits: Floats, labels: Ints) -> tuple[float, str | None]:
    """The temperature of the lowest mean NLL (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    The NLL of (N, K) logits is convex in 1/T: bisecting log T between `COLDEST` and `HOTTEST` finds the minimum,
    identically on every machine. If the texts do not determine it, the temperature is a bound, or 1 if every
    prediction is correct, and the reason is returned too.
    """
    z = np.asarray(logits, dtype=np.float64)
    z = z - z[np.arange(len(z)), labels][:, None]  # (N, K): how far each class is above the label
    if not z.any():
        return 1.0, "the logits of all classes are the same"
    if (z <= 0).all():
        return 1.0, "every prediction is correct, so any lower temperature would fit better: it stays 1"

    def slope(log_t: float) -> float:
        """Derivative of the summed NLL with respect to 1/T."""
        p = np.exp(z / math.exp(log_t) - (z / math.exp(log_t)).max(axis=1, keepdims=True))
        return float(((p * z).sum(axis=1) / p.sum(axis=1)).sum())

    low, high = math.log(COLDEST), math.log(HOTTEST)
    if slope(low) <= 0:
        return COLDEST, f"a lower temperature than {COLDEST:g} would fit better: {COLDEST:g} is the lower bound"
    if slope(high) >= 0:
        return HOTTEST, (
            f"a higher temperature than {HOTTEST:g} would fit better: on these texts the probabilities carry "
            "no information"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) < 0 else (middle, high)
    return math.exp((low + high) / 2), None


def nll(logits: Floats, labels: Ints, temperature: float = 1.0) -> float:
    """Mean negative log likelihood of the labels, in nats."""
    return float(cross_entropy(torch.as_tensor(logits).double() / temperature, torch.as_tensor(labels)))


def choose_threshold(probabilities: Floats, labels: Ints, label: int, goal: Goal) -> ThresholdResult:
    """The threshold on a label's probability that serves a goal best on these texts.

    The label is predicted where its probability, of (N, K) in float32, is at least the threshold, elsewhere the most
    probable other label. For `precision>=X` the highest recall is chosen, for `recall>=X` the highest precision, and
    among equally good thresholds the middle of the widest gap between two probabilities. A UserError if no threshold
    reaches the goal, or the texts are all or none of the label.
    """
    of_label = int((labels == label).sum())
    if goal.kind != "cost" and not 0 < of_label < len(labels):
        missing = "no text of it" if not of_label else "no text of another label"
        raise UserError(f"nothing can be tuned for the label: the split has {missing}")
    low, high, predicted = _gaps(probabilities[:, label])
    order = np.argsort(-probabilities[:, label], kind="stable")

    def above(values: NDArray[Any]) -> NDArray[Any]:
        """Sum of the values (N,) of the texts above each gap."""
        return np.append(0, np.cumsum(values[order]))[predicted]

    correct, cost = above(labels == label), np.zeros(len(predicted))
    precision, recall = correct / np.maximum(1, predicted), correct / max(1, of_label)
    unbounded = np.zeros(len(predicted))
    match goal.kind:
        case "precision":
            bounded, objective = precision, recall
        case "recall":
            bounded, objective = recall, precision
        case "f1":
            bounded, objective = unbounded, 2 * correct / (predicted + max(1, of_label))
        case "cost":
            prices = np.asarray(goal.costs)[labels]
            others = np.where(np.arange(probabilities.shape[1]) == label, -np.inf, probabilities).argmax(axis=1)
            without = np.where(others == labels, 0.0, prices)
            cost = above(np.where(labels == label, 0.0, prices)) + without.sum() - above(without)
            bounded, objective = unbounded, -np.round(cost, 9)  # sums of the same costs differ by rounding
    allowed = np.flatnonzero(bounded >= goal.least)
    if not len(allowed):
        best = max(range(len(predicted)), key=lambda i: (bounded[i], objective[i]))
        other = "recall" if goal.kind == "precision" else "precision"
        raise UserError(
            f"no threshold reaches {goal.kind}>={goal.least:g} on the {len(labels):,} texts: the highest {goal.kind} "
            f"is {bounded[best]:.4f}, with a {other} of {objective[best]:.4f} "
            f"(threshold {_between(low[best], high[best]):.4g})"
        )
    chosen = max(allowed, key=lambda i: (objective[i], bounded[i], high[i] - low[i], high[i]))
    threshold = _between(low[chosen], high[chosen])
    return ThresholdResult(threshold, int(correct[chosen]), int(predicted[chosen]), of_label, float(cost[chosen]))


def cost_of(predicted: Ints, labels: Ints, goal: Goal) -> float:
    """Total cost of the wrong predictions."""
    return float(np.asarray(goal.costs)[labels[predicted != labels]].sum())


def _gaps(values: Floats) -> tuple[Floats, Floats, Ints]:
    """Every gap (low, high] between probabilities that a threshold can lie in, with the number of texts above it."""
    known, counts = np.unique(values, return_counts=True)
    low = np.append(0.0, known)
    high = np.append(known, max(1.0, float(np.nextafter(np.float32(known[-1]), np.float32(2)))))
    n_above = len(values) - np.append(0, np.cumsum(counts))
    possible = high > 0
    return low[possible], high[possible], n_above[possible]


def _between(low: float, high: float) -> float:
    """A float32 in (low, high], as probabilities are float32: the middle, if there is one."""
    middle = float(np.float32((low + high) / 2))
    return middle if low < middle <= high else float(high)


def texts_needed(least: float) -> int | None:
    """Number of correct predictions without an error whose 95 % Wilson interval begins at `least`; None if none has."""
    # n / (n + z²) >= least
    return math.ceil(Z_95 * Z_95 * least / (1 - least)) if least < 1 else None
