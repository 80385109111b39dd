"""LoRA adapters in peft's format, for transformers' GPT-2.

transformers has query, key and value in one layer, `c_attn`: their adapters become one of the sum of
their ranks, whose B is zero but for a block for each. The head and the final norm, into which the
head's bias is folded, travel whole (peft's `modules_to_save`).

Shapes: r rank, C emb_dim.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.data.tokenizer import PAD_ID
from lit_cls.errors import UserError
from lit_cls.exports.huggingface import (
    BATCHES,
    check_huggingface,
    configuration,
    fold_head,
    logits_of,
    quiet,
    readme,
    save_model,
    save_tokenizer,
)
from lit_cls.exports.parity import Tell, measure, told_each
from lit_cls.exports.source import Answers, Source, plain_tensors, require_packages
from lit_cls.io.atomic import write_json
from lit_cls.model.adapters.lora import LoRA, LoRALinear
from lit_cls.model.backbones.gpt2 import hub_name, to_hub_names
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.pretrained import hub_source

_QKV = ("W_query", "W_key", "W_value")


def check_peft(source: Source) -> None:
    """Refuses what has no adapters, and what `check_huggingface` refuses.

    Raises:
        UserError: which choice.
    """
    require_packages("peft")
    adapter = source.settings.adapter
    if not isinstance(adapter, LoRA):
        raise UserError(
            f"{source.path} has no LoRA adapters: it was trained with model.trainable_layers "
            f"{source.settings.trainable_layers}. Pass --format huggingface for the whole network"
        )
    if set(adapter.targets) == {"head"}:
        raise UserError(
            f"{source.path} has one adapter, of the head, and peft's format holds a new head whole, without adapters: "
            "pass --format huggingface"
        )
    check_huggingface(source)


def write_peft(source: Source, net: TextClassifier, answers: Answers, folder: Path, tell: Tell) -> None:
    """Writes the adapters; loads them with peft onto the frozen network; then compares.

    Args:
        source: the checkpoint's choices.
        net: in float32 on the processor; an adapter of its head is merged.
        answers: of the original.
        folder: empty.
        tell: prints what was found, line by line.

    Raises:
        UserError: the head's bias cannot be folded.
        RunError: the answers of what was written are not the original's.
    """
    from safetensors.torch import save_file

    if isinstance(net.out_head, LoRALinear):
        net.out_head = net.out_head.merged()
    frozen = plain_tensors(net)
    folded = fold_head(frozen, source.decision.temperature)
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
        save_model(source, base, folder / "base")
    _adapter_config(source, net, hub).save_pretrained(folder)
    save_tokenizer(source, folder)
    write_json(folder / "labels.json", list(source.label_names), indent=None)
    with quiet():
        told = told_each(_compare(source, base, answers, folder), tell)
    (folder / "README.md").write_text(_readme(source, hub, told), encoding="utf-8")


def _adapters(net: TextClassifier) -> dict[str, dict[str, Tensor]]:
    """peft's two matrices of each layer that has an adapter, by transformers' names."""
    found: dict[str, dict[str, LoRALinear]] = {}
    for name, layer in net.backbone.trf_blocks.named_modules(prefix="trf_blocks"):
        if isinstance(layer, LoRALinear):
            theirs = hub_name(f"{name}.weight").removesuffix(".weight")
            found.setdefault(theirs, {})[name.rpartition(".")[2]] = layer
    return {theirs: {"lora_A.weight": _down(layers), "lora_B.weight": _up(layers)} for theirs, layers in found.items()}


def _down(layers: dict[str, LoRALinear]) -> Tensor:
    """(r, in), or the A of all that are in `c_attn`, one below the other: (n r, C)."""
    return torch.cat([layer.lora_A.detach() for layer in layers.values()])


def _up(layers: dict[str, LoRALinear]) -> Tensor:
    """(out, r), or (3C, n r): the rows of query, key and value, each of which reads its own columns alone."""
    if not layers.keys() & set(_QKV):
        [layer] = layers.values()
        return layer.lora_B.detach()
    C, r = next(iter(layers.values())).lora_B.shape
    up = torch.zeros(3 * C, len(layers) * r)
    for i, (name, layer) in enumerate(layers.items()):
        row = _QKV.index(name) * C
        up[row : row + C, i * r : (i + 1) * r] = layer.lora_B.detach()
    return up


def _adapter_config(source: Source, net: TextClassifier, hub: tuple[str, str] | None) -> Any:
    from peft import LoraConfig

    lora = source.settings.adapter
    assert isinstance(lora, LoRA), "check_peft has refused others"
    targets = sorted({name.split(".", 3)[3] for name in _adapters(net)})
    fused = 3 if "all_linear" in lora.targets else sum(role in lora.targets for role in ("query", "key", "value"))
    # peft scales by alpha / rank: of c_attn, whose rank is larger, alpha is larger too.
    return LoraConfig(
        task_type="SEQ_CLS",
        inference_mode=True,
        base_model_name_or_path=hub[0] if hub else str(source.out.absolute() / "base"),
        revision=hub[1] if hub else None,
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


def _compare(source: Source, base: dict[str, Tensor], answers: Answers, folder: Path) -> Iterator[str]:
    """With the frozen tensors at hand: those of the hub are the same, by their sha256."""
    from peft import PeftModel
    from transformers import AutoTokenizer, GPT2ForSequenceClassification

    if (folder / "base").exists():
        network = GPT2ForSequenceClassification.from_pretrained(folder / "base")
    else:
        network = GPT2ForSequenceClassification(configuration(source))
        network.load_state_dict(to_hub_names(base))
    model = PeftModel.from_pretrained(network, str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = answers.logits / source.decision.temperature
    for size in BATCHES:
        parity = measure(expected, logits_of(model, tokenizer, answers.texts, size))
        yield parity.require(f"logits, peft and the checkpoint, batches of {size}")


def _readme(source: Source, hub: tuple[str, str] | None, told: list[str]) -> str:
    where = f'"{hub[0]}", revision="{hub[1]}"' if hub else 'folder + "/base"'
    use = [
        "import json",
        "from peft import PeftModel",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline",
        "",
        f'folder = "{source.out.name}"',
        'labels = json.load(open(folder + "/labels.json", encoding="utf-8"))',
        "base = AutoModelForSequenceClassification.from_pretrained(",
        f"    {where}, pad_token_id={PAD_ID}, num_labels=len(labels),",
        "    id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},",
        ")",
        "model = PeftModel.from_pretrained(base, folder)",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        'classify = pipeline("text-classification", model, tokenizer=tokenizer, truncation=True)',
        'classify(["a text", "another"], batch_size=8)',
    ]
    notes = [
        "The adapters of query, key and value are one, of `c_attn`. The head's bias is folded into the final norm's "
        "shift, which travels with the head (`modules_to_save`).",
        *([] if hub else ["`base` has the frozen network: it is on no hub."]),
    ]
    return readme("LoRA adapters for transformers' GPT-2", source, use, notes, told)
