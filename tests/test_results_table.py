"""table.md, cell by cell."""

from pathlib import Path

import pytest
from experiment_folders import answers, baseline, record, results, row_result

from lit_cls.experiments.counts import percent
from lit_cls.experiments.results import Results
from lit_cls.experiments.tables import markdown_table, results_markdown

HEADINGS = ["row", "what", "size", "seeds", *(["ours", "interval", "published", "difference"] * 3)]


def tables_of(text: str) -> list[list[list[str]]]:
    """The cells of every table, line by line, the line of dashes left out."""
    found: list[list[list[str]]] = [[]]
    for words in text.splitlines():
        if words.startswith("|"):
            cells = [cell.strip() for cell in words.removeprefix("|").removesuffix("|").split("|")]
            if not set("".join(cells)) <= set("-:"):
                found[-1].append(cells)
        elif found[-1]:
            found.append([])
    return [lines for lines in found if lines]


@pytest.fixture
def made(tmp_path: Path) -> Results:
    """Rows 1 (two seeds), 8 (one) and 4 (one of two failed), row 9 skipped; two baselines."""
    test, train, val = answers(280, 300), answers(1010, 1045), answers(148, 149)
    first = record(tmp_path / "version_0", test, train, seconds=20, in_train=50)
    again = record(tmp_path / "version_1", answers(283, 300), answers(1015, 1045), seconds=30, in_train=50)
    gpu = {"device": "NVIDIA A100 x 1", "peak_gpu_memory": 2_540_000_000, "trained": 1234567}
    eighth = record(tmp_path / "version_2", answers(296, 300), validation=val, **gpu)
    fourth = record(tmp_path / "version_3", answers(295, 300))
    rows = [
        row_result(1, {123: first, 1: again}),
        row_result(8, {123: eighth}),
        row_result(4, {123: fourth}, ("failed",), "RuntimeError: out of memory"),
        row_result(9, {}, ("skipped", "skipped"), "needs about 30.0 GB of memory, 8.0 GB are free"),
    ]
    mute = {"share": 0.125, "recall": [0, 2], "precision": None, "precision_counted": [0, 0]}
    natural = {"accuracy": 0.875, "labels": {"spam": mute, "ham": {**mute, "share": 0.875}}}
    majority = baseline("majority", answers(141, 300), natural=natural)
    return results(rows, [majority, baseline("other", answers(292, 300))])


def test_every_line_has_as_many_cells_as_its_heading(made: Results) -> None:
    found = tables_of(results_markdown(made))
    assert [len(lines) for lines in found] == [1 + 4 + 2, 1 + 3 + 2, 1 + 2]
    for lines in found:
        assert {len(cells) for cells in lines} == {len(lines[0])}


def test_numbers_stand_to_the_right(made: Results) -> None:
    dashes = [words for words in results_markdown(made).splitlines() if words.startswith("| --")]
    assert dashes[0] == "| --- | --- | ---" + 13 * " | ---:" + " |"
    assert dashes[1] == "| --- | ---" + 7 * " | ---:" + " |"
    assert dashes[2] == "| ---" + 4 * " | ---:" + " |"


def test_ours_beside_the_published_and_the_difference(made: Results) -> None:
    names, first, *_ = tables_of(results_markdown(made))[0]
    assert [name.rpartition(": ")[2] for name in names] == HEADINGS
    assert names[4::4] == ["train: ours", "validation: ours", "test: ours"]
    assert first == [
        *("1", "last block, last position", "small", "2"),
        *("96.89 (1012.5/1045)", "95.7–97.8", "96.63 (1005/1040)", "+0.26"),
        *("80.00 (4/5)", "37.6–96.4", "99.33 (148/149)", "-19.33"),
        *("93.83 (281.5/300)", "90.5–96.0", "95.00 (285/300)", "-1.17"),
    ]


def test_row_8_has_a_published_figure_that_cannot_be(made: Results) -> None:
    eighth = tables_of(results_markdown(made))[0][2]
    assert eighth[:4] == ["8", "XL", "xl", "1"]
    assert eighth[8:12] == ["99.33 (148/149)", "96.3–99.9", "impossible", ""]
    assert eighth[12:] == ["98.67 (296/300)", "96.6–99.5", "98.33 (295/300)", "+0.33"]


