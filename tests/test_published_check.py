"""A finished folder against the published counts."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from experiment_folders import answers, record, results, row_result
from rich.console import Console

from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.errors import UserError
from lit_cls.experiments.published_check import check_published
from lit_cls.experiments.results import RowResult, write_results
from lit_cls.experiments.rows import ROWS


def checked(folder: Path) -> tuple[int, str]:
    """The exit code, and what was shown."""
    shown = io.StringIO()
    code = check_published(folder, Console(file=shown, width=200))
    return code, shown.getvalue()


def row(tmp_path: Path, number: int, seeds: Sequence[int] = (123,), **changed: list[tuple[int, int]]) -> RowResult:
    """A row with the published counts, but for the splits given: right answers and texts of each seed."""
    published = ROWS[number].published
    runs = {}
    for i, seed in enumerate(seeds):
        counts = {split: changed[split][i] if split in changed else published[split] for split in SPLIT_NAMES}
        right = {split: answers(*count) for split, count in counts.items()}
        runs[seed] = record(tmp_path / f"row{number}" / f"version_{i}", **right)
    return row_result(number, runs)


def written(tmp_path: Path, rows: Sequence[RowResult], **options: Any) -> Path:
    write_results(results(rows, **options), tmp_path / "out")
    return tmp_path / "out"


# The verdict.


def test_the_published_counts_agree_with_themselves(tmp_path: Path) -> None:
    code, shown = checked(written(tmp_path, [row(tmp_path, 1), row(tmp_path, 15)]))
    assert code == 0
    assert shown.splitlines()[-1] == "all 2 compared rows agree with the published counts"
    assert [shown.count("agrees"), shown.count("OUTSIDE")] == [6, 0]
    assert shown.count("note: ") == 2  # of seeds and chance, and of the rows that are not there


def test_every_split_of_a_row_is_shown(tmp_path: Path) -> None:
    _, shown = checked(written(tmp_path, [row(tmp_path, 1, test=[(280, 300)])]))
    train, validation, test = (line for line in shown.splitlines() if line.strip(" │┃").startswith("1 last block"))
    for line, words in (
        (train, ("train", "1005/1040 96.63 %", "+0.00 [")),
        (validation, ("validation", "148/149 99.33 %")),
        (test, ("test", "280/300 93.33 %", "285/300 95.00 %", "-1.67 [-5.59, +2.19]", "agrees")),
    ):
        for word in words:
            assert word in line


def test_a_row_far_off_is_named_with_its_splits(tmp_path: Path) -> None:
    rows = [
        row(tmp_path, 1),
        row(tmp_path, 2, train=[(1000, 1040)], test=[(290, 300)]),
        row(tmp_path, 16, validation=[(100, 149)]),
    ]
    code, shown = checked(written(tmp_path, rows))
    assert code == 1
    assert shown.splitlines()[-1] == "outside: row 2 (train, test); row 16 (validation)"
    assert shown.count("OUTSIDE") == 3


@pytest.mark.parametrize(("right", "code"), [(272, 1), (273, 0), (294, 0), (295, 1)])
def test_where_agreement_ends(tmp_path: Path, right: int, code: int) -> None:
    """On either side of the published 285 of 300; more right answers are no agreement either. Limits from scipy."""
    assert checked(written(tmp_path, [row(tmp_path, 1, test=[(right, 300)])]))[0] == code


def test_the_mean_over_the_seeds_is_compared(tmp_path: Path) -> None:
    """Neither seed agrees alone."""
    seeds = row(tmp_path, 1, (123, 1), test=[(270, 300), (300, 300)])
    code, shown = checked(written(tmp_path, [seeds]))
    assert code == 0
    assert "285/300 95.00 %" in shown
    for i, right in enumerate((270, 300)):
        alone = written(tmp_path / str(i), [row(tmp_path / str(i), 1, test=[(right, 300)])])
        assert checked(alone)[0] == 1


# What it leaves out, and what it should not be taken for.


def test_row_8_s_validation_is_left_out(tmp_path: Path) -> None:
    code, shown = checked(written(tmp_path, [row(tmp_path, 8, validation=[(10, 149)])]))
    assert code == 0
    assert "10/149" not in shown
    assert (
        "note: row 8's published validation figure, 99.81 %, is left out: it cannot occur with 149 messages "
        "(it is 1038 of 1040, the training figure)\n"
    ) in shown


def test_unfinished_rows_are_not_compared(tmp_path: Path) -> None:
    rows = [row(tmp_path, 1), row_result(9, {}, ("skipped",)), row_result(8, {}, ("failed",), "RuntimeError")]
    code, shown = checked(written(tmp_path, rows))
    assert code == 0
    assert "note: not compared, because not finished here: row 2, 3, 4, " in shown
    assert "99.81" not in shown


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"weights": "random"}, "these runs started from random weights, the published ones (but row 10) from"),
        ({"size": "gpt2-nano"}, "every row ran at gpt2-nano, the published ones at their own sizes"),
        (
            {"others": ["--trainer.max_epochs", "1", "--data.path=[x].csv"]},
            "options beyond the rows' own: --trainer.max_epochs 1 --data.path=[x].csv",
        ),
    ],
)
def test_what_the_comparison_should_not_be_taken_for(tmp_path: Path, options: dict[str, Any], note: str) -> None:
    _, shown = checked(written(tmp_path, [row(tmp_path, 1)], **options))
    notes = [line for line in shown.splitlines() if line.startswith("note: ")]
    assert len(notes) == 3  # seeds and chance, rows that are not there, and this one
    assert notes[2].startswith(f"note: {note}")


# No results.


def test_no_results(tmp_path: Path) -> None:
    told = r"results\.json: No such file or directory\. --check takes the --out of a lit_cls reproduce"
    with pytest.raises(UserError, match=told):
        checked(tmp_path)
    with pytest.raises(UserError, match=told):
        checked(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("", "JSONDecodeError"),
        ('{"rows": [', "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"grid": {}, "runs": []}', "KeyError"),  # a sweep's
        ('{"rows": [{"row": 20, "runs": [{}]}]}', "KeyError"),
        ('{"rows": [{"row": 1, "runs": [{"train": [1, 2]}]}]}', "KeyError"),
        ('{"rows": [{"row": 1, "runs": [{"train": [3, 2]}]}]}', "ValueError"),
        ('{"rows": 7}', "TypeError"),
    ],
)
def test_damaged_results(tmp_path: Path, content: str, kind: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError) as told:
        checked(tmp_path)
    assert str(told.value) == f"{path} is damaged, or no result of lit_cls reproduce ({kind})"


def test_results_without_a_finished_row(tmp_path: Path) -> None:
    out = written(tmp_path, [row_result(1, {}, ("failed",), "no weights")])
    assert json.loads((out / "results.json").read_text())["rows"][0]["reason"] == "no weights"
    with pytest.raises(UserError, match="no row of .*out is finished: nothing to compare"):
        checked(out)


@pytest.mark.parametrize("options", ["", ',"options":null', ',"options":{}'])
def test_results_without_their_options(tmp_path: Path, options: str) -> None:
    row = '{"row":1,"states":["finished"],"runs":[{"train":[1005,1040],"validation":[148,149],"test":[285,300]}]}'
    (tmp_path / "results.json").write_text(f'{{"rows":[{row}]{options}}}')
    with pytest.raises(UserError, match="is damaged, or no result of lit_cls reproduce"):
        check_published(tmp_path, Console(file=io.StringIO()))


def checked_with(tmp_path: Path, right: dict[str, list[bool]], states: tuple[str, ...]) -> tuple[int, str]:
    rows = [row_result(1, {123: record(tmp_path / "version_0", **right)}, states, "boom")]  # type: ignore[arg-type]
    write_results(results(rows), tmp_path)
    shown = io.StringIO()
    return check_published(tmp_path, Console(file=shown, width=150)), shown.getvalue()


def test_missing_seeds_and_empty_splits_are_told(tmp_path: Path) -> None:
    right = {"train": answers(1005, 1040), "validation": answers(148, 149), "test": answers(285, 300)}
    code, told = checked_with(tmp_path, right, ("finished", "failed"))
    assert code == 0
    assert "note: compared without all of their seeds: row 1" in told
    code, told = checked_with(tmp_path / "b", {**right, "test": []}, ("finished",))
    assert code == 0
    assert "note: not compared, because no text of it was evaluated: row 1 (test)" in told
