"""Prediction counts: notes about texts, and accuracy."""

from lit_cls.commands.prediction_counts import PredictionCounts
from lit_cls.evaluation.metrics import wilson_interval


def test_ordinary_texts_without_labels_are_not_worth_a_word() -> None:
    counts = PredictionCounts(("ham", "spam"))
    counts.add("a text", None, "ham", False)
    counts.add("another", " ", "spam", False)
    assert (counts.n, list(counts.text_notes(10, "head")), list(counts.label_notes("label"))) == (2, [], [])


def test_what_was_no_ordinary_text() -> None:
    counts = PredictionCounts(("ham", "spam"))
    assert list(counts.text_notes(10, "head")) == ["note: there were no texts"]
    for i in range(30):
        counts.add("" if i % 2 else "a text", None, "ham", i < 3)
    assert list(counts.text_notes(1024, "tail")) == [
        "note: 15 empty texts, classified as such: row 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, …",
        "note: 3 texts are longer than 1,024 tokens: their tail is read",
    ]
    counts = PredictionCounts(("ham", "spam"))
    for text in (None, " \n", "a"):
        counts.add(text, None, "ham", True)
    assert list(counts.text_notes(8, "head_tail")) == [
        "note: 2 empty texts, classified as such: row 1, 2",
        "note: 3 texts are longer than 8 tokens: their head and their tail are read",
    ]


def test_labels() -> None:
    counts = PredictionCounts(("ham", "spam"))
    for label in ("ham", "ham", "spam", "", *"abcdefg", "a"):
        counts.add("a text", label, "ham", False)
    low, high = wilson_interval(2, 3)
    assert list(counts.label_notes("truth")) == [
        "note: 8 rows have a label that the classifier does not know ('a', 'b', 'c', 'd', 'e', …): not counted; "
        "it knows 'ham', 'spam'",
        f"accuracy 66.67% (95 % interval {low:.2%} – {high:.2%}) on 3 texts with a label in 'truth'",
    ]
    assert list(counts.label_notes(None))[1].endswith("on 3 texts with a label")
