"""`lit_cls tune`: chooses temperature and threshold on the validation split, and writes them to a new checkpoint."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.table import Column, Table
from rich.text import Text
from torch import Tensor

from lit_cls.commands.checkpoint_options import add_checkpoint_options, add_data_option, open_checkpoint
from lit_cls.commands.parser import CommandParser
from lit_cls.data.split_data import SplitData
from lit_cls.errors import UserError, quote
from lit_cls.evaluation import tuning
from lit_cls.evaluation.figures import Predictions, calibration_error, reliability
from lit_cls.evaluation.metrics import wilson_interval
from lit_cls.evaluation.prior_shift import prior_shift, shifted_confusion
from lit_cls.evaluation.tuning import Goal, Ints, ThresholdResult
from lit_cls.io.terminal import print_line, print_to, stdout_console
from lit_cls.model.decision import Decision
from lit_cls.report.numbers import count, decimal, percent, share
from lit_cls.training.checkpoints import BEST, DECISION_KEY, KEY, LAST, PREVIOUS, decision_of

_FEW = 50  # texts: the interval of a share of 0.5 is wider than a quarter with fewer
_DESCRIPTION = """\
Chooses, on the validation split alone, the temperature that calibrates the probabilities and the threshold that
serves a goal, and writes both to a new checkpoint: predict, test and export then use them. The given checkpoint
stays as it is."""
_EPILOG = """\
goals:
  precision>=0.99     few false alarms: of all thresholds at which so large a share of the predictions of the label
                      is correct, the one that finds most texts of the label
  recall>=0.95        few misses: of all thresholds that find so many texts of the label, the most precise
  f1                  the largest F1 of the label
  cost ham=10,spam=1  the lowest total cost, where a wrong prediction costs 10 for a ham and 1 for a spam; an
                      unnamed label costs 1

example:
  lit_cls tune --ckpt_path checkpoints/quickstart/version_0/best.ckpt --goal "precision>=0.99" --label spam
