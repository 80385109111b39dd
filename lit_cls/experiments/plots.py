"""Plots of a series, each as PNG and SVG. Needs matplotlib, which the extra `reports` brings."""

import itertools
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.evaluation.metrics import wilson_interval
from lit_cls.experiments.counts import Count, share
from lit_cls.experiments.results import Results, RowResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS, _THEIRS, _BASELINE = "#1f5fa8", "#c8553d", "#7a7a7a"


def require_reports() -> None:
    """Refuses, before hours of work, to run without matplotlib and scikit-learn, which the report needs."""
    needed = {"matplotlib": "matplotlib", "scikit-learn": "sklearn"}
    missing = " and ".join(package for package, module in needed.items() if find_spec(module) is None)
    if missing:
        raise UserError(f"the report needs {missing}, not installed here: pip install 'lit_cls[reports]'")


def draw_table_plots(results: Results, out: Path) -> list[Path]:
    """The PNG files of four plots: accuracy by row, against time, against trained parameters, and learning curves."""
    rows = list(results.finished().values())
    if not rows:
        return []
    seconds = [row.mean_seconds() for row in rows]
    trained = [next(iter(row.runs.values())).trained for row in rows]
    return [
        _save(_accuracy_by_row(rows, results), out / "accuracy_by_row.png"),
        _save(_against(rows, seconds, "training time of one run, s"), out / "accuracy_against_time.png"),
        _save(_against(rows, trained, "trained parameters"), out / "accuracy_against_parameters.png"),
        _save(_curves(rows), out / "learning_curves.png"),
    ]


def draw_sweep(
    grid: dict[str, list[str]], runs: dict[tuple[str, ...], tuple[dict[SplitName, Count], float]], out: Path
) -> list[Path]:
    """Accuracy and training time against the first varied option, a line for each value of the others.

    `grid` has values by option, `runs` by their values the counts of each split, and seconds of training.
    """
    from matplotlib import colormaps

    if not runs:
        return []
    first, *others = grid
    figure, (top, bottom) = _figure(8, 7, n_axes=2, stacked=True)
    for i, rest in enumerate(itertools.product(*(grid[option] for option in others))):
        values = [value for value in grid[first] if (value, *rest) in runs]
        if not values:
            continue
        places = [grid[first].index(value) + 0.06 * i for value in values]
        chosen = [runs[(value, *rest)] for value in values]
        color = colormaps["tab10"](i % 10)
        about = ", ".join(f"{option.rpartition('.')[2]} {value}" for option, value in zip(others, rest, strict=True))
        about = _plain(f" ({about})") if about else ""
        shares, reach = _bars([counts["test"] for counts, _ in chosen])
        label = f"test, 95 % interval{about}"
        top.errorbar(places, shares, yerr=reach, fmt="o-", color=color, capsize=2, linewidth=1, label=label)
        shares, _ = _bars([counts["validation"] for counts, _ in chosen])
        top.plot(places, shares, "s:", color=color, markersize=4, linewidth=1, label=f"validation{about}")
        bottom.plot(places, [seconds for _, seconds in chosen], "o-", color=color, linewidth=1)
    top.set(ylabel="accuracy, %")
    bottom.set(xlabel=_plain(first), ylabel="training, s", ylim=(0, None))
    for ax in (top, bottom):
        ax.set_xticks(range(len(grid[first])), [_plain(value) for value in grid[first]])
    top.legend(fontsize=8, frameon=False)
    return [_save(figure, out / "sweep.png")]


