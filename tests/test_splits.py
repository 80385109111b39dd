"""Balancing and splitting: from labels and a seed alone, every row exactly once."""

import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st

from lit_cls.data.group_split import split_in_groups
from lit_cls.data.sources import read_sms_spam
from lit_cls.data.splits import (
    SPLIT_NAMES,
    Split,
    ch06_split,
    check_enough_of_each,
    check_labels,
    near_key,
    seen_in,
    split_by_fractions,
    split_sha256,
    too_few_of,
    undersample,
)
from lit_cls.errors import UserError

SEEDS = [0, 1, 7, 123]
FRACTIONS = (0.7, 0.1, 0.2)


def labels_of(seed: int, counts: dict[str, int]) -> list[str]:
    """Labels with these counts, in an order of their own for each seed: not one block after the other."""
    labels = [label for label, n in counts.items() for _ in range(n)]
    return [labels[i] for i in np.random.default_rng(seed).permutation(len(labels))]


def rows_of(split: Split) -> list[int]:
    return [row for name in SPLIT_NAMES for row in split[name]]


# Balancing.


@pytest.mark.parametrize("seed", SEEDS)
def test_undersampling_makes_counts_equal(seed: int) -> None:
    labels = labels_of(seed, {"rare": 17, "common": 200, "middle": 60})
    kept = undersample(labels, seed)
    assert Counter(labels[i] for i in kept) == {"rare": 17, "common": 17, "middle": 17}
    assert kept == sorted(set(kept))  # without replacement, in the order of the input
    assert {i for i in kept if labels[i] == "rare"} == {i for i, label in enumerate(labels) if label == "rare"}


@pytest.mark.parametrize("seed", SEEDS)
def test_undersampling_is_seeded(seed: int) -> None:
    labels = labels_of(0, {"rare": 17, "common": 200})
    assert undersample(labels, seed) == undersample(labels, seed)
    assert undersample(labels, seed) != undersample(labels, seed + 1)


def test_undersampling_draws_from_the_whole_file() -> None:
    # Not the first rows: files are often sorted by date.
    labels = ["common"] * 1000 + ["rare"] * 100
    drawn = [i for i in undersample(labels, 1) if labels[i] == "common"]
    assert 400 < np.mean(drawn) < 600
    assert min(drawn) < 100
    assert max(drawn) > 900


def test_undersampling_balanced_labels_keeps_all() -> None:
    labels = labels_of(3, {"a": 20, "b": 20})
    assert undersample(labels, 5) == list(range(40))


