"""Folder with LoRA adapters in peft's format, for transformers' GPT-2.

transformers has query, key and value in one layer, `c_attn`: their adapters become one adapter, whose rank is the sum
of theirs and whose B is block diagonal. The head and the final norm, into which the head's bias is folded, are stored
whole (peft's `modules_to_save`).

Shapes: r rank, C emb_dim.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.errors import UserError
from lit_cls.exports import huggingface
from lit_cls.exports.parity import Log, write_readme
from lit_cls.exports.source import ExportSource, ReferenceOutputs, plain_tensors, require_packages
from lit_cls.io.atomic import write_json
from lit_cls.model.adapters.lora import LoRA, LoRALinear
from lit_cls.model.backbones.base import HubFile
from lit_cls.model.backbones.gpt2 import hub_name, to_hub_names
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.pretrained import hub_source

_QKV = ("W_query", "W_key", "W_value")


def check_peft(source: ExportSource) -> None:
    """Refuses checkpoints without adapters, and what `check_huggingface` refuses."""
    require_packages("peft")
    adapter = source.settings.adapter
    if not isinstance(adapter, LoRA):
        raise UserError(
            f"{source.path} has no LoRA adapters: it was trained with model.trainable_layers "
            f"{source.settings.trainable_layers}. Pass --format huggingface for the whole network"
        )
    if set(adapter.targets) == {"head"}:
        raise UserError(
            f"{source.path} has one adapter, on the head, and peft stores a new head whole, without adapters: "
            "pass --format huggingface"
        )
    huggingface.check_huggingface(source)


def write_peft(source: ExportSource, net: TextClassifier, reference: ReferenceOutputs, folder: Path, log: Log) -> None:
    """Writes the adapters, the tokenizer and a README. An adapter of the head is merged."""
    from safetensors.torch import save_file

    if isinstance(net.out_head, LoRALinear):
        net.out_head = net.out_head.merged()
    frozen = plain_tensors(net)
    folded = huggingface.fold_head(frozen, source.decision.temperature)
    adapters = {f"{layer}.{kind}": tensor for layer, pair in _adapters(net).items() for kind, tensor in pair.items()}
    whole = {name: folded[name] for name in ("out_head.weight", "final_norm.scale", "final_norm.shift")}
    tensors = {f"base_model.model.{name}": t.contiguous() for name, t in (to_hub_names(whole) | adapters).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = source.settings
    # Layers that train beside the adapters are another network's than those on the hub.
    hub = None
    if settings.trainable_layers == "last_layer":
        hub = hub_source(settings.size, settings.weights, source.weights_sha256)
    base = {name: tensor for name, tensor in frozen.items() if name != "out_head.bias"}
    if hub is None:
        (folder / "base").mkdir()
        huggingface.save_model(source, base, folder / "base")
    _adapter_config(source, net, hub).save_pretrained(folder)
    huggingface.save_tokenizer(source, folder)
    write_json(folder / "labels.json", list(source.label_names), indent=None)
    with huggingface.quiet():
        lines = _compare(source, base, reference, folder)
        write_readme(folder, "peft.md", source, lines, log, hub=hub, pad_id=source.tokenizer.pad_id)


def _adapters(net: TextClassifier) -> dict[str, dict[str, Tensor]]:
    """peft's two matrices of each layer with an adapter, by transformers' names."""
    found: dict[str, dict[str, LoRALinear]] = {}
    for name, layer in net.backbone.trf_blocks.named_modules(prefix="trf_blocks"):
        if isinstance(layer, LoRALinear):
            theirs = hub_name(f"{name}.weight").removesuffix(".weight")
            found.setdefault(theirs, {})[name.rpartition(".")[2]] = layer
    return {theirs: _matrices(layers) for theirs, layers in found.items()}


def _matrices(layers: dict[str, LoRALinear]) -> dict[str, Tensor]:
    """A (r, in) and B (out, r); of n layers in `c_attn` all A stacked, (n r, C), and B block diagonal, (3C, n r)."""
    names = _QKV if layers.keys() <= set(_QKV) else tuple(layers)
    down = torch.cat([layers[name].lora_A.detach() for name in names if name in layers])
    none = torch.zeros(len(next(iter(layers.values())).lora_B), 0)  # rows of zeros for a layer without an adapter
    up = torch.block_diag(*(layers[name].lora_B.detach() if name in layers else none for name in names))
    return {"lora_A.weight": down, "lora_B.weight": up}


def _adapter_config(source: ExportSource, net: TextClassifier, hub: HubFile | None) -> Any:
    from peft import LoraConfig

    lora = source.settings.adapter
    assert isinstance(lora, LoRA), "check_peft has refused others"
    targets = sorted({name.split(".", 3)[3] for name in _adapters(net)})
    fused = 3 if "all_linear" in lora.targets else sum(role in lora.targets for role in ("query", "key", "value"))
    # peft scales by alpha / rank: c_attn has a larger rank, hence a larger alpha.
    return LoraConfig(
        task_type="SEQ_CLS",
        inference_mode=True,
        base_model_name_or_path=hub.repository if hub else str(source.out.absolute() / "base"),
        revision=hub.revision if hub else None,
        r=lora.rank,
        lora_alpha=lora.scale * lora.rank,  # type: ignore[arg-type]  # a float in ours
        lora_dropout=lora.dropout,
        target_modules=targets,
        rank_pattern={"attn.c_attn": fused * lora.rank} if fused else {},
        alpha_pattern={"attn.c_attn": lora.scale * fused * lora.rank} if fused else {},
        modules_to_save=["score", "ln_f"],
        fan_in_fan_out=True,  # transformers' Conv1D stores its weight the other way
        bias="none",
    )


def _compare(source: ExportSource, base: dict[str, Tensor], reference: ReferenceOutputs, folder: Path) -> Iterator[str]:
    """Compares on our frozen tensors: those of the hub have the same sha256."""
    from peft import PeftModel
    from transformers import GPT2ForSequenceClassification

    if (folder / "base").exists():
        network = GPT2ForSequenceClassification.from_pretrained(folder / "base")
    else:
        network = GPT2ForSequenceClassification(huggingface.configuration(source))
        network.load_state_dict(to_hub_names(base))
    model = PeftModel.from_pretrained(network, str(folder)).eval()
    yield from huggingface.compare_logits("peft", model, folder, source, reference)
