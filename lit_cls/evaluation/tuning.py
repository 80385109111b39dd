"""From logits and labels of one split to a temperature and a threshold for a goal. No model, no files.

Shapes: N texts, K classes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lit_cls.errors import UserError, quote

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
COLDEST, HOTTEST = 0.05, 20.0
"""The temperatures that are looked at."""


@dataclass(frozen=True)
class Goal:
    """What a threshold is chosen for."""

    kind: Literal["precision", "recall", "f1", "cost"]
    least: float = 0.0
    """What the precision or the recall must reach."""
    costs: tuple[float, ...] = ()
    """Of a wrong answer to a text of each class, by class id."""

    def told(self, label_names: Sequence[str]) -> str:
        """In the words of `--goal`."""
        if self.kind == "cost":
            costs = zip(label_names, self.costs, strict=True)
            return f"cost {','.join(f'{name}={cost:g}' for name, cost in costs)}"
        return self.kind if self.kind == "f1" else f"{self.kind}>={self.least:g}"


@dataclass(frozen=True)
class Reached:
    """A threshold for one label, and what it comes to on the texts it was chosen on."""

    threshold: float
    right: int
    """Texts of the label that are answered with it."""
    answered: int
    """Texts that are answered with it, rightly or not."""
    of_label: int
    cost: float
    """Of all wrong answers; 0 for goals that name no costs."""


def parse_goal(text: str, label_names: Sequence[str]) -> Goal:
    """Reads `precision>=0.99`, `recall>=0.95`, `f1` or `cost LABEL=C,LABEL=C`; an unnamed label costs 1.

    Raises:
        UserError: what it got, and what there is.
    """
    share = re.fullmatch(r"\s*(precision|recall)\s*>=\s*([\d.]+)\s*", text)
    if share and re.fullmatch(r"\d*\.?\d+|\d+\.", share[2]) and 0 < float(share[2]) <= 1:
        return Goal("precision" if share[1] == "precision" else "recall", least=float(share[2]))
    if text.strip() == "f1":
        return Goal("f1")
    if re.match(r"\s*cost\b", text):
        return Goal("cost", costs=_parse_costs(text.strip().removeprefix("cost").strip(), label_names))
    raise UserError(
        f"--goal {quote(text)} is none: give precision>=X or recall>=X with X above 0 and at most 1 (precision>=0.99), "
        "f1, or 'cost LABEL=C,LABEL=C' with what a wrong answer to a text of each label costs"
    )


def _parse_costs(text: str, label_names: Sequence[str]) -> tuple[float, ...]:
    # Known labels are looked for, the longest first: one may have a comma or an equals sign in it.
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
        raise UserError("--goal cost: no wrong answer costs anything; give one label a cost above 0")
    return given


def fit_temperature(logits: Floats, labels: Ints) -> tuple[float, str | None]:
    """The temperature of the lowest mean NLL (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    The NLL is convex in 1/T, so that its slope has one sign on either side of the best T: halving an
    interval of log T finds it, the same on every machine.

    Args:
        logits: (N, K).
        labels: (N,) class ids.

    Returns:
        The temperature, between `COLDEST` and `HOTTEST`; and in words where the texts do not settle it:
        then it is a bound, or 1 where every text is right, as the NLL has no minimum there.
    """
    z = np.asarray(logits, dtype=np.float64)
    z = z - z[np.arange(len(z)), labels][:, None]  # (N, K): how far each class is above the label
    if not z.any():
        return 1.0, "the logits of all classes are the same"
    if (z <= 0).all():
        return 1.0, "every text is right, and any lower temperature would only claim more: it stays 1"

    def slope(log_t: float) -> float:
        """Of the summed NLL by 1/T."""
        p = np.exp(z / math.exp(log_t) - (z / math.exp(log_t)).max(axis=1, keepdims=True))
        return float(((p * z).sum(axis=1) / p.sum(axis=1)).sum())

    low, high = math.log(COLDEST), math.log(HOTTEST)
    if slope(low) <= 0:
        return COLDEST, f"a lower temperature than {COLDEST:g} would fit better: that is as low as it goes"
    if slope(high) >= 0:
        return HOTTEST, (
            f"a higher temperature than {HOTTEST:g} would fit better: on these texts the classifier's certainty means "
            "nothing"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) < 0 else (middle, high)
    return math.exp((low + high) / 2), None


def nll(logits: Floats, labels: Ints, temperature: float = 1.0) -> float:
    """Mean negative log likelihood of the labels, in nats."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    z = z - z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())


def calibration_error(probabilities: Floats, labels: Ints, n_bins: int = 15) -> float:
    """Expected calibration error (Guo et al., 2017): how far certainty is from the share that is right.

    Args:
        probabilities: (N, K); each text's highest is its certainty.
        labels: (N,) class ids.
        n_bins: of the same width; each counts by its number of texts.
    """
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    # Bins are closed above, as in the paper.
    bins = np.clip(np.ceil(certainty * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, certainty - right, n_bins)  # per bin n · (certainty - share right)
    return float(np.abs(gaps).sum() / len(labels))


def choose_threshold(probabilities: Floats, labels: Ints, label: int, goal: Goal) -> Reached:
    """The threshold of a label's probability that serves a goal best on these texts.

    The rule: the label is the answer where its probability is at least the threshold, elsewhere the most
    probable of the others. Of `precision>=X` the highest recall is taken, of `recall>=X` the highest
    precision, and of what is as good the widest gap between two probabilities, in whose middle the
    threshold stands: no text is on its edge.

    Args:
        probabilities: (N, K), float32 as they are compared later.
        labels: (N,) class ids.
        label: which class the threshold is about.
        goal: what for.

    Raises:
        UserError: no text of the label, or none of another; a goal that no threshold reaches.
    """
    of_label = int((labels == label).sum())
    if goal.kind != "cost" and not 0 < of_label < len(labels):
        which = "no text of it" if not of_label else "no text of another label"
        raise UserError(f"nothing can be tuned for the label: the split has {which}")
    cuts = _cuts(probabilities[:, label])
    right, answered, cost = _tally(probabilities, labels, label, goal, [n for _, _, n in cuts])
    precision = np.divide(right, answered, out=np.zeros(len(cuts)), where=answered > 0)
    recall = right / max(1, of_label)
    match goal.kind:
        case "precision":
            held, served = precision, recall
        case "recall":
            held, served = recall, precision
        case "f1":
            held, served = np.zeros(len(cuts)), 2 * right / (answered + max(1, of_label))
        case "cost":
            held, served = np.zeros(len(cuts)), -np.round(cost, 9)  # sums of the same costs differ by rounding
    allowed = np.flatnonzero(held >= goal.least)
    if not len(allowed):
        best = max(range(len(cuts)), key=lambda i: (held[i], served[i]))
        kept = "recall" if goal.kind == "precision" else "precision"
        raise UserError(
            f"no threshold reaches {goal.kind}>={goal.least:g} on the {len(labels):,} texts: the highest {goal.kind} "
            f"is {held[best]:.4f}, with a {kept} of {served[best]:.4f} (threshold {_between(*cuts[best][:2]):.4g})"
        )
    chosen = max(allowed, key=lambda i: (served[i], held[i], cuts[i][1] - cuts[i][0], cuts[i][1]))
    low, high, _ = cuts[chosen]
    return Reached(_between(low, high), int(right[chosen]), int(answered[chosen]), of_label, float(cost[chosen]))


def cost_of(predicted: Ints, labels: Ints, goal: Goal) -> float:
    """What the wrong answers cost together."""
    return float(np.asarray(goal.costs)[labels[predicted != labels]].sum())


def _tally(
    probabilities: Floats, labels: Ints, label: int, goal: Goal, n_above: list[int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Per cut, which has so many texts above it: those rightly answered with the label, all that are, and the cost."""
    order = np.argsort(-probabilities[:, label], kind="stable")

    def above(values: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([[0], np.cumsum(values[order])])[n_above]

    others = np.where(np.arange(probabilities.shape[1]) == label, -np.inf, probabilities).argmax(axis=1)
    prices = np.asarray(goal.costs or [0.0] * probabilities.shape[1])[labels]
    with_it, without = np.where(labels == label, 0.0, prices), np.where(others == labels, 0.0, prices)
    cost = above(with_it) + without.sum() - above(without)
    return above((labels == label).astype(int)), above(np.ones(len(labels), dtype=int)), cost


def _cuts(values: Floats) -> list[tuple[float, float, int]]:
    """Every way to cut some probabilities in two: the gap (low, high] of the threshold, and how many are above it."""
    known, counts = np.unique(values, return_counts=True)
    numbers = [float(value) for value in known]
    n_above = [int(n) for n in np.cumsum(counts[::-1])[::-1]]
    cuts = [(low, high, n) for low, high, n in zip([0.0, *numbers], numbers, n_above, strict=False) if high > 0]
    return [*cuts, (numbers[-1], max(1.0, float(np.nextafter(np.float32(numbers[-1]), np.float32(2)))), 0)]


def _between(low: float, high: float) -> float:
    """A float32 in (low, high], which probabilities are compared with: the middle, where there is one."""
    middle = float(np.float32((low + high) / 2))
    return middle if low < middle <= high else high


def texts_needed(least: float, z: float = 1.959963984540054) -> int | None:
    """How many texts, all right, have a 95 % Wilson interval that begins at `least`; None where no number has."""
    # n / (n + z²) >= least
    return math.ceil(z * z * least / (1 - least)) if least < 1 else None
