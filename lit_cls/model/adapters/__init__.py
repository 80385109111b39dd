"""Parameter-efficient fine-tuning methods, one file each, and the table of their names."""

from dataclasses import asdict
from typing import Any

from lit_cls.model.adapters.base import Adapter
from lit_cls.model.adapters.lora import LoRA

ADAPTERS: dict[str, type[Adapter]] = {"LoRA": LoRA}

__all__ = [
    "ADAPTERS",
    "Adapter",
    "LoRA",
    "adapter_as_config",
    "adapter_as_dict",
    "adapter_from_dict",
    "moved_option_hint",
]


def adapter_as_dict(adapter: Adapter | None) -> dict[str, Any] | None:
    """Plain types, for a checkpoint: the name, then the fields."""
    if adapter is None:
        return None
    fields = asdict(adapter)  # type: ignore[call-overload]
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    return {"name": type(adapter).__name__, **plain}


def adapter_from_dict(plain: dict[str, Any] | None) -> Adapter | None:
    """The inverse of `adapter_as_dict`; the name is looked up in `ADAPTERS`, never imported.

    Raises:
        KeyError, TypeError: not what `adapter_as_dict` returns.
    """
    if plain is None:
        return None
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return ADAPTERS[str(fields.pop("name"))](**fields)


def adapter_as_config(plain: dict[str, Any] | None) -> dict[str, Any] | None:
    """What `adapter_as_dict` returns, as a configuration file has it."""
    if plain is None:
        return None
    fields = {name: value for name, value in plain.items() if name != "name"}
    return {"class_path": f"{__name__}.{plain['name']}", "init_args": fields}


def moved_option_hint(name: str, value: str = "") -> str:
    """The new form of an option, named `group.option`, that moved to `model.adapter` in 0.2.0; nothing for others."""
    if name.split(".")[:2] != ["model", "lora"] and (name, value.lower()) != ("model.trainable_layers", "lora"):
        return ""
    return ".\nLoRA is an option of its own: --model.adapter LoRA --model.adapter.rank 8 (in YAML, adapter: LoRA)"
