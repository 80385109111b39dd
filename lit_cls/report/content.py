"""The report of a run: what it holds, put together from what was evaluated, and written in three forms."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.split_data import Parts
from lit_cls.data.splits import SplitName, seen_in
from lit_cls.evaluation.baselines import quick_baselines
from lit_cls.evaluation.figures import Answers, Figures, figures_of
from lit_cls.evaluation.metrics import Accuracy, accuracy, majority_class
from lit_cls.evaluation.paired import compare
from lit_cls.evaluation.prior_shift import NaturalMix, natural_mix, reweighted
from lit_cls.io.atomic import write_json, write_text
from lit_cls.model.decision import Decision
from lit_cls.report.console import write_predictions
from lit_cls.report.html import render_html
from lit_cls.report.markdown import render_markdown
from lit_cls.report.plots import Picture, draw_evaluation, draw_learning
from lit_cls.training.module import ClassifierModule
from lit_cls.training.pad_invariance import PadTest

SHOWN_ERRORS = 20
_SHOWN_CHARACTERS = 300  # of a text that was answered wrong


@dataclass(frozen=True)
class Evaluated:
    """What came out of one split."""

    split: SplitName
    rows: list[int]
    """Of the split: all, unless Lightning was told to stop early."""
    answers: Answers


@dataclass(frozen=True)
class About:
    """What there is to tell of the run itself."""

    name: str
    network: dict[str, Any]
    """Entries of report.json about training and parameters."""
    settings: dict[str, Any]
    """Options by their full names."""
    provenance: dict[str, Any]
    tested: str
    """Which network was evaluated, in words."""
    decision: Decision
    padding: PadTest | str | None
    metrics: Sequence[Mapping[str, str]]
    """Rows of metrics.csv."""
    comparisons: bool = True
    """Whether baselines are fitted and pictures drawn; a series of runs does so once for all of them."""


def evaluated(
    split: SplitName, data: ClassificationData, row_ids: Tensor, logits: Tensor, decision: Decision
) -> Evaluated:
    """What the logits of some rows of a split come to.

    Args:
        split: which one.
        data: its texts and labels.
        row_ids: (N,)
        logits: (N, K)
        decision: how answers follow from them.
    """
    part, rows = data.part(split), row_ids.tolist()
    labels = torch.tensor([part.label_ids[row] for row in rows], dtype=torch.int64)
    names = data.label_names
    counts = _source_counts(data.parts)
    # Of two labels the rarer is what one looks for; of equally frequent ones the second, as is the custom.
    positive = 0 if counts[0] < counts[1] else 1
    if not rows:
        logits = torch.empty(0, len(names))
    probabilities = decision.probabilities(logits)
    return Evaluated(split, rows, Answers(probabilities, labels, decision.labels(probabilities), names, positive))


def accuracies(found: Sequence[Evaluated], data: ClassificationData) -> list[Accuracy]:
    """The accuracy on each split."""
    majority = majority_class(data.part("train").label_ids)
    return [accuracy(one.split, one.answers.labels.tolist(), one.answers.predicted.tolist(), majority) for one in found]


def write_split(folder: Path, found: Evaluated, data: ClassificationData) -> None:
    """Writes `predictions_<split>.csv`."""
    rows = data.part(found.split).rows
    write_predictions(
        folder / f"predictions_{found.split}.csv",
        [rows.texts[i] for i in found.rows],
        [rows.numbers[i] for i in found.rows],
        [rows.labels[i] for i in found.rows],
        found.answers.probabilities.tolist(),
        data.label_names,
        [data.label_names[answer] for answer in found.answers.predicted.tolist()],
    )


def write_report(folder: Path, found: Sequence[Evaluated], data: ClassificationData, about: About) -> dict[str, Any]:
    """Writes report.md, report.html with its pictures, and at last report.json.

    Args:
        folder: of the run; `report/` below it is written.
        found: what was evaluated; the report is about the first split.
        data: the texts.
        about: the run.

    Returns:
        The content of report.json.
    """
    main, out = found[0], folder / "report"
    figures, cut, seen = figures_of(main.answers), _cut(main, data), _seen(main, data)
    pictures, missing = _pictures(main, figures, about)
    content = {
        "name": about.name,
        "split": main.split,
        "accuracy": [row.as_dict() for row in reversed(accuracies(found, data))],
        "evaluated_in_part": _in_part(main, data),
        "decision": {**about.decision.as_dict(), "told": about.decision.told(data.label_names)},
        "figures": figures.as_dict(),
        "pictures": [{"file": picture.file, "title": picture.title} for picture in pictures],
        "pictures_missing": missing,
        **_comparisons(main, data, about.comparisons),
        "slices": _slices(main, figures, data, cut, seen),
        **_errors(main, data, cut, seen),
        "padding": _padding(about.padding, data),
        "data": data.summary.as_dict(),
        "tested": {"told": about.tested},
        "settings": about.settings,
        "provenance": about.provenance,
        **about.network,
    }
    for picture in pictures:
        write_text(out / picture.file, picture.svg)
    write_text(out / "report.md", render_markdown(content))
    write_text(out / "report.html", render_html(content, {picture.file: picture.svg for picture in pictures}))
    write_json(out / "report.json", content)  # the last: whoever finds it, finds the run finished
    return content


def _source_counts(parts: Parts) -> list[int]:
    """Texts of each class in the whole source."""
    counts = Counter(label for part in parts.splits.values() for label in part.rows.labels)
    counts.update(parts.left_out.labels)
    return [counts[name] for name in parts.label_names]


def _in_part(main: Evaluated, data: ClassificationData) -> str | None:
    n = len(data.part(main.split).label_ids)
    if len(main.rows) == n:
        return None
    return f"Only {len(main.rows):,} of the {n:,} {main.split} texts were evaluated, as the trainer was told."


def _pictures(main: Evaluated, figures: Figures, about: About) -> tuple[list[Picture], str | None]:
    """The pictures, and why there are none."""
    if not about.comparisons:
        return [], "Pictures are drawn once for the whole series of runs."
    if find_spec("matplotlib") is None:
        return [], "Pictures need matplotlib, which is not installed: pip install 'lit_cls[reports]'"
    return [*draw_evaluation(main.answers, figures, main.split), *draw_learning(about.metrics)], None


def _comparisons(main: Evaluated, data: ClassificationData, wanted: bool) -> dict[str, Any]:
    """The baselines on the same texts, and what the natural mix of labels makes of them and of ours."""
    parts, ours = data.parts, main.answers
    mix = natural_mix(_source_counts(parts), ours.labels) if parts.left_out.texts else None
    fitted: dict[str, Answers] = {}
    baselines: list[dict[str, Any]] = []
    missing = [] if wanted else ["they are fitted once for the whole series of runs"]
    if wanted and main.rows:
        train, part = parts.splits["train"], parts.splits[main.split]
        texts = [part.rows.texts[row] for row in main.rows]
        found, missing = quick_baselines(train.rows.texts, train.label_ids, len(ours.label_names), {"all": texts})
        for baseline in found:
            chances = torch.tensor(baseline.probabilities["all"], dtype=torch.float64)
            theirs = Answers(chances, ours.labels, chances.argmax(dim=1), ours.label_names, ours.positive)
            fitted[baseline.name] = theirs
            against = compare([theirs.right], [ours.right])
            baselines.append(
                {
                    "name": baseline.name,
                    "figures": figures_of(theirs).compact(),
                    "against_ours": {
                        "difference": against.difference,
                        "interval_95": against.interval,
                        "won": against.won,
                        "lost": against.lost,
                        "p_value": against.p_value,
                    },
                    "parameters": baseline.parameters,
                    "seconds": baseline.seconds,
                }
            )
    described = None if mix is None else _mix(mix, ours, fitted, parts)
    return {"baselines": baselines, "baselines_missing": missing, "natural_mix": described}


def _mix(mix: NaturalMix, ours: Answers, fitted: Mapping[str, Answers], parts: Parts) -> dict[str, Any]:
    told = (
        f"Natural mix: {len(parts.left_out.texts):,} of the {parts.n_rows:,} texts of the source are in no split, so "
        "that the labels are balanced. To say what to expect where they come in their natural shares, each text of a "
        "label counts for its share in the source divided by its share among these texts. This is a re-weighting of "
        "the same answers, not another evaluation: where a weight is large, few texts stand for many."
    )
    if mix.weights is None:
        told += " A label has no text here, so that nothing can be said."
    found = reweighted(ours, mix)
    if "majority" in fitted:
        # Fitted to balanced labels it answers any: here it is the most frequent label of the source.
        shares = torch.tensor(mix.shares, dtype=torch.float64).expand(len(ours.labels), -1)
        fitted = {**fitted, "majority": replace(ours, probabilities=shares, predicted=shares.argmax(dim=1))}
    theirs = {name: reweighted(answers, mix) for name, answers in fitted.items()}
    return {
        "told": told,
        **mix.as_dict(ours.label_names),
        "figures": None if found is None else found.compact(),
        "baselines": [
            {"name": name, "figures": None if figures is None else figures.compact()}
            for name, figures in theirs.items()
        ],
    }


def _seen(main: Evaluated, data: ClassificationData) -> list[bool]:
    texts = data.part(main.split).rows.texts
    return seen_in(data.part("train").rows.texts, [texts[row] for row in main.rows])


def _cut(main: Evaluated, data: ClassificationData) -> list[bool]:
    token_ids = data.part(main.split).token_ids
    return [len(token_ids[row]) > data.cut_to for row in main.rows]


def _slices(
    main: Evaluated, figures: Figures, data: ClassificationData, cut: list[bool], seen: list[bool]
) -> list[dict[str, Any]]:
    """The same figures on parts of the split."""
    told_seen = "word for word, or but for case, digits, punctuation and white space"
    slices = []
    for name, told, chosen in (
        ("cut", f"texts longer than {data.cut_to:,} tokens, of which a part is read", cut),
        ("uncut", "texts that are read whole", [not one for one in cut]),
        ("seen in train", f"texts that are in the train split too, {told_seen}", seen),
        ("unseen in train", "the others", [not one for one in seen]),
    ):
        of_slice = figures if all(chosen) and chosen else figures_of(main.answers.where(chosen))
        slices.append({"name": name, "told": told, "figures": of_slice.compact()})
    return slices


def _errors(main: Evaluated, data: ClassificationData, cut: list[bool], seen: list[bool]) -> dict[str, Any]:
    """The wrong answers with the highest probability."""
    answers, rows = main.answers, data.part(main.split).rows
    wrong = [i for i, right in enumerate(answers.right) if not right]
    confidences = answers.confidences.tolist()
    chosen = sorted(wrong, key=lambda i: (-confidences[i], main.rows[i]))[:SHOWN_ERRORS]
    errors = [
        {
            "text": rows.texts[main.rows[i]][:_SHOWN_CHARACTERS],
            "characters": len(rows.texts[main.rows[i]]),
            "shortened": len(rows.texts[main.rows[i]]) > _SHOWN_CHARACTERS,
            "source_row": rows.numbers[main.rows[i]],
            "label": answers.label_names[int(answers.labels[i])],
            "answer": answers.label_names[int(answers.predicted[i])],
            "probability": confidences[i] if confidences[i] == confidences[i] else None,
            "seen_in_train": seen[i],
            "cut": cut[i],
        }
        for i in chosen
    ]
    return {"n_errors": len(wrong), "errors": errors}


def _padding(found: PadTest | str | None, data: ClassificationData) -> dict[str, Any]:
    """The self-test, in words too."""
    if not isinstance(found, PadTest):
        told = found or "not run"
        return {"verdict": "not run", "told": f"{told[0].upper()}{told[1:]}."}
    most, texts = f"{found.largest_difference:.2g}", f"{found.texts} texts"
    changed = f"{found.answers_changed} of {texts}"
    if found.verdict == "depends":
        told = (
            "Predictions depend on padding, as model.token_position is defined here: with up to 64 more pads a "
            f"probability changes by up to {most}, and {changed} get another answer. "
        )
        if data.pad_to is not None:
            told += f"In this run that does no harm: every text is padded to {data.pad_to:,} tokens alike."
        elif data.padding == "none":
            told += "In this run that does no harm: no text is padded (data.padding none)."
        else:
            told += (
                "In this run the number of pads changes with a text's neighbours in its batch: data.padding "
                "longest_in_train pads every text alike, token_position flexible or mean_flexible reads no pads."
            )
    elif found.verdict == "passed":
        changed_or_none = f"{changed} on the brink get another answer" if found.answers_changed else "no answer"
        at_most = f" by more than {most}" if found.largest_difference else ""
        told = f"Passed: up to 64 more pads change no probability of {texts}{at_most}, and {changed_or_none}."
    else:
        told = f"FAIL: with up to 64 more pads a probability changes by {most}, and {changed} get another answer."
    return {**found.as_dict(), "told": told}


def shown_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what is trained and how, by their full names."""
    trainer = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "devices", "accelerator")
    found = {name: settings[name] for name in ("seed_everything", "keep", "preset") if name in settings}
    for group in ("model", "data", "trainer"):
        for name, value in settings.get(group, {}).items():
            if group != "trainer" or name in trainer:
                found[f"{group}.{name}"] = value
    return found


def count_parameters(module: ClassifierModule) -> dict[str, int]:
    """All of them, and those that train."""
    assert module.net is not None, "the run has built it"
    parameters = list(module.net.parameters())
    return {
        "all": sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
    }


def read_provenance(folder: Path) -> dict[str, Any]:
    """What the run has written of its origin; nothing where there was not a batch to evaluate."""
    path = folder / "provenance.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def told_checkpoint(path: Path | None, place: Mapping[str, int] | None) -> str:
    """Which network was evaluated.

    Args:
        path: its file, None where none was written.
        place: epochs and steps after which it was saved.
    """
    if path is None:
        return "the weights at hand: no checkpoint was written"
    return f"{path}" + (f", after {place['steps']:,} steps, {place['epochs']} whole epochs" if place else "")
