"""A folder that `transformers.pipeline("text-classification")` loads.

transformers' `GPT2ForSequenceClassification` reads the last token that is no pad through a head
without bias, and its pipeline takes the largest probability. What a checkpoint chose otherwise is
refused; a bias and a temperature are folded into the weights, exactly.

Shapes: N texts, C emb_dim, K classes.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError
from lit_cls.exports.parity import LIMIT, Tell, measure, told_each
from lit_cls.exports.source import Answers, Source, merge_adapter, plain_tensors, require_packages
from lit_cls.io.atomic import write_json
from lit_cls.model.classifier import TextClassifier

_FOLDED = 1e-5
"""How far the folded bias may be from the bias: a tenth of what a logit may."""
BATCHES = (1, 8)


def check_huggingface(source: Source) -> None:
    """Refuses choices that `GPT2ForSequenceClassification` has no place for.

    Raises:
        UserError: all of them, or packages that are not installed.
    """
    require_packages("transformers", "tokenizers")
    settings, decision = source.settings, source.decision
    wrong = []
    if settings.token_position != "flexible":
        wrong.append(f"model.token_position is {settings.token_position}; it reads the last real token (flexible)")
    if not settings.causal:
        wrong.append("model.causal is false; it has the causal mask")
    if source.truncation == "head_tail":
        wrong.append("data.truncation is head_tail; its tokenizer keeps the head or the tail")
    if decision.label is not None:
        label = source.label_names[decision.label]
        wrong.append(
            f"a threshold is set ({label} from {decision.threshold:.4g} on); its pipeline takes the most probable label"
        )
    if wrong:
        raise UserError(
            f"{source.path} cannot be expressed as transformers' GPT2ForSequenceClassification:\n  "
            + "\n  ".join(wrong)
            + "\nONNX can express it: pass --format onnx"
        )


def write_huggingface(source: Source, net: TextClassifier, answers: Answers, folder: Path, tell: Tell) -> None:
    """Writes weights, configuration and tokenizer; loads them as anybody would; then compares.

    Args:
        source: the checkpoint's choices.
        net: in float32 on the processor; its adapters are merged.
        answers: of the original.
        folder: empty.
        tell: prints what was found, line by line.

    Raises:
        UserError: the head's bias cannot be folded.
        RunError: the answers of what was written are not the original's.
    """
    merge_adapter(net)
    save_model(source, fold_head(plain_tensors(net), source.decision.temperature), folder)
    save_tokenizer(source, folder)
    with quiet():
        told = told_each(_compare(source, answers, folder), tell)
    (folder / "README.md").write_text(_readme(source, told), encoding="utf-8")


def fold_head(tensors: dict[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """The same logits, divided by the temperature, from a head without bias.

    The final norm's shift moves by the shortest d with W d = b: W (x + d) = W x + b.

    Args:
        tensors: by our names, without adapters.
        temperature: what the logits are divided by.

    Raises:
        UserError: there is no such d.
    """
    weight = (tensors["out_head.weight"].double() / temperature).float()  # (K, C)
    bias = tensors["out_head.bias"].double() / temperature
    shift = tensors["final_norm.shift"].double()
    try:
        moved = (shift + torch.linalg.pinv(weight.double()) @ bias).float()
        left = (weight.double() @ (moved.double() - shift) - bias).abs().max().item()
    except RuntimeError:  # of numbers that are not finite
        left = float("nan")
    if not left <= _FOLDED:
        K, C = weight.shape
        raise UserError(
            f"the bias of the head, of which transformers has none, cannot be folded into the final norm: the {K} rows "
            f"of {C} weights depend on each other, and {left:.1e} would be left. ONNX can express it: --format onnx"
        )
    kept = {name: tensor for name, tensor in tensors.items() if name != "out_head.bias"}
    return {**kept, "out_head.weight": weight, "final_norm.shift": moved}


def save_model(source: Source, tensors: dict[str, Tensor], folder: Path) -> None:
    """Writes `model.safetensors` and `config.json`.

    Args:
        source: the checkpoint's choices.
        tensors: by our names, without a bias of the head.
        folder: where to.
    """
    from safetensors.torch import save_file

    save_file(
        source.settings.spec.family.to_hub_names(tensors), folder / "model.safetensors", metadata={"format": "pt"}
    )
    configuration(source).save_pretrained(folder)


def configuration(source: Source) -> Any:
    """transformers' `GPT2Config` of it."""
    from transformers import GPT2Config

    settings = source.settings
    return GPT2Config(
        architectures=["GPT2ForSequenceClassification"],
        **settings.spec.family.hub_config(settings.config),
        id2label=dict(enumerate(source.label_names)),
        label2id={name: i for i, name in enumerate(source.label_names)},
        pad_token_id=tokenizer_for("gpt2").pad_id,
        problem_type="single_label_classification",
    )


