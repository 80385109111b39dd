"""The training loss: cross entropy with class weights, label smoothing and focal loss.

Each of these is off by default, and the loss is then cross entropy, bit for bit. Shapes: B batch, K classes.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torchmetrics import MeanMetric

from lit_cls.errors import UserError, quote

ClassWeights = Literal["balanced"] | dict[str, float]
_LEAST, _MOST = 1e-6, 1e6  # of a weight: beyond, float32 has no room for the other classes


def check_loss(class_weights: ClassWeights | None, label_smoothing: float, focal_gamma: float) -> None:
    """Refuses values that are wrong whatever the labels; `class_weight_list` checks the rest."""
    if not 0 <= label_smoothing < 1:
        raise UserError(f"model.label_smoothing {label_smoothing} is not in [0, 1)")
    if not (math.isfinite(focal_gamma) and focal_gamma >= 0):
        raise UserError(f"model.focal_gamma {focal_gamma} is not a number of at least 0; Lin et al. use 2")
    if class_weights is None or class_weights == "balanced":
        return
    if not is_weights(class_weights):
        raise UserError(f"model.class_weights {quote(class_weights)} is neither balanced nor a number for each label")
    if not class_weights:
        raise UserError("model.class_weights names no label: give for example '{spam: 3, ham: 1}', or balanced")
    for name, weight in class_weights.items():
        if not _LEAST <= weight <= _MOST:
            raise UserError(f"model.class_weights: {quote(name)} is {weight}, not between {_LEAST:g} and {_MOST:g}")


def is_weights(value: Any) -> bool:
    """Whether a value maps labels to numbers."""
    return isinstance(value, Mapping) and all(
        isinstance(weight, int | float) and not isinstance(weight, bool) for weight in value.values()
    )


def class_weight_list(
    class_weights: ClassWeights, label_names: Sequence[str], train_labels: Sequence[int]
) -> list[float]:
    """The weight of each class, scaled so that the texts of the train split weigh 1 on average.

    `balanced` is n / (K · n_k), scikit-learn's rule, for n texts of which n_k are of class k; by name, a label that
    is not named weighs 1.

    Raises:
        UserError: a name that is not a label of the data.
    """
    counts, n, K = Counter(train_labels), len(train_labels), len(label_names)
    if class_weights == "balanced":
        return [n / (K * counts[k]) for k in range(K)]
    given = _by_class(class_weights, label_names)
    raw = [given.get(k, 1.0) for k in range(K)]
    mean = math.fsum(weight * counts[k] for k, weight in enumerate(raw)) / n
    return [weight / mean for weight in raw]


def _by_class(class_weights: Mapping[Any, float], label_names: Sequence[str]) -> dict[int, float]:
    """Weights by class id. YAML reads yes as true and 1 as a number: such a key means the label that reads so."""
    found: dict[int, float] = {}
    for name, weight in class_weights.items():
        ids = [k for k, label in enumerate(label_names) if _is_meant(label, name)]
        if len(ids) != 1 or ids[0] in found:
            names = ", ".join(map(quote, label_names[:10])) + (", …" if len(label_names) > 10 else "")
            several = "does not name exactly one label of the data; put names into quotes"
            trouble = several if ids else "is not a label of the data"
            raise UserError(f"model.class_weights: {quote(name)} {trouble}. The labels are {names}")
        found[ids[0]] = float(weight)
    return found


def _is_meant(label: str, key: Any) -> bool:
    if isinstance(key, str):
        return label == key
    try:
        value = yaml.safe_load(label)
    except yaml.YAMLError:
        return False
    return type(value) is type(key) and bool(value == key)


def weight_notes(class_weights: ClassWeights, weights: Sequence[float], label_names: Sequence[str]) -> list[str]:
    """Lines about the weights of `class_weight_list`, printed before training."""
    given = "balanced" if class_weights == "balanced" else "by name"
    values = ", ".join(f"{name} {weight:.4g}" for name, weight in list(zip(label_names, weights, strict=True))[:10])
    more = f", and {len(weights) - 10} more" if len(weights) > 10 else ""
    notes = [f"class weights ({given}; the texts of the train split weigh 1 on average): {values}{more}"]
    if class_weights == "balanced" and all(0.95 < weight < 1.05 for weight in weights):
        notes.append(
            "model.class_weights balanced changes next to nothing: the train split has about as many texts of each "
            "label. Where data.balance undersample made it so, --data.balance none keeps every text"
        )
    return notes


def summed_loss(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = -100,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """The loss of a batch, summed over its examples.

    -Σ_k q_k w_k (1 - p_k)^γ log p_k, where q is 1 - s + s/K at the label and s/K elsewhere (Szegedy et al.,
    "Rethinking the Inception Architecture", 2016) and γ plays down what is certain already (Lin et al., "Focal
    Loss for Dense Object Detection", 2017, eq. 4 and 5; w is their α). Without γ it is torch's cross entropy with
    `weight` and `label_smoothing`; without s, the focal loss of the label alone.

    Args:
        logits: (B, K).
        labels: (B,) class ids.
        ignore_index: the label of examples that are left out.
        weights: (K,) of the classes; None weighs all the same.
        label_smoothing: s, in [0, 1).
        focal_gamma: γ, at least 0.

    Returns:
        A sum, not divided by the weights: the divisor must not depend on how a step is split into batches.
    """
    if not focal_gamma:
        return F.cross_entropy(
            logits, labels, weights, reduction="sum", ignore_index=ignore_index, label_smoothing=label_smoothing
        )
    log_p = F.log_softmax(logits, dim=1)  # (B, K)
    # Not quite 0, where the power's gradient may have no end.
    rest = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).tiny)
    terms = rest.pow(focal_gamma) * log_p  # (B, K)
    total = F.nll_loss(terms, labels, weights, reduction="sum", ignore_index=ignore_index)
    if not label_smoothing:
        return total
    weighted = terms if weights is None else terms * weights
    everywhere = -weighted[labels != ignore_index].sum()
    return (1 - label_smoothing) * total + label_smoothing / logits.shape[1] * everywhere


class MeanLoss(MeanMetric):
    """The mean loss over the texts of an epoch; its sums can be saved and taken up again."""

    def __init__(self) -> None:
        # The other strategies leave out nan. With this one torchmetrics 1.9 takes every weight for 1: values are given
        # as often as they count.
        super().__init__(nan_strategy="disable")

    def sums(self) -> dict[str, Tensor]:
        """The sums that the mean is made of, so far."""
        return {name: getattr(self, name).detach().cpu() for name in self._defaults}

    def take_sums(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Continues from the sums of as many processes as this one replaces."""
        for name in self._defaults:
            value: Tensor = getattr(self, name)
            value.copy_(sum((state[name].to(value) for state in states), torch.zeros_like(value)))
        self._update_count = 1  # or it would warn that there is nothing to compute from
