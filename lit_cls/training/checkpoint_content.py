"""Whether a checkpoint that may have been changed or made by hand holds what it must, in the types it must."""

import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from lit_cls.model.adapters import ADAPTERS
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.decision import Decision
from lit_cls.model.weight_files import plainness

_MOST_LABELS = 100_000


def _number(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _adapter(value: Any) -> bool:
    """Whether it has exactly the fields of an adapter that we know, each of its default's type."""
    if value is None:
        return True
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in ADAPTERS:
        return False
    defaults = {field.name: field.default for field in fields(ADAPTERS[value["name"]])}  # type: ignore[arg-type]
    same_names = value.keys() == {"name", *defaults}
    return same_names and all(_is_like(value[name], default) for name, default in defaults.items())


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    if type(default) is int:
        return _number(1, 10_000)(value)
    return isinstance(value, int | float) if isinstance(default, int | float) else isinstance(value, type(default))


def _labels(value: Any) -> bool:
    if not isinstance(value, list) or not 2 <= len(value) <= _MOST_LABELS:
        return False
    if not all(isinstance(name, str) for name in value) or len(set(value)) < len(value):
        return False
    return all(map(_printable, value))


def _printable(text: str) -> bool:
    """Whether it has no control character, which a terminal would obey; `data.sources` refuses them too."""
    return not any(unicodedata.category(character) == "Cc" for character in text)


def _tensors(value: Any) -> bool:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    return all(isinstance(tensor, Tensor) and not plainness(tensor) for tensor in value.values())


def _run(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.keys() != _RUN_ENTRIES:
        return False
    place, order, processes = value["place"], value["order"], value["processes"]
    return (
        isinstance(value["settings"], dict)
        and all(isinstance(value["settings"].get(group) or {}, dict) for group in ("trainer", "model", "data"))
        and isinstance(place, dict)
        and place.keys() == {"epochs", "batches", "steps"}
        and isinstance(order, dict)
        and all(_number(0, 10**12)(number) for number in place.values())
        and all(isinstance(number, int | float) for number in order.values())
        and _number(0, 10**12)(value["metrics_rows"])
        and (value["best_loss"] is None or isinstance(value["best_loss"], float))
        and isinstance(value["should_stop"], bool)
        and isinstance(processes, list)
        and all(isinstance(process, dict) and process.keys() == _PROCESS_ENTRIES for process in processes)
    )


def _decision(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(Decision)}:
        return False
    numbers = [value[name] for name in ("temperature", "threshold")]
    return (
        all(isinstance(number, float) and math.isfinite(number) and number > 0 for number in numbers)
        and (value["label"] is None or _number(0, _MOST_LABELS - 1)(value["label"]))
        and (value["goal"] is None or (isinstance(value["goal"], str) and _printable(value["goal"])))
    )


_RUN_ENTRIES = {"settings", "metrics_rows", "best_loss", "should_stop", "processes", "order", "place"}
_PROCESS_ENTRIES = {"random", "train_loss", "gradients"}
_LONGEST = max(spec.config.context_length for spec in BACKBONES.values())
_RULES: dict[tuple[str, ...], Callable[[Any], bool]] = {
    ("lit_cls",): lambda value: isinstance(value, dict),
    ("lit_cls", "model"): lambda value: isinstance(value, dict),
    ("lit_cls", "model", "size"): lambda value: isinstance(value, str) and value in BACKBONES,
    ("lit_cls", "model", "weights"): lambda value: isinstance(value, str),
    ("lit_cls", "model", "token_position"): lambda value: isinstance(value, str),
    ("lit_cls", "model", "trainable_layers"): lambda value: isinstance(value, str | int),
    ("lit_cls", "model", "causal"): lambda value: isinstance(value, bool),
    ("lit_cls", "model", "adapter"): _adapter,
    ("lit_cls", "model", "drop_rate"): lambda value: isinstance(value, int | float) and 0 <= value < 1,
    ("lit_cls", "label_names"): _labels,
    ("lit_cls", "weights_sha256"): lambda value: value is None or isinstance(value, str),
    ("lit_cls", "precision"): lambda value: isinstance(value, str),
    ("ClassificationData",): lambda value: isinstance(value, dict),
    ("ClassificationData", "settings"): lambda value: isinstance(value, dict),
    ("ClassificationData", "settings", "truncation"): lambda value: value in ("head", "tail", "head_tail"),
    ("ClassificationData", "label_names"): _labels,
    ("ClassificationData", "cut_to"): _number(1, _LONGEST),
    ("ClassificationData", "pad_to"): lambda value: value is None or _number(1, _LONGEST)(value),
    ("ClassificationData", "split_sha256"): lambda value: isinstance(value, dict),
    ("state_dict",): _tensors,
    ("lit_cls_run",): _run,
    ("lit_cls_decision",): _decision,
}


def problem_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The first thing that is not as every checkpoint of ours has it, in words; what is absent is not looked at."""
    for keys, holds in _RULES.items():
        value: Any = checkpoint
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                break
            value = value[key]
        else:
            if not holds(value):
                return f"{'.'.join(keys)} is {ascii(value)[:80]}"
    described, label = checkpoint.get("lit_cls", {}), checkpoint.get("lit_cls_decision", {}).get("label")
    if label is not None and label >= len(described.get("label_names", ())):
        return f"lit_cls_decision.label is {label}, which is no class"
    if described.get("weights_sha256") is not None and described.get("model", {}).get("weights") == "random":
        return "random weights cannot come from a file with a sha256"
    return None
