"""The adapters' folder, with peft as the judge."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from altered import TEXTS, altered, export_source, exportable
from conftest import OncePerOptions
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import lit_cls
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import RunError, UserError
from lit_cls.exports import peft as peft_module
from lit_cls.exports.peft import check_peft, write_peft
from lit_cls.model.adapters import LoRA
from lit_cls.model.decision import Decision
from lit_cls.model.pretrained import hub_source
from lit_cls.model.settings import ModelSettings

SHAPES = {
    "all": LoRA(),
    "the published one": LoRA(3, 7, 0.1, "alpha", ("query", "value", "head"), train_head=False),
    "the key alone": LoRA(2, 3, targets=("key",)),
    "without attention": LoRA(4, 16, targets=("mlp_in", "mlp_out", "output")),
}


def write(path: Path, out: Path) -> list[str]:
    source, net, answers = exportable(path, out)
    check_peft(source)
    out.mkdir()
    told: list[str] = []
    write_peft(source, net, answers, out, told.append)
    return told


@pytest.mark.parametrize(
    "shape", ["all", "the published one", *(pytest.param(name, marks=pytest.mark.slow) for name in list(SHAPES)[2:])]
)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's, of transformers
def test_peft_gives_our_logits(shape: str, tmp_path: Path, altered_checkpoint: OncePerOptions) -> None:
    decision = Decision() if shape == "all" else Decision(temperature=1.5, goal="a test")
    path = altered_checkpoint({"adapter": SHAPES[shape]}, decision=decision)
    out = tmp_path / "out"
    told = write(path, out)
    assert len(told) == 2
    expected = lit_cls.load(path).logits(TEXTS) / decision.temperature

    tokenizer = AutoTokenizer.from_pretrained(out)
    base = AutoModelForSequenceClassification.from_pretrained(out / "base")
    inputs = tokenizer(
        [text or tokenizer_for("gpt2").pad_token for text in TEXTS], truncation=True, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        plain = base(**inputs).logits
        model = PeftModel.from_pretrained(base, str(out)).eval()
        torch.testing.assert_close(model(**inputs).logits, expected, atol=2e-5, rtol=1e-5)
        assert (plain - expected).abs().max() > 0.01, "without adapters it must be another network"
        by_itself = AutoPeftModelForSequenceClassification.from_pretrained(str(out)).eval()
        torch.testing.assert_close(by_itself(**inputs).logits, expected, atol=2e-5, rtol=1e-5)
    assert base.config.id2label == {0: "no", 1: "yes"}
    assert json.loads((out / "labels.json").read_text()) == ["no", "yes"]
    targets = set(json.loads((out / "adapter_config.json").read_text())["target_modules"])
    assert ("attn.c_attn" in targets) is (shape != "without attention")


def test_published_weights_are_named_not_copied(tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "base.safetensors"
    save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), weights)
    # `write` compares the logits; of these adapters none is of c_attn.
    model = {"adapter": SHAPES["without attention"], "weights": str(weights)}
    path = altered(tmp_path, reviews, model)
    hub = SimpleNamespace(repository="somebody/gpt2-nano", revision="abc")
    monkeypatch.setattr(peft_module, "hub_source", lambda *_: hub)
    write(path, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == {"attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    assert (config["base_model_name_or_path"], config["revision"]) == ("somebody/gpt2-nano", "abc")
    assert '"somebody/gpt2-nano", revision="abc"' in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "base").exists()
    held = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert sum(t.numel() for t in held.values()) < 40_000, "the adapters, the head and the norm alone"


def test_what_openai_published_is_known_by_name_and_by_content() -> None:
    named = hub_source("gpt2-medium", "pretrained", "0" * 64)
    assert named is not None
    assert named.repository == "openai-community/gpt2-medium"
    assert len(named.revision) == 40
    known = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
    found = hub_source("gpt2-small", "/tmp/model.safetensors", known)
    assert found is not None
    assert found.repository == "openai-community/gpt2"
    assert hub_source("gpt2-small", "/tmp/model.safetensors", "0" * 64) is None
    assert hub_source("gpt2-nano", "random", None) is None
    assert hub_source("gpt2-medium", "random", None) is None


def test_refusals() -> None:
    with pytest.raises(UserError, match=r"has no LoRA adapters: .*trainable_layers all\. Pass --format huggingface"):
        check_peft(export_source({"trainable_layers": "all"}))
    lora: dict[str, object] = {"adapter": LoRA()}
    with pytest.raises(UserError, match="model.token_position is mean"):
        check_peft(export_source({**lora, "token_position": "mean"}))
    with pytest.raises(UserError, match="has one adapter, on the head, and peft stores a new head whole"):
        check_peft(export_source({"adapter": LoRA(targets=("head",), train_head=False)}))


def test_adapters_in_another_order_are_noticed(
    tmp_path: Path, altered_checkpoint: OncePerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = altered_checkpoint({"adapter": LoRA()})
    monkeypatch.setattr(peft_module, "_QKV", ("W_key", "W_query", "W_value"))
    with pytest.raises(RunError, match="logits, peft and the checkpoint, batches of 1: .* no label may differ"):
        write(path, tmp_path / "out")
