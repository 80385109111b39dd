"""How far another form of a classifier is from the original, and whether that is near enough.

Shapes: N texts, K classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_cls.errors import RunError

Tell = Callable[[str], None]
LIMIT = 1e-4
"""What a logit or a probability may differ by: ten times what float32 rounding makes of GPT-2 small."""

ODD_TEXTS = (
    "",
    " ",
    "a",
    "<|endoftext|>",
    "It's 10 o'clock; call 0800-555 now!!",
    "naïve café, 文字 and 🙂\ttab\r\nline",
    "two  spaces, then three   ",
    "word " * 1500,
)
"""Beside texts of the user's own: nothing, a mark in ordinary spelling, other scripts, more than any GPT-2 reads."""


@dataclass(frozen=True)
class Parity:
    """Two forms of a classifier on the same texts."""

    n_texts: int
    largest: float
    """Difference of two numbers, over all texts and classes; NaN where one of them is."""
    flips: int
    """Texts whose label is not the same."""

    @property
    def holds(self) -> bool:
        """Whether the two are the same classifier."""
        return self.largest <= LIMIT and not self.flips

    def told(self, what: str) -> str:
        """The figures in words.

        Args:
            what: was compared: logits or probabilities, of which two.
        """
        return f"{what}: largest difference {self.largest:.1e}, {self.flips} of {self.n_texts} labels differ"

    def require(self, what: str) -> str:
        """The figures in words.

        Args:
            what: as in `told`.

        Raises:
            RunError: they fall short.
        """
        if not self.holds:
            raise RunError(f"{self.told(what)}; at most {LIMIT:.0e} and no label may differ: nothing was written")
        return self.told(what)


def told_each(lines: Iterable[str], tell: Tell) -> list[str]:
    """The lines, each told as soon as it is known: a comparison of a large network takes minutes."""
    told = []
    for line in lines:
        tell(line)
        told.append(line)
    return told


def measure(expected: Tensor, found: Tensor, labels: Tensor | None = None, others: Tensor | None = None) -> Parity:
    """Compares numbers and labels.

    Args:
        expected: (N, K) of the original.
        found: (N, K) of the other form.
        labels: (N,) class ids of the original; None for the largest number's.
        others: (N,) likewise of the other form.
    """
    labels = expected.argmax(dim=-1) if labels is None else labels
    others = found.argmax(dim=-1) if others is None else others
    difference = (expected.double() - found.double()).abs()
    # max passes NaN on; it knows no largest of nothing.
    largest = difference.max().item() if difference.numel() else 0.0
    return Parity(len(expected), largest, int(torch.ne(labels, others).sum()))
