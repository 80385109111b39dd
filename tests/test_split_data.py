"""From options to the rows of each split: read once, and every row accounted for."""

import csv
import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from lit_cls.data.options import DataOptions
from lit_cls.data.split_data import SplitData, read
from lit_cls.data.splits import SPLIT_NAMES, near_key
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError

TOKENIZER = tokenizer_for("gpt2")


def write(path: Path, rows: Iterable[tuple[str, str]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return str(path)


ROWS = [(f"text {i}", "abc"[min(i % 7, 2)]) for i in range(70)]  # 10 of a, 10 of b, 50 of c

GROUPED = [
    (f"text {a}{b}", "xy"[i % 2]) for i, (a, b) in enumerate(product("abcdefg", "hijklm"))
]  # none nearly another


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "texts.csv", ROWS)


@pytest.fixture
def three_files(tmp_path: Path) -> tuple[str, str, str]:
    rows = {"train": ROWS[:20], "validation": ROWS[:9], "test": ROWS[30:44]}
    train, validation, test = (write(tmp_path / f"{name}.csv", part) for name, part in rows.items())
    return train, validation, test


def data_options(path: str | None = None, **options: object) -> DataOptions:
    return replace(DataOptions(path=path), **options)  # type: ignore[arg-type]


def numbers(parts: SplitData) -> list[int]:
    """Of the rows of all splits."""
    return [number for name in SPLIT_NAMES for number in parts.splits[name].rows.numbers]


# Read once.


def test_the_same_options_are_read_once(file: str) -> None:
    first = read(data_options(file))
    assert read(data_options(file)) is first


def test_three_files_are_read_once(three_files: tuple[str, str, str]) -> None:
    first = read(data_options(split=three_files))
    assert read(data_options(split=three_files)) is first


@pytest.mark.parametrize("same_size", [True, False])
def test_a_changed_file_is_read_again(file: str, same_size: bool) -> None:
    before = read(data_options(file))
    changed_at = os.stat(file).st_mtime_ns
    write(Path(file), [(text.replace("text", "TEXT" if same_size else "a text"), label) for text, label in ROWS])
    # By its time where the size tells nothing, by its size where the clock was too coarse to tell.
    now = changed_at + 10**9 if same_size else changed_at
    os.utime(file, ns=(now, now))
    after = read(data_options(file))
    assert not [text for text in before.splits["train"].rows.texts if not text.startswith("text")]
    assert not [text for text in after.splits["train"].rows.texts if text.startswith("text")]
    assert numbers(after) == numbers(before)


def test_a_change_of_one_of_three_files_is_seen(three_files: tuple[str, str, str]) -> None:
    before = read(data_options(split=three_files))
    write(Path(three_files[2]), ROWS[:3])
    after = read(data_options(split=three_files))
    assert len(before.splits["test"].label_ids) == 14
    assert len(after.splits["test"].label_ids) == 3


def test_a_file_that_comes_later_is_read(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    with pytest.raises(UserError, match=r"there is no file .*late\.csv"):
        read(data_options(str(path)))
    write(path, ROWS)
    assert read(data_options(str(path))).n_rows == 70


@pytest.mark.parametrize(
    "options", [{"split_seed": 7}, {"balance": "none"}, {"split": (0.5, 0.2, 0.3)}, {"stratify": False}]
)
def test_other_options_are_another_reading(file: str, options: dict[str, object]) -> None:
    usual, other = read(data_options(file)), read(data_options(file, **options))
    assert numbers(other) != numbers(usual)
    assert numbers(read(data_options(file))) == numbers(usual)


def test_columns_are_part_of_the_reading(tmp_path: Path) -> None:
    rows = [(f"text {i % 2}", f"label {i % 3}") for i in range(60)]
    path = write(tmp_path / "either_way.csv", rows)
    one = read(data_options(path))
    other = read(data_options(path, text_column="label", label_column="text"))
    assert one.label_names == ("label 0", "label 1", "label 2")
    assert other.label_names == ("text 0", "text 1")


# Every row in one split, or left out.


@pytest.mark.parametrize("seed", [0, 123])
def test_what_is_in_no_split_is_left_out(file: str, seed: int) -> None:
    parts = read(data_options(file, split_seed=seed))
    left_out = parts.left_out
    assert sorted(numbers(parts) + left_out.numbers) == list(range(1, 71))
    assert left_out.numbers == sorted(left_out.numbers)
    assert [ROWS[number - 1] for number in left_out.numbers] == list(zip(left_out.texts, left_out.labels, strict=True))
    assert set(left_out.labels) == {"c"}  # the one label that is not the rarest
    assert (len(left_out.texts), parts.n_rows) == (40, 70)


def test_without_balancing_nothing_is_left_out(file: str) -> None:
    parts = read(data_options(file, balance="none"))
    assert sorted(numbers(parts)) == list(range(1, 71))
    assert parts.left_out.texts == []
    assert parts.n_rows == 70


def test_a_dropped_row_is_neither_used_nor_left_out(file: str) -> None:
    write(Path(file), [("" if i in (3, 60) else text, label) for i, (text, label) in enumerate(ROWS)])
    parts = read(data_options(file, empty="drop"))
    assert sorted(numbers(parts) + parts.left_out.numbers) == [n for n in range(1, 71) if n not in (4, 61)]
    assert parts.n_rows == 68


def test_three_files_leave_nothing_out(three_files: tuple[str, str, str]) -> None:
    parts = read(data_options(split=three_files))
    left_out = parts.left_out
    assert (left_out.texts, left_out.labels, left_out.numbers) == ([], [], [])
    assert numbers(parts) == [*range(1, 21), *range(1, 10), *range(1, 15)]  # each counted from its own start
    assert parts.n_rows == 20 + 9 + 14


@pytest.mark.shared
def test_the_published_split_leaves_4078_ham_out(sms_file: Path) -> None:
    parts = read(data_options(str(sms_file), split="ch06"))
    assert sorted(numbers(parts) + parts.left_out.numbers) == list(range(1, 5573))
    assert parts.left_out.labels == ["ham"] * 4078


# Texts that are the same but for digits, case and punctuation.


@pytest.fixture
def repetitive(tmp_path: Path) -> str:
    """90 texts, each three times: as it is, in capitals, and with a number; 30 of them of two labels."""
    words = [f"word {a}{b}" for a in "abcdefghi" for b in "jklmnopqrs"]
    rows = [(text, "xy"[i % 2]) for i, text in enumerate(words)]
    rows += [(text.upper(), "xy"[(i + (i < 30)) % 2]) for i, text in enumerate(words)]
    return write(tmp_path / "repetitive.csv", rows + [(f"{text}, 7!", "xy"[i % 2]) for i, text in enumerate(words)])


@pytest.mark.parametrize("options", [{}, {"balance": "none"}, {"stratify": False}, {"split_seed": 3}])
def test_near_duplicates_stay_together(repetitive: str, options: dict[str, object]) -> None:
    parts = read(data_options(repetitive, group_near_duplicates=True, **options))
    keys = {name: {near_key(text) for text in parts.splits[name].rows.texts} for name in SPLIT_NAMES}
    assert sum(map(len, keys.values())) == 90
    assert sorted(numbers(parts)) == list(range(1, 271))
    assert [len(parts.splits[name].label_ids) for name in SPLIT_NAMES] == pytest.approx([189, 27, 54], abs=6)
    assert parts.notes[-1].startswith(
        "180 texts repeat an earlier one but for digits, case and punctuation; each is in"
    )
    plain = read(data_options(repetitive, **options))
    assert keys["train"] & {near_key(text) for text in plain.splits["test"].rows.texts}


def test_a_note_names_the_option_for_repeated_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.csv", [*ROWS, ROWS[0], ROWS[0]])
    note = "2 texts repeat an earlier one word for word"
    end = "; a split may have both sides of a pair: --data.group_near_duplicates true keeps them together"
    assert note + end in read(data_options(path)).notes
    assert (
        note
        in read(
            data_options(write(tmp_path / "b.csv", [*GROUPED, GROUPED[0], GROUPED[0]]), group_near_duplicates=True)
        ).notes
    )


def test_three_files_have_no_option_for_repeated_texts(three_files: tuple[str, str, str]) -> None:
    assert (
        "9 texts of the three files repeat an earlier one word for word" in read(data_options(split=three_files)).notes
    )


@pytest.mark.parametrize("split", ["ch06", ("a.csv", "b.csv", "c.csv")])
def test_a_fixed_split_cannot_keep_together(split: object) -> None:
    with pytest.raises(
        UserError, match=r"defines the split of each row, and data\.group_near_duplicates cannot keep rows"
    ):
        data_options(split=split, group_near_duplicates=True).check()


def test_too_few_groups_of_a_label(tmp_path: Path) -> None:
    rows = [(f"win {i} now", "rare") for i in range(9)] + [(text, "common") for text, _ in GROUPED]
    path = write(tmp_path / "texts.csv", rows)
    read(data_options(path))
    with pytest.raises(UserError, match=r"data\.group_near_duplicates does not keep together .*'rare' has 1"):
        read(data_options(path, group_near_duplicates=True))


def test_impossible_fractions_come_before_the_file() -> None:
    with pytest.raises(UserError, match=r"data\.split \[0\.5, 0\.5, 0\.5\]: three positive fractions"):
        data_options("no.csv", split=(0.5, 0.5, 0.5)).check()


def test_texts_are_tokenised_when_asked_for(file: str) -> None:
    part = read(data_options(file)).splits["test"]
    assert "token_ids" not in vars(part)
    assert part.token_ids == TOKENIZER.encode(part.rows.texts)
    assert part.token_ids is part.token_ids