def _plain(text: str) -> str:
    """A text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def _figure(width: float, height: float, n_axes: int = 1, stacked: bool = False) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure  # not pyplot, which would keep state between plots

    figure = Figure(figsize=(width, height), layout="constrained")
    shape = (n_axes, 1) if stacked else (1, n_axes)
    axes = [figure.add_subplot(*shape, i + 1) for i in range(n_axes)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(visible=True, color="#e5e5e5", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def _save(figure: "Figure", path: Path) -> Path:
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
    return path


def _bars(counts: Sequence[tuple[float, int]]) -> tuple[list[float], list[list[float]]]:
    """Percentages, and how far the 95 % interval reaches below and above each."""
    bounds = [(*wilson_interval(*count), share(count)) for count in counts]
    reach = [[100 * (p - low) for low, _, p in bounds], [100 * (high - p) for _, high, p in bounds]]
    return [100 * p for _, _, p in bounds], reach


def _accuracy_by_row(rows: Sequence[RowResult], results: Results) -> "Figure":
    """Ours with intervals, the published figures beside them, the baselines below."""
    names = [f"{row.row.number}  {row.row.title}" for row in rows] + [one.name for one in results.baselines]
    figure, (ax,) = _figure(8, 1.2 + 0.3 * len(names))
    places = list(range(len(names)))
    shares, reach = _bars([row.mean("test") for row in rows])
    ours, theirs = [p - 0.12 for p in places[: len(rows)]], [p + 0.2 for p in places[: len(rows)]]
    ax.errorbar(shares, ours, xerr=reach, fmt="o", color=_OURS, capsize=2, label="ours, mean over seeds, 95 % interval")
    published = [row.row.published["test"] for row in rows]
    ax.plot([100 * share(p) for p in published], theirs, "D", color=_THEIRS, markersize=4, label="published (one run)")
    if results.baselines:
        shares, reach = _bars([baseline.counts["test"] for baseline in results.baselines])
        ax.errorbar(shares, places[len(rows) :], xerr=reach, fmt="s", color=_BASELINE, capsize=2, label="baselines")
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set_xlabel("test accuracy, %")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _against(rows: Sequence[RowResult], amounts: Sequence[float], label: str) -> "Figure":
    """Test accuracy against an amount of each row."""
    figure, (ax,) = _figure(8, 5)
    shares, reach = _bars([row.mean("test") for row in rows])
    ax.errorbar(amounts, shares, yerr=reach, fmt="o", color=_OURS, ecolor="#b7c9e0", capsize=2)
    # Rows that lie on one spot, or nearly, share a label.
    spots: dict[tuple[int, float], list[tuple[float, int]]] = {}
    for amount, value, row in zip(amounts, shares, rows, strict=True):
        spots.setdefault((round(8 * math.log(max(amount, 1e-9))), value), []).append((amount, row.row.number))
    for (_, value), found in spots.items():
        numbers = ", ".join(str(number) for _, number in found)
        ax.annotate(numbers, (max(found)[0], value), xytext=(4, 4), textcoords="offset points", fontsize=9)
    if max(amounts) > 0:
        ax.set_xscale("log")
        # Labels at 1, 2, 5, 10, …, or at powers of ten alone where the axis spans many.
        labelled = "125" if max(amounts) < 100 * min(amounts) else "1"
        for set_formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
            set_formatter(
                lambda amount, _: f"{amount:{',.0f' if amount >= 1 else 'g'}}" if f"{amount:e}"[0] in labelled else ""
            )
    ax.set(xlabel=label, ylabel="test accuracy, %")
    ax.set_title("Rows by number; bars are 95 % intervals", fontsize=9, loc="left")
    return figure


def _curves(rows: Sequence[RowResult]) -> "Figure":
    """Training and validation by epoch, of the first seed of each row."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(12, 5, n_axes=3)
    curves = {row.row.number: next(iter(row.runs.values())).curve for row in rows}
    for ax, name in zip(axes, ("train_loss", "val_loss", "val_acc"), strict=True):
        for i, (number, curve) in enumerate(curves.items()):
            points = [(point["epoch"], point[name]) for point in curve if name in point]
            style: dict[str, Any] = {"color": colormaps["tab10"](i % 10), "linestyle": ("-", "--", ":", "-.")[i // 10]}
            label = f"row {number}" if ax is axes[0] else None
            ax.plot(*zip(*points, strict=True), label=label, marker=".", linewidth=1, **style)
        ax.set_title(name, fontsize=10, loc="left")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if any(curves.values()):
        figure.legend(loc="outside right center", fontsize=8, frameon=False)
    return figure
