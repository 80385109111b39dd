"""report.md: what is answered, which way, and what is left open."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from experiment_folders import answers, baseline, record, results, row_result

from lit_cls.evaluation.paired import compare, holm
from lit_cls.experiments.questions import report_markdown
from lit_cls.experiments.results import BaselineResult, Results, RowResult

N = 100
ASKED = (
    "Do we need to train all layers?",
    "Why the last token, not the first?",
    "How does GPT compare with simpler models?",
    "Should the causal mask go?",
    "What does a larger model bring?",
    "What does LoRA bring?",
    "To pad or not to pad?",
)
TRAIN_ALL, LAST_TOKEN, SIMPLER, MASK, LARGER, LORA, PAD = ASKED
CHARACTERS = "TF-IDF characters"

# Each question's main comparison, before and after, and the words of either answer.
MAIN = [
    (TRAIN_ALL, 1, 5, "Training all layers is better than", "No: training all layers is worse than"),
    (LAST_TOKEN, 2, 1, "The last position is better than the first", "The first position is better than the last"),
    (SIMPLER, CHARACTERS, 1, "GPT-2 as in row 1 is better than", "GPT-2 as in row 1 is worse than"),
    (MASK, 1, 17, "Without the causal mask it is better", "No: without the causal mask it is worse"),
    (LARGER, 1, 8, "The larger model is better", "The larger model is worse"),
    (LORA, 5, 11, "LoRA is better than", "LoRA is worse than"),
    (PAD, 1, 15, "Not to pad: without pads it is better", "To pad: without pads it is worse"),
]


def rows(tmp_path: Path, given: dict[int, Any], **options: Any) -> list[RowResult]:
    """Rows by their right answers among 100 test texts (or the answers), those of one seed or by seed."""
    made = []
    for number, by_seed in given.items():
        runs = {}
        for seed, right in (by_seed if isinstance(by_seed, dict) else {123: by_seed}).items():
            test = answers(right, N) if isinstance(right, int) else right
            runs[seed] = record(tmp_path / f"row{number}" / f"version_{seed}", test, **options)
        made.append(row_result(number, runs))
    return made


def report(
    tmp_path: Path, given: dict[int, Any], baselines: Sequence[BaselineResult] = (), **options: Any
) -> dict[str, str]:
    """Each section of the report by its heading, the preface under an empty one."""
    return sections(results(rows(tmp_path, given), baselines, **options))


def sections(made: Results, plots: Sequence[Path] = ()) -> dict[str, str]:
    preface, *others = report_markdown(made, plots).split("\n## ")
    split = {"": preface}
    for section in others:
        heading, _, content = section.partition("\n")
        assert heading not in split
        split[heading] = content.strip()
    return split


def bold(section: str) -> list[str]:
    return re.findall(r"\*\*(.+?)\*\*", section)


def won(n: int, lost: int = 0) -> list[bool]:
    """Answers that win n and lose some, set beside the first 50 of 100."""
    return [i >= lost for i in range(50)] + answers(n, 50)


# An answer to each question.


def test_every_question_is_answered_or_left_open(tmp_path: Path) -> None:
    """Rows 1, 5 and 17 are measured, with a baseline: three questions."""
    found = report(tmp_path, {1: 60, 5: 90, 17: 61}, [baseline(CHARACTERS, answers(95, N))])
    assert list(found) == ["", *ASKED, "Checks", "Plots"]
    answered = {heading for heading in ASKED if bold(found[heading])}
    assert answered == {TRAIN_ALL, SIMPLER, MASK}
    for heading in ASKED:
        assert len(bold(found[heading])) == (heading in answered)
        assert found[heading].count("Not measured") == (heading not in answered)
    assert len(bold("\n".join(found.values()))) == 3


@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize(("asked", "before", "after", "up", "down"), MAIN)
def test_a_clear_difference_is_an_answer_in_its_direction(
    tmp_path: Path, asked: str, before: int | str, after: int, up: str, down: str, better: bool
) -> None:
    k, n = (50, 90) if better else (90, 50)
    given: dict[int, Any] = {after: n}
    baselines = []
    if isinstance(before, int):
        given[before] = k
    else:
        baselines.append(baseline(before, answers(k, N)))
    found = report(tmp_path, given, baselines)
    (told,) = bold(found[asked])
    assert told.startswith(up if better else down)
    assert "cannot be decided" not in found[asked]
    assert f"{'row ' * isinstance(before, int)}{before} → row {after}, " in found[asked]
    assert f"{k}.00 % → {n}.00 %, {n - k:+d}.00 points" in found[asked]
    assert (
        f"{40 if better else 0} predictions won, {0 if better else 40} lost, on 100 texts with 1 seed" in found[asked]
    )


@pytest.mark.parametrize(("asked", "before", "after", "up", "down"), MAIN)
@pytest.mark.parametrize("change", [3, 0, -3])
def test_a_small_difference_decides_nothing(
    tmp_path: Path, asked: str, before: int | str, after: int, up: str, down: str, change: int
) -> None:
    given: dict[int, Any] = {after: 60 + change}
    baselines = []
    if isinstance(before, int):
        given[before] = 60
    else:
        baselines.append(baseline(before, answers(60, N)))
    found = report(tmp_path, given, baselines)[asked]
    (told,) = bold(found)
    assert told.endswith(" cannot be decided from these figures")
    assert told.startswith("Whether ")
    assert f"{change:+d}.00 points" in found


def test_the_figures_of_an_answer(tmp_path: Path) -> None:
    """Eight predictions won and one lost of a hundred; the interval is Agresti and Min's, the test binomial."""
    found = report(tmp_path, {1: 50, 17: won(8, 1)})[MASK]
    assert found == (
        "**Without the causal mask it is better**: row 1 → row 17, test accuracy 50.00 % → 57.00 %, +7.00 points "
        "(95 % +0.9 to +12.8; 8 predictions won, 1 lost, on 100 texts with 1 seed, 1.0 × the training time), "
        "McNemar p = 0.039, p = 0.039 after Holm's correction."
    )


