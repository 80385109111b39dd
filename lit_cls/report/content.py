"""The report of a run: collects report.json from the evaluated splits, and writes it with its two readable forms."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.split_data import SplitData
from lit_cls.data.splits import seen_in
from lit_cls.evaluation.baselines import Baseline, quick_baselines
from lit_cls.evaluation.figures import Figures, Predictions, figures_of, shifted_figures
from lit_cls.evaluation.paired import compare
from lit_cls.evaluation.prior_shift import prior_shift
from lit_cls.io.atomic import write_json, write_text
from lit_cls.report.pages import render_html, render_markdown
from lit_cls.report.plots import Plot, draw_evaluation, draw_learning
from lit_cls.report.run_info import RunInfo
from lit_cls.report.split_results import SplitResult, accuracies
from lit_cls.training.pad_invariance import PadTest

_MAX_ERRORS = 20
_MAX_CHARACTERS = 300  # of a text with a wrong prediction


def write_report(
    folder: Path, results: Sequence[SplitResult], data: ClassificationData, info: RunInfo
) -> dict[str, Any]:
    """Writes `report/` below the run's folder, about the first result; returns the content of report.json."""
    main, out = results[0], folder / "report"
    figures, split = figures_of(main.predictions), data.splits[main.split]
    truncated = [len(split.token_ids[row]) > data.cut_to for row in main.rows]
    seen = seen_in(data.splits["train"].rows.texts, [split.rows.texts[row] for row in main.rows])
    plots, missing_plots = _plots(main, figures, info)
    evaluated, limit = f"{len(main.rows):,} of the {len(split.label_ids):,} {main.split} texts", None
    if len(main.rows) < len(split.label_ids):
        limit = f"Only {evaluated} were evaluated, because the trainer limits them."
    content = {
        "name": info.name,
        "split": main.split,
        "accuracy": [row.as_dict() for row in reversed(accuracies(results, data))],
        "evaluated_in_part": limit,
        "decision": {**info.decision.as_dict(), "told": info.decision.describe(data.label_names)},
        "figures": asdict(figures),
        "pictures": [{"file": plot.file, "title": plot.title} for plot in plots],
        "pictures_missing": missing_plots,
        **_comparisons(main, data, info.comparisons),
        "slices": _slices(main, figures, data, truncated, seen),
        **_errors(main, data, truncated, seen),
        "padding": _padding(info.padding, data),
        "data": data.summary.as_dict(),
        "tested": {"told": info.tested},
        "settings": info.settings,
        "provenance": info.provenance,
        **info.network,
    }
    for plot in plots:
        write_text(out / plot.file, plot.svg)
    write_text(out / "report.md", render_markdown(content))
    write_text(out / "report.html", render_html(content, {plot.file: plot.svg for plot in plots}))
    write_json(out / "report.json", content)  # last: a run with a report.json is finished
    return content


def _plots(main: SplitResult, figures: Figures, info: RunInfo) -> tuple[list[Plot], str | None]:
    """The plots, or why there are none."""
    if not info.comparisons:
        return [], "Plots are drawn once for the whole series of runs."
    if find_spec("matplotlib") is None:
        return [], "Plots need matplotlib, which is not installed: pip install 'lit_cls[reports]'"
    return [*draw_evaluation(main.predictions, figures, main.split), *draw_learning(info.metrics)], None


def _comparisons(main: SplitResult, data: ClassificationData, wanted: bool) -> dict[str, Any]:
    """The baselines on the same texts, and all figures at the label mix of the source."""
    parts, ours = data.split_data, main.predictions
    fitted: list[Baseline] = []
    missing = [] if wanted else ["they are fitted once for the whole series of runs"]
    if wanted and main.rows:
        train, texts = parts.splits["train"], parts.splits[main.split].rows.texts
        groups = {"all": [texts[row] for row in main.rows]}
        fitted, missing = quick_baselines(train.rows.texts, train.label_ids, len(ours.label_names), groups)
    theirs = {}
    for baseline in fitted:
        shares = torch.tensor(baseline.probabilities["all"], dtype=torch.float64)
        theirs[baseline.name] = replace(ours, probabilities=shares, predicted=shares.argmax(dim=1))
    return {
        "baselines": [_compare(baseline, theirs[baseline.name], ours) for baseline in fitted],
        "baselines_missing": missing,
        "natural_mix": _prior_shift(ours, theirs, parts) if parts.left_out.texts else None,
    }


