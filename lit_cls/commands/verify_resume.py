"""`lit_cls verify-resume`: proves that a run that is killed and resumed ends like an uninterrupted one."""

import random
from collections.abc import Sequence

from rich.table import Table

from lit_cls.commands.parser import user_path
from lit_cls.commands.series_options import SeriesParser
from lit_cls.errors import RunError, UserError
from lit_cls.experiments.verify_resume import compare_runs, draw_kill, run_process, saved_steps, started_folders
from lit_cls.io.terminal import print_to, stdout_console
from lit_cls.runs.folder import version_folders

_FIXED = {
    "--run_name": "its runs are called straight and stopped",
    "--ckpt_path": "its runs start anew",
    "--trainer.default_root_dir": "give --out",
    "--trainer.fast_dev_run": "it leaves no results",
    "--trainer.enable_checkpointing": "a run without checkpoints cannot be resumed",
}


def verify_resume(words: Sequence[str]) -> int:
    """Runs the command; the exit code is 1 where the two runs differ."""
    own, others = _parser().split(words)
    if own.kills < 1:
        raise UserError(f"--kills {own.kills} is less than 1")
    console, out = stdout_console(), own.out
    fit = ["fit", *others, "--trainer.default_root_dir", str(out)]
    log = out / "verify-resume.log"
    out.mkdir(parents=True, exist_ok=True)
    print_to(console, "an uninterrupted run …")
    straight = run_process([*fit, "--run_name", "straight"], log)
    if straight.code:
        raise RunError(f"the run ended with {straight.code}: see {log}")
    print_to(console, f"  {straight.seconds:.1f} s, {straight.seconds_training:.1f} s of it training")
    draw, n_kills = random.Random(own.seed), 0
    first, n_steps = len(version_folders(out / "stopped")), saved_steps(version_folders(out / "straight")[-1])
    while True:
        folder = next(iter(started_folders(out, first)), None)
        command = [*fit, "--run_name", "stopped"] if folder is None else ["resume", str(folder)]
        kill = None
        if n_kills < own.kills:
            kill = draw_kill(draw, straight, 1 - saved_steps(folder) / n_steps, own.kills - n_kills)
        process = run_process(command, log, kill)
        if process.code == 0:
            break
        if kill is None or not process.was_stopped:
            raise RunError(f"a run ended with {process.code}: see {log}")
        n_kills += 1
        print_to(console, f"  kill {n_kills} of {own.kills}: {kill}")
    [folder] = started_folders(out, first)
    compared = compare_runs(version_folders(out / "straight")[-1], folder)
    table = Table("part", "size", "verdict", title="Uninterrupted and killed", title_justify="left")
    for part in compared:
        table.add_row(part.name, part.size, part.difference or "identical")
    console.print(table)
    same = not any(part.difference for part in compared)
    verdict = "identical, bit by bit" if same else "DIFFERENT"
    print_to(console, f"{verdict}: an uninterrupted run, and one that was killed {n_kills} times")
    if n_kills < own.kills:
        print_to(console, f"note: the run had ended before {own.kills - n_kills} more kills")
    print_to(console, f"both are in {out}")
    return 0 if same else 1


def _parser() -> SeriesParser:
    description = "Proves that a run that is killed and resumed ends like an uninterrupted one."
    parser = SeriesParser("verify-resume", description, _FIXED)
    help_kills = "how often the second run is killed (default: %(default)s)"
    parser.add_argument("--kills", type=int, default=5, help=help_kills)
    parser.add_argument("--seed", type=int, default=123, help="seed of the moments and signals (default: %(default)s)")
    help_out = "folder of both runs (default: %(default)s)"
    parser.add_argument("--out", type=user_path, default="checkpoints/verify-resume", help=help_out)
    return parser
