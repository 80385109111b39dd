"""What a classifier has to beat: the most frequent label, and linear models on bags of words and characters.

Needs scikit-learn, which the extra `reports` brings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# Fixed beforehand, not chosen on any split.
_SMOOTHING = 10.0  # C of the logistic regression
_CHARACTERS = (2, 5)  # n-grams within words


@dataclass(frozen=True)
class Baseline:
    """Its answers, and how sure it is of each label."""

    name: str
    probabilities: dict[str, list[list[float]]]
    """Per group of texts: (N, K), labels in the order of their ids."""
    parameters: int
    seconds: float
    """Of fitting, on the processor."""


def baselines(
    train: Sequence[str], label_ids: Sequence[int], n_classes: int, groups: dict[str, Sequence[str]]
) -> list[Baseline]:
    """Fits all of them on the train split.

    Args:
        train: its texts.
        label_ids: their classes.
        n_classes: K; every class occurs in the train split.
        groups: the texts to answer, by name.
    """
    return [
        _majority(label_ids, n_classes, groups),
        _linear("TF-IDF words", "word", (1, 1), train, label_ids, groups),
        _linear("TF-IDF characters", "char_wb", _CHARACTERS, train, label_ids, groups),
    ]


def _majority(label_ids: Sequence[int], n_classes: int, groups: dict[str, Sequence[str]]) -> Baseline:
    shares = [list(label_ids).count(label) / len(label_ids) for label in range(n_classes)]
    return Baseline("majority", {name: [shares] * len(texts) for name, texts in groups.items()}, 0, 0.0)


def _linear(
    name: str,
    analyzer: str,
    ngrams: tuple[int, int],
    train: Sequence[str],
    label_ids: Sequence[int],
    groups: dict[str, Sequence[str]],
) -> Baseline:
    """Logistic regression on TF-IDF weights."""
    import time

    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    started = time.perf_counter()
    model: Pipeline = make_pipeline(
        TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, sublinear_tf=True),
        LogisticRegression(C=_SMOOTHING, max_iter=1000),
    )
    model.fit(list(train), list(label_ids))
    seconds = time.perf_counter() - started
    answers = {group: model.predict_proba(list(texts)).tolist() if texts else [] for group, texts in groups.items()}
    regression = model[-1]
    return Baseline(name, answers, int(regression.coef_.size + regression.intercept_.size), seconds)
