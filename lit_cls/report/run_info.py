"""The run that a report is about: everything beside the figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_cls.model.decision import Decision
from lit_cls.training.module import ClassifierModule
from lit_cls.training.pad_invariance import PadTest


@dataclass(frozen=True)
class RunInfo:
    """A run, as its report describes it."""

    name: str
    network: dict[str, Any]
    """Entries of report.json about training and parameters."""
    settings: dict[str, Any]
    """Options by their full names."""
    provenance: dict[str, Any]
    tested: str
    """The evaluated weights, in words."""
    decision: Decision
    padding: PadTest | str | None
    """Result of the padding self-test, or why there is none."""
    metrics: Sequence[Mapping[str, str]]
    """Rows of metrics.csv."""
    comparisons: bool = True
    """Whether to fit baselines and draw plots; a series of runs does so once for all of them."""


def reported_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what is trained and how, by their full names."""
    trainer = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "devices", "accelerator")
    found = {name: settings[name] for name in ("seed_everything", "keep", "preset") if name in settings}
    return found | {
        f"{group}.{name}": value
        for group in ("model", "data", "trainer")
        for name, value in settings.get(group, {}).items()
        if group != "trainer" or name in trainer
    }


def count_parameters(module: ClassifierModule) -> dict[str, int]:
    """The number of all parameters, and of those that train."""
    assert module.net is not None, "the run has built it"
    parameters = list(module.net.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return {"all": sum(p.numel() for p in parameters), "trained": trained}


def read_provenance(folder: Path) -> dict[str, Any]:
    """The run's provenance.json; empty if there was no batch to evaluate."""
    path = folder / "provenance.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def describe_checkpoint(path: Path | None, place: Mapping[str, int] | None) -> str:
    """The evaluated weights in words; `place` has the epochs and steps after which they were saved."""
    if path is None:
        return "the current weights: no checkpoint was written"
    return f"{path}" + (f", after {place['steps']:,} steps, {place['epochs']} whole epochs" if place else "")
