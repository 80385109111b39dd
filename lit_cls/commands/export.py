"""`lit_cls export`: a classifier in the formats of others, each compared with the original."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lit_cls.commands.checkpoint_options import Trained, add_checkpoint_options, trained_of
from lit_cls.commands.merge import add_data_option, in_float32
from lit_cls.commands.parser import CommandParser
from lit_cls.errors import RunError, UserError
from lit_cls.exports.huggingface import check_huggingface, write_huggingface
from lit_cls.exports.onnx import check_onnx, write_onnx
from lit_cls.exports.parity import ODD_TEXTS, Tell
from lit_cls.exports.peft import check_peft, write_peft
from lit_cls.exports.source import Answers, Source
from lit_cls.io.atomic import check_new_folder, whole_folder
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import print_line
from lit_cls.model.classifier import TextClassifier

_DESCRIPTION = """\
Writes a folder with the classifier in another format, loads it as its users will, and compares its
answers with the checkpoint's; where one number differs by more than 1e-4, or one label at all,
nothing is left.

  huggingface  for transformers.pipeline("text-classification"); token position flexible, causal,
               the most probable label
  onnx         one graph from token ids to probabilities and a label, with a tokenizer and an
               example beside it; any checkpoint
  peft         LoRA adapters alone, for transformers' GPT-2; as huggingface

LoRA adapters are merged in float32 for the first two."""
_MOST_TEXTS = 64


class _Format(NamedTuple):
    check: Callable[[Source], None]
    write: Callable[[Source, TextClassifier, Answers, Path, Tell], None]


_FORMATS = {
    "huggingface": _Format(check_huggingface, write_huggingface),
    "onnx": _Format(check_onnx, write_onnx),
    "peft": _Format(check_peft, write_peft),
}


def export(words: list[str]) -> int:
    """Runs the command.

    Args:
        words: behind `lit_cls export`.

    Returns:
        The exit code.

    Raises:
        UserError: a choice that the format cannot express, a folder that is there, missing packages.
        RunError: the answers differ, or the disk refused.
    """
    parser = CommandParser("export", _DESCRIPTION)
    add_checkpoint_options(parser)
    add_data_option(parser, "the comparison, beside texts that are always compared")
    parser.add_argument("--format", choices=tuple(_FORMATS), required=True, help="see above")
    parser.add_argument("--out", metavar="DIR", required=True, help="the new folder")
    args = parser.parse_args(words)
    out = Path(os.path.expanduser(args.out))
    check_new_folder(out)
    trained = in_float32(trained_of("export", args, words, print_line))
    source = Source.of(trained.path, trained.checkpoint, out)
    kind = _FORMATS[args.format]
    kind.check(source)
    if rule := source.decision.told(source.label_names):
        print_line(f"exported with it: {rule}")
    texts = _texts(trained, getattr(args, "data.path"))
    classifier = trained.classifier(packed=False)
    print_line(f"the checkpoint answers {len(texts)} texts, to compare with")
    with Progress(len(texts)) as progress:
        answers = Answers.of(classifier, texts, progress.advance)
    try:
        with whole_folder(out) as folder:
            print_line(f"writing it as {args.format}, and comparing")
            kind.write(source, classifier.net, answers, folder, print_line)
    except OSError as error:
        raise RunError(f"{out} could not be written: {error}. Choose another place with --out") from error
    print_line(f"{args.format}: {out}")
    return 0


def _texts(trained: Trained, moved: str | None) -> list[str]:
    """What both are asked: odd texts of ours, and texts of the validation split where it is at hand."""
    try:
        own = trained.split("validation", moved, print_line).rows.texts
    except UserError as error:
        if moved is not None:
            raise
        print_line(f"note: compared on {len(ODD_TEXTS)} odd texts alone, without the validation split: {error}")
        return list(ODD_TEXTS)
    return [*ODD_TEXTS, *own[:_MOST_TEXTS]]
