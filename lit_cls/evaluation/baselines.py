"""Baselines: the most frequent label, and linear models on TF-IDF features of words and characters.

The linear models need scikit-learn (extra `reports`).
"""

import importlib.util
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Fixed beforehand, not chosen on any split.
_SMOOTHING = 10.0  # C of the logistic regression
_CHARACTERS = (2, 5)  # n-grams within words

# Characters of the train split, times half the number of classes, up to which `quick_baselines` fits a model: some
# seconds on one core for each (measured: 4,000,000 a second for words, 350,000 for characters).
_MAX_WORK = {"TF-IDF words": 40_000_000, "TF-IDF characters": 1_500_000}


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline and its predictions."""

    name: str
    probabilities: dict[str, list[list[float]]]
    """Per group of texts: (N, K), labels in the order of their ids."""
    parameters: int
    seconds: float
    """Of fitting, on the CPU."""


def baselines(
    train: Sequence[str], label_ids: Sequence[int], n_classes: int, groups: Mapping[str, Sequence[str]]
) -> list[Baseline]:
    """Fits all on the texts and class ids of the train split, which has every class; `groups` are texts to predict."""
    linear = [_linear(name, train, label_ids, groups) for name in _MAX_WORK]
    return [_majority(label_ids, n_classes, groups), *linear]


def quick_baselines(
    train: Sequence[str], label_ids: Sequence[int], n_classes: int, groups: Mapping[str, Sequence[str]]
) -> tuple[list[Baseline], list[str]]:
    """Fits those of `baselines` that take a few seconds; also returns a line about each that is missing."""
    found, missing = [_majority(label_ids, n_classes, groups)], []
    if importlib.util.find_spec("sklearn") is None:
        return found, ["TF-IDF and logistic regression: scikit-learn is not installed: pip install 'lit_cls[reports]'"]
    n = sum(map(len, train))
    for name, limit in _MAX_WORK.items():
        if n * n_classes // 2 > limit:
            missing.append(f"{name}: not fitted, it would take minutes ({n:,} characters, {n_classes} labels)")
            continue
        try:
            found.append(_linear(name, train, label_ids, groups))
        except ValueError as error:  # of scikit-learn: no text has a word by its pattern
            missing.append(f"{name}: not fitted: {error}")
    return found, missing


def _majority(label_ids: Sequence[int], n_classes: int, groups: Mapping[str, Sequence[str]]) -> Baseline:
    shares = [list(label_ids).count(label) / len(label_ids) for label in range(n_classes)]
    return Baseline("majority", {name: [shares] * len(texts) for name, texts in groups.items()}, 0, 0.0)


def _linear(name: str, train: Sequence[str], label_ids: Sequence[int], groups: Mapping[str, Sequence[str]]) -> Baseline:
    """Logistic regression on TF-IDF weights."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    analyzer, ngrams = ("word", (1, 1)) if name == "TF-IDF words" else ("char_wb", _CHARACTERS)
    started = time.perf_counter()
    model = make_pipeline(
        TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, sublinear_tf=True),
        LogisticRegression(C=_SMOOTHING, max_iter=1000),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a thousand steps are close enough
        model.fit(list(train), list(label_ids))
    seconds = time.perf_counter() - started
    shares = {group: model.predict_proba(list(texts)).tolist() if texts else [] for group, texts in groups.items()}
    regression = model[-1]
    return Baseline(name, shares, int(regression.coef_.size + regression.intercept_.size), seconds)
