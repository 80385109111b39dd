"""The folder for transformers, with transformers as the judge."""

import json
from pathlib import Path

import pytest
import torch
from altered import TEXTS, export_source, exportable
from conftest import OncePerOptions
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import lit_cls
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import RunError, UserError
from lit_cls.exports import huggingface
from lit_cls.exports.huggingface import check_huggingface, fold_head, write_huggingface
from lit_cls.model.adapters import LoRA
from lit_cls.model.decision import Decision


def write(path: Path, out: Path) -> list[str]:
    source, net, answers = exportable(path, out)
    check_huggingface(source)
    out.mkdir()
    told: list[str] = []
    write_huggingface(source, net, answers, out, told.append)
    return told


@pytest.mark.parametrize("case", ["lora", "tail"])
def test_transformers_gives_our_logits_labels_and_names(
    case: str, tmp_path: Path, altered_checkpoint: OncePerOptions
) -> None:
    decision = Decision(temperature=2.5, goal="a test") if case == "tail" else Decision()
    path = altered_checkpoint(
        {"adapter": LoRA(), "drop_rate": 0.1} if case == "lora" else {"trainable_layers": "last_layer"},
        {"padding": 30, "truncation": "tail"} if case == "tail" else {},
        decision=decision if case == "tail" else None,
    )
    out = tmp_path / "out"
    told = write(path, out)
    assert [line.split(":")[0] for line in told] == [
        "logits, transformers and the checkpoint, batches of 1",
        "logits, transformers and the checkpoint, batches of 8",
        "probabilities, pipeline and the checkpoint",
    ]

    ours = lit_cls.load(path)
    expected = ours.logits(TEXTS) / decision.temperature
    assert expected.std(dim=0).min() > 1e-3, "texts must differ, or any network would do"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.pad_token_id == 50256
    assert model.config.id2label == {0: "no", 1: "yes"}
    texts = [text or tokenizer_for("gpt2").pad_token for text in TEXTS]
    with torch.no_grad():
        for size in (1, 4, len(texts)):
            inputs = tokenizer(texts[:size], truncation=True, padding=True, return_tensors="pt")
            torch.testing.assert_close(model(**inputs).logits, expected[:size], atol=1e-5, rtol=1e-5)
    classify = pipeline("text-classification", str(out), truncation=True)
    for prediction, found in zip(ours.predict(TEXTS), classify(texts, batch_size=3), strict=True):
        assert found["label"] == prediction.label
        assert found["score"] == pytest.approx(max(prediction.probabilities.values()), abs=1e-5)
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert 'pipeline("text-classification", "out", truncation=True)' in readme
    assert ("divided by the temperature: temperature 2.5 (tuned: a test)" in readme) is (case == "tail")


def test_a_head_without_bias_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 12)
    head = {
        "out_head.weight": torch.randn(4, 12),
        "out_head.bias": torch.randn(4),
        "final_norm.shift": torch.randn(12),
        "final_norm.scale": torch.randn(12),
    }
    folded = fold_head(head, 0.5)
    before = (x + head["final_norm.shift"]) @ head["out_head.weight"].T + head["out_head.bias"]
    after = (x + folded["final_norm.shift"]) @ folded["out_head.weight"].T
    torch.testing.assert_close(after, before / 0.5, atol=2e-5, rtol=1e-5)
    assert "out_head.bias" not in folded
    assert folded["final_norm.scale"] is head["final_norm.scale"]


@pytest.mark.parametrize("case", ["more labels than weights", "twice the same row", "not finite"])
def test_a_bias_that_cannot_be_folded(case: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4) if case == "more labels than weights" else torch.randn(2, 4)
    if case == "twice the same row":
        weight[1] = weight[0]
    if case == "not finite":
        weight[0, 0] = float("nan")
    bias = torch.arange(len(weight)).float()
    tensors = {"out_head.weight": weight, "out_head.bias": bias, "final_norm.shift": torch.zeros(4)}
    with pytest.raises(UserError, match=r"the bias of the head.* cannot be folded.*--format onnx"):
        fold_head(tensors, 1.0)
    if case == "twice the same row":  # its own kind of bias it can carry
        fold_head({**tensors, "out_head.bias": torch.ones(2)}, 1.0)


@pytest.mark.parametrize(
    ("model", "changes", "named"),
    [
        ({"token_position": "last"}, {}, "model.token_position is last"),
        ({"token_position": "mean_flexible"}, {}, "model.token_position is mean_flexible"),
        ({"causal": False}, {}, "model.causal is false"),
        ({}, {"truncation": "head_tail"}, "data.truncation is head_tail"),
        ({}, {"decision": Decision(1.0, 1, 0.25, "a test")}, r"a threshold is set \(yes if at least 0.25\)"),
    ],
)
def test_settings_that_transformers_cannot_express_are_named(
    model: dict[str, object], changes: dict[str, object], named: str
) -> None:
    with pytest.raises(UserError, match=rf"(?s)some.ckpt cannot be expressed.*{named}.*pass --format onnx"):
        check_huggingface(export_source(model, **changes))


@pytest.mark.parametrize("broken", ["adapters", "labels", "tokenizer"])
def test_differences_are_noticed(
    broken: str, tmp_path: Path, altered_checkpoint: OncePerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = altered_checkpoint({"adapter": LoRA()})
    if broken == "adapters":
        monkeypatch.setattr(huggingface, "merge_adapter", lambda net: None)
    elif broken == "labels":
        written = huggingface.save_model

        def swapped(*args: object) -> None:
            written(*args)  # type: ignore[arg-type]
            config = json.loads((tmp_path / "out" / "config.json").read_text())
            config["id2label"] = {"0": "yes", "1": "no"}
            (tmp_path / "out" / "config.json").write_text(json.dumps(config))

        monkeypatch.setattr(huggingface, "save_model", swapped)
    else:
        monkeypatch.setattr(
            huggingface, "_or_pad_token", lambda source, reference: [text or "x" for text in reference.texts]
        )
    with pytest.raises(RunError, match=r"largest difference .* at most 1e-04 and no label may differ"):
        write(path, tmp_path / "out")


def test_a_trained_network_as_it_is(tmp_path: Path, trained_checkpoint: OncePerOptions) -> None:
    told = write(trained_checkpoint(max_epochs=2), tmp_path / "out")
    assert all(float(line.split("largest difference ")[1].split(",")[0]) < 1e-5 for line in told)
