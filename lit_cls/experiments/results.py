"""Results of the rows and the baselines: results.json and results.csv."""

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_cls.data.split_data import Parts
from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.evaluation.baselines import Baseline, baselines
from lit_cls.evaluation.metrics import wilson_interval
from lit_cls.experiments.finished_run import Count, FinishedRun, count_right, count_seen
from lit_cls.experiments.rows import TableRow
from lit_cls.io.atomic import write_json, write_text
from lit_cls.report.split_results import write_predictions


@dataclass(frozen=True)
class RowResult:
    """One row, over its seeds."""

    row: TableRow
    size: str
    states: tuple[str, ...]
    """Of each seed's run: finished, failed, skipped, waiting."""
    reason: str
    """Why one of them is not finished; empty when all are."""
    runs: dict[int, FinishedRun]
    """By seed."""

    def mean(self, split: SplitName) -> tuple[float, int]:
        """Correct predictions, the mean over the seeds, and texts."""
        counts = [run.counts[split] for run in self.runs.values()]
        return sum(k for k, _ in counts) / len(counts), counts[0][1]

    def mean_seconds(self) -> float:
        """Of training one run."""
        return sum(run.seconds for run in self.runs.values()) / len(self.runs)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "row": self.row.number,
            "title": self.row.title,
            "size": self.size,
            "states": list(self.states),
            "reason": self.reason,
            "published": {split: list(count) for split, count in self.row.published.items()},
            "published_minutes_a100": self.row.minutes,
            "runs": [{"seed": seed, **run.as_dict()} for seed, run in self.runs.items()],
        }


@dataclass(frozen=True)
class BaselineResult:
    """One baseline, on the same texts."""

    name: str
    counts: dict[SplitName, Count]
    test_rows: list[int]
    test_right: list[bool]
    """See `FinishedRun`, for these two."""
    seen: Count
    unseen: Count
    natural: dict[str, Any]
    """See `natural_mix`."""
    parameters: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "name": self.name,
            **{split: list(count) for split, count in self.counts.items()},
            "test_seen_in_train": list(self.seen),
            "test_not_seen_in_train": list(self.unseen),
            "natural_mix": self.natural,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Results:
    """The results of a command."""

    command: str
    options: dict[str, Any]
    rows: list[RowResult]
    baselines: list[BaselineResult]

    def finished(self) -> dict[int, RowResult]:
        """Rows of which at least one run is finished, by number."""
        return {result.row.number: result for result in self.rows if result.runs}

    def missing(self) -> list[str]:
        """A line about each row that lacks a run, with the reason."""
        return [
            f"row {result.row.number} ({result.row.title}), {len(result.runs)} of {len(result.states)} runs finished"
            + (f": {result.reason}" if result.reason else "")
            for result in self.rows
            if len(result.runs) < len(result.states)
        ]


def run_baselines(parts: Parts, folder: Path) -> list[BaselineResult]:
    """Fits the baselines on the train split and writes their predictions into a folder."""
    splits, left_out = parts.splits, parts.left_out
    texts: dict[str, Sequence[str]] = {name: splits[name].rows.texts for name in SPLIT_NAMES}
    texts["left_out"] = left_out.texts
    fitted = baselines(texts["train"], splits["train"].label_ids, len(parts.label_names), texts)
    for baseline in fitted:
        out = folder / baseline.name.lower().replace(" ", "_")
        out.mkdir(parents=True, exist_ok=True)
        for name, split in splits.items():
            rows = split.rows
            path, chances = out / f"predictions_{name}.csv", baseline.probabilities[name]
            write_predictions(path, rows.texts, rows.numbers, rows.labels, chances, parts.label_names)
    return [_baseline_result(baseline, parts) for baseline in fitted]


def _baseline_result(baseline: Baseline, parts: Parts) -> BaselineResult:
    splits = parts.splits
    predicted = {group: [_argmax(p) for p in chances] for group, chances in baseline.probabilities.items()}
    right = {name: _equal(predicted[name], splits[name].label_ids) for name in SPLIT_NAMES}
    train, test = splits["train"], splits["test"]
    seen, unseen = count_seen(train.rows.texts, test.rows.texts, right["test"])
    left_out = [parts.label_names.index(label) for label in parts.left_out.labels]
    labels, of_labels = test.label_ids + left_out, predicted["test"] + predicted["left_out"]
    return BaselineResult(
        name=baseline.name,
        counts={name: count_right(right[name]) for name in SPLIT_NAMES},
        test_rows=test.rows.numbers,
        test_right=right["test"],
        seen=seen,
        unseen=unseen,
        natural=natural_mix(labels, of_labels, _natural_shares(parts), parts.label_names),
        parameters=baseline.parameters,
        seconds=baseline.seconds,
    )


