"""The export formats by name."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lit_cls.exports.huggingface import check_huggingface, write_huggingface
from lit_cls.exports.onnx import check_onnx, write_onnx
from lit_cls.exports.parity import Log
from lit_cls.exports.peft import check_peft, write_peft
from lit_cls.exports.source import ExportSource, ReferenceOutputs
from lit_cls.model.classifier import TextClassifier


class Format(NamedTuple):
    """An export format: one file of this package."""

    check: Callable[[ExportSource], None]
    """Raises UserError for choices that the format cannot express, and for missing packages."""
    write: Callable[[ExportSource, TextClassifier, ReferenceOutputs, Path, Log], None]
    """Writes the network (float32, on the CPU; its adapters may be merged in place) into an empty folder, loads it as
    users will, and logs how it compares with the reference outputs; raises RunError where they differ."""


FORMATS = {
    "huggingface": Format(check_huggingface, write_huggingface),
    "onnx": Format(check_onnx, write_onnx),
    "peft": Format(check_peft, write_peft),
}
