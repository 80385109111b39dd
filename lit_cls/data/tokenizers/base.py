"""The tokenizer interface: all that batches, inference, explanations and exports need of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

WHITESPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's white space, for a regular expression's brackets: no tokenizer here joins two words across it."""


class Tokenizer(Protocol):
    """Texts to token ids. Every text, an empty one too, has at least one token."""

    @property
    def pad_id(self) -> int:
        """The id that fills a batch up behind shorter texts."""

    @property
    def pad_token(self) -> str:
        """How `write` spells the token `pad_id`."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each token of `encode`, in characters of the text.

        The tokens of one character all span it; a token that stands for no character has an empty span.
        """

    def write(self, folder: Path) -> None:
        """Writes a `tokenizer.json`, which the `tokenizers` library and transformers read, and its licence."""
