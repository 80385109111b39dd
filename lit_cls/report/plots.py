"""Plots of a report as SVG. Needs matplotlib (extra `reports`).

Text stays text, so that a plot is small and can be searched; the same figures give the same bytes.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_cls.evaluation.figures import Figures, Predictions
from lit_cls.report.numbers import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, which colour-blind people tell apart too; the styles help where colours do not.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":", "-", "--")
_GRAY = "#7a7a7a"
_MAX_POINTS = 400  # of a curve: more cannot be seen
_MAX_NUMBERED = 12  # labels with which the cells of a confusion matrix have room for numbers
_MAX_NAMED = 30  # labels with which each is named beside the matrix
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lit_cls",
    "text.parse_math": False,  # a label may have dollars
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # placing titles automatically takes a quarter of the time
}
_LEGEND: dict[str, Any] = {"fontsize": 8, "framealpha": 0.85, "edgecolor": "none"}


@dataclass(frozen=True)
class Plot:
    """A plot of the report."""

    file: str
    title: str
    """Description, also for readers who cannot see it."""
    svg: str


def draw_evaluation(predictions: Predictions, figures: Figures, split: str) -> list[Plot]:
    """Confusion matrix, reliability diagram and curves, as far as they are defined."""
    if not figures.n:
        return []
    of_split = f"{split}, n = {count(figures.n)}"
    drawn = [_plot("confusion", f"Confusion matrix ({of_split})", _confusion, figures, of_split)]
    if figures.reliability:
        drawn.append(_plot("reliability", f"Reliability diagram ({of_split})", _reliability, figures, of_split))
    if classes := ranked_classes(predictions, figures):
        title = f"ROC and precision-recall curves ({of_split})"
        drawn.append(_plot("curves", title, _curves, predictions, figures, classes, of_split))
    return drawn


def draw_learning(rows: Sequence[Mapping[str, str]]) -> list[Plot]:
    """Learning curves from the rows of a run's metrics.csv; none if nothing was trained."""
    trained = [i for i, row in enumerate(rows) if "train_loss" in row or "train_loss_step" in row]
    # Rows after the last training step are of the evaluation of the kept weights.
    kept = rows[: trained[-1] + 1] if trained else []
    return [_plot("learning", "Learning curves, by optimizer step", _learning, kept)] if kept else []


def ranked_classes(predictions: Predictions, figures: Figures) -> list[int]:
    """Classes to draw curves of: with two the positive one, else the six with the most texts."""
    if not predictions.finite:
        return []
    known = [k for k, label in enumerate(figures.labels) if label.auroc is not None]
    if len(figures.labels) == 2:
        return [k for k in known if k == predictions.positive]
    return sorted(sorted(known, key=lambda k: (-figures.labels[k].texts, k))[: len(_COLORS)])


def short(label: str, length: int = 18) -> str:
    """A label as long as a plot has room for, without characters that no text file may hold."""
    plain = "".join(character if character.isprintable() else "�" for character in label)
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


