"""table.md: our figures beside the published ones."""

from collections.abc import Collection, Sequence

from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.experiments.finished_run import Count
from lit_cls.experiments.results import BaselineResult, Results, RowResult, interval, share

_NOTES = """\
Accuracies are in percent: ours is the mean over the seeds, with its correct predictions, the number of texts, and the
95 % Wilson interval of that many different texts; "published" and the difference to it in points follow. The published
counts of the train split are over the texts that its loader did not drop: 1,040 (rows 14 and 15: all 1,045). The test
texts "in train" also occur in the train split, word for word or but for digits, punctuation and case. Training time is
that of one run, without validation.
"""


def markdown_table(results: Results) -> str:
    """One line per row, one per baseline."""
    lines = ["# The table", "", f"`{results.command}`", "", *_origin(results), ""]
    lines += [*_accuracies(results), "", *_costs(results), ""]
    if results.baselines:
        lines += [*_natural(results.baselines), ""]
    lines += [f"- Not complete: {line}." for line in results.missing()]
    return "\n".join([*lines, "", _NOTES])


def _origin(results: Results) -> list[str]:
    """The origin of the figures; one line for each kind of machine and commit."""
    lines = []
    for result in results.rows:
        for run in result.runs.values():
            origin, versions = run.provenance, run.provenance["versions"]
            lines.append(
                f"Device {origin['device']}, commit {origin['commit']}, {origin['started'][:10]}, "
                f"Python {versions['python']}, torch {versions['torch']}, lightning {versions['lightning']}."
            )
    return list(dict.fromkeys(lines))


def _accuracies(results: Results) -> list[str]:
    columns = ["row", "what", "size", "seeds"]
    columns += [f"{split}: ours | interval | published | difference" for split in SPLIT_NAMES]
    lines = heading(" | ".join(columns).split(" | "))
    for result in results.rows:
        cells = [str(result.row.number), result.row.title, result.size.removeprefix("gpt2-"), str(len(result.runs))]
        for split in SPLIT_NAMES:
            cells += _beside(result, split)
        lines.append(line(cells))
    for baseline in results.baselines:
        cells = ["", baseline.name, "", ""]
        for split in SPLIT_NAMES:
            count = baseline.counts[split]
            cells += [percent(count), interval(count), "", ""]
        lines.append(line(cells))
    return lines


def _beside(result: RowResult, split: SplitName) -> list[str]:
    """Our share, its interval, the published share, and the difference in points."""
    published = result.row.published.get(split)
    theirs = percent(published) if published else "impossible"
    if not result.runs:
        return ["", "", theirs, ""]
    ours = result.mean(split)
    difference = f"{100 * (share(ours) - share(published)):+.2f}" if published and ours[1] else ""
    return [percent(ours), interval(ours), theirs, difference]


def _costs(results: Results) -> list[str]:
    columns = ["row", "what", "test texts in train", "not in train", "trained parameters", "of", "training, s"]
    lines = heading([*columns, "published (A100), s", "peak GPU memory, GB"])
    for number, result in results.finished().items():
        runs = list(result.runs.values())
        peak = max(run.peak_gpu_memory or 0 for run in runs)
        cells = [str(number), result.row.title, _mean([run.seen for run in runs]), _mean([run.unseen for run in runs])]
        cells += [f"{runs[0].trained:,}", f"{runs[0].parameters:,}", f"{result.mean_seconds():.1f}"]
        lines.append(line([*cells, f"{60 * result.row.minutes:.0f}", f"{peak / 1e9:.1f}" if peak else ""]))
    for baseline in results.baselines:
        parameters = f"{baseline.parameters:,}"
        cells = ["", baseline.name, percent(baseline.seen), percent(baseline.unseen), parameters, parameters]
        lines.append(line([*cells, f"{baseline.seconds:.1f}", "", ""]))
    return lines


def _natural(baselines: list[BaselineResult]) -> list[str]:
    """The baselines where labels have their natural shares."""
    labels = baselines[0].natural["labels"]
    rare = min(labels, key=lambda name: labels[name]["share"])
    texts = {name: figures["recall"][1] for name, figures in labels.items()}
    counted = 100 * texts[rare] / sum(texts.values())  # the mix of these texts as they are
    lines = [
        f"At the natural mix ({100 * labels[rare]['share']:.1f} % {rare}), from the predictions for the test texts and "
        "for those left out of the balanced sample, weighted; the last column is not:",
        "",
        *heading(
            ["baseline", "accuracy", f"{rare} recall", f"{rare} precision", f"the same at {counted:.1f} % {rare}"]
        ),
    ]
    for baseline in baselines:
        figures = baseline.natural["labels"][rare]
        precision = "n/a" if figures["precision"] is None else f"{100 * figures['precision']:.1f}"
        cells = [baseline.name, f"{100 * baseline.natural['accuracy']:.2f}", percent(figures["recall"]), precision]
        lines.append(line([*cells, percent(figures["precision_counted"])]))
    return lines


def _mean(counts: Sequence[Count]) -> str:
    k, n = (sum(values) / len(counts) for values in zip(*counts, strict=True))
    return percent((k, int(n)))


def percent(count: tuple[float, int]) -> str:
    """A share in percent, with its correct predictions and texts."""
    k, n = count
    return f"{100 * share(count):.2f} ({k:g}/{n})" if n else "n/a"


def heading(columns: Sequence[str], left: Collection[str] = ("row", "what", "size", "baseline")) -> list[str]:
    """The two lines above a table's rows; columns not in `left` are aligned to the right."""
    return [line(columns), "|" + "|".join("---" if column in left else "---:" for column in columns) + "|"]


def line(cells: Sequence[str]) -> str:
    """One row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
