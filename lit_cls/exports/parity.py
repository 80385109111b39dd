"""Comparison of an exported classifier with the original, and the README.md that states it.

Shapes: N texts, K classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.errors import RunError
from lit_cls.exports.source import ExportSource
from lit_cls.io.templates import environment

Log = Callable[[str], None]
LIMIT = 1e-4
"""Largest allowed difference of a logit or probability: ten times the float32 rounding of GPT-2 small."""

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
"""Compared beside the user's texts: empty, a special token spelled out, other scripts, longer than any GPT-2 reads."""


@dataclass(frozen=True)
class Parity:
    """Differences between two forms of a classifier on the same texts."""

    n_texts: int
    largest: float
    """Largest difference, over all texts and classes; NaN if a value is NaN."""
    flips: int
    """Number of texts with different labels."""

    def require(self, compared: str, hint: str = "") -> str:
        """Raises a RunError, which ends with the hint, unless the two agree; returns the figures in words."""
        line = f"{compared}: largest difference {self.largest:.1e}, {self.flips} of {self.n_texts} labels differ"
        if not self.largest <= LIMIT or self.flips:  # NaN is not at most anything
            raise RunError(f"{line}; at most {LIMIT:.0e} and no label may differ: nothing was written{hint}")
        return line


def write_readme(
    folder: Path, template: str, source: ExportSource, comparison: Iterable[str], log: Log, **values: Any
) -> None:
    """Writes the README.md of a format, with the lines of its comparison; `values` are the format's own.

    Each line is logged as soon as it is known: a comparison of a large network takes minutes.
    """
    lines = []
    for line in comparison:
        log(line)
        lines.append(line)
    page = environment("lit_cls.exports").get_template(template)
    text = page.render(source=source, comparison=lines, limit=LIMIT, **values)
    (folder / "README.md").write_text(text, encoding="utf-8")


def measure(expected: Tensor, found: Tensor, labels: Tensor | None = None, others: Tensor | None = None) -> Parity:
    """Compares logits or probabilities (N, K) of the original with those of the other form, and their labels.

    `labels` and `others` are (N,) class ids; None for the largest value.
    """
    labels = expected.argmax(dim=-1) if labels is None else labels
    others = found.argmax(dim=-1) if others is None else others
    difference = (expected.double() - found.double()).abs()
    # max propagates NaN, and fails for an empty tensor.
    largest = difference.max().item() if difference.numel() else 0.0
    return Parity(len(expected), largest, int(torch.ne(labels, others).sum()))
