"""`lit_cls merge`: LoRA adapters added into the weights, and the answers compared."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.commands.checkpoint_options import Trained, add_checkpoint_options, trained_of
from lit_cls.commands.parser import CommandParser
from lit_cls.errors import RunError, UserError
from lit_cls.exports.parity import LIMIT, measure
from lit_cls.exports.source import merge_adapter
from lit_cls.inference import Classifier, classifier_of
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import print_line
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoints import KEY, describe_network, without_training

_DESCRIPTION = """\
Writes a checkpoint whose weights have the LoRA adapters added in, in float32: it predicts and is
tested like any other, needs no other file, and no training goes on from it. Its logits on the
validation split are compared with those of the checkpoint: where one moves by more than 1e-4, or a
label flips, nothing is written."""


def merge(words: list[str]) -> int:
    """Runs the command.

    Args:
        words: behind `lit_cls merge`.

    Returns:
        The exit code.

    Raises:
        UserError: no LoRA in the checkpoint, no validation split to compare on, the file is there.
        RunError: the answers differ, or the disk refused.
    """
    parser = CommandParser("merge", _DESCRIPTION)
    add_checkpoint_options(parser)
    add_data_option(parser, "the comparison")
    parser.add_argument("--out", metavar="FILE", help="the new checkpoint (default: merged.ckpt beside the other)")
    args = parser.parse_args(words)
    trained = in_float32(trained_of("merge", args, words, print_line))
    settings = ModelSettings.from_dict(trained.checkpoint[KEY]["model"])
    if settings.adapter is None:
        raise UserError(
            f"{trained.path} has no LoRA adapters to merge: it was trained with model.trainable_layers "
            f"{settings.trainable_layers}, and is complete as it is"
        )
    out = _target(args.out, trained.path)
    texts = trained.split("validation", getattr(args, "data.path"), print_line).rows.texts
    classifier = trained.classifier(packed=False)
    before = _logits(classifier, texts, "as it is")
    n_adapters = len({name.rpartition(".")[0] for name in classifier.net.adapter_names})  # layers that have one
    content = merged(trained.checkpoint, classifier.net)
    decision = classifier.decision
    new = classifier_of(out, content, trained.device, precision=trained.precision, packed=False)
    after = _logits(new, texts, "merged")
    labels = (decision.labels(decision.probabilities(logits)) for logits in (before, after))
    parity = measure(before, after, *labels)
    line = parity.told("logits on the validation split, merged and before")
    if not parity.holds:
        raise RunError(
            f"{line}; at most {LIMIT:.0e} and no label may differ: nothing was written. {trained.path} works as it "
            "is, and lit_cls export --format peft keeps the adapters apart"
        )
    _write(content, out)  # before anything is told: whoever reads the output may close it
    print_line(line)
    print_line(f"{n_adapters} adapters merged: {out}")
    return 0


def _logits(classifier: Classifier, texts: Sequence[str], form: str) -> Tensor:
    """(N, K); how far it is, is told on the way."""
    print_line(f"{len(texts):,} validation texts, {form}")
    with Progress(len(texts)) as progress:
        return classifier.logits(texts, progress.advance)


def add_data_option(parser: CommandParser, use: str) -> None:
    """Adds `--data.path`, where the data has moved to.

    Args:
        parser: of a command.
        use: what the validation split is for.
    """
    where = "the data it was trained on (three files: their folder), if that has moved"
    told = f"{where}: its validation split is for {use}"
    parser.add_argument("--data.path", metavar="FILE", help=told)


def in_float32(trained: Trained) -> Trained:
    """The same on the processor in float32, and a line where that is not how it predicts."""
    usual = trained.precision or trained.checkpoint[KEY]["precision"]
    if (usual, trained.device.type) != ("32-true", "cpu"):
        print_line(f"note: all of this is in float32 on the processor, not in {usual} on {trained.device.type}")
    return replace(trained, device=torch.device("cpu"), precision="32-true")


def merged(checkpoint: Mapping[str, Any], net: TextClassifier) -> dict[str, Any]:
    """A checkpoint of the network with its adapters added in; they are added in `net` too.

    Args:
        checkpoint: with LoRA, as `read_checkpoint` returns it.
        net: its network in float32.
    """
    merge_adapter(net)
    described = checkpoint[KEY]
    settings = replace(
        ModelSettings.from_dict(described["model"]),
        # What a checkpoint is called that holds every tensor itself: no file has these weights, to be named by its
        # sha256. They are read from the checkpoint whatever the words are.
        weights="random",
        trainable_layers="all",
        adapter=None,
    )
    return {
        **without_training(dict(checkpoint)),
        # Not bf16-mixed, should it have been trained in that: rounded, the sums may not be those of the parts.
        KEY: describe_network(settings, tuple(described["label_names"]), None, "32-true"),
        "state_dict": {f"net.{name}": p.detach() for name, p in net.named_parameters()},
    }


def _target(given: str | None, source: Path) -> Path:
    """Where the new checkpoint goes; nothing is overwritten."""
    if given is not None:
        out = Path(os.path.expanduser(given))
        if out.exists() or out.is_symlink():
            raise UserError(f"{out} exists already: choose another file with --out")
        return out
    names = (source.with_name(f"merged_{i}.ckpt" if i else "merged.ckpt") for i in count())
    return next(path for path in names if not path.exists())


def _write(content: dict[str, Any], out: Path) -> None:
    # Lightning is behind it, which takes seconds to import: not before there is something to write.
    from lit_cls.training.checkpoint_io import AtomicCheckpointIO

    try:
        AtomicCheckpointIO().save_checkpoint(content, out)
    except OSError as error:
        raise RunError(f"{out} could not be written: {error}. Choose another place with --out") from error
