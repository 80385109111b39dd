"""What has to be beaten: on texts anyone can tell apart, and on the published split."""

from pathlib import Path

import pytest

import lit_cls.evaluation.baselines as baselines_module
from lit_cls.data.datamodule import ClassificationData
from lit_cls.evaluation.baselines import Baseline, baselines, quick_baselines

NAMES = ["majority", "TF-IDF words", "TF-IDF characters"]
GOOD, POOR, DULL = "good fine splendid", "poor awful dreadful", "dull slow boring"


def texts_of(words: str, n: int) -> list[str]:
    """n texts, of two of three words each, and one that tells nothing."""
    a, b, c = words.split()
    pairs = [(a, b), (b, c), (c, a)]
    return [f"{' '.join(pairs[i % 3])} film" for i in range(n)]


TWO_TEXTS = texts_of(GOOD, 12) + texts_of(POOR, 6)
TWO_LABELS = [1] * 12 + [0] * 6


def fitted(groups: dict[str, list[str]], texts: list[str] = TWO_TEXTS, labels: list[int] = TWO_LABELS) -> dict:
    found = baselines(texts, labels, len(set(labels)), groups)
    assert [baseline.name for baseline in found] == NAMES
    return {baseline.name: baseline for baseline in found}


def answers(baseline: Baseline, group: str) -> list[int]:
    return [max(range(len(row)), key=row.__getitem__) for row in baseline.probabilities[group]]


@pytest.mark.parametrize("name", ["TF-IDF words", "TF-IDF characters"])
def test_separable_texts_are_learnt(name: str) -> None:
    groups = {"new": ["a splendid plot", "AWFUL!", "dreadful acting", "Fine."], "again": TWO_TEXTS}
    found = fitted(groups)[name]
    assert answers(found, "new") == [1, 0, 0, 1]
    assert answers(found, "again") == TWO_LABELS


def test_characters_know_words_that_never_trained() -> None:
    """By the n-grams within them; whole words leave the share of the train split."""
    found = fitted({"new": ["goodish finely", "poorly awfully"]})
    assert answers(found["TF-IDF characters"], "new") == [1, 0]
    one, other = found["TF-IDF words"].probabilities["new"]
    assert one == other


def test_majority_gives_the_shares_of_the_train_split() -> None:
    found = fitted({"new": ["a", "poor film", ""]})["majority"]
    assert found.probabilities["new"] == [[6 / 18, 12 / 18]] * 3
    assert answers(found, "new") == [1, 1, 1]
    assert (found.parameters, found.seconds) == (0, 0.0)