# Splitting.


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("n", [30, 997, 1494])
def test_splits_are_disjoint_and_complete(seed: int, stratify: bool, n: int) -> None:
    labels = labels_of(seed, {"a": n // 3, "b": n - n // 3})
    split = split_by_fractions(labels, FRACTIONS, seed, stratify)
    assert sorted(rows_of(split)) == list(range(n))
    for name, fraction in zip(SPLIT_NAMES, FRACTIONS, strict=True):
        assert abs(len(split[name]) - fraction * n) <= 2  # rounding, once for each label


@pytest.mark.parametrize("seed", SEEDS)
def test_stratified_splits_have_the_mix_of_the_whole(seed: int) -> None:
    counts = {"a": 700, "b": 200, "c": 60, "d": 33}
    labels = labels_of(seed, counts)
    split = split_by_fractions(labels, FRACTIONS, seed, stratify=True)
    for name, fraction in zip(SPLIT_NAMES, FRACTIONS, strict=True):
        found = Counter(labels[i] for i in split[name])
        for label, n in counts.items():
            assert abs(found[label] - fraction * n) <= 1


def test_unstratified_splits_vary_in_their_mix() -> None:
    # The counterpart of the test above: without stratifying the share of a label is left to chance.
    labels = labels_of(0, {"a": 500, "b": 500})
    shares = {
        Counter(labels[i] for i in split_by_fractions(labels, FRACTIONS, seed, stratify=False)["test"])["a"]
        for seed in range(10)
    }
    assert len(shares) > 3


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_names_the_split(seed: int, stratify: bool) -> None:
    labels = labels_of(0, {"a": 50, "b": 70})
    one, again, other = (split_by_fractions(labels, FRACTIONS, s, stratify) for s in (seed, seed, seed + 1))
    assert one == again
    assert all(set(one[name]) != set(other[name]) for name in SPLIT_NAMES)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_are_mixed_within_each_split(seed: int) -> None:
    labels = labels_of(seed, {"a": 300, "b": 300})
    for name in SPLIT_NAMES:
        part = [labels[i] for i in split_by_fractions(labels, FRACTIONS, seed, stratify=True)[name]]
        changes = sum(one != other for one, other in pairwise(part))
        assert changes > len(part) / 4  # one block after the other would have one change


@pytest.mark.parametrize("n", [3, 4, 5, 9])
@pytest.mark.parametrize("fractions", [FRACTIONS, (0.98, 0.01, 0.01), (0.01, 0.98, 0.01), (0.01, 0.01, 0.98)])
def test_every_split_has_every_label(n: int, fractions: tuple[float, float, float]) -> None:
    # However few rows and however uneven the fractions: three rows of a label are enough.
    labels = labels_of(1, {"a": n, "b": 3, "c": 40})
    split = split_by_fractions(labels, fractions, 5, stratify=True)
    assert sorted(rows_of(split)) == list(range(len(labels)))
    assert all({labels[i] for i in split[name]} == {"a", "b", "c"} for name in SPLIT_NAMES)


@pytest.mark.parametrize(
    "fractions",
    [
        (0.7, 0.1, 0.1),
        (0.7, 0.2, 0.2),
        (0.8, 0.2, 0.0),
        (1.2, -0.4, 0.2),
        (70.0, 10.0, 20.0),
        (float("inf"), 0.1, 0.2),
        (float("nan"), 0.1, 0.2),
        (0.7, float("nan"), 0.2),
        (0.7, 0.1, float("nan")),
    ],
)
def test_impossible_fractions(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(
        UserError, match=r"data\.split \[.*\]: three positive fractions .* for example \[0\.7, 0\.1, 0\.2]"
    ):
        split_by_fractions(["a", "b"] * 20, fractions, 0, stratify=True)


def test_thirds_may_be_rounded() -> None:
    split = split_by_fractions(["a", "b"] * 30, (0.3333333, 0.3333333, 0.3333333), 0, stratify=True)
    assert [len(split[name]) for name in SPLIT_NAMES] == [20, 20, 20]


# What names a part.


def test_split_sha256() -> None:
    expected = hashlib.sha256("0\thello\n1\twin £5".encode()).hexdigest()
    assert split_sha256([0, 1], ["hello", "win £5"]) == expected
    assert split_sha256([1, 0], ["hello", "win £5"]) != expected
    assert split_sha256([1, 0], ["win £5", "hello"]) != expected  # order counts


# Labels.


def test_label_names_are_sorted_whatever_the_order_of_rows() -> None:
    for seed in SEEDS:
        assert check_labels(labels_of(seed, {"spam": 5, "ham": 9, "10": 3, "9": 4})) == ("10", "9", "ham", "spam")


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["Spam", "spam", "spam", "ham"], r"'Spam' \(1 row\) and 'spam' \(2 rows\)\. Make them the same in the file"),
        (["spam ", "spam", "ham"], r"'spam' \(1 row\) and 'spam ' \(1 row\)"),
        (["a  b", "a b", "A\tb", "c"], r"'A\\tb' \(1 row\) and 'a  b' \(1 row\) and 'a b' \(1 row\)"),
        (["straße", "STRASSE"], r"'STRASSE' \(1 row\) and 'straße' \(1 row\)"),
        (["caf\u00e9", "cafe\u0301"], "'cafe\u0301' \\(1 row\\) and 'caf\u00e9' \\(1 row\\)"),
        (["X", "x", "Y", "y"], r"'X' .* and 'x' .*; 'Y' .* and 'y' "),
    ],
)
def test_labels_that_are_nearly_the_same(labels: list[str], found: str) -> None:
    with pytest.raises(UserError, match=rf"labels that differ in case, white space or Unicode form alone: {found}"):
        check_labels(labels)


def test_labels_that_only_look_alike_a_little() -> None:
    assert check_labels(["ab", "a b", "a-b", "abc"]) == ("a b", "a-b", "ab", "abc")


def test_one_label() -> None:
    message = r"at least two different labels, the data has only 'ham' \(3 rows\): check data\.label_column"
    with pytest.raises(UserError, match=message):
        check_labels(["ham"] * 3)


def test_no_labels() -> None:
    with pytest.raises(UserError, match=r"at least two different labels, the data has none \(0 rows\)"):
        check_labels([])


def test_enough_of_each() -> None:
    check_enough_of_each(labels_of(0, {"a": 3, "b": 3}))
    with pytest.raises(UserError, match=r"at least 3 of each label .*: 'b' has 2, 'c' has 1\. Add texts"):
        check_enough_of_each(labels_of(0, {"a": 3, "b": 2, "c": 1}))


def test_labels_that_are_no_labels() -> None:
    # The wrong column: each value its own label. The message must stay readable.
    with pytest.raises(
        UserError, match=r"'0' has 1, '1' has 1, '10' has 1, .* has 1, and 45 more labels\. .*label_column"
    ):
        check_enough_of_each([str(i) for i in range(50)])


