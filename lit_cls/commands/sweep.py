"""`lit_cls sweep`: a fit for every combination of the given values of any options."""

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from lit_cls.commands.parser import user_path
from lit_cls.commands.series_options import SeriesParser
from lit_cls.commands.train import TrainCommand
from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.errors import UserError
from lit_cls.experiments.counts import COUNT_COLUMNS, interval, percent
from lit_cls.experiments.plots import draw_sweep, require_reports
from lit_cls.experiments.series import Series
from lit_cls.experiments.series_runs import RunRequest, SeriesRun
from lit_cls.experiments.tables import markdown_table
from lit_cls.io.atomic import write_csv, write_json, write_text
from lit_cls.io.terminal import print_to, stdout_console

Grid = dict[str, list[str]]
"""Values by option, both as typed."""

_FIXED = {
    "--run_name": "runs are named after the varied values",
    "--ckpt_path": "every run starts anew",
    "--trainer.default_root_dir": "give --out",
    "--trainer.fast_dev_run": "it leaves no results",
}
_NOTE = """\
Percent, with 95 % Wilson intervals. Choose by the validation split: the highest of several test
accuracies is higher than the same network would reach on new texts.
"""


def sweep(words: Sequence[str]) -> int:
    """Runs the command; the exit code is 1 where a run failed or was skipped."""
    own, others = _parser().split(words)
    grid = parse_grid(own.vary)
    for word in others:
        if word.startswith("--") and word[2:].split("=")[0] in grid:
            raise UserError(f"{word.split('=')[0]} is varied: leave it out, or take it out of --vary")
    require_reports()
    console, out = stdout_console(), own.out
    command = shlex.join(["lit_cls", "sweep", *words])
    resume = shlex.join(["lit_cls", "sweep", *(word for word in words if word != "--rerun")])
    series = Series(out, tuple(grid), _requests(grid, others, own.rerun), console, resume, TrainCommand)
    series.plan()
    series.run(on_change=lambda runs: _write(command, grid, runs, out))
    _write(command, grid, series.runs, out)
    finished = {run.request.cells: (run.result.counts, run.result.seconds) for run in series.runs if run.result}
    draw_sweep(grid, finished, out)
    unfinished = [run for run in series.runs if run.result is None]
    for run in unfinished:
        print_to(console, f"{run.request.name} is not complete: {run.reason}")
    print_to(console, f"everything is in {out}: table.md, results.csv, results.json, sweep.png, sweep.svg")
    return 1 if unfinished else 0


def parse_grid(given: Sequence[str]) -> Grid:
    """Options and their values from `option=a,b,c`; a UserError for another form, or anything given twice."""
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
    help_vary = "an option of lit_cls fit and its values; given again, every combination is run"
    parser.add_argument("--vary", action="append", required=True, metavar="OPTION=A,B,C", help=help_vary)
    help_out = "folder of everything (default: %(default)s)"
    parser.add_argument("--out", type=user_path, default="checkpoints/sweep", help=help_out)
    parser.add_argument("--rerun", action="store_true", help="run finished ones once more, into new folders")
    return parser


def _requests(grid: Grid, others: Sequence[str], rerun: bool) -> list[RunRequest]:
    requests: dict[str, RunRequest] = {}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        words = (f"{option.rpartition('.')[2]}={value}" for option, value in chosen.items())
        name = "_".join(re.sub(r"[^\w.=-]+", "-", word).strip("-") for word in words)
        if name in requests:  # two values that differ in characters that no folder name has
            name = f"{name}_{len(requests)}"
        options = (*others, *(f"--{option}={value}" for option, value in chosen.items()))
        requests[name] = RunRequest(values, name, options, rerun)
    return list(requests.values())


def _write(command: str, grid: Grid, runs: Sequence[SeriesRun], out: Path) -> None:
    """Writes table.md, results.csv and results.json of the finished runs."""
    described = [
        {"varied": dict(zip(grid, run.request.cells, strict=True)), "state": run.state, "reason": run.reason}
        | (run.result.as_dict() if run.result else {})
        for run in runs
    ]
    write_json(out / "results.json", {"command": command, "grid": grid, "runs": described})
    lines, table = [], []
    for values, result in ((run.request.cells, run.result) for run in runs if run.result):
        costs = (f"{result.seconds:.3f}", result.trained, result.parameters)
        lines.append([*values, *result.flat_counts(), *costs, result.place])
        cells = [f(result.counts[split]) for split in SPLIT_NAMES for f in (percent, interval)]
        table.append([*values, *cells, f"{result.seconds:.1f}", f"{result.trained:,}"])
    columns = [*grid, *COUNT_COLUMNS, "seconds_training", "trained_parameters", "parameters", "folder"]
    write_csv(out / "results.csv", columns, lines)
    columns = [column for split in SPLIT_NAMES for column in (f"{split}: accuracy", "interval")]
    rendered = markdown_table([*grid, *columns, "training, s", "trained parameters"], table, left=len(grid))
    write_text(out / "table.md", f"# {', '.join(grid)}\n\n`{command}`\n\n{rendered}\n\n{_NOTE}")