def test_the_time_that_a_row_takes_more(tmp_path: Path) -> None:
    slow = rows(tmp_path, {5: {1: 90, 2: 90}}, seconds=30.0)
    fast = rows(tmp_path, {1: {1: 60, 2: 60}}, seconds=12.0)
    found = sections(results([*slow, *fast], [baseline(CHARACTERS, answers(40, N))]))
    assert "2.5 × the training time" in found[TRAIN_ALL]
    assert "training time" not in found[SIMPLER]  # a baseline's is not to be compared


# Holm's correction.


def printed(section: str) -> tuple[str, str]:
    """Both p-values of the bold sentence."""
    sentence = next(line for line in section.splitlines() if line.startswith("**"))
    found = re.search(r"McNemar (p = .+), (p = .+) after Holm's correction\.", sentence)
    assert found
    return found[1], found[2]


@pytest.mark.parametrize("measured", [{17: (8, 0)}, {17: (6, 0), 5: (8, 0)}, {17: (6, 0), 5: (8, 0), 15: (7, 1)}])
def test_holms_correction_is_over_the_answered_questions(tmp_path: Path, measured: dict[int, tuple[int, int]]) -> None:
    """Other comparisons of the same rows, 1 with 16 and 2 with 16 among them, do not count."""
    asked = {5: TRAIN_ALL, 17: MASK, 15: PAD}
    given = {1: 50, 16: 70, **{number: won(*counts) for number, counts in measured.items()}}
    found = report(tmp_path, given)
    p_values = [compare([answers(50, N)], [won(*counts)]).p_value for counts in measured.values()]
    for number, p_value, adjusted in zip(measured, p_values, holm(p_values), strict=True):
        assert printed(found[asked[number]]) == (f"p = {p_value:.3f}", f"p = {adjusted:.3f}")
        decided = "cannot be decided" not in found[asked[number]]
        assert decided == (adjusted < 0.05)


def test_what_one_question_decides_three_may_not(tmp_path: Path) -> None:
    """p = 0.031 is below 0.05, twice and thrice of it is not."""
    alone = report(tmp_path / "alone", {1: 50, 17: won(6)})[MASK]
    among = report(tmp_path / "among", {1: 50, 17: won(6), 5: won(7, 1)})[MASK]
    assert (printed(alone), printed(among)) == (("p = 0.031", "p = 0.031"), ("p = 0.031", "p = 0.062"))
    assert bold(alone) == ["Without the causal mask it is better"]
    assert bold(among) == ["Whether the causal mask should go cannot be decided from these figures"]