"""


@dataclass(frozen=True)
class _Tuned:
    decision: Decision
    threshold: ThresholdResult
    temperature_note: str | None
    """Why the texts do not determine the temperature, if so."""
    goal: Goal


def tune(words: list[str]) -> None:
    """Runs `lit_cls tune` with these arguments."""
    parser = CommandParser("tune", _DESCRIPTION, _EPILOG)
    parser.add_argument("--goal", default="f1", metavar="GOAL", help="goal of the threshold (default: f1)")
    label_help = "label that the goal is about (default, with two labels: the rarer one in the source)"
    parser.add_argument("--label", action="append", metavar="NAME", help=label_help)
    add_data_option(parser)
    parser.add_argument("--out", metavar="FILE", help="the new checkpoint (default: tuned.ckpt beside the given one)")
    add_checkpoint_options(parser)
    args = parser.parse_args(words)
    trained = open_checkpoint("tune", args, words, print_line)
    names: list[str] = trained.checkpoint[KEY]["label_names"]
    goal = tuning.parse_goal(args.goal, names)
    named = None if args.label is None else _class_of(args.label, names)
    target = trained.new_path(args.out, "tuned")
    parts = trained.data()
    if list(parts.label_names) != names:
        raise UserError(
            f"the checkpoint knows the labels {', '.join(names)}; the data has {', '.join(parts.label_names)}: give "
            "the data it was trained on with --data.path"
        )
    candidates = [named] if named is not None else _candidates(goal, parts)
    split = trained.validation_split(print_line)
    logits, labels = trained.classifier().logits(split.rows.texts), np.array(split.label_ids)
    if not bool(logits.isfinite().all()):
        raise UserError(f"the outputs of {trained.path} are not numbers: its training has diverged, train anew")
    tuned = _tune(logits, labels, candidates, goal, names)
    rules = (Decision(), tuned.decision)
    before, after = (_predictions(rule, logits, labels, names) for rule in rules)
    trained.save_as(target, {DECISION_KEY: asdict(tuned.decision)})  # before any output, whose reader may close it
    figures = (figures_of(rule, logits, given, goal) for rule, given in zip(rules, (before, after), strict=True))
    print_to(stdout_console(), tuning_table(f"{trained.path}: {tuned.decision.goal}", *figures))
    earlier = decision_of(trained.checkpoint)
    for note in _notes(trained.path, earlier, parts, tuned, after, named is not None):
        print_line(f"note: {note}")
    print_line(f"predictions follow from: {tuned.decision.describe(names)}")
    test, predict = (shlex.join(["lit_cls", command, "--ckpt_path", str(target)]) for command in ("test", "predict"))
    print_line(f"measure it on texts that nothing was chosen on: {test}")
    print_line(f'classify texts with: {predict} "a text"')


def _class_of(labels: Sequence[str], label_names: Sequence[str]) -> int:
    if len(labels) > 1:
        raise UserError(f"--label is given {len(labels)} times ({', '.join(map(quote, labels))}): a goal is about one")
    if labels[0] not in label_names:
        raise UserError(f"--label {quote(labels[0])} is not a label of the checkpoint: {', '.join(label_names[:20])}")
    return label_names.index(labels[0])


def _candidates(goal: Goal, parts: SplitData) -> list[int]:
    """The labels that the threshold may be about, if none was named."""
    names = parts.label_names
    if goal.kind == "cost":
        return list(range(len(names)))
    n = parts.source_counts()
    if len(names) > 2 or n[0] == n[1]:
        why = f"there are {len(names)} labels" if len(names) > 2 else f"the source has {n[0]:,} texts of each label"
        choices = " or ".join(f"--label {shlex.quote(name)}" for name in names[:10])
        raise UserError(f"{why}: name the one that the goal is about, {choices}")
    return [min((0, 1), key=n.__getitem__)]


def _tune(logits: Tensor, labels: Ints, candidates: Sequence[int], goal: Goal, names: Sequence[str]) -> _Tuned:
    temperature, note = tuning.fit_temperature(logits.numpy(), labels)
    probabilities = Decision(temperature).probabilities(logits).numpy()
    found = {label: tuning.choose_threshold(probabilities, labels, label, goal) for label in candidates}
    # With equal costs, the threshold of the rarer label is easier to understand.
    label = min(found, key=lambda k: (round(found[k].cost, 9), found[k].of_label, -k))
    of_label = "" if goal.kind == "cost" else f" for {names[label]}"
    described = f"{goal.describe(names)}{of_label} on {len(labels):,} validation texts"
    decision = Decision(temperature, label, found[label].threshold, described)
    if goal.kind == "cost" and len(candidates) > 2:
        plain = tuning.cost_of(probabilities.argmax(axis=1), labels, goal)
        if plain <= found[label].cost + 1e-9:
            decision = Decision(temperature, goal=described)
    return _Tuned(decision, found[label], note, goal)


def _predictions(decision: Decision, logits: Tensor, labels: Ints, names: Sequence[str]) -> Predictions:
    probabilities = decision.probabilities(logits)
    return Predictions(probabilities, torch.from_numpy(labels), decision.labels(probabilities), tuple(names))


def _notes(
    path: Path, earlier: Decision, parts: SplitData, tuned: _Tuned, after: Predictions, named: bool
) -> list[str]:
    """About the checkpoint and its `earlier` rule, a label that was not `named`, and the limits of the figures."""
    names, label = parts.label_names, tuned.decision.label
    notes = []
    if label is not None and tuned.goal.kind != "cost" and not named:
        n = parts.source_counts()
        notes.append(
            f"the goal is about {names[label]}, of which the source has fewer texts ({n[label]:,} of {sum(n):,}); "
            "--label names another"
        )
    if rule := earlier.describe(names):
        notes.append(f"{path} was tuned before ({rule}): that is ignored, this starts from its logits")
    if tuned.temperature_note:
        notes.append(f"temperature: {tuned.temperature_note}")
    if absent := [name for name, n in zip(names, after.confusion().sum(dim=1).tolist(), strict=True) if not n]:
        notes.append(f"the validation split has no text of {', '.join(absent[:5])}: no figure is about these")
    if label is None:
        notes.append("no threshold of one label costs less than the most probable label: there is no threshold")
    else:
        notes += _sample_limits(tuned.threshold, tuned.goal, names[label])
        notes += _shifted_precision(parts, after, label)
    chosen = {BEST: f", and on which {BEST} was chosen", LAST: "", PREVIOUS: ""}
    also = chosen.get(path.name, ", and on which the checkpoint may have been chosen")
    notes.append(f"these figures are of the same texts on which this was tuned{also}: expect less of new texts")
    return notes


def _sample_limits(threshold: ThresholdResult, goal: Goal, name: str) -> list[str]:
    notes = []
    n = threshold.predicted if goal.kind == "precision" else threshold.of_label
    low = wilson_interval(threshold.correct, n)[0]
    if goal.kind in ("precision", "recall") and low < goal.least:
        needed = tuning.texts_needed(goal.least)
        hint = f"without an error, {needed:,} would be needed" if needed else "no number of texts could"
        notes.append(
            f"{goal.kind} {share(threshold.correct, n)}: these texts support only {percent(low, digits=1)} or more "
            f"(95 %), they do not show {percent(goal.least, digits=1)}; {hint}"
        )
    for texts, prefix, suffix, figure in (
        (threshold.of_label, "the validation split has only", f"of {name}", "recall"),
        (threshold.predicted, "only", f"are predicted as {name}", "precision"),
    ):
        if texts < _FEW:
            each = f": each is {100 / texts:.1f} points of {figure}" if texts else ""
            notes.append(f"{prefix} {count(texts)} text{'' if texts == 1 else 's'} {suffix}{each}")
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


def tuning_table(title: str, before: dict[str, str], after: dict[str, str]) -> Table:
    """One row per figure."""
    columns = (Column(name, justify="right") for name in ("before", "after"))
    table = Table("figure", *columns, title=Text(title), title_justify="left")
    for name, figure in before.items():
        table.add_row(Text(name), Text(figure), Text(after[name]))
    return table


def figures_of(decision: Decision, logits: Tensor, predictions: Predictions, goal: Goal) -> dict[str, str]:
    """The table's figures of predictions under one rule; shares with their counts and 95 % Wilson intervals."""
    names, rule = predictions.label_names, "most probable label"
    if decision.label is not None:
        rule = f"{names[decision.label]} if at least {decision.threshold:.4g}"
    # About the probabilities alone, whatever the threshold.
    most_probable = replace(predictions, predicted=predictions.probabilities.argmax(dim=1))
    found = {
        "rule": f"temperature {decision.temperature:.4g}, {rule}",
        "NLL": decimal(tuning.nll(logits.numpy(), predictions.labels.numpy(), decision.temperature)),
        "calibration error (ECE, 15 bins)": decimal(calibration_error(reliability(most_probable))),
        "accuracy": share(sum(predictions.correct), len(predictions.labels)),
    }
    if goal.kind == "cost":
        cost = tuning.cost_of(predictions.predicted.numpy(), predictions.labels.numpy(), goal)
        found["cost of wrong predictions"] = f"{cost:,.6g}"
    confusion = predictions.confusion()
    for k, name in enumerate(names):
        correct, predicted, texts = (int(n) for n in (confusion[k, k], confusion[:, k].sum(), confusion[k].sum()))
        f1 = 2 * correct / (predicted + texts) if predicted + texts else None
        found |= {
            f"{name}: precision": share(correct, predicted),
            f"{name}: recall": share(correct, texts),
            f"{name}: F1": decimal(f1),
        }
    return found
