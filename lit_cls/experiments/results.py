"""Results of the rows and the baselines: results.json and results.csv."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_cls.data.split_data import SplitData
from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.evaluation.baselines import Baseline, baselines
from lit_cls.experiments.counts import COUNT_COLUMNS, Evaluation, MeanCount, count_seen, mean_count
from lit_cls.experiments.finished_run import FinishedRun
from lit_cls.experiments.rows import TableRow
from lit_cls.io.atomic import write_csv, write_json
from lit_cls.report.split_results import write_predictions

_ORIGIN = ("device", "commit", "started")
_COLUMNS = (
    *("row", "what", "size", "seed", "state", *COUNT_COLUMNS),
    *("test_seen_correct", "test_seen_n", "test_not_seen_correct", "test_not_seen_n"),
    *("seconds_training", "trained_parameters", "peak_gpu_memory", *_ORIGIN, "folder"),
)


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

    def mean(self, split: SplitName) -> MeanCount:
        """Correct predictions, the mean over the seeds, and texts."""
        return mean_count([run.counts[split] for run in self.runs.values()])

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
class BaselineResult(Evaluation):
    """One baseline, on the same texts."""

    name: str
    natural: dict[str, Any]
    """See `natural_mix`."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        costs = {"parameters": self.parameters, "seconds": self.seconds}
        return {"name": self.name, **self.counts_as_dict(), "natural_mix": self.natural, **costs}


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


def run_baselines(data: SplitData, folder: Path) -> list[BaselineResult]:
    """Fits the baselines on the train split and writes their predictions into a folder."""
    texts: dict[str, Sequence[str]] = {name: data.splits[name].rows.texts for name in SPLIT_NAMES}
    texts["left_out"] = data.left_out.texts
    fitted = baselines(texts["train"], data.splits["train"].label_ids, len(data.label_names), texts)
    for baseline in fitted:
        for name, split in data.splits.items():
            path = folder / baseline.name.lower().replace(" ", "_") / f"predictions_{name}.csv"
            write_predictions(path, split.rows, data.label_names, baseline.probabilities[name])
    return [_baseline_result(baseline, data) for baseline in fitted]


def _baseline_result(baseline: Baseline, data: SplitData) -> BaselineResult:
    predicted = {group: [int(np.argmax(p)) for p in chances] for group, chances in baseline.probabilities.items()}
    pairs = {name: zip(predicted[name], split.label_ids, strict=True) for name, split in data.splits.items()}
    right = {name: [a == b for a, b in of_split] for name, of_split in pairs.items()}
    test, counts = data.splits["test"], data.source_counts()
    seen, unseen = count_seen(data.splits["train"].rows.texts, test.rows.texts, right["test"])
    labels = test.label_ids + [data.label_names.index(label) for label in data.left_out.labels]
    shares = [count / sum(counts) for count in counts]
    return BaselineResult(
        name=baseline.name,
        counts={name: (sum(right[name]), len(right[name])) for name in SPLIT_NAMES},
        test_rows=test.rows.numbers,
        test_right=right["test"],
        seen=seen,
        unseen=unseen,
        natural=natural_mix(labels, predicted["test"] + predicted["left_out"], shares, data.label_names),
        parameters=baseline.parameters,
        seconds=baseline.seconds,
    )


def natural_mix(
    labels: Sequence[int], predicted: Sequence[int], shares: Sequence[float], label_names: Sequence[str]
) -> dict[str, Any]:
    """Figures where labels have their natural shares (of the whole source), not those of the balanced sample.

    The predictions are those for the test texts and for those left out of the balanced sample, on which nothing was
    trained (though some repeat a text of the train split, as the test split's do).

    Returns:
        Accuracy, and per label its share, recall and precision; also the precision as these texts are counted,
        unweighted. None where nothing was predicted so.
    """
    counts = np.zeros((len(label_names), len(label_names)), dtype=np.int64)  # (K, K), by label and prediction
    np.add.at(counts, (list(labels), list(predicted)), 1)
    totals = counts.sum(axis=1)
    # Shares of all texts, by label and prediction.
    mass = np.asarray(shares)[:, None] * (counts / np.maximum(totals, 1)[:, None])
    figures = {
        name: {
            "share": shares[c],
            "recall": [int(counts[c, c]), int(totals[c])],
            "precision": float(mass[c, c] / mass[:, c].sum()) if mass[:, c].any() else None,
            "precision_counted": [int(counts[c, c]), int(counts[:, c].sum())],
        }
        for c, name in enumerate(label_names)
    }
    return {"accuracy": float(mass.trace()), "labels": figures}


def write_results(results: Results, out: Path) -> None:
    """results.json and results.csv: every count of every run."""
    rows, fitted = [row.as_dict() for row in results.rows], [baseline.as_dict() for baseline in results.baselines]
    content = {"command": results.command, "options": results.options, "rows": rows, "baselines": fitted}
    write_json(out / "results.json", content)
    lines: list[list[Any]] = []
    for result in results.rows:
        about = (result.row.number, result.row.title, result.size)
        for seed, run in result.runs.items():
            origin = (run.provenance[name] for name in _ORIGIN)
            lines.append([*about, seed, "finished", *_cells(run, run.trained, run.peak_gpu_memory), *origin, run.place])
        lines += [[*about, "", state] for state in result.states if state != "finished"]
    for baseline in results.baselines:
        lines.append(["", baseline.name, "", "", "finished", *_cells(baseline, baseline.parameters, None)])
    write_csv(out / "results.csv", _COLUMNS, lines)


def _cells(one: Evaluation, trained: int, peak_gpu_memory: int | None) -> list[Any]:
    return [*one.flat_counts(), *one.seen, *one.unseen, f"{one.seconds:.3f}", trained, peak_gpu_memory]