def _plot(name: str, title: str, draw: "Callable[..., Figure]", *arguments: Any) -> Plot:
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context(_SETTINGS), warnings.catch_warnings():
        # Only the width of a text is taken from matplotlib's font: the viewer renders it with its own fonts.
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph.*")
        draw(*arguments).savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # Several plots are in one page, where ids must differ.
    return Plot(f"{name}.svg", title, re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", stream.getvalue()))


def _figure(width: float, height: float, left: float, right: float = 0.2, bottom: float = 0.55) -> "Figure":
    """A figure with margins in inches: automatic layout takes longer than drawing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - 0.4 / height, wspace=0.3
    )
    return figure


def _axes(figure: "Figure", *place: int, title: str, x: str, y: str) -> "Axes":
    ax = figure.add_subplot(*place, title=title, xlabel=x, ylabel=y)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, color="#e5e5e5", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def _confusion(figures: Figures, of_split: str) -> "Figure":
    """Colours are shares of the given label, numbers are counts."""
    names = [short(label.label) for label in figures.labels]
    n = len(names)
    side, longest = min(8.0, max(2.2, 0.5 * n)), max(map(len, names))
    margin = 0.75 + 0.075 * longest
    flat = 0.085 * longest < side / n  # the names of the columns fit side by side
    below = 0.6 if flat else 0.7 + 0.085 * longest
    figure = _figure(side + margin + 0.3, side + 0.4 + below, margin, 0.3, below)
    ax = figure.add_subplot(title=f"Confusion, {of_split}", xlabel="prediction", ylabel="label")
    counts = torch.tensor(figures.confusion, dtype=torch.float64)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
    ax.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if n <= _MAX_NUMBERED:
        for i, row in enumerate(figures.confusion):
            for j, texts in enumerate(row):
                color = "white" if shares[i, j] > 0.55 else "black"
                ax.text(j, i, count(texts), ha="center", va="center", color=color)
    step = -(-n // _MAX_NAMED)
    ax.set_xticks(range(0, n, step), names[::step], rotation=0 if flat else 90)
    ax.set_yticks(range(0, n, step), names[::step])
    return figure


def _reliability(figures: Figures, of_split: str) -> "Figure":
    figure = _figure(5.0, 4.4, 0.7)
    figure.subplots_adjust(hspace=0.12)
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = [bin for bin in figures.reliability if bin.n]
    places, width = [(bin.low + bin.high) / 2 for bin in bins], 1 / len(figures.reliability)
    ax.plot([0, 1], [0, 1], "--", color=_GRAY, linewidth=1, label="perfect calibration")
    ax.bar(places, [bin.accuracy for bin in bins], width, color="#9ecae1", edgecolor=_COLORS[0], linewidth=0.6)
    ax.plot([bin.confidence for bin in bins], [bin.accuracy for bin in bins], "o", color=_COLORS[1], markersize=4)
    title = f"Reliability, {of_split}, calibration error {figures.calibration_error:.3f}"
    ax.set(title=title, ylabel="accuracy", ylim=(0, 1.04))
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    below.bar(places, [bin.n for bin in bins], width, color=_GRAY, edgecolor="white", linewidth=0.6)
    below.set(xlabel="confidence: probability of the prediction", ylabel="predictions", xlim=(0, 1))
    for one in (ax, below):
        one.spines[["top", "right"]].set_visible(False)
    return figure


def _curves(predictions: Predictions, figures: Figures, classes: Sequence[int], of_split: str) -> "Figure":
    from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

    figure = _figure(8.6, 4.0, 0.65)
    two = len(figures.labels) == 2
    which = f"positive: {short(figures.labels[classes[0]].label)}" if two else "each label against the rest"
    if not two and len(classes) < len(figures.labels):
        which = f"{len(classes)} of {len(figures.labels)} labels"
    left = _axes(figure, 1, 2, 1, title=f"ROC, {of_split}", x="false positive rate", y="true positive rate (recall)")
    right = _axes(figure, 1, 2, 2, title=f"Precision-recall, {which}", x="recall", y="precision")
    left.plot([0, 1], [0, 1], ":", color=_GRAY, linewidth=1)
    for k, color, style in zip(classes, _COLORS, _STYLES, strict=False):
        label, scores, is_label = figures.labels[k], predictions.probabilities[:, k], (predictions.labels == k).long()
        look: dict[str, Any] = {"color": color, "linestyle": style, "linewidth": 1.4}
        legend = f"{short(label.label, 14)}: area {label.auroc:.3f}, AP {label.average_precision:.3f}"
        false, true, _ = binary_roc(scores, is_label, validate_args=False)
        left.plot(*_thinned(false, true), **look, label=legend)
        precision, recall, _ = binary_precision_recall_curve(scores, is_label, validate_args=False)
        # From the highest recall down, each precision holds until the next, as average precision sums them.
        right.plot(*_thinned(recall, precision), **look, drawstyle="steps-post")
    for ax in (left, right):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    left.legend(loc="lower right", **_LEGEND)
    return figure


def _thinned(*coordinates: Tensor) -> list[list[float]]:
    """At most `_MAX_POINTS` points, with the first and the last."""
    n = len(coordinates[0])
    chosen = torch.linspace(0, n - 1, min(n, _MAX_POINTS)).round().long()
    return [values[chosen].tolist() for values in coordinates]


def _learning(rows: Sequence[Mapping[str, str]]) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure = _figure(8.6, 3.4, 0.65)

    def points(name: str) -> tuple[list[int], list[float]]:
        found = [(int(row["step"]) + 1, float(row[name])) for row in rows if row.get(name) and row.get("step")]
        return [step for step, _ in found], [value for _, value in found]

    loss = _axes(figure, 1, 2, 1, title="Loss", x="optimizer step", y="cross-entropy, nats")
    right = _axes(figure, 1, 2, 2, title="Validation accuracy", x="optimizer step", y="val_acc")
    steps, values = points("train_loss_step")
    every = -(-len(steps) // _MAX_POINTS) or 1
    loss.plot(steps[::every], values[::every], color="#c9c9c9", linewidth=0.8, label="train_loss_step")
    loss.plot(*points("train_loss"), "o-", color=_COLORS[0], markersize=3.5, linewidth=1.4, label="train_loss")
    loss.plot(*points("val_loss"), "s--", color=_COLORS[1], markersize=3.5, linewidth=1.4, label="val_loss")
    loss.set_ylim(bottom=0)
    loss.legend(**_LEGEND)
    right.plot(*points("val_acc"), "s--", color=_COLORS[1], markersize=3.5, linewidth=1.4)
    for ax in (loss, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return figure
