"""Resuming a training: the state, the options that a checkpoint brings, and those that may change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_cls.data.options import DataOptions
from lit_cls.errors import UserError
from lit_cls.model.adapters import adapter_as_config
from lit_cls.training.checkpoint_io import copy_checkpoint
from lit_cls.training.checkpoints import BEST, DATA_KEY, KEY, LAST, RUN_KEY, has_loss
from lit_cls.training.loss import is_weights
from lit_cls.training.metrics_file import MetricsFile

_GROUPS = ("trainer", "model", "data")
_LOCATIONS = ("ckpt_path", "run_name", "config", "trainer.default_root_dir")
"""Options that say where things are, not what a run does."""


@dataclass(frozen=True)
class ResumeState:
    """The state that a training resumes from.

    The checkpoint's content is not kept: mapped, it would hold the room of a file that a newer one has replaced.
    """

    path: Path
    place: dict[str, int]
    """As `place_of` returns it."""
    metrics_rows: int
    """Of metrics.csv beside it, when it was saved."""
    best_loss: float | None


def saved_settings(checkpoint: dict[str, Any], other_data: bool, training: bool) -> dict[str, Any]:
    """A checkpoint's settings as defaults of the parser; `other_data` replaces the checkpoint's as a whole.

    For a `training` that is resumed the options of its run hold too, but none that could name a class: a checkpoint
    may be a stranger's.
    """
    described, settings = checkpoint[KEY], {}
    if training and RUN_KEY in checkpoint:
        for name, value in _options(checkpoint[RUN_KEY]["settings"]).items():
            # Plain: the parser can see no class in it, which it would import.
            plain = "." not in value if isinstance(value, str) else isinstance(value, bool | int | float | None)
            if name not in _LOCATIONS and (plain or (name == "model.class_weights" and is_weights(value))):
                settings[name] = value
    settings["trainer.precision"] = described["precision"]
    network = {**described["model"], "adapter": adapter_as_config(described["model"]["adapter"])}
    if settings.get("model.trainable_layers", "") is None:
        del network["trainable_layers"]  # the run's default, which follows from its other options
    settings |= _options({"model": network, "data": checkpoint[DATA_KEY]["settings"]})
    if other_data:
        for name in ("source", "path", "split", "group_near_duplicates"):
            settings.pop(f"data.{name}", None)  # checkpoints of earlier versions have no groups
    return settings


def names_other_data(data: Any, usual_splits: Sequence[Any]) -> bool:
    """Whether options name data, beside a split that a preset brings."""
    usual = [DataOptions.split, *usual_splits]
    return bool(data.source or data.path or data.split not in usual)


def changed_options(now: dict[str, Any], checkpoint: dict[str, Any]) -> list[str]:
    """Each option that differs from the checkpoint's run, in words."""
    then, ours = _options(checkpoint[RUN_KEY]["settings"]), _options(now)
    # An option that came after the checkpoint's version changes nothing as long as it has its default.
    usual = (None, False, DataOptions.tokenizer)
    later = {name for name, value in ours.items() if name not in then and value in usual}
    return [
        f"{name} is {_spelled(ours.get(name))}; until now it was {_spelled(then.get(name))}"
        for name in sorted({*then, *ours} - later - {*_LOCATIONS})
        if ours.get(name) != then.get(name)
    ]


def check_resumable(
    path: Path, checkpoint: dict[str, Any], order: dict[str, float], max_epochs: int | None, max_steps: int
) -> None:
    """Refuses a checkpoint or options with which the training cannot continue.

    `order` is as `ClassificationData.order` returns it; -1, and None for epochs, mean no limit.
    """
    if RUN_KEY not in checkpoint:
        raise UserError(
            f"{path} was not saved between two steps of lit_cls fit: it can be tested and can predict, but no "
            "training can be resumed from it"
        )
    place, theirs = checkpoint[RUN_KEY]["place"], checkpoint[RUN_KEY]["order"]
    different = [f"{name} is {n}, not {theirs.get(name)}" for name, n in order.items() if n != theirs.get(name)]
    if place["batches"] and different:
        raise UserError(
            f"{path} is from the middle of epoch {place['epochs'] + 1}, which cannot continue with another order of "
            f"its texts: {'; '.join(different)}. Leave these options out, or resume from the end of an epoch"
        )
    if max_epochs is not None and 0 <= max_epochs <= place["epochs"]:
        raise UserError(
            f"{path} has trained {place['epochs']} epochs, and trainer.max_epochs is {max_epochs}: give more, for "
            f"example --trainer.max_epochs {2 * place['epochs']}"
        )
    if 0 <= max_steps <= place["steps"]:
        raise UserError(f"{path} has trained {place['steps']} steps, and trainer.max_steps is {max_steps}: give more")


def continue_files(state: ResumeState, metrics: MetricsFile, keeps_best: bool, log: Callable[[str], None]) -> None:
    """Restores checkpoints and metrics.csv as they were at a state, in its own folder or that of a new run."""
    folder, place = metrics.folder, state.place
    in_own_folder = state.path.parent == folder
    log(
        f"resuming from {state.path}: after {place['steps']:,} steps, {place['epochs']} epochs and "
        f"{place['batches']} batches"
    )
    last = folder / LAST
    if last.exists() and in_own_folder and state.path.name != LAST:
        # A new one would take the place of the one that is whole.
        last.replace(folder / "damaged.ckpt")
    repeated = metrics.begin_with(state.path.with_name(metrics.path.name), state.metrics_rows)
    if repeated and in_own_folder:
        log(f"note: {repeated} rows of metrics.csv are of later steps, which are repeated")
    if state.best_loss is not None and keeps_best and not in_own_folder:
        theirs = state.path.with_name(BEST)
        if has_loss(theirs, state.best_loss):
            copy_checkpoint(theirs, folder / BEST)
        else:
            log(f"note: {theirs} is not the one with the lowest val_loss so far: the lowest from here on is kept")


def _spelled(value: Any) -> str:
    return "null" if value is None else str(value)


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings by the names of their options."""
    flat = {name: value for name, value in settings.items() if name not in _GROUPS}
    for group in _GROUPS:
        flat.update({f"{group}.{name}": value for name, value in (settings.get(group) or {}).items()})
    return flat
