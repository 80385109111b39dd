"""Folder for `transformers.pipeline("text-classification")`.

transformers' head has no bias: bias and temperature are folded into the weights exactly. Settings that transformers
cannot express are refused.

Shapes: N texts, C emb_dim, K classes.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.errors import UserError
from lit_cls.exports.parity import Log, measure, write_readme
from lit_cls.exports.source import ExportSource, ReferenceOutputs, merge_adapter, plain_tensors, require_packages
from lit_cls.io.atomic import write_json
from lit_cls.model.classifier import TextClassifier

_FOLDED = 1e-5
"""Largest error of the folded bias: a tenth of what a logit may differ by."""
_BATCH = 8


def check_huggingface(source: ExportSource) -> None:
    """Refuses settings that `GPT2ForSequenceClassification` cannot express."""
    require_packages("transformers", "tokenizers")
    settings, decision = source.settings, source.decision
    wrong = []
    if settings.token_position != "flexible":
        wrong.append(f"model.token_position is {settings.token_position}; transformers reads the last real token")
    if not settings.causal:
        wrong.append("model.causal is false; transformers has the causal mask")
    if source.truncation == "head_tail":
        wrong.append("data.truncation is head_tail; transformers' tokenizer keeps the head or the tail")
    if decision.label is not None:
        rule = f"{source.label_names[decision.label]} if at least {decision.threshold:.4g}"
        wrong.append(f"a threshold is set ({rule}); transformers' pipeline takes the most probable label")
    if wrong:
        raise UserError(
            f"{source.path} cannot be expressed as transformers' GPT2ForSequenceClassification:\n  "
            + "\n  ".join(wrong)
            + "\nONNX can express it: pass --format onnx"
        )


def write_huggingface(
    source: ExportSource, net: TextClassifier, reference: ReferenceOutputs, folder: Path, log: Log
) -> None:
    """Writes weights, configuration, tokenizer and a README."""
    merge_adapter(net)
    save_model(source, fold_head(plain_tensors(net), source.decision.temperature), folder)
    save_tokenizer(source, folder)
    with quiet():
        write_readme(folder, "huggingface.md", source, _compare(source, reference, folder), log)


def fold_head(tensors: dict[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """Tensors, by our names, that give the same logits divided by the temperature from a head without bias.

    The final norm's shift moves by the shortest d with W d = b: W (x + d) = W x + b. Without such a d, a UserError.
    """
    weight = (tensors["out_head.weight"].double() / temperature).float()  # (K, C)
    bias = tensors["out_head.bias"].double() / temperature
    shift = tensors["final_norm.shift"].double()
    try:
        moved = (shift + torch.linalg.pinv(weight.double()) @ bias).float()
        left = (weight.double() @ (moved.double() - shift) - bias).abs().max().item()
    except RuntimeError:  # the tensors are not finite
        left = float("nan")
    if not left <= _FOLDED:
        K, C = weight.shape
        raise UserError(
            f"the bias of the head, which transformers lacks, cannot be folded into the final norm: the {K} rows "
            f"of {C} weights are linearly dependent, with an error of {left:.1e}. ONNX can express it: --format onnx"
        )
    kept = {name: tensor for name, tensor in tensors.items() if name != "out_head.bias"}
    return {**kept, "out_head.weight": weight, "final_norm.shift": moved}


def save_model(source: ExportSource, tensors: dict[str, Tensor], folder: Path) -> None:
    """Writes `model.safetensors`, from tensors by our names without a bias of the head, and `config.json`."""
    from safetensors.torch import save_file

    theirs = source.settings.spec.family.to_hub_names(tensors)
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
    configuration(source).save_pretrained(folder)


def configuration(source: ExportSource) -> Any:
    """transformers' `GPT2Config`."""
    from transformers import GPT2Config

    settings = source.settings
    return GPT2Config(
        architectures=["GPT2ForSequenceClassification"],
        **settings.spec.family.hub_config(settings.config),
        id2label=dict(enumerate(source.label_names)),
        label2id={name: i for i, name in enumerate(source.label_names)},
        pad_token_id=source.tokenizer.pad_id,
        problem_type="single_label_classification",
    )


def save_tokenizer(source: ExportSource, folder: Path) -> None:
    """Writes `tokenizer.json` and transformers' settings for it."""
    source.tokenizer.write(folder)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the class for GPT-2 would not read all of tokenizer.json
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), source.tokenizer.pad_token),
        "model_max_length": source.cut_to,
        "padding_side": "right",
        "truncation_side": "left" if source.truncation == "tail" else "right",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings, indent=1)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers' progress bars and warnings."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def compare_logits(
    library: str, model: Any, folder: Path, source: ExportSource, reference: ReferenceOutputs
) -> Iterator[str]:
    """Compares the network of a library, with the folder's tokenizer, with the checkpoint."""
    from transformers import AutoTokenizer

    tokenizer, texts = AutoTokenizer.from_pretrained(folder), _or_pad_token(source, reference)
    for size in (1, _BATCH):
        rows = []
        with torch.inference_mode():
            for i in range(0, len(texts), size):
                inputs = tokenizer(texts[i : i + size], truncation=True, padding=True, return_tensors="pt")
                rows.append(model(**inputs).logits)
        parity = measure(reference.logits / source.decision.temperature, torch.cat(rows))
        yield parity.require(f"logits, {library} and the checkpoint, batches of {size}")


def _or_pad_token(source: ExportSource, reference: ReferenceOutputs) -> list[str]:
    """Replaces an empty text by the token that lit_cls reads it as: transformers fails on a text without tokens."""
    return [text or source.tokenizer.pad_token for text in reference.texts]


def _compare(source: ExportSource, reference: ReferenceOutputs, folder: Path) -> Iterator[str]:
    from transformers import AutoModelForSequenceClassification, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    yield from compare_logits("transformers", model, folder, source, reference)
    del model
    classify = pipeline("text-classification", str(folder), device="cpu", truncation=True)
    rows: Any = classify(_or_pad_token(source, reference), top_k=None, batch_size=_BATCH)
    shares = [{entry["label"]: entry["score"] for entry in row} for row in rows]
    # By name: a missing or exchanged label shows.
    found = torch.tensor([[row.get(name, float("nan")) for name in source.label_names] for row in shares])
    expected = (reference.logits / source.decision.temperature).softmax(dim=-1)
    yield measure(expected, found).require("probabilities, pipeline and the checkpoint")
