"""`lit_cls reproduce`: runs the rows of the published table, and compares them."""

import shlex
import shutil
import string
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from lit_cls.commands.parser import user_path
from lit_cls.commands.series_options import SeriesParser, whole_numbers
from lit_cls.commands.train import TrainCommand
from lit_cls.errors import UserError
from lit_cls.experiments.finished_run import is_finished
from lit_cls.experiments.plots import draw_table_plots, require_reports
from lit_cls.experiments.published_check import check_published
from lit_cls.experiments.questions import report_markdown
from lit_cls.experiments.results import Results, RowResult, run_baselines, write_results
from lit_cls.experiments.rows import ROWS, TableRow, choose_rows
from lit_cls.experiments.series import Series
from lit_cls.experiments.series_runs import RunRequest, SeriesRun
from lit_cls.experiments.tables import results_markdown
from lit_cls.io.atomic import write_text
from lit_cls.io.terminal import print_to, stdout_console
from lit_cls.model.backbones import BACKBONES
from lit_cls.runs.folder import version_folders
from lit_cls.runs.presets import PRESETS

_ROW = "the file of a row in configs/rows sets it; lit_cls fit and lit_cls sweep run anything else"
# Options of `fit` that reproduce sets itself, or that would make a row something else.
_FIXED = {
    "--config": "--rows chooses the rows, each has its file in configs/rows",
    "--preset": "each row has it in its file",
    "--run_name": "it is named after the row and the seed",
    "--ckpt_path": "a row starts from --weights",
    "--keep": "the last epoch is tested, as in the published table",
    "--seed_everything": "give --seeds",
    "--model": f"give --size and --weights; {_ROW}",
    "--data": _ROW,
    "--trainer.accumulate_grad_batches": _ROW,
    "--trainer.enable_checkpointing": "rows keep no checkpoint; lit_cls fit --config with the row's file does",
    "--trainer.default_root_dir": "give --out",
    "--trainer.fast_dev_run": "it leaves no results",
}
_FEATURES = ".reproduce_frozen_layers"
"""Folder in which rows with the same frozen layers share their outputs, as long as the series runs."""
_FREE = (
    *("--data.path", "--data.num_workers"),
    # How a row is computed, not what it is.
    *("--model.fast", "--model.cache_gb", "--model.gradient_checkpointing", "--model.compile"),
)


def reproduce(words: Sequence[str]) -> int:
    """Runs the command; the exit code is 1 where a row failed, was skipped, or (with --check) disagrees."""
    own, others = _parser().split(words)
    console = stdout_console()
    if own.check is not None:
        return check_published(own.check, console)
    if own.size is not None and own.size not in BACKBONES:
        raise UserError(f"--size {own.size} is not one of {', '.join(BACKBONES)}")
    rows, seeds = choose_rows(own.rows), whole_numbers("--seeds", own.seeds)
    require_reports()
    chosen = [(row.number, seed) for row in rows for seed in seeds]
    # Runs that an earlier command finished here are in the table too, if their settings are these.
    others_here = sorted(_finished(own.out) - set(chosen))
    pairs = sorted([*chosen, *others_here], key=lambda pair: pair[0])
    requests = [_request(ROWS[row], seed, own, others, own.rerun and (row, seed) in chosen) for row, seed in pairs]
    resume = shlex.join(["lit_cls", "reproduce", *(word for word in words if word != "--rerun")])
    series = Series(own.out, ("row", "what", "size"), requests, console, resume, TrainCommand)
    series.plan()
    assert series.parts is not None, "there is at least one row"
    options = {"size": own.size, "weights": own.weights, "others": _not_free(others)}
    command = shlex.join(["lit_cls", "reproduce", *words])
    results = Results(command, options, [], run_baselines(series.parts, own.out / "baselines"))

    def write(runs: Sequence[SeriesRun]) -> None:
        results.rows[:] = _row_results(pairs, runs)
        write_results(results, own.out)
        write_text(own.out / "table.md", results_markdown(results))

    series.run(on_change=write)
    write(series.runs)
    shutil.rmtree(own.out / _FEATURES, ignore_errors=True)
    plots = draw_table_plots(results, own.out)
    write_text(own.out / "report.md", report_markdown(results, plots))
    missing = results.missing()
    for line in missing:
        print_to(console, f"not complete: {line}")
    print_to(console, f"everything is in {own.out}: report.md, table.md, results.csv, results.json, plots")
    return 1 if missing else 0


