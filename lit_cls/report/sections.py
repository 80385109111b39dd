"""The sections of a report, in reading order: Markdown and HTML are both rendered from them.

Every figure is one of report.json's, so that the three forms cannot disagree.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from lit_cls.report.blocks import Block, Heading, Image, Paragraph, Table
from lit_cls.report.numbers import count, decimal, interval, percent, small

Content = Mapping[str, Any]

MAX_LABELS = 30
"""Most rows of the table of labels; report.json has all labels."""
_CONFUSION = 10  # most labels of which the confusion matrix is a table

_FigureRow = tuple[str, str, Callable[[Any], str]]  # name, title, format
_FIGURES: tuple[_FigureRow, ...] = (
    ("balanced_accuracy", "balanced accuracy", percent),
    ("f1_macro", "F1, mean over labels", percent),
    ("mcc", "MCC", decimal),
    ("auroc", "AUROC", decimal),
    ("average_precision", "average precision", decimal),
    ("log_loss", "log-loss, nats", decimal),
    ("calibration_error", "calibration error, 15 bins", decimal),
)

# Slices have short names in report.json.
_SLICES = {"cut": "truncated", "uncut": "not truncated", "natural mix": "natural label mix"}


def report_sections(content: Content) -> list[Block]:
    """All blocks of a report, from the content of report.json."""
    evaluated = (_figures, _baselines, _slices, _errors) if content["figures"]["n"] else ()
    sections = (_summary, *evaluated, _padding, _training, _provenance)
    return [block for section in sections for block in section(content)]


def _summary(content: Content) -> list[Block]:
    split, figures = content["split"], content["figures"]
    blocks: list[Block] = [Heading(f"{content['name']}: {split} report", 1)]
    summary = (
        f"{percent(figures['accuracy'])} of {count(figures['n'])} {split} texts are classified correctly "
        f"({count(figures['correct'])}; 95 % interval {interval(figures['wilson_95'])})."
    )
    blocks.append(Paragraph(summary) if figures["n"] else Paragraph(f"No {split} text was evaluated.", warning=True))
    if content["evaluated_in_part"]:
        blocks.append(Paragraph(content["evaluated_in_part"], warning=True))
    if content["decision"]["told"]:
        blocks.append(Paragraph(f"Predictions follow from {content['decision']['told']}."))
    rows = [
        (
            row["split"],
            count(row["n"]),
            count(row["correct"]),
            percent(row["accuracy"]),
            interval(row["wilson_95"] if row["n"] else None),
            percent(row["majority"]),
        )
        for row in content["accuracy"]
    ]
    columns = ("split", "texts", "correct", "accuracy", "95 % Wilson interval", "majority baseline")
    return [*blocks, Table(columns, rows)]


def _figures(content: Content) -> list[Block]:
    figures = content["figures"]
    ranked = f" ({figures['positive']} against the other)" if figures["positive"] else " (mean over labels)"
    rows = [
        (title + (ranked if name in ("auroc", "average_precision") else ""), write(figures[name]))
        for name, title, write in _FIGURES
    ]
    return [
        Heading(f"Figures on the {content['split']} split"),
        Table(("figure", "value"), rows),
        *_by_label(figures),
        *_images(content, "confusion.svg"),
        *_confusion(figures),
        *_images(content, "reliability.svg", "curves.svg"),
        *([Paragraph(content["pictures_missing"])] if content["pictures_missing"] else []),
    ]


def _by_label(figures: Content) -> list[Block]:
    most_frequent = sorted(figures["labels"], key=lambda label: -label["texts"])[:MAX_LABELS]
    names = {label["label"] for label in most_frequent}
    rows = [
        (
            label["label"],
            count(label["texts"]),
            count(label["answered"]),
            *(percent(label[name]) for name in ("precision", "recall", "f1")),
            *(decimal(label[name]) for name in ("auroc", "average_precision")),
        )
        for label in figures["labels"]
        if label["label"] in names
    ]
    columns = ("label", "texts", "predicted", "precision", "recall", "F1", "AUROC", "average precision")
    more = len(figures["labels"]) - len(rows)
    note = f"The {len(rows)} labels with the most texts; {more} more are in report.json."
    return [Table(columns, rows), *([Paragraph(note)] if more else [])]


def _confusion(figures: Content) -> list[Block]:
    names = [label["label"] for label in figures["labels"]]
    if len(names) <= _CONFUSION:
        rows = [(name, *map(count, row)) for name, row in zip(names, figures["confusion"], strict=True)]
        return [Table(("label ↓ prediction →", *names), rows)]
    pairs = [
        (n, names[i], names[j]) for i, row in enumerate(figures["confusion"]) for j, n in enumerate(row) if i != j and n
    ]
    most = sorted(pairs, key=lambda pair: -pair[0])[:_CONFUSION]
    if not most:
        return []
    return [
        Paragraph("The most frequent confusions; the whole matrix is in report.json."),
        Table(("label", "prediction", "texts"), [(label, other, count(n)) for n, label, other in most], left=2),
    ]


def _images(content: Content, *files: str) -> list[Block]:
    return [Image(plot["file"], plot["title"]) for plot in content["pictures"] if plot["file"] in files]


def _baselines(content: Content) -> list[Block]:
    rows = [("this classifier", *_compared(content["figures"]), "", "", "")]
    for baseline in content["baselines"]:
        against = baseline["against_ours"]
        ahead, low, high = (percent(x, sign=True) for x in (against["difference"], *against["interval_95"]))
        rows.append(
            (
                baseline["name"],
                *_compared(baseline["figures"]),
                f"{ahead} ({low} to {high})",
                f"{count(against['won'])} / {count(against['lost'])}",
                small(against["p_value"]),
            )
        )
    explanation = (
        "On the same texts, fitted to the same train split. The last three columns compare this classifier with each "
        "baseline: the difference in accuracy (95 % interval), the number of texts that only this classifier and that "
        "only the baseline predicts correctly, and the p-value of McNemar's exact test."
    )
    ours = ("", "accuracy", "95 % Wilson interval", "F1, mean", "MCC", "AUROC")
    missing = [Paragraph(f"Missing: {line}.") for line in content["baselines_missing"]]
    columns = (*ours, "ahead by", "correct alone", "p")
    return [Heading("Baselines"), Paragraph(explanation), Table(columns, rows), *missing]


def _compared(figures: Content) -> tuple[str, ...]:
    mean, mcc, auroc = percent(figures["f1_macro"]), decimal(figures["mcc"]), decimal(figures["auroc"])
    return percent(figures["accuracy"]), interval(figures["wilson_95"]), mean, mcc, auroc


def _slices(content: Content) -> list[Block]:
    shift = content["natural_mix"]
    slices = [("all", content["figures"]), *((part["name"], part["figures"]) for part in content["slices"])]
    if shift is not None and shift["figures"] is not None:
        slices.append(("natural mix", shift["figures"]))
    rows: list[tuple[str, ...]] = [("texts", *(count(figures["n"]) for _, figures in slices))]
    shares: tuple[_FigureRow, ...] = (
        ("accuracy", "accuracy", percent),
        ("wilson_95", "95 % Wilson interval", interval),
    )
    for name, title, write in shares + _FIGURES:
        rows.append((title, *(write(figures[name]) for _, figures in slices)))
    labels = content["figures"]["labels"]
    for k, label in enumerate(labels if len(labels) <= _CONFUSION else ()):
        for figure in ("precision", "recall", "f1"):
            title = f"{label['label']}: {'F1' if figure == 'f1' else figure}"
            rows.append((title, *(percent(figures["labels"][k][figure]) for _, figures in slices)))
    titles = [_SLICES.get(name, name) for name, _ in slices]
    explained = [
        Paragraph(f"{_SLICES.get(part['name'], part['name']).capitalize()}: {part['told']}.")
        for part in content["slices"]
    ]
    return [Heading("Figures by slice"), Table(("", *titles), rows), *explained, *_prior_shift(shift)]


def _prior_shift(shift: Content | None) -> list[Block]:
    if shift is None:
        return []
    blocks: list[Block] = [Paragraph(shift["told"])]
    if len(shift["shares"]) <= _CONFUSION:
        rows = [(label, percent(share), decimal(shift["weights"][label])) for label, share in shift["shares"].items()]
        blocks.append(Table(("label", "share in the source", "weight of a text"), rows))
    baselines = [(row["name"], row["figures"]) for row in shift["baselines"] if row["figures"] is not None]
    if shift["figures"] is None or not baselines:
        return blocks
    compared = [
        (name, percent(figures["accuracy"]), percent(figures["f1_macro"]), decimal(figures["average_precision"]))
        for name, figures in (("this classifier", shift["figures"]), *baselines)
    ]
    return [*blocks, Table(("at the natural label mix", "accuracy", "F1, mean", "average precision"), compared)]


def _errors(content: Content) -> list[Block]:
    heading = Heading("The most confident errors")
    if not content["n_errors"]:
        return [heading, Paragraph("None: every prediction is correct.")]
    errors = content["errors"]
    listed = f"{count(len(errors))} of {count(content['n_errors'])} wrong predictions, the most confident first."
    rows = [
        (
            error["text"] + (f"… ({count(error['characters'])} characters)" if error["shortened"] else ""),
            error["label"],
            error["answer"],
            decimal(error["probability"]),
            count(error["source_row"]),
            "yes" if error["seen_in_train"] else "no",
            "yes" if error["cut"] else "no",
        )
        for error in errors
    ]
    columns = ("text", "label", "prediction", "its probability", "source row", "seen in train", "truncated")
    return [heading, Paragraph(listed), Table(columns, rows, left=3)]


def _padding(content: Content) -> list[Block]:
    padding = content["padding"]
    blocks: list[Block] = [
        Heading("Self-test: do predictions depend on padding?"),
        Paragraph(padding["told"], warning=padding["verdict"] in ("FAIL", "depends")),
    ]
    if "steps" in padding:
        rows = [
            (
                f"+{step['more_pads']}",
                count(step["texts"]),
                small(step["largest_difference"]),
                count(step["answers_changed"]),
            )
            for step in padding["steps"]
        ]
        blocks.append(Table(("pads", "texts", "largest change of a probability", "changed predictions"), rows))
    return blocks


def _training(content: Content) -> list[Block]:
    images = _images(content, "learning.svg")
    return [Heading("Training"), *images] if images else []


def _provenance(content: Content) -> list[Block]:
    parameters, origin, data = content["parameters"], content["provenance"], content["data"]
    rows = [
        ("tested", content["tested"]["told"]),
        ("parameters", f"{count(parameters['all'])}, of which {count(parameters['trained'])} train"),
    ]
    if content["texts_trained"]:
        rows.append(("trained", f"{count(content['texts_trained'])} texts in {content['seconds_training']:.1f} s"))
    if content["peak_gpu_memory"] is not None:
        rows.append(("peak GPU memory", f"{content['peak_gpu_memory'] / 1e9:.2f} GB"))
    rows.append(("command", shlex.join(origin.get("command", ()))))
    rows += [(name, _plain(origin.get(name))) for name in ("started", "device", "machine", "commit")]
    rows += [
        ("resumed", f"{entry['started']} after {count(entry['step'])} steps") for entry in origin.get("resumed", [])
    ]
    hashes = [
        ("data", data["source"], _plain(origin.get("data_sha256"))),
        *((f"{split['name']} split", f"{count(split['n'])} texts", split["sha256"]) for split in data["splits"]),
        ("weights", _plain(origin.get("weights")), _plain(origin.get("weights_sha256"))),
        ("config.yaml", "", _plain(origin.get("config_sha256"))),
    ]
    return [
        Heading("Model and data"),
        Table(("", ""), rows, left=2),
        Table(("file", "from", "sha256"), hashes, left=3),
        *(Paragraph(f"Note: {line}.") for line in (*data["notes"], *content["weights_notes"])),
        Table(("setting", "value"), [(name, _plain(value)) for name, value in content["settings"].items()], left=2),
        Table(("package", "version"), list(origin.get("versions", {}).items()), left=2),
    ]


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
