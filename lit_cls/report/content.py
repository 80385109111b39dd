"""The report of a run: collects report.json from the evaluated splits, and writes it with its two readable forms."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.sources import LabelledTexts
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
    rows = split.rows.pick(main.rows)
    truncated = [len(split.token_ids[row]) > data.cut_to for row in main.rows]
    seen = seen_in(data.splits["train"].rows.texts, rows.texts)
    plots, missing_plots = _plots(main, figures, info)
    n, n_all = len(main.rows), len(split.label_ids)
    limit = f"Only {n:,} of the {n_all:,} {main.split} texts were evaluated, because the trainer limits them."
    content = {
        "name": info.name,
        "split": main.split,
        "accuracy": [row.as_dict() for row in reversed(accuracies(results, data))],
        "evaluated_in_part": limit if n < n_all else None,
        "decision": {**asdict(info.decision), "told": info.decision.describe(data.label_names)},
        "figures": asdict(figures),
        "pictures": [{"file": plot.file, "title": plot.title} for plot in plots],
        "pictures_missing": missing_plots,
        **_comparisons(main.predictions, rows.texts, data.split_data, info.comparisons),
        "slices": _slices(main.predictions, figures, data.cut_to, truncated, seen),
        **_errors(main.predictions, rows, truncated, seen),
        "padding": _padding(info.padding, data),
        "data": asdict(data.summary),
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


def _comparisons(ours: Predictions, texts: Sequence[str], parts: SplitData, wanted: bool) -> dict[str, Any]:
    """The baselines on the same texts, and all figures at the label mix of the source."""
    fitted: list[Baseline] = []
    missing = [] if wanted else ["they are fitted once for the whole series of runs"]
    if wanted and texts:
        train = parts.splits["train"]
        fitted, missing = quick_baselines(train.rows.texts, train.label_ids, len(ours.label_names), {"all": texts})
    theirs = {baseline.name: _most_probable(ours, baseline.probabilities["all"]) for baseline in fitted}
    compared = []
    for baseline in fitted:
        against = compare([theirs[baseline.name].correct], [ours.correct])
        compared.append(
            {
                "name": baseline.name,
                "figures": figures_of(theirs[baseline.name]).compact(),
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
    return {
        "baselines": compared,
        "baselines_missing": missing,
        "natural_mix": _prior_shift(ours, theirs, parts) if parts.left_out.texts else None,
    }


def _most_probable(ours: Predictions, probabilities: Sequence[Any]) -> Predictions:
    """Other predictions for the same texts, from probabilities (N, K), or (K,) for all texts alike."""
    shares = torch.tensor(probabilities, dtype=torch.float64).expand(len(ours.labels), -1)
    return replace(ours, probabilities=shares, predicted=shares.argmax(dim=1))


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
    if theirs:  # the most frequent label of the source: among balanced labels the majority baseline is arbitrary
        theirs = {**theirs, "majority": _most_probable(ours, shift.shares)}

    def shifted(predictions: Predictions) -> dict[str, Any] | None:
        return figures.compact() if (figures := shifted_figures(predictions, shift)) else None

    return {
        "told": explanation,
        **shift.as_dict(ours.label_names),
        "figures": shifted(ours),
        "baselines": [{"name": name, "figures": shifted(predictions)} for name, predictions in theirs.items()],
    }


def _slices(
    predictions: Predictions, figures: Figures, cut_to: int, truncated: list[bool], seen: list[bool]
) -> list[dict[str, Any]]:
    ignoring = "word for word or except for case, digits, punctuation and white space"
    slices = []
    for name, description, chosen in (
        ("cut", f"texts longer than {cut_to:,} tokens, the rest of which is not read", truncated),
        ("uncut", "texts that are read whole", [not one for one in truncated]),
        ("seen in train", f"texts that are also in the train split, {ignoring}", seen),
        ("unseen in train", "the others", [not one for one in seen]),
    ):
        of_slice = figures if all(chosen) and chosen else figures_of(predictions.where(chosen))
        slices.append({"name": name, "told": description, "figures": of_slice.compact()})
    return slices


def _errors(predictions: Predictions, rows: LabelledTexts, truncated: list[bool], seen: list[bool]) -> dict[str, Any]:
    """The wrong predictions with the highest probability."""
    names, confidences = predictions.label_names, predictions.confidences.tolist()
    wrong = [i for i, correct in enumerate(predictions.correct) if not correct]
    errors = [
        {
            "text": rows.texts[i][:_MAX_CHARACTERS],
            "characters": len(rows.texts[i]),
            "shortened": len(rows.texts[i]) > _MAX_CHARACTERS,
            "source_row": rows.numbers[i],
            "label": names[int(predictions.labels[i])],
            "answer": names[int(predictions.predicted[i])],
            "probability": confidences[i] if confidences[i] == confidences[i] else None,
            "seen_in_train": seen[i],
            "cut": truncated[i],
        }
        for i in sorted(wrong, key=lambda i: -confidences[i])[:_MAX_ERRORS]
    ]
    return {"n_errors": len(wrong), "errors": errors}


def _padding(result: PadTest | str | None, data: ClassificationData) -> dict[str, Any]:
    if not isinstance(result, PadTest):
        reason = result or "not run"
        return {"verdict": "not run", "told": f"{reason[0].upper()}{reason[1:]}."}
    largest, changed = f"{result.largest_difference:.2g}", f"{result.answers_changed} of {result.texts} predictions"
    if result.verdict == "depends":
        if data.pad_to is not None:
            here = f"This does no harm in this run: every text is padded to {data.pad_to:,} tokens."
        elif data.options.padding == "none":
            here = "This does no harm in this run: no text is padded (data.padding none)."
        else:
            here = (
                "In this run the number of pads depends on the other texts of a batch: data.padding longest_in_train "
                "pads all texts alike, token_position flexible or mean_flexible reads no pads."
            )
        description = (
            "Predictions depend on padding, as model.token_position is defined here: up to 64 more pads change a "
            f"probability by up to {largest}, and {changed}. {here}"
        )
    elif result.verdict == "passed":
        at_most = f" by more than {largest}" if result.largest_difference else ""
        borderline = f"{changed} that were borderline" if result.answers_changed else "no prediction"
        unchanged = f"no probability of {result.texts} texts{at_most}, and {borderline}"
        description = f"Passed: up to 64 more pads change {unchanged}."
    else:
        description = f"FAIL: up to 64 more pads change a probability by {largest}, and {changed}."
    return {**result.as_dict(), "told": description}
