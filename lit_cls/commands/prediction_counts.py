"""Prediction counts: how many, how many correct, and which texts were empty or truncated."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lit_cls.errors import quote
from lit_cls.evaluation.metrics import wilson_interval

_SHOWN_ROWS, _SHOWN_LABELS = 10, 5


class PredictionCounts:
    """Counts predictions as they come, in constant memory; `label_names` are those that the classifier knows."""

    def __init__(self, label_names: Sequence[str]) -> None:
        self._label_names = label_names
        self.n = self._truncated = self._empty = self._labelled = self._correct = 0
        self._first_empty: list[int] = []
        self._unknown: Counter[str] = Counter()

    def add(self, text: str | None, label: str | None, prediction: str, truncated: bool) -> None:
        """Counts one prediction; a text or label of the row may be missing or white space."""
        self.n += 1
        self._truncated += truncated
        if not (text and text.strip()):
            self._empty += 1
            if len(self._first_empty) < _SHOWN_ROWS:
                self._first_empty.append(self.n)
        if label is None or not label.strip():
            return
        if label in self._label_names:
            self._labelled += 1
            self._correct += label == prediction
        else:
            self._unknown[label if label in self._unknown or len(self._unknown) < _SHOWN_LABELS else "…"] += 1

    def text_notes(self, longest: int, truncation: str) -> Iterator[str]:
        """Lines about empty texts, and those truncated to the `longest` number of tokens."""
        if self.n == 0:
            yield "note: there were no texts"
        if self._empty:
            rows = ", ".join(map(str, self._first_empty)) + (", …" if self._empty > len(self._first_empty) else "")
            yield f"note: {self._empty:,} empty texts, classified as such: row {rows}"
        if self._truncated:
            read = "their head and their tail are" if truncation == "head_tail" else f"their {truncation} is"
            yield f"note: {self._truncated:,} texts are longer than {longest:,} tokens: {read} read"

    def label_notes(self, column: str | None) -> Iterator[str]:
        """Lines about the rows' labels, if they have any: unknown ones, and the accuracy."""
        if self._unknown:
            names = ", ".join(label if label == "…" else quote(label) for label in self._unknown)
            yield (
                f"note: {self._unknown.total():,} rows have a label that the classifier does not know ({names}): "
                f"not counted; it knows {', '.join(map(quote, self._label_names[:20]))}"
            )
        if self._labelled:
            low, high = wilson_interval(self._correct, self._labelled)
            where = f" in {quote(column)}" if column is not None else ""
            yield (
                f"accuracy {self._correct / self._labelled:.2%} (95 % interval {low:.2%} – {high:.2%}) on "
                f"{self._labelled:,} texts with a label{where}"
            )
