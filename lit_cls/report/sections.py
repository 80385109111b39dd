"""A report's content, in the order in which a person reads it: what Markdown and HTML are both written from.

Every figure is one of report.json's, so that the three cannot disagree.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lit_cls.report.numbers import count, decimal, percent, small

Content = Mapping[str, Any]

SHOWN_LABELS = 30
"""Rows of a table of labels at most; report.json has them all."""
_CONFUSION = 10  # labels up to which the matrix is a table


@dataclass(frozen=True)
class Heading:
    """Of a section; of the whole, with level 1."""

    text: str
    level: Literal[1, 2] = 2


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """Cells are plain text, whatever stands in them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """How many columns, from the left, are words and not numbers."""


@dataclass(frozen=True)
class Image:
    """One of the pictures in the report's folder."""

    file: str
    title: str


Block = Heading | Paragraph | Table | Image


def outline(content: Content) -> list[Block]:
    """All of a report.

    Args:
        content: of report.json.
    """
    return [
        *_summary(content),
        *_figures(content),
        *_baselines(content),
        *_slices(content),
        *_errors(content),
        *_padding(content),
        *_training(content),
        *_origin(content),
    ]


def _summary(content: Content) -> list[Block]:
    split, figures = content["split"], content["figures"]
    blocks: list[Block] = [Heading(f"{content['name']}: {split} report", 1)]
    if figures["n"]:
        low, high = figures["wilson_95"]
        blocks.append(
            Paragraph(
                f"{percent(figures['accuracy'])} of {count(figures['n'])} {split} texts are answered right "
                f"({count(figures['correct'])}; 95 % interval {percent(low)} – {percent(high)})."
            )
        )
    else:
        blocks.append(Paragraph(f"No {split} text was evaluated.", warning=True))
    if content["evaluated_in_part"]:
        blocks.append(Paragraph(content["evaluated_in_part"], warning=True))
    if content["decision"]["told"]:
        blocks.append(Paragraph(f"Answers follow from {content['decision']['told']}."))
    rows = []
    for row in content["accuracy"]:
        low, high = row["wilson_95"]
        between = f"{percent(low)} – {percent(high)}" if row["n"] else "n/a"
        shares = (percent(row["accuracy"]), between, percent(row["majority"]))
        rows.append((row["split"], count(row["n"]), count(row["correct"]), *shares))
    columns = ("split", "texts", "right", "accuracy", "95 % Wilson interval", "majority baseline")
    return [*blocks, Table(columns, rows)]


def _figures(content: Content) -> list[Block]:
    figures = content["figures"]
    if not figures["n"]:
        return []
    ranked = f" ({figures['positive']} against the other)" if figures["positive"] else " (mean over labels)"
    rows = [
        ("balanced accuracy", percent(figures["balanced_accuracy"])),
        ("F1, mean over labels", percent(figures["f1_macro"])),
        ("MCC", decimal(figures["mcc"])),
        (f"AUROC{ranked}", decimal(figures["auroc"])),
        (f"average precision{ranked}", decimal(figures["average_precision"])),
        ("log-loss, nats", decimal(figures["log_loss"])),
        ("calibration error, 15 bins", decimal(figures["calibration_error"])),
    ]
    blocks = [
        Heading(f"Figures on the {content['split']} split"),
        Table(("figure", "value"), rows),
        *_by_label(figures),
        *_images(content, "confusion.svg"),
        *_confusion(figures),
        *_images(content, "reliability.svg", "curves.svg"),
    ]
    if content["pictures_missing"]:
        blocks.append(Paragraph(content["pictures_missing"]))
    return blocks


def _by_label(figures: Content) -> list[Block]:
    labels = sorted(figures["labels"], key=lambda label: -label["texts"])[:SHOWN_LABELS]
    names = {label["label"] for label in labels}
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
    columns = ("label", "texts", "answered", "precision", "recall", "F1", "AUROC", "average precision")
    left_out = len(figures["labels"]) - len(rows)
    told = f"The {len(rows)} labels with the most texts; {left_out} more are in report.json."
    return [Table(columns, rows), *([Paragraph(told)] if left_out else [])]


def _confusion(figures: Content) -> list[Block]:
    names = [label["label"] for label in figures["labels"]]
    if len(names) <= _CONFUSION:
        rows = [(name, *map(count, row)) for name, row in zip(names, figures["confusion"], strict=True)]
        return [Table(("label ↓ answer →", *names), rows)]
    pairs = [
        (n, names[i], names[j]) for i, row in enumerate(figures["confusion"]) for j, n in enumerate(row) if i != j and n
    ]
    most = sorted(pairs, key=lambda pair: -pair[0])[:_CONFUSION]
    if not most:
        return []
    return [
        Paragraph("What is taken for what most often; the whole matrix is in report.json."),
        Table(("label", "answer", "texts"), [(label, answer, count(n)) for n, label, answer in most], left=2),
    ]


def _images(content: Content, *files: str) -> list[Block]:
    return [Image(picture["file"], picture["title"]) for picture in content["pictures"] if picture["file"] in files]


def _baselines(content: Content) -> list[Block]:
    if not content["figures"]["n"]:
        return []
    ours = content["figures"]
    rows = [("this classifier", *_compared(ours), "", "", "")]
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
    told = (
        "On the same texts, fitted to the same train split. The last three columns compare this classifier with each: "
        "by how much more often it is right (95 % interval), how many texts it alone gets right and how many the "
        "baseline alone, and the p-value of McNemar's exact test."
    )
    columns = (
        "",
        "accuracy",
        "95 % Wilson interval",
        "F1, mean",
        "MCC",
        "AUROC",
        "ahead by",
        "alone right",
        "p",
    )
    notes = [Paragraph(f"Not there: {line}.") for line in content["baselines_missing"]]
    return [Heading("Baselines"), Paragraph(told), Table(columns, rows), *notes]


