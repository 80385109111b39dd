"""`lit_cls export`: writes a classifier in another format, and compares it with the original."""

from pathlib import Path

from lit_cls.commands.checkpoint_options import add_checkpoint_options, add_data_option, open_checkpoint
from lit_cls.commands.parser import CommandParser, user_path
from lit_cls.errors import RunError, UserError
from lit_cls.exports.huggingface import check_huggingface, write_huggingface
from lit_cls.exports.onnx import check_onnx, write_onnx
from lit_cls.exports.parity import ODD_TEXTS
from lit_cls.exports.peft import check_peft, write_peft
from lit_cls.exports.source import ExportSource, ReferenceOutputs
from lit_cls.io.atomic import check_new_folder, whole_folder
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import print_line

_DESCRIPTION = """\
Writes a folder with the classifier in another format, loads it as its users will, and compares its
predictions with the checkpoint's: if a value differs by more than 1e-4, or a label at all, nothing
is left.

  huggingface  for transformers.pipeline("text-classification"); token position flexible, causal,
               the most probable label
  onnx         one graph from token ids to probabilities and a label, with a tokenizer and an
               example beside it; any checkpoint
  peft         the adapters alone, for transformers' GPT-2; as huggingface

Adapters are merged in float32 for the first two."""
FORMATS = {
    "huggingface": (check_huggingface, write_huggingface),
    "onnx": (check_onnx, write_onnx),
    "peft": (check_peft, write_peft),
}
"""By name: a check that refuses missing packages and choices that the format cannot express; and a function that
writes the network (float32, on the CPU; its adapters may be merged in place) into an empty folder, loads it as users
will, logs how it compares with the reference outputs, and raises RunError where they differ."""
_MAX_TEXTS = 64  # of the validation split


def export(words: list[str]) -> None:
    """Runs `lit_cls export` with these arguments."""
    parser = CommandParser("export", _DESCRIPTION)
    add_checkpoint_options(parser)
    add_data_option(parser, "the comparison, beside texts that are always compared")
    parser.add_argument("--format", choices=tuple(FORMATS), required=True, help="see above")
    parser.add_argument("--out", type=user_path, metavar="DIR", required=True, help="the new folder")
    args = parser.parse_args(words)
    out: Path = args.out
    check_new_folder(out)
    trained = open_checkpoint("export", args, words, print_line).in_float32(print_line)
    source = ExportSource.of(trained.path, trained.checkpoint, out)
    check, write = FORMATS[args.format]
    check(source)
    if rule := source.decision.describe(source.label_names):
        print_line(f"exported with the decision rule: {rule}")
    texts = list(ODD_TEXTS)
    try:
        texts += trained.validation_split(print_line).rows.texts[:_MAX_TEXTS]
    except UserError as error:
        if trained.data_path is not None:
            raise
        print_line(f"note: compared on {len(texts)} odd texts alone, without the validation split: {error}")
    classifier = trained.classifier(packed=False)
    print_line(f"computing the checkpoint's logits of {len(texts)} texts, to compare with")
    with Progress(len(texts)) as progress:
        reference = ReferenceOutputs.of(classifier, texts, progress.advance)
    try:
        with whole_folder(out) as folder:
            print_line(f"writing it as {args.format}, and comparing")
            write(source, classifier.net, reference, folder, print_line)
    except OSError as error:
        raise RunError(f"{out} could not be written: {error}. Choose another place with --out") from error
    print_line(f"{args.format}: {out}")
