"""The ONNX graph, with onnxruntime as the judge."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from altered import TEXTS, altered, exportable

import lit_cls
from lit_cls.errors import RunError
from lit_cls.exports import onnx
from lit_cls.exports.onnx import check_onnx, write_onnx
from lit_cls.exports.source import ExportSource
from lit_cls.model.adapters import LoRA
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.decision import Decision
from lit_cls.model.settings import ModelSettings


@torch.no_grad()
def between(net: TextClassifier) -> Decision:
    """A threshold that half of the texts reach."""
    shares = (net(torch.randint(0, 50256, (20, 12)), torch.full((20,), 12)) / 1.5).softmax(1)[:, 1]
    return Decision(1.5, 1, shares.median().item(), "a test")


@pytest.fixture
def exported(tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch) -> tuple[ExportSource, Path, list[str]]:
    """What no other format can express, with its weights in a file of their own, as those of a large network are."""
    options = {"adapter": LoRA(), "token_position": "mean_flexible", "causal": False}
    path = altered(tmp_path, reviews, options, {"truncation": "head_tail", "max_length": 50})
    monkeypatch.setattr(onnx, "_MAX_BYTES_IN_GRAPH", 0)
    source, net, answers = exportable(path, tmp_path / "out")
    source = replace(source, decision=between(net))
    check_onnx(source)
    (tmp_path / "out").mkdir()
    told: list[str] = []
    write_onnx(source, net, answers, tmp_path / "out", told.append)
    return source, tmp_path / "out", told


def test_onnxruntime_gives_our_probabilities_and_labels(
    exported: tuple[ExportSource, Path, list[str]], tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, told = exported
    threshold = source.decision.threshold
    assert [line.split(":")[0] for line in told] == [
        *(f"probabilities, ONNX and torch, batch {B}, length {T}" for B, T in ((1, 1), (3, 17), (8, 50))),
        "probabilities, classify.py and the checkpoint",
    ]
    assert (out / "model.onnx.data").stat().st_size > 10 * (out / "model.onnx").stat().st_size
    session = onnxruntime.InferenceSession(str(out.rename(tmp_path / "moved") / "model.onnx"))
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("input_ids", ["batch", "length"], "tensor(int64)"),
        ("attention_mask", ["batch", "length"], "tensor(int64)"),
    ]
    ours = lit_cls.load(source.path, precision="32-true")
    net, decided = ours.net, set()
    for B, T in ((1, 1), (2, 1), (1, 9), (5, 12), (3, 1024)):
        ids, lengths = torch.randint(0, 50256, (B, T)), torch.randint(1, T + 1, (B,))
        mask = np.arange(T) < lengths.numpy()[:, None]
        found, labels = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.astype(np.int64)})
        with torch.no_grad():
            expected = (net(ids, lengths) / 1.5).softmax(1)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
        # By the rule's own words, not by our code for it.
        assert labels.tolist() == [int(row[1] >= threshold) for row in expected]
        decided |= {int(label) == int(row.argmax()) for label, row in zip(labels, expected, strict=True)}
    assert decided == {True, False}, "the threshold must have decided something"

    # The same comparison, of a graph with other weights.
    shutil.copytree(tmp_path / "moved", out)
    another = altered(tmp_path, reviews, {"trainable_layers": "all"})
    monkeypatch.setattr(onnx, "_export", lambda graph, to: None)
    source, net, answers = exportable(another, out)
    with pytest.raises(RunError, match=r"ONNX and torch, batch 1, length 1: largest .* no label may differ"):
        write_onnx(source, net, answers, out, print)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", ["first", "last", "flexible", "mean", "mean_flexible"])
@pytest.mark.parametrize("padding", ["longest_in_batch", 40])
def test_every_choice_can_be_expressed(
    position: str, causal: bool, padding: str | int, tmp_path: Path, reviews: str
) -> None:
    options = {"token_position": position, "causal": causal, "trainable_layers": "last_two_blocks"}
    path = altered(tmp_path, reviews, options, {"padding": padding})
    source, net, answers = exportable(path, tmp_path / "out", [*TEXTS, "word " * 1000])
    assert source.settings == ModelSettings("gpt2-nano", "random", **options)
    (tmp_path / "out").mkdir()
    write_onnx(source, net, answers, tmp_path / "out", print)
