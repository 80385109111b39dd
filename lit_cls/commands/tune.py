"""`lit_cls tune`: temperature and threshold for a goal, chosen on the validation split, kept in a new checkpoint."""

import itertools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_cls.commands.checkpoint_options import Trained, add_checkpoint_options, trained_of
from lit_cls.commands.parser import CommandParser
from lit_cls.data.split_data import LabelledSplit, SplitData
from lit_cls.errors import RunError, UserError, quote
from lit_cls.evaluation.figures import Predictions
from lit_cls.evaluation.metrics import wilson_interval
from lit_cls.evaluation.prior_shift import prior_shift, shifted_confusion
from lit_cls.evaluation.tuning import (
    Goal,
    Ints,
    ThresholdResult,
    choose_threshold,
    cost_of,
    fit_temperature,
    nll,
    parse_goal,
    texts_needed,
)
from lit_cls.io.atomic import check_output_file
from lit_cls.io.terminal import print_line, print_to, stdout_console
from lit_cls.model.decision import Decision
from lit_cls.report.numbers import percent, share
from lit_cls.report.tuning_table import TunedPredictions, tuning_table
from lit_cls.training.checkpoints import BEST, DECISION_KEY, KEY, LAST, PREVIOUS, decision_of, without_training

_FEW = 50  # texts: a share of fewer has an interval that is more than a quarter wide where it is a half
_DESCRIPTION = """\
Finds, on the validation split alone, the temperature that makes probabilities true and the threshold that serves
a goal, and writes a checkpoint that has both: predict, test and export then answer by them. The checkpoint that
was given stays as it is."""
_EPILOG = """\
goals:
  precision>=0.99     few false alarms: of all thresholds whose answers of the label are right so often, the one
                      that finds most texts of the label
  recall>=0.95        few misses: of all thresholds that find so many texts of the label, the most precise
  f1                  the largest F1 of the label
  cost ham=10,spam=1  the least total cost, where a wrong answer to a ham costs 10 and to a spam 1; an unnamed
                      label costs 1

example:
  lit_cls tune --ckpt_path checkpoints/quickstart/version_0/best.ckpt --goal "precision>=0.99" --label spam
"""


def tune(words: list[str]) -> int:
    """Runs the command.

    Args:
        words: what was typed after the verb.

    Returns:
        The exit code.

    Raises:
        UserError: a mistake in the options, the checkpoint or the data; a goal that no threshold reaches.
    """
    args = _parser().parse_args(words)
    trained = trained_of("tune", args, words, print_line)
    names: list[str] = trained.checkpoint[KEY]["label_names"]
    goal = parse_goal(args.goal, names)
    wanted = None if args.label is None else _class_of(_one(args.label), names)
    target = _target(args.out, trained.path)
    moved = getattr(args, "data.path")
    parts = trained.parts(moved)
    if list(parts.label_names) != names:
        raise UserError(
            f"the checkpoint knows the labels {', '.join(names)}; the data has {', '.join(parts.label_names)}: give "
            "the data it was trained on with --data.path"
        )
    candidates = [wanted] if wanted is not None else _candidates(goal, parts)
    part = trained.split("validation", moved, print_line)
    logits, labels = trained.classifier().logits(part.rows.texts), np.array(part.label_ids)
    if not bool(logits.isfinite().all()):
        raise UserError(f"{trained.path} answers with what is no number: its training has failed, train anew")
    decision, reached, trouble = _decide(logits, labels, candidates, goal, names)
    before, after = (_predictions(rule, logits, labels, names) for rule in (Decision(), decision))
    _write(trained, decision, target)  # before anything is told: whoever reads the output may close it
    print_to(stdout_console(), tuning_table(before, after, goal, f"{trained.path}: {decision.goal}"))
    told = [_why(decision, parts)] if wanted is None and goal.kind != "cost" else []
    for note in [*told, *_notes(trained, parts, part, decision, trouble, after.predictions, reached, goal)]:
        print_line(f"note: {note}")
    print_line(f"answers follow from: {decision.told(names)}")
    print_line(
        f"measure it on texts that nothing was chosen on: {shlex.join(['lit_cls', 'test', '--ckpt_path', str(target)])}"
    )
    print_line(f'classify texts with: {shlex.join(["lit_cls", "predict", "--ckpt_path", str(target)])} "a text"')
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("tune", _DESCRIPTION, _EPILOG)
    parser.add_argument("--goal", default="f1", metavar="GOAL", help="what the threshold is to serve (default: f1)")
    parser.add_argument(
        "--label",
        action="append",
        metavar="NAME",
        help="the label that the goal is about (default, with two labels: the one of which the source has fewer)",
    )
    moved = "the data it was trained on (three files: their folder), if that has moved"
    parser.add_argument("--data.path", metavar="PATH", help=moved)
    parser.add_argument("--out", metavar="FILE", help="the new checkpoint (default: tuned.ckpt beside the given one)")
    add_checkpoint_options(parser)
    return parser