def test_a_very_small_p_value(tmp_path: Path) -> None:
    assert printed(report(tmp_path, {1: 50, 17: won(40)})[MASK]) == ("p = 1.8e-12", "p = 1.8e-12")


# Which runs are paired.


def test_seeds_in_common_are_paired(tmp_path: Path) -> None:
    """Seed 123 of row 1 and seed 7 of row 17 would turn the answer round."""
    first = {123: 100, 1: 50, 2: answers(40, N)}
    found = report(tmp_path, {1: first, 17: {7: 0, 2: won(10), 1: won(8)}})[MASK]
    assert bold(found) == ["Without the causal mask it is better"]
    assert "45.00 % → 59.00 %, +14.00 points" in found
    assert "28 predictions won, 0 lost, on 100 texts with 2 seeds: " in found
    p_value = compare([answers(50, N), answers(40, N)], [won(8), won(10)]).p_value
    assert printed(found)[0] == f"p = {p_value:.1e}"


def test_without_a_seed_in_common_nothing_is_measured(tmp_path: Path) -> None:
    found = report(tmp_path, {1: {123: 50, 1: 50}, 17: {2: 90}, 5: {1: 90}})
    assert found[MASK] == "Not measured: it takes row 1 and row 17, with a seed in common."
    assert bold(found[TRAIN_ALL])
    assert " with 1 seed, " in found[TRAIN_ALL]


def test_answers_are_paired_by_their_texts(tmp_path: Path) -> None:
    """A run that tested every second text, in another order, is compared on these."""
    kept = list(range(1, N, 2))[::-1]
    (first,), (other,) = rows(tmp_path, {1: 50}), rows(tmp_path, {17: [answers(50, N)[i] or i % 4 == 1 for i in kept]})
    run = other.runs[123]
    run.test_rows[:] = [first.runs[123].test_rows[i] for i in kept]
    found = sections(results([first, other]))[MASK]
    gained = sum(i % 4 == 1 for i in kept if i >= 50)
    assert f"50.00 % → {50 + 2 * gained}.00 %" in found
    assert f"{gained} predictions won, 0 lost, on 50 texts" in found
    run.test_rows[:] = [row + 1000 for row in run.test_rows]
    assert sections(results([first, other]))[MASK].startswith("Not measured")


def test_a_baseline_stands_beside_each_seed(tmp_path: Path) -> None:
    ours = {123: won(30), 1: won(26, 2), 2: won(28)}
    found = report(tmp_path, {1: ours}, [baseline(CHARACTERS, answers(50, N))])[SIMPLER]
    assert bold(found)[0].startswith("GPT-2 as in row 1 is better")
    assert "84 predictions won, 2 lost, on 100 texts with 3 seeds: +30.00, +24.00, +28.00), " in found
    expected = compare([answers(50, N)] * 3, list(ours.values()))
    assert printed(found)[0] == f"p = {expected.p_value:.1e}"


# What stands beside an answer.


def test_other_comparisons_stand_below_uncorrected(tmp_path: Path) -> None:
    found = report(tmp_path, {1: 60, 3: 50, 4: 62, 5: 90})[TRAIN_ALL]
    lines = [line for line in found.splitlines() if line.startswith("- ")]
    assert [line.split(":")[0] for line in lines] == [
        "- row 1 (last block, last position) → row 3 (head alone)",
        "- row 1 (last block, last position) → row 4 (last two blocks)",
        "- row 4 (last two blocks) → row 5 (all layers)",
    ]
    assert "60.00 % → 50.00 %, -10.00 points" in lines[0]
    assert "Holm" not in "".join(lines)


def test_other_comparisons_alone_are_no_answer(tmp_path: Path) -> None:
    """Rows 1 and 4 are measured, row 5, which the question is about, is not."""
    assert (
        report(tmp_path, {1: 60, 4: 90})[TRAIN_ALL] == "Not measured: it takes row 1 and row 5, with a seed in common."
    )


