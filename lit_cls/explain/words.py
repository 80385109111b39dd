"""Words of a text and the tokens that they consist of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lit_cls.data.batches import truncate
from lit_cls.data.tokenizers.base import WHITESPACE
from lit_cls.inference import Classifier

_WORD = re.compile(rf"[^{WHITESPACE}]+")


@dataclass(frozen=True)
class Word:
    """A word, delimited by white space, and its score."""

    text: str
    """With the white space before it; the last word also with the white space behind. Joined: the text."""
    score: float | None
    """Its contribution to the log-odds; None if no part of it is read."""


class TokenizedText:
    """A text, its words and tokens, and which tokens the classifier reads."""

    def __init__(self, classifier: Classifier, text: str) -> None:
        # As the tokenizer does: half of a surrogate pair has no UTF-8 form.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self._limit = (classifier.cut_to, classifier.truncation)
        self._pad_id = classifier.tokenizer.pad_id
        [self.token_ids] = classifier.tokenizer.encode([text])
        word_ends = [word.end() for word in _WORD.finditer(text)][:-1]
        self.words = [text[a:b] for a, b in pairwise([0, *word_ends, len(text)])] if text else []
        # The word in which each token begins; the token of an empty text is in no word.
        starts = [start for start, _ in classifier.tokenizer.spans(text)] if text else []
        self.word_of_token: list[int] = np.searchsorted(word_ends, starts, side="right").tolist()
        self.kept = truncate(list(range(len(self.word_of_token))), *self._limit)

    def score_words(self, scores: Sequence[float]) -> tuple[Word, ...]:
        """The words with the sums of their tokens' scores; ignored tokens may be missing at the end."""
        sums: dict[int, float] = {self.word_of_token[token]: 0.0 for token in self.kept}
        for token, score in zip(self.kept, scores, strict=False):
            sums[self.word_of_token[token]] += score
        return tuple(Word(word, sums.get(i)) for i, word in enumerate(self.words))

    def without(self, words: Sequence[int]) -> list[list[int]]:
        """Truncated token ids of the text without one of these words.

        No other token changes: the tokenizer's pattern separates white space from what is before it and does not look
        behind.
        """
        starts = np.searchsorted(self.word_of_token, words, side="left").tolist()
        ends = np.searchsorted(self.word_of_token, words, side="right").tolist()
        ids = self.token_ids
        return [
            truncate(ids[:start] + ids[end:] or [self._pad_id], *self._limit)
            for start, end in zip(starts, ends, strict=True)
        ]
