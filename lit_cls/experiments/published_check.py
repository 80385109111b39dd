"""`lit_cls reproduce --check DIR`: compares a finished folder with the published counts."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.errors import UserError
from lit_cls.evaluation.paired import newcombe_interval
from lit_cls.experiments.counts import mean_count, share
from lit_cls.experiments.rows import ROWS, TableRow
from lit_cls.io.terminal import print_to

_OUTSIDE = "OUTSIDE"


def check_published(folder: Path, console: Console) -> int:
    """Compares every finished row, split by split, and prints the comparison; the exit code is 1 if a row is outside.

    A row agrees when on every split Newcombe's 95 % interval of the difference between its share of correct predictions
    (the mean over its seeds) and the published one (from its counts, not the rounded percentages) includes 0.
    """
    path = folder / "results.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        compared = {line["row"]: _compare(ROWS[line["row"]], line["runs"]) for line in content["rows"] if line["runs"]}
        notes = _notes(content, compared.keys())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. --check takes the --out of a lit_cls reproduce") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged, or no result of lit_cls reproduce ({type(error).__name__})") from error
    if not compared:
        raise UserError(f"no row of {folder} is finished: nothing to compare")
    table = Table("row", "split", title=Text(f"{folder} against the published counts"), title_justify="left")
    for column in ("ours", "published", "difference in points, 95 %"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    outside = []
    for number, lines in compared.items():
        for cells in lines:
            table.add_row(Text(f"{number} {ROWS[number].title}"), *cells)
        if splits := [split for split, *_, verdict in lines if verdict == _OUTSIDE]:
            outside.append(f"row {number} ({', '.join(splits)})")
    console.print(table)
    for line in notes:
        print_to(console, f"note: {line}")
    agree = f"all {len(compared)} compared rows agree with the published counts"
    print_to(console, f"outside: {'; '.join(outside)}" if outside else agree)
    return 1 if outside else 0


def _compare(row: TableRow, runs: list[dict[str, Any]]) -> list[list[str]]:
    """Cells of the table after the first, for each split; impossible published figures are left out."""
    lines = []
    for split in SPLIT_NAMES:
        ours, theirs = mean_count([run[split] for run in runs]), row.published.get(split)
        if theirs is None or not ours[1]:
            continue
        low, high = newcombe_interval(theirs, ours)
        difference = share(ours) - share(theirs)
        cells = [f"{k:g}/{n} {100 * share((k, n)):.2f} %" for k, n in (ours, theirs)]
        cells.append(f"{100 * difference:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]")
        lines.append([split, *cells, "agrees" if low <= 0 <= high else _OUTSIDE])
    return lines


def _notes(content: dict[str, Any], compared: Collection[int]) -> list[str]:
    """What the comparison leaves out, and what limits it."""
    rows, options = content["rows"], content["options"]
    missing = [str(number) for number in ROWS if number not in compared]
    partly = [str(line["row"]) for line in rows if line["runs"] and set(line["states"]) != {"finished"}]
    pairs = [(line, split) for line in rows for split in SPLIT_NAMES]
    empty = [f"{line['row']} ({split})" for line, split in pairs if any(not run[split][1] for run in line["runs"])]
    notes = {
        "the intervals are those of texts; how much a row varies from seed to seed is not in them, and of many "
        "comparisons at 95 % some fall outside by chance": True,
        "row 8's published validation figure, 99.81 %, is left out: it cannot occur with 149 messages "
        "(it is 1038 of 1040, the training figure)": 8 in compared,
        f"not compared, because not finished here: row {', '.join(missing)}": missing,
        f"compared without all of their seeds: row {', '.join(partly)}": partly,
        f"not compared, because no text of it was evaluated: row {', '.join(empty)}": empty,
        "these runs started from random weights, the published ones (but row 10) from pretrained ones": (
            options["weights"] == "random"
        ),
        f"every row ran at {options['size']}, the published ones at their own sizes": options["size"] is not None,
        f"options beyond the rows' own: {' '.join(options['others'])}": options["others"],
    }
    return [note for note, applies in notes.items() if applies]
