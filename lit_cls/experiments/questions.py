"""report.md: the table's seven questions, answered from the measured rows or left open."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from lit_cls.evaluation.paired import Comparison, compare, holm
from lit_cls.experiments.counts import Evaluation, interval, share
from lit_cls.experiments.results import Results, RowResult
from lit_cls.io.templates import environment

Side = int | str
"""A row by its number, or a baseline by its name."""

_LEVEL = 0.05


@dataclass(frozen=True)
class Question:
    """One entry of questions.yaml, which describes the fields."""

    asked: str
    main: Sequence[Sequence[Side]]
    others: Sequence[Sequence[Side]]
    better: str
    worse: str
    open: str
    about_size: bool = False


_FILE = Path(__file__).with_name("questions.yaml")
QUESTIONS = [Question(**entry) for entry in yaml.safe_load(_FILE.read_text(encoding="utf-8"))]


@dataclass(frozen=True)
class MeasuredPair:
    """Two sides whose runs are finished, before and after, compared."""

    sides: Sequence[Side]
    comparison: Comparison
    accuracies: Sequence[float]
    times: Sequence[float]
    """Seconds of training."""


def report_markdown(results: Results, plots: Sequence[Path]) -> str:
    """The report: an answer to each question, the figures behind it, and the plots."""
    finished = results.finished()
    answers = [_decisive(question, results) for question in QUESTIONS]
    adjusted = iter(holm([m.comparison.p_value for m in answers if isinstance(m, MeasuredPair)]))
    sections: list[tuple[Question, str, list[str]]] = []
    for question, answer in zip(QUESTIONS, answers, strict=True):
        if isinstance(answer, str):
            sections.append((question, answer, []))
            continue
        others = [m for sides in question.others if (m := _measure(sides, results)) and m.sides != answer.sides]
        others_named = [f"{_named(m, finished)}: {_figures(m)}" for m in others]
        sections.append((question, _sentence(question, answer, next(adjusted)), others_named))
    several = {row: [share(run.counts["test"]) for run in r.runs.values()] for row, r in finished.items()}
    page = environment("lit_cls.experiments").get_template("questions.md")
    return page.render(
        results=results,
        finished=finished,
        seeds=sorted({seed for result in finished.values() for seed in result.runs}),
        ranges=[f"row {n} {100 * min(of):.2f}–{100 * max(of):.2f}" for n, of in several.items() if len(of) > 1],
        level=_LEVEL,
        sections=sections,
        checks=_checks(finished),
        plots=plots,
    )


def _decisive(question: Question, results: Results) -> MeasuredPair | str:
    """The comparison that decides, or the reason why there is none."""
    measured = next((m for sides in question.main if (m := _measure(sides, results))), None)
    if measured is None:
        return f"Not measured: it takes {' and '.join(map(_side, question.main[0]))}, with a seed in common."
    if question.about_size and results.options["size"] is not None:
        return f"Not measured: every row ran at {results.options['size']}, so that the sizes do not differ."
    return measured


def _measure(sides: Sequence[Side], results: Results) -> MeasuredPair | None:
    """Compares two rows on the seeds they share, or a row with a baseline, which has none."""
    rows, baselines = results.finished(), {baseline.name: baseline for baseline in results.baselines}
    if any(side not in rows and side not in baselines for side in sides):
        return None
    by_seed = [rows[side].runs for side in sides if isinstance(side, int)]
    seeds = [seed for seed in by_seed[0] if all(seed in runs for runs in by_seed)]
    runs: list[list[Evaluation]] = [
        [rows[side].runs[seed] if isinstance(side, int) else baselines[side] for seed in seeds] for side in sides
    ]
    # Per side, per seed: whether the prediction for a row was correct.
    correct = [[dict(zip(run.test_rows, run.test_right, strict=True)) for run in of_side] for of_side in runs]
    # The same texts, unless trainer.limit_test_batches differs.
    common = sorted(set.intersection(*(set(run) for of_side in correct for run in of_side))) if seeds else []
    if not common:
        return None
    right = [[[run[row] for row in common] for run in of_side] for of_side in correct]
    times = np.mean([[run.seconds for run in of_side] for of_side in runs], axis=1)
    return MeasuredPair(sides, compare(*right), np.mean(right, axis=(1, 2)).tolist(), times.tolist())


def _sentence(question: Question, measured: MeasuredPair, adjusted: float) -> str:
    """The answer in one sentence, also where the figures cannot decide."""
    difference = measured.comparison.difference
    answer = question.better if difference > 0 else question.worse
    # One seed that points the other way is enough to leave the question open.
    if adjusted >= _LEVEL or any(change * difference <= 0 for change in measured.comparison.by_seed):
        answer = f"{question.open} cannot be decided from these figures"
    named = " → ".join(map(_side, measured.sides))
    return f"**{answer}**: {named}, {_figures(measured)}, {_p(adjusted)} after Holm's correction."


def _figures(measured: MeasuredPair) -> str:
    c = measured.comparison
    before, after = measured.accuracies
    low, high = c.interval
    seeds = f"{c.n_seeds} seed{'s' if c.n_seeds > 1 else ''}"
    by_seed = f": {', '.join(f'{100 * change:+.2f}' for change in c.by_seed)}" if c.n_seeds > 1 else ""
    slower = measured.times[1] / measured.times[0] if measured.times[0] else 0.0
    time = f", {slower:.1f} × the training time" if slower and isinstance(measured.sides[0], int) else ""
    return (
        f"test accuracy {100 * before:.2f} % → {100 * after:.2f} %, {100 * c.difference:+.2f} points (95 % "
        f"{100 * low:+.1f} to {100 * high:+.1f}; {c.won} predictions won, {c.lost} lost, on {c.n_texts} texts with "
        f"{seeds}{by_seed}{time}), McNemar {_p(c.p_value)}"
    )


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else f"p = {value:.1e}"


def _named(measured: MeasuredPair, finished: dict[int, RowResult]) -> str:
    sides = measured.sides
    return " → ".join(_side(s) + (f" ({finished[s].row.title})" if isinstance(s, int) else "") for s in sides)


def _side(side: Side) -> str:
    return f"row {side}" if isinstance(side, int) else side


def _checks(finished: dict[int, RowResult]) -> list[str]:
    """Facts that must hold whatever the figures are."""
    lines = []
    first, same = (finished[row].runs if row in finished else {} for row in (1, 18))
    pairs = [(first[seed], same[seed]) for seed in first if seed in same]
    if pairs:
        equal = all((a.test_rows, a.test_right) == (b.test_rows, b.test_right) for a, b in pairs)
        verdict = "gave the very same predictions as" if equal else "differs from"
        lines.append(f"Row 18 {verdict} row 1, to which it is identical by construction.")
    if tested := {row: mean for row, result in finished.items() if (mean := result.mean("test"))[1]}:
        row, best = max(tested.items(), key=lambda item: share(item[1]))
        lines.append(
            f"The highest test accuracy is row {row}'s, {100 * share(best):.2f} % [{interval(best)}]; on {best[1]} "
            "texts, rows whose intervals overlap cannot be ranked."
        )
    return lines
