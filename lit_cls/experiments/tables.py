"""table.md: our figures beside the published ones."""

from collections.abc import Sequence

from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.experiments.counts import interval, mean_count, percent, share
from lit_cls.experiments.results import BaselineResult, Results, RowResult
from lit_cls.report.pages import escape_markdown

_NOTES = """\
Accuracies are in percent: ours is the mean over the seeds, with its correct predictions, the number of texts, and the
95 % Wilson interval of that many different texts; "published" and the difference to it in points follow. The published
counts of the train split are over the texts that its loader did not drop: 1,040 (rows 14 and 15: all 1,045). The test
texts "in train" also occur in the train split, word for word or but for digits, punctuation and case. Training time is
that of one run, without validation.
"""


def results_markdown(results: Results) -> str:
    """table.md: one line per row, one per baseline."""
    origins = (
        "Device {device}, commit {commit}, {started:.10}, "
        "Python {versions[python]}, torch {versions[torch]}, lightning {versions[lightning]}.".format(**run.provenance)
        for result in results.rows
        for run in result.runs.values()
    )
    lines = ["# The table", "", f"`{results.command}`", "", *dict.fromkeys(origins), ""]
    lines += [_accuracies(results), "", _costs(results), ""]
    if results.baselines:
        lines += [*_natural(results.baselines), ""]
    lines += [f"- Not complete: {line}." for line in results.missing()]
    return "\n".join([*lines, "", _NOTES])


def _accuracies(results: Results) -> str:
    columns = ["row", "what", "size", "seeds"]
    for split in SPLIT_NAMES:
        columns += [f"{split}: ours", "interval", "published", "difference"]
    rows = []
    for result in results.rows:
        cells = [str(result.row.number), result.row.title, result.size.removeprefix("gpt2-"), str(len(result.runs))]
        rows.append(cells + [cell for split in SPLIT_NAMES for cell in _beside_published(result, split)])
    for baseline in results.baselines:
        counts = [baseline.counts[split] for split in SPLIT_NAMES]
        rows.append(["", baseline.name, "", ""] + [c for n in counts for c in (percent(n), interval(n), "", "")])
    return markdown_table(columns, rows, left=3)


def _beside_published(result: RowResult, split: SplitName) -> list[str]:
    """Our share, its interval, the published share, and the difference in points."""
    published = result.row.published.get(split)
    theirs = percent(published) if published else "impossible"
    if not result.runs:
        return ["", "", theirs, ""]
    ours = result.mean(split)
    difference = f"{100 * (share(ours) - share(published)):+.2f}" if published and ours[1] else ""
    return [percent(ours), interval(ours), theirs, difference]


def _costs(results: Results) -> str:
    columns = ["row", "what", "test texts in train", "not in train", "trained parameters", "of", "training, s"]
    columns += ["published (A100), s", "peak GPU memory, GB"]
    rows = []
    for number, result in results.finished().items():
        runs = list(result.runs.values())
        peak = max(run.peak_gpu_memory or 0 for run in runs)
        seen, unseen = mean_count([run.seen for run in runs]), mean_count([run.unseen for run in runs])
        cells = [str(number), result.row.title, percent(seen), percent(unseen), f"{runs[0].trained:,}"]
        cells += [f"{runs[0].parameters:,}", f"{result.mean_seconds():.1f}", f"{60 * result.row.minutes:.0f}"]
        rows.append([*cells, f"{peak / 1e9:.1f}" if peak else ""])
    for baseline in results.baselines:
        parameters = f"{baseline.parameters:,}"
        cells = ["", baseline.name, percent(baseline.seen), percent(baseline.unseen), parameters, parameters]
        rows.append([*cells, f"{baseline.seconds:.1f}", "", ""])
    return markdown_table(columns, rows, left=2)


def _natural(baselines: list[BaselineResult]) -> list[str]:
    """The baselines where labels have their natural shares."""
    labels = baselines[0].natural["labels"]
    rare = min(labels, key=lambda name: labels[name]["share"])
    texts = {name: figures["recall"][1] for name, figures in labels.items()}
    counted = 100 * texts[rare] / sum(texts.values())  # the mix of these texts as they are
    columns = ["baseline", "accuracy", f"{rare} recall", f"{rare} precision", f"the same at {counted:.1f} % {rare}"]
    rows = []
    for baseline in baselines:
        figures = baseline.natural["labels"][rare]
        precision = "n/a" if figures["precision"] is None else f"{100 * figures['precision']:.1f}"
        cells = [baseline.name, f"{100 * baseline.natural['accuracy']:.2f}", percent(figures["recall"]), precision]
        rows.append([*cells, percent(figures["precision_counted"])])
    return [
        f"At the natural mix ({100 * labels[rare]['share']:.1f} % {rare}), from the predictions for the test texts and "
        "for those left out of the balanced sample, weighted; the last column is not:",
        "",
        markdown_table(columns, rows, left=1),
    ]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """The lines of a table, without a line break at the end; all but the first `left` columns hold numbers."""
    rule = ["---" if i < left else "---:" for i in range(len(columns))]
    names, *lines = [[escape_markdown(cell) for cell in row] for row in (columns, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, rule, *lines))