def save_tokenizer(source: Source, folder: Path) -> None:
    """Writes `tokenizer.json` and how transformers is to use it."""
    tokenizer = tokenizer_for("gpt2")
    tokenizer.write(folder)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the class for GPT-2 would not read all of tokenizer.json
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), tokenizer.pad_token),
        "model_max_length": source.cut_to,
        "padding_side": "right",
        "truncation_side": "left" if source.truncation == "tail" else "right",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings, indent=1)


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, transformers shows neither bars nor warnings."""
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


@torch.inference_mode()
def logits_of(model: Any, tokenizer: Any, texts: Sequence[str], size: int) -> Tensor:
    """(N, K) of a network of transformers, in batches of `size`, cut and padded by its tokenizer."""
    rows, texts = [], spelt(texts)
    for i in range(0, len(texts), size):
        inputs = tokenizer(texts[i : i + size], truncation=True, padding=True, return_tensors="pt")
        rows.append(model(**inputs).logits)
    return torch.cat(rows)


def spelt(texts: Sequence[str]) -> list[str]:
    """An empty text as the one token that it is here: transformers fails on a text without tokens."""
    pad_token = tokenizer_for("gpt2").pad_token
    return [text or pad_token for text in texts]


def _compare(source: Source, answers: Answers, folder: Path) -> Iterator[str]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = answers.logits / source.decision.temperature
    for size in BATCHES:
        parity = measure(expected, logits_of(model, tokenizer, answers.texts, size))
        yield parity.require(f"logits, transformers and the checkpoint, batches of {size}")
    del model
    classify = pipeline("text-classification", str(folder), device="cpu", truncation=True)
    rows: Any = classify(spelt(answers.texts), top_k=None, batch_size=BATCHES[-1])
    shares = [{answer["label"]: answer["score"] for answer in row} for row in rows]
    # By name: a label that the folder does not know, or knows by another's place, shows.
    found = torch.tensor([[row.get(name, float("nan")) for name in source.label_names] for row in shares])
    yield measure(expected.softmax(dim=-1), found).require("probabilities, pipeline and the checkpoint")


def _readme(source: Source, told: list[str]) -> str:
    use = [
        "from transformers import pipeline",
        f'classify = pipeline("text-classification", "{source.out.name}", truncation=True)',
        'classify(["a text", "another"], batch_size=8)',
    ]
    folded = "The head's bias is folded into the final norm's shift (`ln_f.bias`): transformers' head has none."
    return readme("A text classifier for transformers", source, use, [folded], told)


def readme(title: str, source: Source, use: list[str], notes: list[str], told: list[str]) -> str:
    """What lies in a folder for transformers, in words for whoever finds it.

    Args:
        title: its heading.
        source: the checkpoint's choices.
        use: lines of Python that classify two texts.
        notes: paragraphs on the format.
        told: the comparison's lines.
    """
    rule = source.decision.told(source.label_names)
    if rule:
        notes = [*notes, f"The logits are divided by the temperature: {rule}."]
    paragraphs = [
        f"# {title}",
        f"Labels: {', '.join(source.label_names)}. Written by lit_cls from {source.path.name}.",
        "\n".join(f"    {line}" for line in use),
        f"With `truncation=True` a text is cut to {source.cut_to} tokens, of which the {source.truncation} is kept, as "
        "lit_cls cuts it. Without, a longer one is read to its end, or fails where the network cannot read it.",
        "`<|endoftext|>` in a text is ordinary text: the token, which pads, is spelt with a noncharacter, U+FDD0, "
        "before it. transformers fails on an empty text: pass `text or classify.tokenizer.pad_token`, which is what "
        "lit_cls reads an empty text as.",
        *notes,
        f"Compared when it was written (at most {LIMIT:.0e} is allowed):",
        "\n".join(f"- {line}" for line in told),
        "NOTICE has the licence of the vocabulary.",
    ]
    return "\n\n".join(paragraphs) + "\n"
