"""What the rows and the baselines came to: results.json, results.csv, table.md."""

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_cls.data.split_data import LabelledSplit, SplitData
from lit_cls.data.splits import SPLIT_NAMES, SplitName, seen_in
from lit_cls.evaluation.baselines import baselines
from lit_cls.evaluation.metrics import wilson_interval
from lit_cls.experiments.records import Count, Record
from lit_cls.experiments.rows import Row
from lit_cls.io.atomic import write_json, write_text
from lit_cls.report.split_results import write_predictions


@dataclass(frozen=True)
class RowResult:
    """One row, over its seeds."""

    row: Row
    size: str
    states: tuple[str, ...]
    """Of each seed's run: finished, failed, skipped, waiting."""
    reason: str
    """Why one of them is not finished; empty when all are."""
    runs: dict[int, Record]
    """By seed, those that are finished."""

    def mean(self, split: SplitName) -> tuple[float, int]:
        """Right answers, the mean over the seeds, and texts."""
        counts = [record.counts[split] for record in self.runs.values()]
        return sum(k for k, _ in counts) / len(counts), counts[0][1]

    def mean_seconds(self) -> float:
        """Of training one run."""
        return sum(record.seconds for record in self.runs.values()) / len(self.runs)

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
            "runs": [{"seed": seed, **record.as_dict()} for seed, record in self.runs.items()],
        }


@dataclass(frozen=True)
class BaselineResult:
    """One baseline, on the same texts."""

    name: str
    counts: dict[SplitName, Count]
    test_rows: list[int]
    test_right: list[bool]
    """See `Record`, for these two."""
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
    """All that there is to write down."""

    command: str
    options: dict[str, Any]
    rows: list[RowResult]
    baselines: list[BaselineResult]

    def finished(self) -> dict[int, RowResult]:
        """Rows of which at least one run is finished, by number."""
        return {result.row.number: result for result in self.rows if result.runs}

    def missing(self) -> list[str]:
        """Rows that lack a run, and why, in words."""
        return [
            f"row {result.row.number} ({result.row.title}), {len(result.runs)} of {len(result.states)} runs finished"
            + (f": {result.reason}" if result.reason else "")
            for result in self.rows
            if len(result.runs) < len(result.states)
        ]


def run_baselines(parts: SplitData, folder: Path) -> list[BaselineResult]:
    """Fits the baselines on the train split and leaves their predictions in a folder."""
    splits = parts.splits
    groups: dict[str, Sequence[str]] = {name: splits[name].rows.texts for name in SPLIT_NAMES}
    groups["left_out"] = parts.left_out.texts
    class_id = {name: i for i, name in enumerate(parts.label_names)}
    left_out = [class_id[label] for label in parts.left_out.labels]
    seen = seen_in(splits["train"].rows.texts, splits["test"].rows.texts)
    shares = _natural_shares(parts)
    found = []
    for fitted in baselines(splits["train"].rows.texts, splits["train"].label_ids, len(class_id), groups):
        answers = {group: [_argmax(p) for p in chances] for group, chances in fitted.probabilities.items()}
        right = {
            name: [a == b for a, b in zip(answers[name], splits[name].label_ids, strict=True)] for name in SPLIT_NAMES
        }
        for name in SPLIT_NAMES:
            _write_predictions(folder / fitted.name, name, splits[name], fitted.probabilities[name], parts.label_names)
        found.append(
            BaselineResult(
                name=fitted.name,
                counts={name: _count(right[name]) for name in SPLIT_NAMES},
                test_rows=splits["test"].rows.numbers,
                test_right=right["test"],
                seen=_count([ok for ok, known in zip(right["test"], seen, strict=True) if known]),
                unseen=_count([ok for ok, known in zip(right["test"], seen, strict=True) if not known]),
                natural=natural_mix(
                    splits["test"].label_ids + left_out,
                    answers["test"] + answers["left_out"],
                    shares,
                    parts.label_names,
                ),
                parameters=fitted.parameters,
                seconds=fitted.seconds,
            )
        )
    return found