def _compare(baseline: Baseline, theirs: Predictions, ours: Predictions) -> dict[str, Any]:
    against = compare([theirs.correct], [ours.correct])
    return {
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


def _prior_shift(ours: Predictions, theirs: Mapping[str, Predictions], parts: SplitData) -> dict[str, Any]:
    shift = prior_shift(parts.source_counts(), ours.labels)
    explanation = (
        f"Natural label mix: {len(parts.left_out.texts):,} of the {parts.n_rows:,} texts of the source are in no "
        "split, so that the labels are balanced. To estimate the figures where labels have their shares of the source, "
        "each text is weighted by the share of its label in the source divided by the share among these texts. This "
        "re-weights the same predictions and is not another evaluation: where a weight is large, few texts stand for "
        "many."
    )
    if shift.weights is None:
        explanation += " A label has no text here, so there is no estimate."
    # The most frequent label of the source: among balanced labels the majority baseline is arbitrary.
    shares = torch.tensor(shift.shares, dtype=torch.float64).expand(len(ours.labels), -1)
    majority = replace(ours, probabilities=shares, predicted=shares.argmax(dim=1))

    def shifted(predictions: Predictions) -> dict[str, Any] | None:
        figures = shifted_figures(predictions, shift)
        return None if figures is None else figures.compact()

    return {
        "told": explanation,
        **shift.as_dict(ours.label_names),
        "figures": shifted(ours),
        "baselines": [
            {"name": name, "figures": shifted(majority if name == "majority" else predictions)}
            for name, predictions in theirs.items()
        ],
    }


def _slices(
    main: SplitResult, figures: Figures, data: ClassificationData, truncated: list[bool], seen: list[bool]
) -> list[dict[str, Any]]:
    ignoring = "word for word or except for case, digits, punctuation and white space"
    slices = []
    for name, description, chosen in (
        ("cut", f"texts longer than {data.cut_to:,} tokens, the rest of which is not read", truncated),
        ("uncut", "texts that are read whole", [not one for one in truncated]),
        ("seen in train", f"texts that are also in the train split, {ignoring}", seen),
        ("unseen in train", "the others", [not one for one in seen]),
    ):
        of_slice = figures if all(chosen) and chosen else figures_of(main.predictions.where(chosen))
        slices.append({"name": name, "told": description, "figures": of_slice.compact()})
    return slices


def _errors(main: SplitResult, data: ClassificationData, truncated: list[bool], seen: list[bool]) -> dict[str, Any]:
    """The wrong predictions with the highest probability."""
    predictions, rows = main.predictions, data.splits[main.split].rows
    wrong = [i for i, correct in enumerate(predictions.correct) if not correct]
    confidences = predictions.confidences.tolist()
    chosen = sorted(wrong, key=lambda i: (-confidences[i], main.rows[i]))[:_MAX_ERRORS]
    texts = {i: rows.texts[main.rows[i]] for i in chosen}
    errors = [
        {
            "text": texts[i][:_MAX_CHARACTERS],
            "characters": len(texts[i]),
            "shortened": len(texts[i]) > _MAX_CHARACTERS,
            "source_row": rows.numbers[main.rows[i]],
            "label": predictions.label_names[int(predictions.labels[i])],
            "answer": predictions.label_names[int(predictions.predicted[i])],
            "probability": confidences[i] if confidences[i] == confidences[i] else None,
            "seen_in_train": seen[i],
            "cut": truncated[i],
        }
        for i in chosen
    ]
    return {"n_errors": len(wrong), "errors": errors}


def _padding(result: PadTest | str | None, data: ClassificationData) -> dict[str, Any]:
    if not isinstance(result, PadTest):
        reason = result or "not run"
        return {"verdict": "not run", "told": f"{reason[0].upper()}{reason[1:]}."}
    largest, changed = f"{result.largest_difference:.2g}", f"{result.answers_changed} of {result.texts} predictions"
    if result.verdict == "depends":
        description = (
            "Predictions depend on padding, as model.token_position is defined here: up to 64 more pads change a "
            f"probability by up to {largest}, and {changed}. {_describe_pads(data)}"
        )
    elif result.verdict == "passed":
        at_most = f" by more than {largest}" if result.largest_difference else ""
        borderline = f"{changed} that were borderline" if result.answers_changed else "no prediction"
        description = f"Passed: up to 64 more pads change no probability of {result.texts} texts{at_most}, "
        description += f"and {borderline}."
    else:
        description = f"FAIL: up to 64 more pads change a probability by {largest}, and {changed}."
    return {**result.as_dict(), "told": description}


def _describe_pads(data: ClassificationData) -> str:
    if data.pad_to is not None:
        return f"This does no harm in this run: every text is padded to {data.pad_to:,} tokens."
    if data.options.padding == "none":
        return "This does no harm in this run: no text is padded (data.padding none)."
    return (
        "In this run the number of pads depends on the other texts of a batch: data.padding longest_in_train pads all "
        "texts alike, token_position flexible or mean_flexible reads no pads."
    )
