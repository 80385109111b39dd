"""From options to the rows of each split: read once, and every row accounted for."""

import csv
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from lit_cls.data.parts import Parts, Reading
from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.errors import UserError


def write(path: Path, rows: Iterable[tuple[str, str]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return str(path)


ROWS = [(f"text {i}", "abc"[min(i % 7, 2)]) for i in range(70)]  # 10 of a, 10 of b, 50 of c


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "texts.csv", ROWS)


@pytest.fixture
def three_files(tmp_path: Path) -> tuple[str, str, str]:
    rows = {"train": ROWS[:20], "validation": ROWS[:9], "test": ROWS[30:44]}
    train, validation, test = (write(tmp_path / f"{name}.csv", part) for name, part in rows.items())
    return train, validation, test


def reading(path: str | None = None, **options: object) -> Reading:
    plain = Reading(None, path, "text", "label", True, "error", "undersample", (0.7, 0.1, 0.2), True, 123)
    return replace(plain, **options)  # type: ignore[arg-type]


def numbers(parts: Parts) -> list[int]:
    """Of the rows of all splits."""
    return [number for name in SPLIT_NAMES for number in parts.splits[name].rows.numbers]


# Read once.


def test_the_same_options_are_read_once(file: str) -> None:
    first = reading(file).read()
    assert reading(file).read() is first


def test_three_files_are_read_once(three_files: tuple[str, str, str]) -> None:
    first = reading(split=three_files).read()
    assert reading(split=three_files).read() is first


@pytest.mark.parametrize("same_size", [True, False])
def test_a_changed_file_is_read_again(file: str, same_size: bool) -> None:
    before = reading(file).read()
    changed_at = os.stat(file).st_mtime_ns
    write(Path(file), [(text.replace("text", "TEXT" if same_size else "a text"), label) for text, label in ROWS])
    # By its time where the size tells nothing, by its size where the clock was too coarse to tell.
    now = changed_at + 10**9 if same_size else changed_at
    os.utime(file, ns=(now, now))
    after = reading(file).read()
    assert not [text for text in before.splits["train"].rows.texts if not text.startswith("text")]
    assert not [text for text in after.splits["train"].rows.texts if text.startswith("text")]
    assert numbers(after) == numbers(before)


def test_a_change_of_one_of_three_files_is_seen(three_files: tuple[str, str, str]) -> None:
    before = reading(split=three_files).read()
    write(Path(three_files[2]), ROWS[:3])
    after = reading(split=three_files).read()
    assert len(before.splits["test"].label_ids) == 14
    assert len(after.splits["test"].label_ids) == 3


def test_a_file_that_comes_later_is_read(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    with pytest.raises(UserError, match=r"there is no file .*late\.csv"):
        reading(str(path)).read()
    write(path, ROWS)
    assert reading(str(path)).read().n_rows == 70


@pytest.mark.parametrize(
    "options", [{"split_seed": 7}, {"balance": "none"}, {"split": (0.5, 0.2, 0.3)}, {"stratify": False}]
)
def test_other_options_are_another_reading(file: str, options: dict[str, object]) -> None:
    usual, other = reading(file).read(), reading(file, **options).read()
    assert numbers(other) != numbers(usual)
    assert numbers(reading(file).read()) == numbers(usual)


def test_columns_are_part_of_the_reading(tmp_path: Path) -> None:
    rows = [(f"text {i % 2}", f"label {i % 3}") for i in range(60)]
    path = write(tmp_path / "either_way.csv", rows)
    one = reading(path).read()
    other = reading(path, text_column="label", label_column="text").read()
    assert one.label_names == ("label 0", "label 1", "label 2")
    assert other.label_names == ("text 0", "text 1")


# Every row in one split, or left out.


@pytest.mark.parametrize("seed", [0, 123])
def test_what_is_in_no_split_is_left_out(file: str, seed: int) -> None:
    parts = reading(file, split_seed=seed).read()
    left_out = parts.left_out
    assert sorted(numbers(parts) + left_out.numbers) == list(range(1, 71))
    assert left_out.numbers == sorted(left_out.numbers)
    assert [ROWS[number - 1] for number in left_out.numbers] == list(zip(left_out.texts, left_out.labels, strict=True))
    assert set(left_out.labels) == {"c"}  # the one label that is not the rarest
    assert (len(left_out.texts), parts.n_rows) == (40, 70)


def test_without_balancing_nothing_is_left_out(file: str) -> None:
    parts = reading(file, balance="none").read()
    assert sorted(numbers(parts)) == list(range(1, 71))
    assert parts.left_out.texts == []
    assert parts.n_rows == 70


def test_a_dropped_row_is_neither_used_nor_left_out(file: str) -> None:
    write(Path(file), [("" if i in (3, 60) else text, label) for i, (text, label) in enumerate(ROWS)])
    parts = reading(file, empty="drop").read()
    assert sorted(numbers(parts) + parts.left_out.numbers) == [n for n in range(1, 71) if n not in (4, 61)]
    assert parts.n_rows == 68


def test_three_files_leave_nothing_out(three_files: tuple[str, str, str]) -> None:
    parts = reading(split=three_files).read()
    left_out = parts.left_out
    assert (left_out.texts, left_out.labels, left_out.numbers) == ([], [], [])
    assert numbers(parts) == [*range(1, 21), *range(1, 10), *range(1, 15)]  # each counted from its own start
    assert parts.n_rows == 20 + 9 + 14


@pytest.mark.shared
def test_the_published_split_leaves_4078_ham_out(sms_file: Path) -> None:
    parts = reading(str(sms_file), split="ch06").read()
    assert sorted(numbers(parts) + parts.left_out.numbers) == list(range(1, 5573))
    assert parts.left_out.labels == ["ham"] * 4078
