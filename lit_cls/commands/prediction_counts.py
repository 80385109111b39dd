"""What is to be said of many answers: how many, how many right, and which texts were no ordinary ones."""

from collections import Counter
from collections.abc import Iterator, Sequence

from lit_cls.errors import quote
from lit_cls.evaluation.metrics import wilson_interval

_SHOWN_ROWS, _SHOWN_LABELS = 10, 5


class Tally:
    """Counts answers as they come, in little room however many they are.

    Args:
        label_names: that the classifier knows.
    """

    def __init__(self, label_names: Sequence[str]) -> None:
        self._label_names = label_names
        self.n = 0
        """Answers."""
        self._cut = 0
        self._empty = 0
        self._first_empty: list[int] = []
        self._labelled = 0
        self._correct = 0
        self._unknown: Counter[str] = Counter()

    def count(self, text: str | None, label: str | None, answer: str, cut: bool) -> None:
        """One answer.

        Args:
            text: None where there was none.
            label: that the row has; None or white space alone where it has none.
            answer: the classifier's label.
            cut: whether only a part of the text was read.
        """
        self.n += 1
        self._cut += cut
        if not (text and text.strip()):
            self._empty += 1
            if len(self._first_empty) < _SHOWN_ROWS:
                self._first_empty.append(self.n)
        if label is None or not label.strip():
            return
        if label in self._label_names:
            self._labelled += 1
            self._correct += label == answer
        else:
            self._unknown[label if label in self._unknown or len(self._unknown) < _SHOWN_LABELS else "…"] += 1

    def about_texts(self, longest: int, part: str) -> Iterator[str]:
        """What a person is told of the texts, line by line.

        Args:
            longest: tokens that are read of a text.
            part: which ones of a longer text: `head`, `tail` or `head_tail`.
        """
        if self.n == 0:
            yield "note: there were no texts"
        if self._empty:
            rows = ", ".join(map(str, self._first_empty)) + (", …" if self._empty > len(self._first_empty) else "")
            yield f"note: {self._empty:,} empty texts, answered as such: row {rows}"
        if self._cut:
            read = "their head and their tail are" if part == "head_tail" else f"their {part} is"
            yield f"note: {self._cut:,} texts are longer than {longest:,} tokens: {read} read"

    def about_labels(self, column: str | None) -> Iterator[str]:
        """What a person is told where rows have labels, line by line.

        Args:
            column: of the labels.
        """
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
