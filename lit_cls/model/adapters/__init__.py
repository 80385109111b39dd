"""Parameter-efficient fine-tuning methods, one file each, and the table of their names."""

from dataclasses import asdict
from typing import Any

from lit_cls.model.adapters.base import Adapter
from lit_cls.model.adapters.lora import LoRA

ADAPTERS: dict[str, type[Any]] = {"LoRA": LoRA}

__all__ = ["ADAPTERS", "Adapter", "LoRA", "adapter_as_dict", "adapter_from_dict"]


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
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    adapter: Adapter = ADAPTERS[values.pop("name")](**values)
    return adapter