@pytest.mark.parametrize("labels", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_three_classes_in_the_order_of_their_ids(labels: list[int]) -> None:
    """Whatever the order in which they come in the train split."""
    sizes = [9, 12, 6]
    texts = [text for words, n in zip((GOOD, POOR, DULL), sizes, strict=True) for text in texts_of(words, n)]
    label_ids = [label for label, n in zip(labels, sizes, strict=True) for _ in range(n)]
    found = fitted({"new": ["splendid", "awful", "boring"]}, texts, label_ids)
    for name in ("TF-IDF words", "TF-IDF characters"):
        assert answers(found[name], "new") == labels
        assert [len(row) for row in found[name].probabilities["new"]] == [3, 3, 3]
    shares = {label: n / 27 for label, n in zip(labels, sizes, strict=True)}
    assert found["majority"].probabilities["new"] == [[shares[0], shares[1], shares[2]]] * 3
    assert answers(found["majority"], "new") == [labels[1]] * 3


def test_probabilities_are_those_of_each_text() -> None:
    groups = {"new": ["splendid", "", "12345", "awful film", "good poor"], "one": ["awful film"]}
    for baseline in fitted(groups).values():
        assert {name: len(rows) for name, rows in baseline.probabilities.items()} == {"new": 5, "one": 1}
        for row in baseline.probabilities["new"]:
            assert sum(row) == pytest.approx(1, abs=1e-12)
            assert all(0 < share < 1 for share in row)
        assert baseline.probabilities["one"][0] == pytest.approx(baseline.probabilities["new"][3], abs=1e-12)


def test_groups_may_be_empty() -> None:
    for baseline in fitted({"left out": [], "new": ["good"]}).values():
        assert baseline.probabilities["left out"] == []
        assert len(baseline.probabilities["new"]) == 1
    for baseline in fitted({}).values():
        assert baseline.probabilities == {}


def test_one_weight_a_feature_and_one_more() -> None:
    found = fitted({})
    assert found["TF-IDF words"].parameters == 7 + 1  # six words that tell, "film", the intercept
    assert found["TF-IDF characters"].parameters > 50
    three = fitted({}, ["good film", "poor film", "dull film"] * 3, [0, 1, 2] * 3)
    assert three["TF-IDF words"].parameters == 3 * (4 + 1)


def test_fitting_twice_gives_the_same() -> None:
    groups = {"new": ["a splendid plot", "awful good", "nothing known"]}
    one, other = fitted(groups), fitted(groups)
    assert [one[name].probabilities for name in NAMES] == [other[name].probabilities for name in NAMES]


@pytest.mark.shared
def test_the_published_references_on_the_published_split(sms_file: Path) -> None:
    """95.67 % for words and 97.33 % for characters; few false alarms, where spam is rare, are most alarms."""
    data = ClassificationData(split="ch06", path=str(sms_file))
    train, test, left_out = data.splits["train"], data.splits["test"], data.split_data.left_out
    assert len(left_out.texts) == 4078
    assert set(left_out.labels) == {"ham"}
    groups = {"test": test.rows.texts, "left out": left_out.texts}
    found = fitted(groups, train.rows.texts, train.label_ids)
    right = {
        name: sum(a == b for a, b in zip(answers(baseline, "test"), test.label_ids, strict=True))
        for name, baseline in found.items()
    }
    assert right == {"majority": 141, "TF-IDF words": 287, "TF-IDF characters": 292}
    spam = data.label_names.index("spam")
    for name, low, high in (("TF-IDF words", 0.60, 0.68), ("TF-IDF characters", 0.78, 0.86)):
        alarms = [label for a, label in zip(answers(found[name], "test"), test.label_ids, strict=True) if a == spam]
        false_alarms = answers(found[name], "left out").count(spam)
        caught = alarms.count(spam)
        assert caught / len(alarms) > 0.99  # among as many ham as spam
        assert low < caught / (len(alarms) + false_alarms) < high


def test_what_takes_minutes_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"new": ["splendid"]}
    found, missing = quick_baselines(TWO_TEXTS, TWO_LABELS, 2, groups)
    assert ([baseline.name for baseline in found], missing) == (NAMES, [])
    assert found[2].probabilities == fitted(groups)["TF-IDF characters"].probabilities
    monkeypatch.setitem(baselines_module._MAX_WORK, "TF-IDF characters", sum(map(len, TWO_TEXTS)) - 1)
    found, missing = quick_baselines(TWO_TEXTS, TWO_LABELS, 2, groups)
    assert [baseline.name for baseline in found] == NAMES[:2]
    assert missing == [
        f"TF-IDF characters: not fitted, it would take minutes ({sum(map(len, TWO_TEXTS))} characters, 2 labels)"
    ]


def test_texts_without_a_word_leave_the_majority() -> None:
    found, missing = quick_baselines(["", "?", "", "!"], [0, 1, 0, 1], 2, {"new": ["?"]})
    assert [baseline.name for baseline in found] == ["majority", "TF-IDF characters"]
    assert len(missing) == 1
    assert "TF-IDF words: not fitted: empty vocabulary" in missing[0]


def test_without_scikit_learn_the_majority_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found, missing = quick_baselines(TWO_TEXTS, TWO_LABELS, 2, {"new": []})
    assert [baseline.name for baseline in found] == ["majority"]
    assert missing == ["TF-IDF and logistic regression: scikit-learn is not installed: pip install 'lit_cls[reports]'"]