def natural_mix(
    labels: Sequence[int], predicted: Sequence[int], shares: Sequence[float], label_names: Sequence[str]
) -> dict[str, Any]:
    """What to expect where labels come in their natural shares, not in the balanced sample's.

    How each label is answered is counted on the test texts and on those left out of the balanced
    sample, on which nothing was trained (though some repeat a text of the train split, as the test
    split's do); the counts are then weighted by the natural shares.

    Args:
        labels: classes of these texts.
        predicted: the answers.
        shares: of each class in the whole source.
        label_names: of the classes.

    Returns:
        Accuracy, and per label its share, texts, recall and precision; also the precision on these
        texts as they are counted, unweighted. None where nothing was answered so.
    """
    pairs = Counter(zip(labels, predicted, strict=True))
    totals = Counter(labels)
    classes = range(len(label_names))
    # Chance of the answer j to a text of the class i.
    chance = [[pairs[i, j] / totals[i] if totals[i] else 0.0 for j in classes] for i in classes]
    described: dict[str, Any] = {}
    for c in classes:
        answered = sum(shares[i] * chance[i][c] for i in classes)
        counted = sum(pairs[i, c] for i in classes)
        described[label_names[c]] = {
            "share": shares[c],
            "recall": [pairs[c, c], totals[c]],
            "precision": shares[c] * chance[c][c] / answered if answered else None,
            "precision_counted": [pairs[c, c], counted],
        }
    return {"accuracy": sum(shares[c] * chance[c][c] for c in classes), "labels": described}


def write_results(results: Results, out: Path) -> None:
    """results.json and results.csv: every count of every run."""
    content = {
        "command": results.command,
        "options": results.options,
        "rows": [result.as_dict() for result in results.rows],
        "baselines": [baseline.as_dict() for baseline in results.baselines],
    }
    write_json(out / "results.json", content)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    columns = [f"{split}_{what}" for split in SPLIT_NAMES for what in ("correct", "n")]
    origin = ("device", "commit", "started")
    writer.writerow(
        [
            *("row", "what", "size", "seed", "state", *columns),
            *("test_seen_correct", "test_seen_n", "test_not_seen_correct", "test_not_seen_n"),
            *("seconds_training", "trained_parameters", "peak_gpu_memory", *origin, "folder"),
        ]
    )
    for result in results.rows:
        about = (result.row.number, result.row.title, result.size)
        for seed, record in result.runs.items():
            counts = [number for split in SPLIT_NAMES for number in record.counts[split]]
            costs = (f"{record.seconds:.3f}", record.trained, record.peak_gpu_memory)
            made = (record.provenance[name] for name in origin)
            overlap = (*record.seen, *record.unseen)
            writer.writerow([*about, seed, "finished", *counts, *overlap, *costs, *made, record.place])
        for state in result.states:
            if state != "finished":
                writer.writerow([*about, "", state])
    for baseline in results.baselines:
        counts = [number for split in SPLIT_NAMES for number in baseline.counts[split]]
        costs = (f"{baseline.seconds:.3f}", baseline.parameters, None)
        writer.writerow(["", baseline.name, "", "", "finished", *counts, *baseline.seen, *baseline.unseen, *costs])
    write_text(out / "results.csv", stream.getvalue())


def share(count: tuple[float, int]) -> float:
    """Right answers as a share; NaN without texts."""
    k, n = count
    return k / n if n else math.nan


def interval(count: tuple[float, int]) -> str:
    """The 95 % Wilson interval of a share of the texts, in percent."""
    low, high = wilson_interval(*count)
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _natural_shares(parts: SplitData) -> list[float]:
    counts = Counter(label for part in parts.splits.values() for label in part.rows.labels)
    counts.update(parts.left_out.labels)
    return [counts[name] / counts.total() for name in parts.label_names]


def _write_predictions(
    folder: Path, split: SplitName, part: LabelledSplit, chances: list[list[float]], label_names: tuple[str, ...]
) -> None:
    folder = folder.with_name(folder.name.lower().replace(" ", "_"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = part.rows
    write_predictions(folder / f"predictions_{split}.csv", rows.texts, rows.numbers, rows.labels, chances, label_names)


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _count(right: Sequence[bool]) -> Count:
    return sum(right), len(right)
