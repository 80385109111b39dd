"""Balances and splits rows into train, validation and test, from labels and a seed alone."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal

import numpy as np

from lit_cls.errors import UserError, quote

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")
Balance = Literal["undersample", "none"]
Split = dict[SplitName, list[int]]
"""Row indices of the three splits, in their order."""


def undersample(labels: Sequence[str], seed: int) -> list[int]:
    """Indices, in order, of as many rows of each label as the rarest has, drawn without replacement."""
    by_label = rows_by_label(labels)
    size = min(len(rows) for rows in by_label.values())
    rng = np.random.default_rng([seed, 0])
    drawn = [rng.choice(rows, size, replace=False) for _, rows in sorted(by_label.items())]
    return sorted(int(i) for i in np.concatenate(drawn))


def split_by_fractions(
    labels: Sequence[str], fractions: tuple[float, float, float], seed: int, stratify: bool
) -> Split:
    """Shuffles the rows and divides them into train, validation and test.

    With `stratify`, each label is divided by itself, so that the splits have the same mix.
    """
    check_fractions(fractions)
    by_label = rows_by_label(labels)
    rng = np.random.default_rng([seed, 1])
    groups = [rows for _, rows in sorted(by_label.items())] if stratify else [list(range(len(labels)))]
    splits: tuple[list[int], list[int], list[int]] = ([], [], [])
    for rows in groups:
        shuffled = iter([rows[i] for i in rng.permutation(len(rows))])
        for split, size in zip(splits, split_sizes(len(rows), fractions), strict=True):
            split.extend(islice(shuffled, size))
    # The labels were divided one after the other: mix them.
    mixed = ([split[i] for i in rng.permutation(len(split))] for split in splits)
    return dict(zip(SPLIT_NAMES, mixed, strict=True))


def check_fractions(fractions: tuple[float, float, float]) -> None:
    """Refuses fractions that are not positive or do not add up to 1, with a UserError."""
    if not (all(f > 0 for f in fractions) and abs(sum(fractions) - 1) <= 1e-6):
        raise UserError(
            f"data.split {list(fractions)}: three positive fractions (train, validation, test) that add up to 1 "
            "are needed, for example [0.7, 0.1, 0.2]"
        )


def split_sizes(n: int, fractions: tuple[float, float, float]) -> tuple[int, int, int]:
    """How many of n rows each split gets: at least one if there are three."""
    n_val = max(1, round(fractions[1] * n))
    n_test = max(1, round(fractions[2] * n))
    n_train = max(1, n - n_val - n_test)
    n_val = min(n_val, n - n_train - 1)
    return n_train, n_val, n - n_train - n_val


def ch06_split(labels: Sequence[str]) -> Split:
    """The split behind the published table (rasbt/LLMs-from-scratch, ch06), row for row.

    747 ham are drawn to match the 747 spam, everything is shuffled twice with the same seed, and divided at int(0.7 n)
    and int(0.1 n): what pandas' `sample` does there, in numpy. The labels are those of the 5,572 rows that quote-aware
    reading of the SMS Spam Collection yields.
    """
    by_label = rows_by_label(labels)
    ham, spam = by_label["ham"], by_label["spam"]

    def draw(n: int, size: int) -> list[int]:
        chosen = np.random.RandomState(123).choice(n, size, replace=False)
        return [int(i) for i in chosen]

    rows = [ham[i] for i in draw(len(ham), len(spam))] + spam
    for _ in range(2):
        rows = [rows[i] for i in draw(len(rows), len(rows))]
    n_train, n_val = int(0.7 * len(rows)), int(0.1 * len(rows))
    return {"train": rows[:n_train], "validation": rows[n_train : n_train + n_val], "test": rows[n_train + n_val :]}


def near_key(text: str) -> str:
    """The key that copies of one message share: case, digits, punctuation and white space, which vary, are masked.

    A text without any word is its own key.
    """
    return re.sub(r"[\d\W_]+", " ", unicodedata.normalize("NFC", text).casefold()).strip() or text


def seen_in(train: Sequence[str], texts: Sequence[str]) -> list[bool]:
    """Which texts occur in the train split, word for word or nearly (the same `near_key`)."""
    seen = {near_key(text) for text in train}
    return [near_key(text) in seen for text in texts]


def split_sha256(label_ids: Sequence[int], texts: Sequence[str]) -> str:
    """The sha256 of a split: over its lines `label id, tab, text`, in order."""
    lines = "\n".join(f"{label}\t{text}" for label, text in zip(label_ids, texts, strict=True))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The names of the labels, sorted; a UserError refuses fewer than two, or two that differ in spelling alone."""
    counts = Counter(labels)
    if alike := alike_labels(counts):
        found = "; ".join(
            " and ".join(f"{quote(name)} ({_count(counts[name], 'row')})" for name in names) for names in alike[:5]
        )
        raise UserError(
            f"labels that differ in case, white space or Unicode form alone: {found}. Make them the same in the file"
        )
    if len(counts) < 2:
        found = f"only {quote(next(iter(counts)))}" if counts else "none"
        raise UserError(
            f"a classifier needs at least two different labels, the data has {found} ({_count(len(labels), 'row')}): "
            "check data.label_column"
        )
    return tuple(sorted(counts))


def alike_labels(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ in case, white space or Unicode form alone."""
    near: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        near.setdefault(" ".join(unicodedata.normalize("NFKC", label).split()).casefold(), []).append(label)
    return [names for names in near.values() if len(names) > 1]


def check_enough_of_each(labels: Sequence[str], keys: Sequence[str] | None = None) -> None:
    """Refuses, with a UserError, a label that cannot occur in each split; rows of one `near_key` stay together."""
    if short := too_few_of(labels, keys):
        found = ", ".join(f"{quote(label)} has {n}" for label, n in list(short.items())[:5])
        more = f", and {len(short) - 5} more labels" if len(short) > 5 else ""
        apart = "" if keys is None else " that data.group_near_duplicates does not keep together"
        raise UserError(
            f"too few texts of a label{apart} to split into train, validation and test (at least 3 of each label are "
            f"needed): {found}{more}. Add texts, remove the label, or check data.label_column"
        )


def too_few_of(labels: Sequence[str], keys: Sequence[str] | None = None) -> dict[str, int]:
    """Labels that cannot occur in each of the three splits, and the number of their texts."""
    counts = Counter(labels) if keys is None else Counter(label for label, _ in set(zip(labels, keys, strict=True)))
    return {label: n for label, n in sorted(counts.items()) if n < len(SPLIT_NAMES)}


def rows_by_label(labels: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each label, in their order."""
    by_label: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        by_label.setdefault(label, []).append(row)
    return by_label


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