def _parser() -> SeriesParser:
    parser = SeriesParser("reproduce", "Runs the rows of the published table and compares them.", _FIXED, _FREE)
    parser.add_argument("--rows", default="all", help="all, or numbers and ranges such as 1,2,16-19 (default: all)")
    parser.add_argument("--seeds", default="123,1,2", help="one run of each row per seed (default: 123,1,2)")
    parser.add_argument(
        "--weights",
        default="pretrained",
        help="pretrained, random, or a path in which {size} stands for gpt2-small and so on; row 10 is always random",
    )
    parser.add_argument("--size", help="run every row at this size, for a trial: gpt2-nano, gpt2-small, …")
    help_out = "folder of everything (default: %(default)s)"
    parser.add_argument("--out", type=user_path, default="checkpoints/reproduce", help=help_out)
    parser.add_argument("--rerun", action="store_true", help="run rows that are finished once more, into new folders")
    help_check = "compare a finished folder with the published counts, and end"
    parser.add_argument("--check", type=user_path, metavar="DIR", help=help_check)
    return parser


def _request(row: TableRow, seed: int, own: Namespace, others: Sequence[str], rerun: bool) -> RunRequest:
    size = own.size or row.model.get("size", PRESETS["published"]["model.size"])
    options = ["--config", str(row.config), f"--seed_everything={seed}", f"--model.size={size}"]
    if row.model.get("weights") != "random":
        options.append(f"--model.weights={_weights(own.weights, size)}")
    options.append("--trainer.enable_checkpointing=false")
    if not any(word.startswith("--model.fast") for word in others):
        options.append(f"--model.cache_dir={own.out / _FEATURES}")
    options += others
    return RunRequest((str(row.number), row.title, size), f"{row.config.stem}-seed{seed}", tuple(options), rerun)


def _weights(given: str, size: str) -> str:
    """The weights of a size: `{size}` in the path is replaced."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(given) if name is not None}
        filled = given.format(**dict.fromkeys(fields, size))
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"--weights {given}: not a path with {{size}} in it: {error}") from error
    if fields - {"size"}:
        raise UserError(f"--weights {given}: only {{size}} can stand for something, not {{{min(fields - {'size'})}}}")
    return filled


def _finished(out: Path) -> set[tuple[int, int]]:
    """Rows and seeds that have a finished run in the folder."""
    found = set()
    for number, row in ROWS.items():
        for folder in (out / "runs").glob(f"{row.config.stem}-seed*"):
            seed = folder.name.removeprefix(f"{row.config.stem}-seed")
            if seed.isdecimal() and any(map(is_finished, version_folders(folder))):
                found.add((number, int(seed)))
    return found


def _not_free(others: Sequence[str]) -> list[str]:
    """Options of `fit`, without those that change no result."""
    kept: list[str] = []
    free = False
    for word in others:
        free = word.split("=")[0] in _FREE if word.startswith("--") else free
        kept += [] if free else [word]
    return kept


def _row_results(pairs: Sequence[tuple[int, int]], runs: Sequence[SeriesRun]) -> list[RowResult]:
    """The rows; the pairs are row and seed of each run."""
    by_row: dict[int, dict[int, SeriesRun]] = {}
    for (number, seed), run in zip(pairs, runs, strict=True):
        by_row.setdefault(number, {})[seed] = run
    return [
        RowResult(
            row=ROWS[number],
            size=next(iter(of_row.values())).size,
            states=tuple(run.state for run in of_row.values()),
            reason=next((run.reason for run in of_row.values() if run.reason), ""),
            runs={seed: run.result for seed, run in of_row.items() if run.result is not None},
        )
        for number, of_row in by_row.items()
    ]