def natural_mix(
    labels: Sequence[int], predicted: Sequence[int], shares: Sequence[float], label_names: Sequence[str]
) -> dict[str, Any]:
    """Figures where labels have their natural shares, not those of the balanced sample.

    The predictions of each label are counted on the test texts and on those left out of the balanced
    sample, on which nothing was trained (though some repeat a text of the train split, as the test
    split's do); the counts are then weighted by the natural shares.

    Args:
        labels: classes of these texts.
        predicted: predictions for them.
        shares: of each class in the whole source.
        label_names: of the classes.

    Returns:
        Accuracy, and per label its share, texts, recall and precision; also the precision on these
        texts as they are counted, unweighted. None where nothing was predicted so.
    """
    pairs = Counter(zip(labels, predicted, strict=True))
    totals = Counter(labels)
    classes = range(len(label_names))
    # Chance of the prediction j for a text of the class i.
    chance = [[pairs[i, j] / totals[i] if totals[i] else 0.0 for j in classes] for i in classes]
    figures: dict[str, Any] = {}
    for c in classes:
        as_label = sum(shares[i] * chance[i][c] for i in classes)
        figures[label_names[c]] = {
            "share": shares[c],
            "recall": [pairs[c, c], totals[c]],
            "precision": shares[c] * chance[c][c] / as_label if as_label else None,
            "precision_counted": [pairs[c, c], sum(pairs[i, c] for i in classes)],
        }
    return {"accuracy": sum(shares[c] * chance[c][c] for c in classes), "labels": figures}


def write_results(results: Results, out: Path) -> None:
    """results.json and results.csv: every count of every run."""
    content = {
        "command": results.command,
        "options": results.options,
        "rows": [result.as_dict() for result in results.rows],
        "baselines": [baseline.as_dict() for baseline in results.baselines],
    }
    write_json(out / "results.json", content)
    origin = ("device", "commit", "started")
    lines: list[list[Any]] = [
        [
            *("row", "what", "size", "seed", "state", *count_columns()),
            *("test_seen_correct", "test_seen_n", "test_not_seen_correct", "test_not_seen_n"),
            *("seconds_training", "trained_parameters", "peak_gpu_memory", *origin, "folder"),
        ]
    ]
    for result in results.rows:
        about = (result.row.number, result.row.title, result.size)
        for seed, run in result.runs.items():
            costs = (f"{run.seconds:.3f}", run.trained, run.peak_gpu_memory)
            made = (run.provenance[name] for name in origin)
            counts = (*flat_counts(run.counts), *run.seen, *run.unseen)
            lines.append([*about, seed, "finished", *counts, *costs, *made, run.place])
        lines += [[*about, "", state] for state in result.states if state != "finished"]
    for baseline in results.baselines:
        costs = (f"{baseline.seconds:.3f}", baseline.parameters, None)
        counts = (*flat_counts(baseline.counts), *baseline.seen, *baseline.unseen)
        lines.append(["", baseline.name, "", "", "finished", *counts, *costs])
    write_csv(out / "results.csv", lines)


def write_csv(path: Path, lines: Sequence[Sequence[Any]]) -> None:
    """A csv file, as a whole."""
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(lines)
    write_text(path, stream.getvalue())


def count_columns() -> list[str]:
    """Columns of results.csv for the counts of all splits."""
    return [f"{split}_{column}" for split in SPLIT_NAMES for column in ("correct", "n")]


def flat_counts(counts: dict[SplitName, Count]) -> list[int]:
    """The numbers in these columns."""
    return [number for split in SPLIT_NAMES for number in counts[split]]


def share(count: tuple[float, int]) -> float:
    """Correct predictions as a share; NaN without texts."""
    k, n = count
    return k / n if n else math.nan


def interval(count: tuple[float, int]) -> str:
    """The 95 % Wilson interval of a share of the texts, in percent."""
    low, high = wilson_interval(*count)
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _natural_shares(parts: Parts) -> list[float]:
    counts = Counter(label for part in parts.splits.values() for label in part.rows.labels)
    counts.update(parts.left_out.labels)
    return [counts[name] / counts.total() for name in parts.label_names]


def _equal(predicted: Sequence[int], labels: Sequence[int]) -> list[bool]:
    return [a == b for a, b in zip(predicted, labels, strict=True)]


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