def _one(labels: Sequence[str]) -> str:
    if len(labels) > 1:
        raise UserError(f"--label is given {len(labels)} times ({', '.join(map(quote, labels))}): a goal is about one")
    return labels[0]


def _class_of(name: str, label_names: Sequence[str]) -> int:
    if name not in label_names:
        raise UserError(f"--label {quote(name)} is no label of the checkpoint: {', '.join(label_names[:20])}")
    return label_names.index(name)


def _target(out: str | None, source: Path) -> Path:
    """Where the new checkpoint is to be: nothing is ever overwritten."""
    if out is None:
        names = itertools.chain(["tuned.ckpt"], (f"tuned_{n}.ckpt" for n in itertools.count(1)))
        target = next(path for path in (source.with_name(name) for name in names) if not os.path.lexists(path))
    else:
        target = Path(os.path.expanduser(out))
        if target.name in (BEST, LAST, PREVIOUS):
            raise UserError(f"--out {target}: {target.name} is what a training saves, give another name")
    check_output_file(target, "--out")
    return target


def _candidates(goal: Goal, parts: SplitData) -> list[int]:
    """The labels that the threshold may be about, where none was named."""
    names = parts.label_names
    if goal.kind == "cost":
        return list(range(len(names)))
    n = parts.source_counts()
    if len(names) > 2 or n[0] == n[1]:
        why = f"there are {len(names)} labels" if len(names) > 2 else f"the source has {n[0]:,} texts of each label"
        choices = " or ".join(f"--label {shlex.quote(name)}" for name in names[:10])
        raise UserError(f"{why}: say which the goal is about, {choices}")
    return [min((0, 1), key=n.__getitem__)]


def _decide(
    logits: Tensor, labels: Ints, candidates: Sequence[int], goal: Goal, names: Sequence[str]
) -> tuple[Decision, ThresholdResult, str | None]:
    """The decision, what its threshold comes to, and what there is to tell of the temperature."""
    temperature, trouble = fit_temperature(logits.numpy(), labels)
    probabilities = Decision(temperature).probabilities(logits).numpy()
    found = {label: choose_threshold(probabilities, labels, label, goal) for label in candidates}
    # With costs, of labels that come to the same the rarer one's threshold is easier to follow.
    label = min(found, key=lambda k: (round(found[k].cost, 9), found[k].of_label, -k))
    reached = found[label]
    about = "" if goal.kind == "cost" else f" for {names[label]}"
    told = f"{goal.describe(names)}{about} on {len(labels):,} validation texts"
    if goal.kind == "cost" and len(candidates) > 2:
        plain = cost_of(probabilities.argmax(axis=1), labels, goal)
        if plain <= reached.cost + 1e-9:
            return Decision(temperature, goal=told), reached, trouble
    return Decision(temperature, label, reached.threshold, told), reached, trouble


def _predictions(decision: Decision, logits: Tensor, labels: Ints, names: Sequence[str]) -> TunedPredictions:
    if decision.label is None:
        rule = "most probable label"
    else:
        rule = f"{names[decision.label]} if its probability is at least {decision.threshold:.4g}"
    probabilities = decision.probabilities(logits)
    return TunedPredictions(
        rule=f"temperature {decision.temperature:.4g}, {rule}",
        nll=nll(logits.numpy(), labels, decision.temperature),
        predictions=Predictions(probabilities, torch.from_numpy(labels), decision.labels(probabilities), tuple(names)),
    )


