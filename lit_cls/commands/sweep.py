"""`lit_cls sweep`: a fit for every combination of the given values of any options."""

import csv
import io
import itertools
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from lit_cls.commands.series_options import SeriesParser
from lit_cls.commands.train import TrainCommand
from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.errors import UserError
from lit_cls.experiments.plots import draw_sweep, require_reports
from lit_cls.experiments.results import interval
from lit_cls.experiments.series import Entry, Job, Series
from lit_cls.experiments.tables import heading, line, percent
from lit_cls.io.atomic import write_json, write_text
from lit_cls.io.terminal import stdout_console

Grid = dict[str, list[str]]
"""Values by option, both as typed."""

_FIXED = {
    "--run_name": "runs are named after the varied values",
    "--ckpt_path": "every run starts anew",
    "--trainer.default_root_dir": "give --out",
    "--trainer.fast_dev_run": "it leaves no results",
}


def sweep(words: Sequence[str]) -> int:
    """Runs the command.

    Args:
        words: what was typed after the verb.

    Returns:
        The exit code: 1 where a run failed or was skipped.

    Raises:
        UserError: a mistake in the options or the data.
    """
    own, others = _parser().split(words)
    grid = parse_grid(own.vary)
    for word in others:
        if word.startswith("--") and word[2:].split("=")[0] in grid:
            raise UserError(f"{word.split('=')[0]} is varied: leave it out, or take it out of --vary")
    require_reports()
    console, out = stdout_console(), Path(os.path.expanduser(own.out))
    command = shlex.join(["lit_cls", "sweep", *words])
    again = shlex.join(["lit_cls", "sweep", *(word for word in words if word != "--rerun")])
    series = Series(out, tuple(grid), _jobs(grid, others, own.rerun), console, again, TrainCommand)
    series.plan()

    def write_down(entries: Sequence[Entry]) -> None:
        _write(command, grid, entries, out)

    series.on_change = write_down
    series.run()
    write_down(series.entries)
    values = {
        tuple(entry.job.line): (entry.record.counts, entry.record.seconds) for entry in series.entries if entry.record
    }
    draw_sweep(grid, values, out)
    unfinished = [entry for entry in series.entries if entry.record is None]
    for entry in unfinished:
        series.say(f"{entry.job.name} is not complete: {entry.reason}")
    series.say(f"everything is in {out}: table.md, results.csv, results.json, sweep.png, sweep.svg")
    return 1 if unfinished else 0


def parse_grid(given: Sequence[str]) -> Grid:
    """Options and their values.

    Args:
        given: each `option=a,b,c`; a comma inside brackets or braces separates nothing.

    Raises:
        UserError: not of that form, or an option or a value given twice.
    """
    grid: Grid = {}
    for words in given:
        option, sign, values = words.partition("=")
        option = option.removeprefix("--")
        found = _split(values)
        if not (option and sign and all(found)):
            raise UserError(f"--vary {words}: give option=a,b,c, for example model.trainable_layers=last_layer,1,2,all")
        if option in grid:
            raise UserError(f"--vary {option} is given twice: put all its values into one")
        if len(set(found)) < len(found):
            raise UserError(f"--vary {words}: a value is given twice")
        if f"--{option}" in _FIXED or option == "config":
            raise UserError(f"{option} cannot be varied: {_FIXED.get(f'--{option}', 'one --config is for all runs')}")
        grid[option] = found
    return grid


def _split(values: str) -> list[str]:
    """The values between commas; those inside brackets, braces or parentheses separate nothing."""
    found, depth = [""], 0
    for character in values:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [value.strip() for value in found]


def _parser() -> SeriesParser:
    parser = SeriesParser("sweep", "Runs a fit for every combination of values, and compares them.", _FIXED)
    parser.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="OPTION=A,B,C",
        help="an option of lit_cls fit and its values; given again, every combination is run",
    )
    parser.add_argument("--out", default="checkpoints/sweep", help="folder of everything (default: %(default)s)")
    parser.add_argument("--rerun", action="store_true", help="run finished ones once more, into new folders")
    return parser


def _jobs(grid: Grid, others: Sequence[str], again: bool) -> list[Job]:
    jobs: dict[str, Job] = {}
    for values in itertools.product(*grid.values()):
        chosen = [f"--{option}={value}" for option, value in zip(grid, values, strict=True)]
        words = (f"{option.rpartition('.')[2]}={value}" for option, value in zip(grid, values, strict=True))
        name = "_".join(re.sub(r"[^\w.=-]+", "-", word).strip("-") for word in words)
        if name in jobs:  # two values that differ in what a folder name cannot have
            name = f"{name}_{len(jobs)}"
        jobs[name] = Job(values, name, (*others, *chosen), again)
    return list(jobs.values())


def _write(command: str, grid: Grid, entries: Sequence[Entry], out: Path) -> None:
    """table.md, results.csv and results.json, of what has finished."""
    finished = [(entry, entry.record) for entry in entries if entry.record is not None]
    content = {
        "command": command,
        "grid": grid,
        "runs": [
            {"varied": dict(zip(grid, entry.job.line, strict=True)), "state": entry.state, "reason": entry.reason}
            | ({} if entry.record is None else entry.record.as_dict())
            for entry in entries
        ],
    }
    write_json(out / "results.json", content)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    counts = [f"{split}_{what}" for split in SPLIT_NAMES for what in ("correct", "n")]
    writer.writerow([*grid, *counts, "seconds_training", "trained_parameters", "parameters", "folder"])
    lines = [f"# {', '.join(grid)}", "", f"`{command}`", ""]
    columns = [f"{split}: accuracy | interval" for split in SPLIT_NAMES]
    lines += heading([*grid, *" | ".join(columns).split(" | "), "training, s", "trained parameters"], left=set(grid))
    for entry, record in finished:
        numbers = [number for split in SPLIT_NAMES for number in record.counts[split]]
        costs = (f"{record.seconds:.3f}", record.trained, record.parameters)
        writer.writerow([*entry.job.line, *numbers, *costs, record.place])
        cells = [f(record.counts[split]) for split in SPLIT_NAMES for f in (percent, interval)]
        lines.append(line([*entry.job.line, *cells, f"{record.seconds:.1f}", f"{record.trained:,}"]))
    lines += ["", "Percent, with 95 % Wilson intervals. Choose by the validation split: the highest of several test"]
    lines += ["accuracies is higher than the same network would reach on new texts.", ""]
    write_text(out / "results.csv", stream.getvalue())
    write_text(out / "table.md", "\n".join(lines))
