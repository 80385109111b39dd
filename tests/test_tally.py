"""What is told of many answers."""

from lit_cls.commands.prediction_counts import Tally
from lit_cls.evaluation.metrics import wilson_interval


def test_ordinary_texts_without_labels_are_not_worth_a_word() -> None:
    tally = Tally(("ham", "spam"))
    tally.count("a text", None, "ham", False)
    tally.count("another", " ", "spam", False)
    assert (tally.n, list(tally.about_texts(10, "head")), list(tally.about_labels("label"))) == (2, [], [])


def test_what_was_no_ordinary_text() -> None:
    tally = Tally(("ham", "spam"))
    assert list(tally.about_texts(10, "head")) == ["note: there were no texts"]
    for i in range(30):
        tally.count("" if i % 2 else "a text", None, "ham", i < 3)
    assert list(tally.about_texts(1024, "tail")) == [
        "note: 15 empty texts, answered as such: row 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, …",
        "note: 3 texts are longer than 1,024 tokens: their tail is read",
    ]
    tally = Tally(("ham", "spam"))
    for text in (None, " \n", "a"):
        tally.count(text, None, "ham", True)
    assert list(tally.about_texts(8, "head_tail")) == [
        "note: 2 empty texts, answered as such: row 1, 2",
        "note: 3 texts are longer than 8 tokens: their head and their tail are read",
    ]


def test_labels() -> None:
    tally = Tally(("ham", "spam"))
    for label in ("ham", "ham", "spam", "", *"abcdefg", "a"):
        tally.count("a text", label, "ham", False)
    low, high = wilson_interval(2, 3)
    assert list(tally.about_labels("truth")) == [
        "note: 8 rows have a label that the classifier does not know ('a', 'b', 'c', 'd', 'e', …): not counted; "
        "it knows 'ham', 'spam'",
        f"accuracy 66.67% (95 % interval {low:.2%} – {high:.2%}) on 3 texts with a label in 'truth'",
    ]
    assert list(tally.about_labels(None))[1].endswith("on 3 texts with a label")