@pytest.mark.parametrize(
    ("given", "decides", "others"),
    [
        ({1: 50, 6: 60, 7: 70, 8: 90}, 8, [6, 7]),
        ({1: 50, 6: 60, 7: 70}, 7, [6]),
        ({1: 50, 6: 60}, 6, []),
    ],
)
def test_the_largest_model_that_was_measured_decides(
    tmp_path: Path, given: dict[int, int], decides: int, others: list[int]
) -> None:
    found = report(tmp_path, given)[LARGER]
    assert f"row 1 → row {decides}, test accuracy 50.00 % → {given[decides]}.00 %" in found
    assert [int(number) for number in re.findall(r"^- row 1 .*→ row (\d+) \(", found, re.MULTILINE)] == others


def test_at_one_size_nothing_is_said_of_sizes(tmp_path: Path) -> None:
    found = report(tmp_path, {1: 50, 7: 70, 8: 90, 5: 50, 9: 90, 17: 90}, size="gpt2-nano")
    assert found[LARGER] == "Not measured: every row ran at gpt2-nano, so that the sizes do not differ."
    assert bold(found[MASK])
    assert "Every row ran at gpt2-nano: rows that differ in size alone repeat each other." in found[""]


def test_checks(tmp_path: Path) -> None:
    same = report(tmp_path / "same", {1: {1: 60, 2: 61}, 18: {2: 61, 3: 0}, 4: 62})["Checks"]
    assert "- Row 18 gave the very same predictions as row 1, to which it is identical by construction." in same
    assert "- The highest test accuracy is row 4's, 62.00 % [52.2–70.9]; on 100 texts, rows whose" in same
    other = report(tmp_path / "other", {1: {1: won(7), 2: 61}, 18: {1: won(8, 1), 2: 61}})["Checks"]
    assert "- Row 18 differs from row 1, to which it is identical by construction." in other
    apart = report(tmp_path / "apart", {1: {1: 60}, 18: {2: 60}})["Checks"]
    assert "Row 18" not in apart


# The preface, and the plots.


def test_the_preface_says_what_was_run(tmp_path: Path) -> None:
    made = rows(tmp_path, {1: {123: 80, 1: 84, 2: 82}, 4: {1: 90}})
    told = sections(results([*made, row_result(8, {}, ("skipped",), "too large")]))[""]
    assert told.startswith("# What the rows say\n\n`lit_cls reproduce`\n")
    assert "2 of 3 chosen rows have finished runs, with the seeds 1, 2, 123. " in told
    assert "in percent: row 1 80.00–84.00." in told
    assert [line for line in told.splitlines() if line.startswith("Not complete: ")] == [
        "Not complete: row 8 (XL), 0 of 1 runs finished: too large."
    ]
    for words in ("With one seed", "random", "Every row ran at", "Options beyond"):
        assert words not in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "random"}, "All weights were random: these answers are about networks that were never pretrained"),
        ({"others": ["--trainer.max_epochs", "1"]}, "Options beyond the rows' own: `--trainer.max_epochs 1`."),
        ({"size": "gpt2-nano"}, "Every row ran at gpt2-nano"),
    ],
)
def test_the_preface_says_what_the_figures_are_not(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    given = {1: {1: 60, 2: 60}}
    assert words in report(tmp_path / "with", given, **options)[""]
    assert words not in report(tmp_path / "without", given)[""]


def test_one_seed_says_nothing_of_other_runs(tmp_path: Path) -> None:
    words = "With one seed, how much a row varies from run to run is not in these figures."
    assert words in report(tmp_path / "one", {1: 60, 5: 90})[""]
    assert words not in report(tmp_path / "two", {1: {123: 60, 1: 60}, 5: 90})[""]


def test_nothing_finished() -> None:
    found = sections(results([row_result(1, {}, ("failed",), "no weights")]))
    assert "0 of 1 chosen rows have finished runs, with the seeds none." in found[""]
    assert all(found[heading].startswith("Not measured: it takes ") for heading in ASKED)
    assert (found["Plots"], "Checks" in found) == ("", False)


def test_plots_are_shown(tmp_path: Path) -> None:
    made = results(rows(tmp_path, {1: 60}))
    shown = sections(made, [tmp_path / "accuracy_by_row.png", tmp_path / "learning_curves.png"])["Plots"]
    assert shown.splitlines() == [
        "![accuracy by row](accuracy_by_row.png)",
        "![learning curves](learning_curves.png)",
    ]
