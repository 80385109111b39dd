"""Folder with an ONNX graph from token ids to probabilities and a label, a tokenizer and an example.

Shapes: B batch, T tokens, K classes.
"""

import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lit_cls.exports.parity import Log, measure, write_readme
from lit_cls.exports.source import ExportSource, ReferenceOutputs, merge_adapter, require_packages
from lit_cls.io.atomic import write_json
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.decision import Decision

if TYPE_CHECKING:
    from lit_cls.exports.classify import Classifier

_OPSET = 18  # has all operators of the network, and runs on an onnxruntime of 2023
_MAX_BYTES_IN_GRAPH = 1 << 30  # a protobuf ends at 2 GB; larger weights get a file of their own


def check_onnx(source: ExportSource) -> None:
    """Refuses missing packages only: every setting can be expressed."""
    require_packages("onnxscript", "onnxruntime", "tokenizers")


def write_onnx(source: ExportSource, net: TextClassifier, reference: ReferenceOutputs, folder: Path, log: Log) -> None:
    """Writes the graph, its tokenizer, its labels, an example and a README."""
    merge_adapter(net)
    graph = _DecisionGraph(net, source.decision).eval()
    _export(graph, folder / "model.onnx")
    source.tokenizer.write(folder)
    write_json(folder / "labels.json", list(source.label_names), indent=1)
    reads_pads = net.needs == "all"
    reading = {
        "cut_to": source.cut_to,
        "truncation": source.truncation,
        "pad_id": source.tokenizer.pad_id,
        "pad_to": source.pad_to if reads_pads else None,
        "one_at_a_time": reads_pads and source.pad_to is None,
    }
    write_json(folder / "reading.json", reading, indent=1)
    from lit_cls.exports import classify

    shutil.copyfile(str(classify.__file__), folder / "classify.py")
    write_readme(folder, "onnx.md", source, _compare(graph, source, reference, classify.Classifier(folder)), log)


class _DecisionGraph(nn.Module):
    """Token ids to probabilities and labels, as `Classifier.predict` makes them."""

    def __init__(self, net: TextClassifier, decision: Decision) -> None:
        super().__init__()
        self.net = net
        self.decision = decision

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) ids, right-padded, and (B, T) ones at real tokens to (B, K) probabilities and (B,) class ids."""
        probabilities = self.decision.probabilities(self.net(input_ids, attention_mask.sum(dim=1)))
        return probabilities, self.decision.labels(probabilities)


def _export(graph: _DecisionGraph, path: Path) -> None:
    ids = torch.zeros((2, 5), dtype=torch.int64)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    longest = graph.net.config.context_length
    free = {0: torch.export.Dim("batch", min=1, max=1 << 16), 1: torch.export.Dim("length", min=1, max=longest)}
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (ids, mask),
                input_names=["input_ids", "attention_mask"],
                output_names=["probabilities", "label"],
                dynamic_shapes=(free, free),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.disable(disabled)
    assert program is not None, "torch.onnx.export with dynamo returns the program"
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    program.save(str(path), external_data=size > _MAX_BYTES_IN_GRAPH)


def _compare(
    graph: _DecisionGraph, source: ExportSource, reference: ReferenceOutputs, example: "Classifier"
) -> Iterator[str]:
    """Compares the graph with torch on random ids (one token, and batches of different lengths), and the example, with
    its own tokenizer, truncation and padding, with the checkpoint."""
    generator = torch.Generator().manual_seed(0)
    longest = source.pad_to or source.cut_to
    for B, T in ((1, 1), (3, min(17, longest)), (8, longest)):
        input_ids = torch.randint(0, source.tokenizer.pad_id, (B, T), generator=generator)
        lengths = torch.randint(1, T + 1, (B,), generator=generator)
        lengths[0] = T
        mask = (torch.arange(T) < lengths[:, None]).long()
        with torch.inference_mode():
            expected, labels = graph(input_ids, mask)
        feed = {"input_ids": input_ids.numpy(), "attention_mask": mask.numpy()}
        found, others = map(torch.from_numpy, example.session.run(["probabilities", "label"], feed))
        parity = measure(expected, found, labels, others)
        yield parity.require(f"probabilities, ONNX and torch, batch {B}, length {T}")
    found, others = map(torch.from_numpy, example.classify(reference.texts))
    expected = source.decision.probabilities(reference.logits)
    labels = source.decision.labels(expected)
    yield measure(expected, found, labels, others).require("probabilities, classify.py and the checkpoint")
