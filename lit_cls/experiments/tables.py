"""table.md: our figures beside the published ones."""

from collections.abc import Sequence

from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.experiments.counts import interval, mean_count, percent, share
from lit_cls.experiments.results import Results, RowResult
from lit_cls.io.templates import environment
from lit_cls.report.pages import escape_markdown


def results_markdown(results: Results) -> str:
    """table.md: one line per row, one per baseline."""
    origins = (
        f"Device {it['device']}, commit {it['commit'] or 'unknown'}, {it['started']:.10}, "
        f"Python {it['versions']['python']}, torch {it['versions']['torch']}, lightning {it['versions']['lightning']}."
        for it in (run.provenance for result in results.rows for run in result.runs.values())
    )
    pages = environment("lit_cls.experiments")
    pages.filters.update(line=_line, mean=mean_count, percent=percent, interval=interval)
    pages.globals.update(beside_published=_beside_published)
    return pages.get_template("table.md").render(results=results, origins=dict.fromkeys(origins), splits=SPLIT_NAMES)


def _beside_published(result: RowResult) -> list[str]:
    """Our share, its interval, the published share, and the difference in points, on each split."""
    cells = []
    for split in SPLIT_NAMES:
        published = result.row.published.get(split)
        theirs = percent(published) if published else "impossible"
        if not result.runs:
            cells += ["", "", theirs, ""]
            continue
        ours = result.mean(split)
        difference = f"{100 * (share(ours) - share(published)):+.2f}" if published and ours[1] else ""
        cells += [percent(ours), interval(ours), theirs, difference]
    return cells


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """The lines of a table, without a line break at the end; all but the first `left` columns hold numbers."""
    rule = f"|{' --- |' * left}{' ---: |' * (len(columns) - left)}"
    return "\n".join([_line(columns), rule, *map(_line, rows)])


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(escape_markdown(str(cell)) for cell in cells)} |"