def _compared(figures: Content) -> tuple[str, ...]:
    low, high = figures["wilson_95"]
    between = f"{percent(low)} – {percent(high)}"
    mean, mcc, auroc = percent(figures["f1_macro"]), decimal(figures["mcc"]), decimal(figures["auroc"])
    return percent(figures["accuracy"]), between, mean, mcc, auroc


def _slices(content: Content) -> list[Block]:
    if not content["figures"]["n"]:
        return []
    mix = content["natural_mix"]
    slices = [("all", content["figures"]), *((part["name"], part["figures"]) for part in content["slices"])]
    if mix is not None and mix["figures"] is not None:
        slices.append(("natural mix", mix["figures"]))
    rows: list[tuple[str, ...]] = [("texts", *(count(figures["n"]) for _, figures in slices))]
    for name, title, write in (
        ("accuracy", "accuracy", percent),
        ("wilson_95", "95 % Wilson interval", _interval),
        ("balanced_accuracy", "balanced accuracy", percent),
        ("f1_macro", "F1, mean over labels", percent),
        ("mcc", "MCC", decimal),
        ("auroc", "AUROC", decimal),
        ("average_precision", "average precision", decimal),
        ("log_loss", "log-loss, nats", decimal),
        ("calibration_error", "calibration error", decimal),
    ):
        rows.append((title, *(write(figures[name]) for _, figures in slices)))
    n_labels = len(content["figures"]["labels"])
    for k in range(n_labels) if n_labels <= _CONFUSION else ():
        for figure in ("precision", "recall", "f1"):
            title = f"{content['figures']['labels'][k]['label']}: {'F1' if figure == 'f1' else figure}"
            rows.append((title, *(percent(figures["labels"][k][figure]) for _, figures in slices)))
    explained = [Paragraph(f"{part['name'].capitalize()}: {part['told']}.") for part in content["slices"]]
    return [Heading("Where the figures hold"), Table(("", *(name for name, _ in slices)), rows), *explained, *_mix(mix)]


def _interval(between: Sequence[float] | None) -> str:
    return "n/a" if between is None else f"{percent(between[0])} – {percent(between[1])}"


def _mix(mix: Content | None) -> list[Block]:
    if mix is None:
        return []
    blocks: list[Block] = [Paragraph(mix["told"])]
    if len(mix["shares"]) <= _CONFUSION:
        rows = [(label, percent(share), decimal(mix["weights"][label])) for label, share in mix["shares"].items()]
        blocks.append(Table(("label", "share in the source", "weight of a text"), rows))
    baselines = [baseline for baseline in mix["baselines"] if baseline["figures"] is not None]
    if mix["figures"] is None or not baselines:
        return blocks
    compared = [
        (name, percent(figures["accuracy"]), percent(figures["f1_macro"]), decimal(figures["average_precision"]))
        for name, figures in (
            ("this classifier", mix["figures"]),
            *((baseline["name"], baseline["figures"]) for baseline in baselines),
        )
    ]
    return [*blocks, Table(("at the natural mix", "accuracy", "F1, mean", "average precision"), compared)]


def _errors(content: Content) -> list[Block]:
    if not content["figures"]["n"]:
        return []
    n, shown = content["n_errors"], content["errors"]
    blocks: list[Block] = [Heading("The most confident errors")]
    if not n:
        return [*blocks, Paragraph("None: every text is answered right.")]
    told = f"{count(len(shown))} of {count(n)} wrong answers, the most confident first."
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
        for error in shown
    ]
    columns = ("text", "label", "answer", "its probability", "source row", "seen in train", "cut")
    return [*blocks, Paragraph(told), Table(columns, rows, left=3)]


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
        blocks.append(Table(("pads", "texts", "largest change of a probability", "answers that change"), rows))
    return blocks


def _training(content: Content) -> list[Block]:
    images = _images(content, "learning.svg")
    return [Heading("Training"), *images] if images else []


def _origin(content: Content) -> list[Block]:
    trained, tested = content["parameters"], content["tested"]
    rows = [
        ("tested", tested["told"]),
        ("parameters", f"{count(trained['all'])}, of which {count(trained['trained'])} train"),
    ]
    if content["texts_trained"]:
        rows.append(("trained", f"{count(content['texts_trained'])} texts in {content['seconds_training']:.1f} s"))
    if content["peak_gpu_memory"] is not None:
        rows.append(("GPU memory at most", f"{content['peak_gpu_memory'] / 1e9:.2f} GB"))
    origin, data = content["provenance"], content["data"]
    rows.append(("command", shlex.join(origin.get("command", ()))))
    rows += [(name, _plain(origin.get(name))) for name in ("started", "device", "machine", "commit")]
    rows += [
        ("resumed", f"{entry['started']} after {count(entry['step'])} steps") for entry in origin.get("resumed", [])
    ]
    hashes = [
        ("data", data["source"], _plain(origin.get("data_sha256"))),
        *((f"{part['name']} split", f"{count(part['n'])} texts", part["sha256"]) for part in data["splits"]),
        ("weights", _plain(origin.get("weights")), _plain(origin.get("weights_sha256"))),
        ("config.yaml", "", _plain(origin.get("config_sha256"))),
    ]
    told = [*data["notes"], *content["weights_notes"]]
    return [
        Heading("What was trained, on what"),
        Table(("", ""), rows, left=2),
        Table(("what", "from", "sha256"), hashes, left=3),
        *(Paragraph(f"Note: {line}.") for line in told),
        Table(("setting", "value"), [(name, _plain(value)) for name, value in content["settings"].items()], left=2),
        Table(("package", "version"), list(origin.get("versions", {}).items()), left=2),
    ]


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
