"""Checkpoints of earlier formats, upgraded when they are read.

| format | since | what changed |
|---|---|---|
| 1 | 0.1.0 | (had no number) the network's parameters stood side by side; LoRA was a choice of `trainable_layers` |
| 2 | 0.2.0 | parameters are named `backbone.…` and `out_head.…`; `adapter` is an option of its own |
"""

from collections.abc import Mapping
from typing import Any

from lit_cls.model.adapters import adapter_as_config

FORMAT = 2
_TARGETS: dict[str, tuple[str, ...]] = {
    "W_query": ("query",),
    "W_key": ("key",),
    "W_value": ("value",),
    "out_proj": ("output",),
    "ff": ("mlp_in", "mlp_out"),
    "out_head": ("head",),
}
# Of format 1, whose checkpoints do not have them where `trainable_layers: lora` stood alone.
_LORA_DEFAULTS = {
    "rank": 8,
    "alpha": 16.0,
    "dropout": 0.0,
    "scaling": "alpha_over_rank",
    "targets": ["W_query", "W_key", "W_value", "out_proj", "ff"],
    "train_head": True,
}
_ALL_LINEAR = {"W_query", "W_key", "W_value", "out_proj", "ff"}


def upgrade(checkpoint: dict[str, Any]) -> None:
    """Brings a checkpoint that was just read to the newest format, in place.

    Entries that are not as any format has them stay as they are: the checks that follow name them.
    """
    described = checkpoint.get("lit_cls")
    if not isinstance(described, dict) or "format" in described:
        return
    described["format"] = FORMAT
    if isinstance(described.get("model"), dict):
        _upgrade_options(described["model"], "name")
    if isinstance(checkpoint.get("state_dict"), Mapping):
        checkpoint["state_dict"] = _upgrade_names(checkpoint["state_dict"])
    run = checkpoint.get("lit_cls_run")
    if not isinstance(run, dict):
        return
    settings = run.get("settings")
    if isinstance(settings, dict) and isinstance(settings.get("model"), dict):
        _upgrade_options(settings["model"], "class_path")
    processes = run.get("processes")
    for process in processes if isinstance(processes, list) else ():
        if isinstance(process, dict) and isinstance(process.get("gradients"), Mapping):
            process["gradients"] = _upgrade_names(process["gradients"])


def _upgrade_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """`net.tok_emb.weight` is `net.backbone.tok_emb.weight`; the head keeps its name."""
    return {
        name.replace("net.", "net.backbone.", 1)
        if isinstance(name, str) and name.startswith("net.") and not name.startswith("net.out_head.")
        else name: tensor
        for name, tensor in tensors.items()
    }


def _upgrade_options(model: dict[str, Any], form: str) -> None:
    """Makes `lora` and `trainable_layers: lora` an `adapter`; `form` is the key of its name, `name` or `class_path`."""
    if "lora" not in model:
        return
    lora = model["adapter"] = model.pop("lora")
    if model.get("trainable_layers") != "lora" or not isinstance(lora, dict | None):
        return
    model["trainable_layers"] = "last_layer"
    fields = {**_LORA_DEFAULTS, **(lora or {})}
    if isinstance(fields.get("targets"), list | tuple):
        fields["targets"] = _upgrade_targets(fields["targets"])
    model["adapter"] = {"name": "LoRA", **fields} if form == "name" else adapter_as_config({"name": "LoRA", **fields})


def _upgrade_targets(targets: list[Any] | tuple[Any, ...]) -> list[Any]:
    every = set(targets) >= _ALL_LINEAR if all(isinstance(target, str) for target in targets) else False
    roles = ["all_linear"] if every else []
    for target in targets:
        if not (every and target in _ALL_LINEAR):
            roles += _TARGETS.get(target, (target,)) if isinstance(target, str) else (target,)
    return roles