# The split of the published table.


def test_ch06_split_is_a_balanced_split_of_its_rows() -> None:
    labels = labels_of(2, {"ham": 4825, "spam": 747})
    split = ch06_split(labels)
    rows = rows_of(split)
    assert [len(split[name]) for name in SPLIT_NAMES] == [1045, 149, 300]
    assert len(set(rows)) == 1494
    assert Counter(labels[i] for i in rows) == {"ham": 747, "spam": 747}


@pytest.mark.shared
@pytest.mark.parametrize("name", SPLIT_NAMES)
def test_ch06_split_is_the_published_one(sms_file: Path, name: str) -> None:
    expected = json.loads((SHARED / "reference" / "ch06_split.json").read_text(encoding="utf-8"))[name]
    rows = read_sms_spam(str(sms_file), quoted=True)
    part = ch06_split(rows.labels)[name]  # type: ignore[index]
    texts = [rows.texts[i] for i in part]
    ids = [int(rows.labels[i] == "spam") for i in part]
    assert len(part) == expected["n"]
    assert sum(ids) == expected["spam"]
    assert texts[0].startswith(expected["first_text_starts"])
    assert split_sha256(ids, texts) == expected["sha256"]


@pytest.mark.shared
def test_reading_line_by_line_would_give_another_split(sms_file: Path) -> None:
    # Two rows more: other ham are drawn, so that how the file is read is part of the split.
    rows = read_sms_spam(str(sms_file), quoted=False)
    expected = json.loads((SHARED / "reference" / "ch06_split.json").read_text(encoding="utf-8"))["train"]
    part = ch06_split(rows.labels)["train"]
    ids = [int(rows.labels[i] == "spam") for i in part]
    assert split_sha256(ids, [rows.texts[i] for i in part]) != expected["sha256"]


# Texts that train and are tested on.


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Win £100 now!!", "win now"),
        ("win 250 NOW", "win now"),
        ("  Win\t£1,000\nnow_", "win now"),
        ("Call 0800-555 or txt WIN2day", "call or txt win day"),
        ("don't", "don t"),
        ("STRASSE straße", "strasse strasse"),
        ("Fête 中文 ١٢", "fête 中文"),
        ("0800 555 :-) ___", ""),
        ("", ""),
    ],
)
def test_near_keys(text: str, masked: str) -> None:
    """A text without any word is its own key."""
    assert near_key(text) == (masked or text)
    assert near_key(masked) == masked


def test_seen_word_for_word_or_nearly() -> None:
    train = ["Win £100 now!!", "See you at 8", "Ok"]
    seen = ["Win £100 now!!", "win 250 NOW", "see you at 9:30.", "ok..."]
    new = ["Win now, it is free", "now win £100", "See you", "okay", "winnow", ""]
    assert seen_in(train, seen) == [True] * 4
    assert seen_in(train, new) == [False] * 6
    assert seen_in([], seen) == [False] * 4
    assert seen_in(train, []) == []


def test_texts_without_any_word_are_compared_as_they_stand() -> None:
    # Masked, all of these are the same: nothing.
    assert seen_in(["12345", ":-)", "£5"], ["12345", "67890", ":-)", ":-(", " 12345", ""]) == [
        *(True, False, True, False, False, False)
    ]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "verbatim", "seen"), [("validation", 12, 25), ("test", 36, 54)])
def test_messages_of_the_published_split_that_also_train(sms_file: Path, name: str, verbatim: int, seen: int) -> None:
    rows = read_sms_spam(str(sms_file), quoted=True)
    split = ch06_split(rows.labels)
    train, texts = ([rows.texts[i] for i in split[part]] for part in ("train", name))  # type: ignore[index]
    assert sum(text in set(train) for text in texts) == verbatim
    assert sum(seen_in(train, texts)) == seen


# Groups that stay together.


def test_near_key() -> None:
    assert near_key("Win £100 now!!") == near_key("win 250 NOW") == "win now"
    assert near_key("12345") == "12345"  # without any word, as it stands
    assert near_key("") == ""


def grouped(labels: list[str], keys: list[str], seed: int = 0, stratify: bool = True) -> Split:
    return split_in_groups(labels, keys, FRACTIONS, seed, stratify)


some_rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 25).map(str)), min_size=1, max_size=120)


