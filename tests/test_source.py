"""What is handed to a format."""

from pathlib import Path

import pytest
import torch
from altered import TEXTS, altered, exportable

import lit_cls
from lit_cls.errors import UserError
from lit_cls.exports import source as source_module
from lit_cls.exports.source import plain_tensors, require_packages
from lit_cls.model.adapters import LoRA
from lit_cls.model.decision import Decision


def test_the_checkpoints_choices_and_answers(tmp_path: Path, reviews: str) -> None:
    decision = Decision(1.5, 1, 0.3, "a test")
    path = altered(tmp_path, reviews, {"adapter": LoRA()}, {"padding": 40, "truncation": "tail"}, decision)
    source, net, answers = exportable(path, tmp_path / "out")
    assert (source.label_names, source.cut_to, source.pad_to, source.truncation) == (("no", "yes"), 40, 40, "tail")
    assert (source.decision, source.settings.adapter, source.weights_sha256) == (decision, LoRA(), None)
    assert answers.logits.shape == (len(TEXTS), 2)
    predicted = lit_cls.load(path, precision="32-true").predict(TEXTS)
    expected = torch.tensor([list(prediction.probabilities.values()) for prediction in predicted])
    torch.testing.assert_close(decision.probabilities(answers.logits), expected)
    assert plain_tensors(net).keys() == {
        name.removeprefix("backbone.") for name, _ in net.named_parameters() if "lora" not in name
    }


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    require_packages("torch")
    monkeypatch.setattr(source_module, "find_spec", lambda name: None if name == "peft" else name)
    with pytest.raises(UserError, match=r"needs peft, not installed here: pip install 'lit_cls\[export\]'"):
        require_packages("torch", "peft")
