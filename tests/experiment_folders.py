"""Finished runs that nobody ran: what a run leaves in a folder, with chosen answers; and results made of them.

That the layout is the real one, a test in test_records.py holds against a real run.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_cls.data.sources import LabelledTexts
from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.evaluation.metrics import Accuracy
from lit_cls.experiments.finished_run import FinishedRun, read_finished_run
from lit_cls.experiments.results import BaselineResult, Results, RowResult
from lit_cls.experiments.rows import ROWS
from lit_cls.io.atomic import write_json
from lit_cls.report.split_results import write_predictions

LABELS = ("ham", "spam")
_WORDS = {"train": "offer", "validation": "query", "test": "reply"}
# Row of the first text of each split in the source; runs with other numbers of train texts have the same test rows.
_FIRST = {"test": 1, "validation": 10_001, "train": 20_001}


def answers(n_right: int, n: int) -> list[bool]:
    """The first n_right of n texts are answered rightly."""
    return [i < n_right for i in range(n)]


def finished_run(
    folder: Path,
    right: Mapping[SplitName, Sequence[bool]],
    *,
    in_train: int = 0,
    seconds: float = 12.5,
    parameters: int = 100,
    trained: int = 20,
    peak_gpu_memory: int | None = None,
    epochs: int = 2,
    settings: Mapping[str, Any] | None = None,
    **origin: Any,
) -> Path:
    """Leaves a finished run.

    Args:
        folder: of the run, .../runs/<name>/version_<n>.
        right: for every text of each split, whether it is answered rightly; the labels alternate.
        in_train: how many of the first test texts are in the train split, too: in turns word for word, and but for
            case, digits and punctuation.
        seconds: of training.
        parameters: of the network.
        trained: of them.
        peak_gpu_memory: in bytes; None on a processor.
        epochs: in metrics.csv.
        settings: of config.yaml.
        origin: what provenance.json is to have instead of the usual.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    texts = {split: [f"{_WORDS[split]} {_letters(i)} please" for i in range(len(right[split]))] for split in right}
    for i in range(in_train):
        copied = texts["train"][i]
        texts["test"][i] = copied.upper().replace(" ", " 7, ") if i % 2 else copied
    for split in SPLIT_NAMES:
        labels = [LABELS[i % 2] for i in range(len(right[split]))]
        given = zip(labels, right[split], strict=True)
        sure = [[0.9, 0.1] if (label == "ham") == ok else [0.1, 0.9] for label, ok in given]
        numbers = list(range(_FIRST[split], _FIRST[split] + len(labels)))
        rows = LabelledTexts(texts[split], labels, numbers, "")
        write_predictions(folder / f"predictions_{split}.csv", rows, LABELS, sure)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(settings or {"seed_everything": 123})), encoding="utf-8")
    write_metrics(folder / "metrics.csv", epochs)
    write_json(folder / "provenance.json", _provenance(folder) | origin)
    accuracy = [Accuracy(split, len(right[split]), sum(right[split]), 0.5).as_dict() for split in SPLIT_NAMES]
    report = {
        "accuracy": accuracy,
        "data": {"sha256": "d" * 64, "label_names": list(LABELS)},
        "weights_notes": [],
        "seconds_training": seconds,
        "seconds_frozen_layers": dict.fromkeys(right, seconds / 10),
        "texts_trained": epochs * len(right["train"]),
        "parameters": {"all": parameters, "trained": trained},
        "peak_gpu_memory": peak_gpu_memory,
    }
    write_json(folder / "report" / "report.json", report)
    return folder


def write_metrics(path: Path, epochs: int) -> None:
    """metrics.csv as Lightning's logger writes it: lines of steps, two lines an epoch, and the tests after the last."""
    lines: list[dict[str, float]] = []
    for epoch in range(epochs):
        end = {"epoch": epoch, "step": 10 * epoch + 9}
        lines += [{**end, "step": 10 * epoch + step, "train_loss_step": 0.7 - 0.01 * step} for step in (4, 9)]
        lines.append({**end, "val_acc": 0.5 + epoch / 10, "val_loss": 0.6 - epoch / 10})
        lines.append({**end, "train_loss": 0.5 - epoch / 10})
    lines.append({"epoch": epochs, "step": 10 * epochs, "test_acc": 0.75, "test_loss": 0.4})
    lines.append({"epoch": epochs, "step": 10 * epochs, "val_acc": 0.125, "val_loss": 9.0})
    columns = ["epoch", "step", "test_acc", "test_loss", "train_loss", "train_loss_step", "val_acc", "val_loss"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(lines)


def record(
    folder: Path,
    test: Sequence[bool],
    train: Sequence[bool] = (True,) * 9 + (False,),
    validation: Sequence[bool] = (True,) * 4 + (False,),
    **options: Any,
) -> FinishedRun:
    """A finished run with these answers, read back; the options are those of `finished_run`."""
    return read_finished_run(finished_run(folder, {"train": train, "validation": validation, "test": test}, **options))


def row_result(
    number: int, runs: dict[int, FinishedRun], unfinished: Sequence[str] = (), reason: str = ""
) -> RowResult:
    """A row of the table with its finished runs by seed, and the states of the others."""
    row = ROWS[number]
    states = ("finished",) * len(runs) + tuple(unfinished)
    return RowResult(row, row.model.get("size", "gpt2-small"), states, reason, runs)


def baseline(name: str, test: Sequence[bool], **options: Any) -> BaselineResult:
    """A baseline with these answers to the test texts, of which the first two are in the train split."""
    right = list(test)
    spam = {"share": 0.125, "recall": [1, 2], "precision": 0.25, "precision_counted": [1, 8]}
    usual = {
        "counts": {"train": (10, 10), "validation": (3, 5), "test": (sum(right), len(right))},
        "test_rows": list(range(_FIRST["test"], _FIRST["test"] + len(right))),
        "seen": (sum(right[:2]), 2),
        "unseen": (sum(right[2:]), len(right) - 2),
        "natural": {"accuracy": 0.75, "labels": {"ham": {**spam, "share": 0.875}, "spam": spam}},
        "parameters": 11,
        "seconds": 0.25,
    }
    return BaselineResult(name=name, test_right=right, **(usual | options))  # type: ignore[arg-type]


def results(rows: Sequence[RowResult], baselines: Sequence[BaselineResult] = (), **options: Any) -> Results:
    """Results of a command with these of its options."""
    usual = {"seeds": [123], "size": None, "weights": "pretrained", "others": []}
    return Results("lit_cls reproduce", usual | options, list(rows), list(baselines))


def _letters(i: int) -> str:
    """A word that no other number has: what makes texts differ must not be digits."""
    return "".join(chr(ord("a") + i // 26**place % 26) for place in range(3))


def _provenance(folder: Path) -> dict[str, Any]:
    packages = ("torch", "lightning", "torchmetrics", "tiktoken", "numpy", "safetensors", "jsonargparse")
    return {
        "command": ["lit_cls", "fit", "--trainer.default_root_dir", str(folder.absolute().parent.parent)],
        "started": "2026-01-02T03:04:05+00:00",
        "data_sha256": "d" * 64,
        "split_sha256": dict.fromkeys(SPLIT_NAMES, "e" * 64),
        "weights": "random",
        "weights_sha256": None,
        "config_sha256": "c" * 64,
        "versions": {"lit_cls": "0.1.0", "python": "3.12.1", **dict.fromkeys(packages, "2.6.0")},
        "commit": "0123abc",
        "device": "cpu x 1",
        "machine": "Linux",
    }
