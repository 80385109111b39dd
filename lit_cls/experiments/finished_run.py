"""A finished run, read back from its folder."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.errors import UserError
from lit_cls.experiments.counts import Evaluation, count_seen

_REPORT = Path("report") / "report.json"


@dataclass(frozen=True)
class FinishedRun(Evaluation):
    """One finished run; trainer.limit_predict_batches may have left out texts of its train split."""

    folder: Path
    trained: int
    """Parameters that train."""
    peak_gpu_memory: int | None
    curve: list[dict[str, float]]
    """Per epoch: `epoch` from 1, and the metrics of its end."""
    settings: dict[str, Any]
    """Its complete configuration."""
    provenance: dict[str, Any]
    """Hashes, versions, device, commit, command."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; predictions, curve and command stay in the folder's own files."""
        return {
            "folder": self.place,
            **self.counts_as_dict(),
            "seconds_training": self.seconds,
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "peak_gpu_memory": self.peak_gpu_memory,
            # Without what may hold paths of a machine: the hashes say which files they were.
            "provenance": {k: value for k, value in self.provenance.items() if k not in ("command", "weights")},
        }

    @property
    def place(self) -> str:
        """Its folder below that of the series: runs/<name>/version_<n>."""
        return str(Path(*self.folder.parts[-3:]))


def is_finished(folder: Path) -> bool:
    """Whether the run in this folder is finished: it writes its report last."""
    return (folder / _REPORT).is_file()


def read_finished_run(folder: Path) -> FinishedRun:
    """Reads a finished run; a UserError where a file of it is missing or damaged."""
    try:
        report = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        csv.field_size_limit(1 << 30)  # a text may be longer than the 128 KiB that csv allows by itself
        texts = {split: _read_csv(folder / f"predictions_{split}.csv") for split in SPLIT_NAMES}
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        if not (isinstance(settings, dict) and isinstance(provenance, dict)):
            raise ValueError("config.yaml or provenance.json holds no settings")
        counts = {row["split"]: (row["correct"], row["n"]) for row in report["accuracy"]}
        for split, rows in texts.items():
            if any(value is None for row in rows for value in row.values()):
                raise ValueError(f"predictions_{split}.csv ends in the middle of a line")
            if len(rows) != counts[split][1]:
                raise ValueError(f"predictions_{split}.csv and report.json do not agree")
        right = [row["label"] == row["predicted"] for row in texts["test"]]
        train, test = ([row["text"] for row in texts[split]] for split in ("train", "test"))
        seen, unseen = count_seen(train, test, right)
        return FinishedRun(
            folder=folder,
            counts=counts,
            test_rows=[int(row["source_row"]) for row in texts["test"]],
            test_right=right,
            seen=seen,
            unseen=unseen,
            seconds=report["seconds_training"],
            parameters=report["parameters"]["all"],
            trained=report["parameters"]["trained"],
            peak_gpu_memory=report["peak_gpu_memory"],
            curve=_curve(folder / "metrics.csv"),
            settings=settings,
            provenance=provenance,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error, yaml.YAMLError) as error:
        what = f"the finished run {folder} cannot be read ({type(error).__name__}: {error})"
        raise UserError(f"{what}: move that folder away and run again") from error


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(line.replace("\0", "") for line in stream))  # Python 3.10 reads no NUL


def _curve(path: Path) -> list[dict[str, float]]:
    """One entry per epoch of metrics.csv, which has one line per logging call."""
    epochs: dict[int, dict[str, float]] = {}
    for line in _read_csv(path):
        figures = {name: float(line[name]) for name in ("train_loss", "val_loss", "val_acc") if line.get(name)}
        if figures and line.get("epoch"):
            epoch = int(float(line["epoch"])) + 1
            epochs.setdefault(epoch, {"epoch": epoch}).update(figures)
    # Without a train_loss it is the test of the kept weights, after the last epoch.
    return [epochs[epoch] for epoch in sorted(epochs) if "train_loss" in epochs[epoch]]
