"""From logits to a prediction: a temperature for the probabilities, a threshold for one label.

Without tuning the temperature is 1 and the most probable label is predicted. Shapes: N texts, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decision:
    """How probabilities and labels follow from logits; `lit_cls tune` finds it, the checkpoint keeps it."""

    temperature: float = 1.0
    """Divisor of the logits (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    label: int | None = None
    """Class id that the threshold is about; None without one."""
    threshold: float = 0.5
    """The label is predicted if its probability is at least this; otherwise the most probable of the others."""
    goal: str | None = None
    """Description of the tuning goal and data; None where nothing was tuned."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, K) logits to (N, K) float32 probabilities."""
        return (logits.float() / self.temperature).softmax(dim=-1)

    def log_odds(self, logits: Tensor, label: int) -> Tensor:
        """log(p / (1 - p)) of a label's probability, exact where p rounds to 1: (N, K) logits to (N,) float32."""
        scaled = logits.float() / self.temperature
        others = torch.cat([scaled[:, :label], scaled[:, label + 1 :]], dim=-1)  # (N, K - 1)
        return scaled[:, label] - others.logsumexp(dim=-1)

    def labels(self, probabilities: Tensor) -> Tensor:
        """(N, K) probabilities to (N,) class ids."""
        if self.label is None:
            return probabilities.argmax(dim=-1)
        others = probabilities.clone()
        others[..., self.label] = -torch.inf
        chosen = probabilities[..., self.label] >= self.threshold
        return torch.where(chosen, self.label, others.argmax(dim=-1))

    def describe(self, label_names: Sequence[str]) -> str | None:
        """The rule in a line, to be printed with predictions; None where nothing was tuned."""
        if self == Decision():
            return None
        rule = f"temperature {self.temperature:.4g}"
        if self.label is not None:
            rule += f", {label_names[self.label]} if its probability is at least {self.threshold:.4g}"
        return f"{rule} (tuned: {self.goal})"