def _why(decision: Decision, parts: SplitData) -> str:
    assert decision.label is not None, "goals other than cost are about a label"
    n, name = parts.source_counts(), parts.label_names[decision.label]
    return (
        f"the goal is about {name}, of which the source has fewer texts ({n[decision.label]:,} of {sum(n):,}); --label "
        "names another"
    )


def _notes(
    trained: Trained,
    parts: SplitData,
    part: LabelledSplit,
    decision: Decision,
    trouble: str | None,
    after: Predictions,
    reached: ThresholdResult,
    goal: Goal,
) -> list[str]:
    """What a person has to know before believing the figures."""
    names, labels = parts.label_names, np.array(part.label_ids)
    notes = []
    if earlier := decision_of(trained.checkpoint).told(names):
        notes.append(f"{trained.path} was tuned before ({earlier}): that is left out here, this starts from its logits")
    if trouble:
        notes.append(f"temperature: {trouble}")
    if absent := [name for k, name in enumerate(names) if not (labels == k).any()]:
        notes.append(f"the validation split has no text of {', '.join(absent[:5])}: nothing here is about these")
    if decision.label is None:
        notes.append("no threshold of one label costs less than the most probable label: there is none")
    else:
        notes += _limits(reached, goal, names[decision.label])
        notes += _shifted_precision(parts, after, decision.label)
    chosen = {BEST: f", and that {BEST} was chosen on", LAST: "", PREVIOUS: ""}
    also = chosen.get(trained.path.name, ", and that the checkpoint may have been chosen on")
    notes.append(f"these figures are of the very texts that this was tuned on{also}: expect less of new texts")
    return notes


def _limits(reached: ThresholdResult, goal: Goal, name: str) -> list[str]:
    """What so few texts cannot show."""
    notes = []
    n = reached.predicted if goal.kind == "precision" else reached.of_label
    if goal.kind in ("precision", "recall") and (low := wilson_interval(reached.correct, n)[0]) < goal.least:
        needed = texts_needed(goal.least)
        way = f"with none wrong, {needed:,} would be needed" if needed else "no number of texts could"
        notes.append(
            f"{goal.kind} {share(reached.correct, n)}: these texts support only {low:.1%} or more (95 %), they do not "
            f"show {goal.least:.1%}; {way}"
        )
    if reached.of_label < _FEW:
        notes.append(
            f"the validation split has only {_texts(reached.of_label)} of {name}"
            + (f": each is {100 / reached.of_label:.1f} points of recall" if reached.of_label else "")
        )
    if reached.predicted < _FEW:
        each = f": each is {100 / reached.predicted:.1f} points of precision" if reached.predicted else ""
        notes.append(f"only {_texts(reached.predicted)} are answered with {name}{each}")
    return notes


def _shifted_precision(parts: SplitData, after: Predictions, label: int) -> list[str]:
    """The precision at the label mix of the source, if the validation split has another one."""
    shift = prior_shift(parts.source_counts(), after.labels)
    confusion = after.confusion().numpy()
    here, source = confusion[label].sum() / confusion.sum(), shift.shares[label]
    if abs(source - here) < 0.02 or shift.weights is None:
        return []
    mass = shifted_confusion(confusion, shift.shares)[:, label]
    precision = float(mass[label] / max(1e-12, mass.sum()))
    name = parts.label_names[label]
    return [
        f"the validation split is {percent(here, digits=1)} {name}, the source {percent(source, digits=1)} "
        f"(data.balance): at the label mix of the source about {percent(precision, digits=1)} of the predictions of "
        f"{name} would be correct. After a training with --data.balance none, the validation split has that mix"
    ]


def _texts(n: int) -> str:
    return f"{n:,} text{'' if n == 1 else 's'}"


def _write(trained: Trained, decision: Decision, target: Path) -> None:
    from lit_cls.training.checkpoint_io import AtomicCheckpointIO  # Lightning's, which takes seconds to import

    content = {**without_training(trained.checkpoint), DECISION_KEY: decision.as_dict()}
    try:
        AtomicCheckpointIO().save_checkpoint(content, target)
    except OSError as error:
        raise RunError(f"{target} could not be written: {error}") from error
