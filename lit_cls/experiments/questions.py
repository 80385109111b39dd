"""report.md: the table's seven questions, answered from the measured rows or left open."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_cls.evaluation.paired import Comparison, compare, holm
from lit_cls.experiments.results import Results, RowResult, interval, share

Side = int | str
"""A row by its number, or a baseline by its name."""
Pair = tuple[Side, Side]

_LEVEL = 0.05


@dataclass(frozen=True)
class Question:
    """One question, the comparison that answers it, and the answers there can be.

    `main` is chosen beforehand: the first of its pairs that was measured decides, whatever the others
    say. Each pair is (before, after).
    """

    asked: str
    main: tuple[Pair, ...]
    others: tuple[Pair, ...]
    better: str
    worse: str
    open: str
    about_size: bool = False
    """Whether its pairs differ in size alone, so that --size takes the difference away."""


QUESTIONS = (
    Question(
        "Do we need to train all layers?",
        ((1, 5),),
        ((1, 3), (1, 4), (4, 5)),
        "Training all layers is better than training the last block",
        "No: training all layers is worse than training the last block",
        "Whether training all layers brings anything over the last block",
    ),
    Question(
        "Why the last token, not the first?",
        ((2, 1),),
        ((2, 16), (1, 16), (1, 19)),
        "The last position is better than the first, which sees nothing but itself",
        "The first position is better than the last, although it sees nothing but itself",
        "Whether the last position is better than the first",
    ),
    Question(
        "How does GPT compare with simpler models?",
        (("TF-IDF characters", 1),),
        (("TF-IDF words", 1), ("TF-IDF characters", 5), ("TF-IDF characters", 16), ("majority", 1)),
        "GPT-2 as in row 1 is better than logistic regression on TF-IDF of characters",
        "GPT-2 as in row 1 is worse than logistic regression on TF-IDF of characters",
        "Whether GPT-2 as in row 1 is better or worse than logistic regression on TF-IDF of characters",
    ),
    Question(
        "Should the causal mask go?",
        ((1, 17),),
        (),
        "Without the causal mask it is better",
        "No: without the causal mask it is worse",
        "Whether the causal mask should go",
    ),
    Question(
        "What does a larger model bring?",
        ((1, 8), (1, 7), (1, 6)),
        ((1, 6), (1, 7), (5, 9)),
        "The larger model is better",
        "The larger model is worse",
        "Whether the larger model is better",
        about_size=True,
    ),
    Question(
        "What does LoRA bring?",
        ((5, 11),),
        ((9, 12), (1, 11)),
        "LoRA is better than training all layers",
        "LoRA is worse than training all layers",
        "Whether LoRA is as good as training all layers",
    ),
    Question(
        "To pad or not to pad?",
        ((1, 15),),
        ((1, 14), (1, 16), (1, 13)),
        "Not to pad: without pads it is better",
        "To pad: without pads it is worse",
        "Whether to pad or not",
    ),
)


@dataclass(frozen=True)
class MeasuredPair:
    """A pair whose runs are finished, compared."""

    before: Side
    after: Side
    comparison: Comparison
    accuracies: tuple[float, float]
    times: tuple[float, float]
    """Seconds of training."""


def report_markdown(results: Results, plots: Sequence[Path]) -> str:
    """The report: an answer to each question, the figures behind it, and the plots."""
    finished = results.finished()
    answers = [_decisive(question, results) for question in QUESTIONS]
    adjusted = iter(holm([m.comparison.p_value for m in answers if isinstance(m, MeasuredPair)]))
    lines = ["# What the rows say", "", f"`{results.command}`", "", *_preface(results), ""]
    for question, answer in zip(QUESTIONS, answers, strict=True):
        lines += [f"## {question.asked}", ""]
        if isinstance(answer, str):
            lines += [answer, ""]
            continue
        lines += [_sentence(question, answer, next(adjusted)), ""]
        others = [
            m for pair in question.others if (m := _measure(pair, results)) and not _sizes_are_equal(question, results)
        ]
        others = [m for m in others if (m.before, m.after) != (answer.before, answer.after)]
        lines += [f"- {_named(m, finished)}: {_figures(m)}." for m in others] + [""] * bool(others)
    lines += _checks(finished)
    lines += ["## Plots", ""] + [f"![{path.stem.replace('_', ' ')}]({path.name})" for path in plots]
    return "\n".join([*lines, ""])


def _decisive(question: Question, results: Results) -> MeasuredPair | str:
    """The comparison that decides, or the reason why there is none."""
    for pair in question.main:
        measured = _measure(pair, results)
        if measured is None:
            continue
        if _sizes_are_equal(question, results):
            return f"Not measured: every row ran at {results.options['size']}, so that the sizes do not differ."
        return measured
    needs = " and ".join(_side(side) for side in question.main[0])
    return f"Not measured: it takes {needs}, with a seed in common."


def _sizes_are_equal(question: Question, results: Results) -> bool:
    return question.about_size and results.options["size"] is not None


def _measure(pair: Pair, results: Results) -> MeasuredPair | None:
    """Compares two rows on the seeds they share, or a row with a baseline, which has none."""
    finished = results.finished()
    baselines = {baseline.name: baseline for baseline in results.baselines}
    if any(side not in finished and side not in baselines for side in pair):
        return None
    rows = [finished[side] for side in pair if isinstance(side, int)]
    seeds = [seed for seed in rows[0].runs if all(seed in row.runs for row in rows)]
    if not seeds:
        return None
    runs = [
        [finished[side].runs[seed] for seed in seeds] if isinstance(side, int) else [baselines[side]] for side in pair
    ]
    times = [sum(run.seconds for run in side_runs) / len(side_runs) for side_runs in runs]
    # Per side, per seed: whether the prediction for a row was correct.
    correct = [[dict(zip(run.test_rows, run.test_right, strict=True)) for run in side_runs] for side_runs in runs]
    correct = [side_runs * (len(seeds) // len(side_runs)) for side_runs in correct]  # a baseline has no seeds
    # The same texts, unless trainer.limit_test_batches differs.
    common = sorted(set.intersection(*(set(run) for side_runs in correct for run in side_runs)))
    if not common:
        return None
    right = [[[run[row] for row in common] for run in side_runs] for side_runs in correct]
    accuracies = [share((sum(map(sum, side_right)), sum(map(len, side_right)))) for side_right in right]
    comparison = compare(right[0], right[1])
    return MeasuredPair(*pair, comparison, (accuracies[0], accuracies[1]), (times[0], times[1]))


def _sentence(question: Question, measured: MeasuredPair, adjusted: float) -> str:
    """The answer in one sentence, also where the figures cannot decide."""
    difference = measured.comparison.difference
    # One seed that points the other way is enough to leave the question open.
    agreed = all(change * difference > 0 for change in measured.comparison.by_seed)
    decided = adjusted < _LEVEL and agreed
    words = (question.better if difference > 0 else question.worse) if decided else question.open
    verdict = "" if decided else " cannot be decided from these figures"
    named = f"{_side(measured.before)} → {_side(measured.after)}"
    return f"**{words}{verdict}**: {named}, {_figures(measured)}, {_p(adjusted)} after Holm's correction."


def _figures(measured: MeasuredPair) -> str:
    c = measured.comparison
    before, after = measured.accuracies
    low, high = c.interval
    seeds = f"{c.n_seeds} seed{'s' if c.n_seeds > 1 else ''}"
    by_seed = f": {', '.join(f'{100 * change:+.2f}' for change in c.by_seed)}" if c.n_seeds > 1 else ""
    slower = measured.times[1] / measured.times[0] if measured.times[0] else 0.0
    time = f", {slower:.1f} × the training time" if slower and isinstance(measured.before, int) else ""
    return (
        f"test accuracy {100 * before:.2f} % → {100 * after:.2f} %, {100 * c.difference:+.2f} points (95 % "
        f"{100 * low:+.1f} to {100 * high:+.1f}; {c.won} predictions won, {c.lost} lost, on {c.n_texts} texts with "
        f"{seeds}{by_seed}{time}), McNemar {_p(c.p_value)}"
    )


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else f"p = {value:.1e}"


def _named(measured: MeasuredPair, finished: dict[int, RowResult]) -> str:
    titles = [finished[side].row.title if isinstance(side, int) else "" for side in (measured.before, measured.after)]
    sides = [_side(side) for side in (measured.before, measured.after)]
    return " → ".join(f"{side} ({title})" if title else side for side, title in zip(sides, titles, strict=True))


def _side(side: Side) -> str:
    return f"row {side}" if isinstance(side, int) else side


def _preface(results: Results) -> list[str]:
    """What these figures rest on, and their limits."""
    rows = results.finished().values()
    seeds = sorted({seed for result in rows for seed in result.runs})
    lines = [
        f"{len(rows)} of {len(results.rows)} chosen rows have finished runs, with the seeds "
        f"{', '.join(map(str, seeds)) or 'none'}. One comparison per question was chosen beforehand and decides it at "
        f"the level {_LEVEL}, after Holm's correction for the number of questions answered; the others stand below it "
        "uncorrected. The test is McNemar's, exact, on the same test texts; over several seeds a text counts once, "
        "with its net change. Test and interval are about the networks that were trained: how much seeds vary stands "
        "beside them, and a question is only decided when all seeds point the same way."
    ]
    lines += [f"Not complete: {line}." for line in results.missing()]
    if len(seeds) == 1:
        lines.append("With one seed, how much a row varies from run to run is not in these figures.")
    if results.options["weights"] == "random":
        lines.append(
            "All weights were random: these answers are about networks that were never pretrained, not about the "
            "published table."
        )
    if results.options["size"] is not None:
        lines.append(f"Every row ran at {results.options['size']}: rows that differ in size alone repeat each other.")
    if results.options["others"]:
        lines.append(f"Options beyond the rows' own: `{' '.join(results.options['others'])}`.")
    spread = [result for result in rows if len(result.runs) > 1]
    if spread:
        ranges = []
        for result in spread:
            counts = [run.counts["test"] for run in result.runs.values()]
            low, high = min(map(share, counts)), max(map(share, counts))
            ranges.append(f"row {result.row.number} {100 * low:.2f}–{100 * high:.2f}")
        lines.append(f"Test accuracy from the lowest to the highest seed, in percent: {', '.join(ranges)}.")
    return [line for text in lines for line in (text, "")][:-1]


def _checks(finished: dict[int, RowResult]) -> list[str]:
    """Facts that must hold whatever the figures are."""
    lines = []
    if 1 in finished and 18 in finished:
        seeds = [seed for seed in finished[1].runs if seed in finished[18].runs]
        both = [[(run.test_rows, run.test_right) for run in map(finished[n].runs.get, seeds) if run] for n in (1, 18)]
        verdict = "gave the very same predictions as" if both[0] == both[1] else "differs from"
        if seeds:
            lines.append(f"Row 18 {verdict} row 1, to which it is identical by construction.")
    tested = [result for result in finished.values() if result.mean("test")[1]]
    if tested:
        best = max(tested, key=lambda result: share(result.mean("test")))
        n = best.mean("test")[1]
        lines.append(
            f"The highest test accuracy is row {best.row.number}'s, {100 * share(best.mean('test')):.2f} % "
            f"[{interval(best.mean('test'))}]; on {n} texts, rows whose intervals overlap cannot be ranked."
        )
    return ["## Checks", "", *[f"- {line}" for line in lines], ""] if lines else []
