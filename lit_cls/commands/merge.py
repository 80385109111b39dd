"""`lit_cls merge`: adds adapters into the weights, and compares the predictions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from lit_cls.commands.checkpoint_options import add_checkpoint_options, add_data_option, open_checkpoint
from lit_cls.commands.parser import CommandParser
from lit_cls.errors import UserError
from lit_cls.exports.parity import measure
from lit_cls.exports.source import merge_adapter
from lit_cls.inference import Classifier, classifier_of
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import print_line
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoints import KEY, describe_network, without_training

_DESCRIPTION = """\
Writes a checkpoint whose weights have the adapters merged in, in float32: it predicts and is
tested like any other, needs no other file, and no training can resume from it. Its logits on the
validation split are compared with those of the checkpoint: if one differs by more than 1e-4, or a
label changes, nothing is written."""


def merge(words: list[str]) -> None:
    """Runs `lit_cls merge` with these arguments."""
    parser = CommandParser("merge", _DESCRIPTION)
    add_checkpoint_options(parser)
    add_data_option(parser, "the comparison")
    parser.add_argument("--out", metavar="FILE", help="the new checkpoint (default: merged.ckpt beside the other)")
    args = parser.parse_args(words)
    trained = open_checkpoint("merge", args, words, print_line).in_float32(print_line)
    settings = ModelSettings.from_dict(trained.checkpoint[KEY]["model"])
    if settings.adapter is None:
        raise UserError(
            f"{trained.path} has no adapter to merge: it was trained with model.trainable_layers "
            f"{settings.trainable_layers}, and is complete as it is"
        )
    out = trained.new_path(args.out, "merged")
    texts = trained.validation_split(print_line).rows.texts
    classifier = trained.classifier(packed=False)
    before = _logits(classifier, texts, "as it is")
    n_adapters = len({name.rpartition(".")[0] for name in classifier.net.adapter_names})  # layers that have one
    content = merged(trained.checkpoint, classifier.net)
    new = classifier_of(out, content, trained.device, precision=trained.precision, packed=False)
    after = _logits(new, texts, "merged")
    decision = classifier.decision
    labels = (decision.labels(decision.probabilities(logits)) for logits in (before, after))
    hint = f". {trained.path} works as it is, and lit_cls export --format peft keeps the adapters apart"
    line = measure(before, after, *labels).require("logits on the validation split, merged and before", hint)
    trained.save_as(out, content)  # before any output, whose reader may close it
    print_line(line)
    print_line(f"{n_adapters} adapters merged: {out}")


def _logits(classifier: Classifier, texts: Sequence[str], form: str) -> Tensor:
    """(N, K)"""
    print_line(f"{len(texts):,} validation texts, {form}")
    with Progress(len(texts)) as progress:
        return classifier.logits(texts, progress.advance)


def merged(checkpoint: dict[str, Any], net: TextClassifier) -> dict[str, Any]:
    """A checkpoint without adapters: those of `net`, in float32, are added into its weights in place."""
    merge_adapter(net)
    described = checkpoint[KEY]
    settings = ModelSettings.from_dict(described["model"])
    # Weights as in any checkpoint that holds every tensor itself: no file has these.
    settings = replace(settings, weights="random", trainable_layers="all", adapter=None)
    return {
        **without_training(checkpoint),
        # Not bf16-mixed, even if it was trained in that: the rounded sum may differ from the sum of rounded terms.
        KEY: describe_network(settings, tuple(described["label_names"]), None, "32-true"),
        "state_dict": {f"net.{name}": p.detach() for name, p in net.named_parameters()},
    }