def test_a_row_without_a_run_has_the_published_figures_alone(made: Results) -> None:
    ninth = tables_of(results_markdown(made))[0][4]
    assert ninth[:4] == ["9", "XL, all layers", "xl", "0"]
    assert ninth[4:8] == ["", "", "100.00 (1040/1040)", ""]
    assert ninth[8:12] == ["", "", "98.66 (147/149)", ""]
    assert ninth[12:] == ["", "", "98.67 (296/300)", ""]
    assert "9" not in [cells[0] for cells in tables_of(results_markdown(made))[1]]


def test_baselines_have_no_published_figures(made: Results) -> None:
    majority = tables_of(results_markdown(made))[0][5]
    assert majority[:4] == ["", "majority", "", ""]
    assert majority[4::4] == ["100.00 (10/10)", "60.00 (3/5)", "47.00 (141/300)"]
    assert set(majority[6::4] + majority[7::4]) == {""}


def test_what_a_row_costs(made: Results) -> None:
    _, first, eighth, fourth, majority, _ = tables_of(results_markdown(made))[1]
    assert first == [
        *("1", "last block, last position", "100.00 (50/50)", "92.60 (231.5/250)"),
        *("20", "100", "25.0", "17", ""),
    ]
    assert eighth[2:] == ["n/a", "98.67 (296/300)", "1,234,567", "100", "12.5", "170", "2.5"]
    assert (fourth[0], fourth[-1]) == ("4", "")
    assert majority == ["", "majority", "100.00 (2/2)", "46.64 (139/298)", "11", "11", "0.2", "", ""]


def test_the_natural_mix_is_told_of_the_rarest_label(made: Results) -> None:
    text = results_markdown(made)
    assert "At the natural mix (12.5 % spam), " in text
    names, majority, other = tables_of(text)[2]
    assert names == ["baseline", "accuracy", "spam recall", "spam precision", "the same at 50.0 % spam"]
    assert majority == ["majority", "87.50", "0.00 (0/2)", "n/a", "n/a"]
    assert other == ["other", "75.00", "50.00 (1/2)", "25.0", "12.50 (1/8)"]


def test_unfinished_rows_are_named_with_their_reason(made: Results) -> None:
    told = [words for words in results_markdown(made).splitlines() if words.startswith("- ")]
    assert told == [
        "- Not complete: row 4 (last two blocks), 1 of 2 runs finished: RuntimeError: out of memory.",
        "- Not complete: row 9 (XL, all layers), 0 of 2 runs finished: needs about 30.0 GB of memory, 8.0 GB are free.",
    ]


def test_the_command_and_where_the_figures_come_from(made: Results) -> None:
    text = results_markdown(made)
    assert f"\n`{made.command}`\n" in text
    told = [words for words in text.splitlines() if words.startswith("Device ")]
    rest = "commit 0123abc, 2026-01-02, Python 3.12.1, torch 2.6.0, lightning 2.6.0."
    assert told == [f"Device cpu x 1, {rest}", f"Device NVIDIA A100 x 1, {rest}"]


def test_nothing_finished_and_no_baselines() -> None:
    text = results_markdown(results([row_result(2, {}, ("failed",), "UserError: no weights")]))
    accuracies, costs = tables_of(text)
    assert [len(accuracies), len(costs)] == [2, 1]
    assert "natural mix" not in text
    assert "- Not complete: row 2 (first position), 0 of 1 runs finished: UserError: no weights." in text


def test_percent() -> None:
    assert percent((281.5, 300)) == "93.83 (281.5/300)"
    assert percent((300, 300)) == "100.00 (300/300)"
    assert percent((0, 149)) == "0.00 (0/149)"
    assert percent((0, 0)) == "n/a"


def test_no_test_text_is_no_nan(tmp_path: Path) -> None:
    assert "nan" not in results_markdown(results([row_result(1, {123: record(tmp_path / "version_0", [])})]))


def test_a_bar_in_a_value_does_not_end_its_cell() -> None:
    table = markdown_table(["a", "row", "b"], [["x|y", "", "z"]], left=1)
    assert table.splitlines() == ["| a | row | b |", "| --- | ---: | ---: |", "| x\\|y |  | z |"]