@examples(60)
@given(rows=some_rows, seed=st.integers(0, 5), stratify=st.booleans())
def test_groups_are_never_parted(rows: list[tuple[str, str]], seed: int, stratify: bool) -> None:
    labels, keys = [label for label, _ in rows], [key for _, key in rows]  # a group may have several labels
    split = grouped(labels, keys, seed, stratify)
    assert sorted(rows_of(split)) == list(range(len(rows)))
    parts = [{keys[i] for i in split[name]} for name in SPLIT_NAMES]
    assert sum(map(len, parts)) == len(set(keys))
    assert split == grouped(labels, keys, seed, stratify)
    assert set(labels) == {labels[i] for i in split["train"]} if stratify else split["train"]


@examples(60)
@given(rows=some_rows, seed=st.integers(0, 5))
def test_three_groups_of_a_label_reach_every_split(rows: list[tuple[str, str]], seed: int) -> None:
    # Groups of one label each: then a label with three of them can be in each part.
    labels, keys = [label for label, _ in rows], [label + key for label, key in rows]
    split = grouped(labels, keys, seed)
    for label in set(labels) - set(too_few_of(labels, keys)):
        assert all(label in {labels[i] for i in split[name]} for name in SPLIT_NAMES)


@examples(40)
@given(
    sizes=st.lists(st.tuples(st.sampled_from("ab"), st.integers(2, 9)), max_size=30),
    seed=st.integers(0, 5),
    stratify=st.booleans(),
)
def test_rows_that_stand_alone_fill_up_the_sizes(sizes: list[tuple[str, int]], seed: int, stratify: bool) -> None:
    # With 100 single rows of each label and groups of at most 9, the sizes are met to the row.
    labels = ["a"] * 100 + ["b"] * 100
    keys = [str(i) for i in range(200)]
    for i, (label, n) in enumerate(sizes):
        labels += [label] * n
        keys += [f"group {i}"] * n
    split, plain = grouped(labels, keys, seed, stratify), split_by_fractions(labels, FRACTIONS, seed, stratify)
    for name in SPLIT_NAMES:
        assert len(split[name]) == len(plain[name])
        if stratify:
            assert Counter(labels[i] for i in split[name]) == Counter(labels[i] for i in plain[name])


def test_groups_are_dealt_out_to_all_splits() -> None:
    # Not all of them to train: repeated texts would be tested on by none.
    keys = [f"group {i // 2}" for i in range(400)] + [str(i) for i in range(600)]
    split = grouped(["a", "b"] * 500, keys)
    paired = [sum(i < 400 for i in split[name]) / 400 for name in SPLIT_NAMES]
    assert paired == pytest.approx(FRACTIONS, abs=0.02)


def test_one_large_group_goes_where_there_is_room() -> None:
    keys = ["one"] * 40 + [str(i) for i in range(60)]
    for seed in SEEDS:
        split = grouped(["a"] * 100, keys, seed)
        assert [len(split[name]) for name in SPLIT_NAMES] == [70, 10, 20]
        assert set(range(40)) <= set(split["train"])


def test_groups_without_grouping_are_the_plain_rule() -> None:
    labels = labels_of(3, {"a": 61, "b": 17})
    split = grouped(labels, [str(i) for i in range(78)])
    plain = split_by_fractions(labels, FRACTIONS, 0, stratify=True)
    for name in SPLIT_NAMES:
        assert Counter(labels[i] for i in split[name]) == Counter(labels[i] for i in plain[name])
    assert split != grouped(labels, [str(i) for i in range(78)], seed=1)


def test_groups_count_as_one_text_each() -> None:
    labels, keys = ["a"] * 6 + ["b"] * 5, ["1", "2", "3", "4", "5", "6", "x", "x", "y", "y", "y"]
    check_enough_of_each(labels)
    with pytest.raises(
        UserError, match=r"too few texts of a label that data\.group_near_duplicates does not .*: 'b' has 2\. Add"
    ):
        check_enough_of_each(labels, keys)


def test_impossible_fractions_of_groups() -> None:
    with pytest.raises(UserError, match=r"data\.split \[0\.5, 0\.5, 0\.5\]: three positive fractions"):
        split_in_groups(["a", "b"] * 20, ["k"] * 40, (0.5, 0.5, 0.5), 0, stratify=True)


# The default must stay what it was: splits that are written down elsewhere, by a seed alone.
def test_plain_splits_are_those_of_earlier_versions() -> None:
    labels = labels_of(1, {"a": 40, "b": 23})
    splits = [split_by_fractions(labels, FRACTIONS, 123, stratify) for stratify in (True, False)]
    spelled = [f"Split({', '.join(f'{name}={rows}' for name, rows in split.items())})" for split in splits]
    digests = [hashlib.sha256(text.encode()).hexdigest()[:12] for text in spelled]
    assert digests == ["e0e9be339739", "93393986da56"]
