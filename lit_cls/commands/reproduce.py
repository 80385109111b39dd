"""`lit_cls reproduce`: runs the rows of the published table, and compares them."""

import os
import shlex
import shutil
import string
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

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
from lit_cls.experiments.tables import markdown_table
from lit_cls.io.atomic import write_text
from lit_cls.io.terminal import stdout_console
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
_FREE = (
    *("--data.path", "--data.num_workers"),
    # How a row is computed, not what it is.
    *("--model.fast", "--model.cache_gb", "--model.gradient_checkpointing", "--model.compile"),
)


def reproduce(words: Sequence[str]) -> int:
    """Runs the command.

    Args:
        words: its options.

    Returns:
        The exit code: 1 where a row failed, was skipped, or (with --check) disagrees.

    Raises:
        UserError: a mistake in the options, the data or the weights.
    """
    own, others = _parser().split(words)
    console = stdout_console()
    if own.check is not None:
        return check_published(Path(os.path.expanduser(own.check)), console)
    if own.size is not None and own.size not in BACKBONES:
        raise UserError(f"--size {own.size} is not one of {', '.join(BACKBONES)}")
    rows, seeds = choose_rows(own.rows), whole_numbers("--seeds", own.seeds)
    require_reports()
    out = Path(os.path.expanduser(own.out))
    chosen = [(row.number, seed) for row in rows for seed in seeds]
    # Runs that an earlier command finished here are in the table too, if their settings are these.
    others_here = sorted(_finished(out) - set(chosen))
    pairs = sorted([*chosen, *others_here], key=lambda pair: pair[0])
    requests = [_request(ROWS[row], seed, own, others, own.rerun and (row, seed) in chosen) for row, seed in pairs]
    resume = shlex.join(["lit_cls", "reproduce", *(word for word in words if word != "--rerun")])
    series = Series(out, ("row", "what", "size"), requests, console, resume, TrainCommand)
    series.plan()
    assert series.parts is not None, "there is at least one row"
    options = {"size": own.size, "weights": own.weights, "others": _not_free(others)}
    command = shlex.join(["lit_cls", "reproduce", *words])
    results = Results(command, options, [], run_baselines(series.parts, out / "baselines"))

    def write(runs: Sequence[SeriesRun]) -> None:
        by_row: dict[int, dict[int, SeriesRun]] = {}
        for (number, seed), run in zip(pairs, runs, strict=True):
            by_row.setdefault(number, {})[seed] = run
        results.rows[:] = [_row_result(ROWS[number], by_seed) for number, by_seed in by_row.items()]
        write_results(results, out)
        write_text(out / "table.md", markdown_table(results))

    series.run(on_change=write)
    write(series.runs)
    shutil.rmtree(_feature_folder(own.out), ignore_errors=True)
    plots = draw_table_plots(results, out)
    write_text(out / "report.md", report_markdown(results, plots))
    missing = results.missing()
    for line in missing:
        series.log(f"not complete: {line}")
    series.log(f"everything is in {out}: report.md, table.md, results.csv, results.json, plots")
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
    parser.add_argument("--out", default="checkpoints/reproduce", help="folder of everything (default: %(default)s)")
    parser.add_argument("--rerun", action="store_true", help="run rows that are finished once more, into new folders")
    parser.add_argument("--check", metavar="DIR", help="compare a finished folder with the published counts, and end")
    return parser


def _request(row: TableRow, seed: int, own: Namespace, others: Sequence[str], rerun: bool) -> RunRequest:
    size = own.size or row.model.get("size", PRESETS["published"]["model.size"])
    options = ["--config", str(row.config), f"--seed_everything={seed}", f"--model.size={size}"]
    if row.model.get("weights") != "random":
        options.append(f"--model.weights={_weights(own.weights, size)}")
    options.append("--trainer.enable_checkpointing=false")
    if not any(word.startswith("--model.fast") for word in others):
        options.append(f"--model.cache_dir={_feature_folder(own.out)}")
    options += others
    return RunRequest((str(row.number), row.title, size), f"{row.config.stem}-seed{seed}", tuple(options), rerun)


def _feature_folder(out: str) -> Path:
    """The folder in which rows with the same frozen layers share their outputs, as long as the series runs."""
    return Path(os.path.expanduser(out)) / ".reproduce_frozen_layers"


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
        if not free:
            kept.append(word)
    return kept


def _row_result(row: TableRow, runs: dict[int, SeriesRun]) -> RowResult:
    return RowResult(
        row=row,
        size=next(iter(runs.values())).size,
        states=tuple(run.state for run in runs.values()),
        reason=next((run.reason for run in runs.values() if run.reason), ""),
        runs={seed: run.result for seed, run in runs.items() if run.result is not None},
    )
