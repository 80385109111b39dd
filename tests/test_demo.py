"""The synthetic messages: always the same, all different, and neither trivial nor hopeless."""

import math
import re
from collections import Counter

import pytest

from lit_cls.data.demo import LABEL_NOISE, N_MESSAGES, generate

SEEDS = [0, 1, 123]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_names_the_messages(seed: int) -> None:
    assert generate(seed) == generate(seed)
    assert generate(seed) != generate(seed + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_are_different_and_filled(seed: int) -> None:
    texts, labels = generate(seed)
    assert len(texts) == len(labels) == len(set(texts)) == N_MESSAGES
    assert not [text for text in texts if re.search(r"[{}\n]|^\s*$", text)]
    assert set(labels) == {"ham", "spam"}


@pytest.mark.parametrize("seed", SEEDS)
def test_both_labels_are_about_as_frequent(seed: int) -> None:
    # Half of each before noise; each flipped label moves the difference by two.
    counts = Counter(generate(seed)[1])
    assert abs(counts["ham"] - counts["spam"]) <= 2 * LABEL_NOISE * N_MESSAGES
    assert counts.total() == N_MESSAGES


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def naive_bayes_accuracy(texts: list[str], labels: list[str]) -> float:
    """Accuracy on the last third of naive Bayes over words, trained on the rest."""
    cut = len(texts) * 2 // 3
    seen = Counter(labels[:cut])
    counts: dict[str, Counter[str]] = {label: Counter() for label in seen}
    for text, label in zip(texts[:cut], labels[:cut], strict=True):
        counts[label].update(words(text))

    def score(text: str, label: str) -> float:
        return math.log(seen[label]) + sum(
            math.log((counts[label][word] + 1) / (seen[label] + 2)) for word in words(text)
        )

    right = [
        max(seen, key=lambda name: score(text, name)) == label
        for text, label in zip(texts[cut:], labels[cut:], strict=True)
    ]
    return sum(right) / len(right)


@pytest.mark.parametrize("seed", SEEDS)
def test_words_distinguish_the_labels_but_not_wholly(seed: int) -> None:
    # A counter of words is far above chance; labels that are plainly wrong keep everybody from 100 %.
    accuracy = naive_bayes_accuracy(*generate(seed))
    assert 0.80 < accuracy < 0.98


def test_hard_cases_occur_on_both_sides() -> None:
    texts, labels = generate(123)
    spam_with_no_offer = [
        text
        for text, label in zip(texts, labels, strict=True)
        if label == "spam" and not re.search(r"£|win|free|claim|prize|code|\.example|cash", text.lower())
    ]
    ham_with_money = [text for text, label in zip(texts, labels, strict=True) if label == "ham" and "£" in text]
    assert len(spam_with_no_offer) > 0.02 * N_MESSAGES
    assert len(ham_with_money) > 0.02 * N_MESSAGES
