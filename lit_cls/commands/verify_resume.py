"""`lit_cls verify-resume`: a run that is killed again and again ends as the one that was left alone."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from lit_cls.commands.series_options import SeriesParser
from lit_cls.errors import RunError, UserError
from lit_cls.experiments.verify_resume import (
    EARLY_SHARE,
    SIGNALS,
    STOPPED_CODES,
    Children,
    Kill,
    compare_runs,
    comparison_table,
    saved_steps,
    started_folders,
)
from lit_cls.io.terminal import stdout_console
from lit_cls.runs.folder import version_folders

_FIXED = {
    "--run_name": "its runs are called straight and stopped",
    "--ckpt_path": "its runs start anew",
    "--trainer.default_root_dir": "give --out",
    "--trainer.fast_dev_run": "it leaves no results",
    "--trainer.enable_checkpointing": "what is not saved cannot be gone on with",
}


def verify_resume(words: Sequence[str]) -> int:
    """Runs the command.

    Args:
        words: what was typed after the verb.

    Returns:
        The exit code: 1 where the two runs differ.

    Raises:
        UserError: a mistake in the options.
        RunError: a run failed by itself.
    """
    own, others = _parser().split(words)
    if own.kills < 1:
        raise UserError(f"--kills {own.kills} is less than 1")
    console, out = stdout_console(), Path(os.path.expanduser(own.out))
    fit = ["fit", *others, "--trainer.default_root_dir", str(out)]
    children = Children(out / "verify-resume.log")
    console.print("a run that is left alone …", soft_wrap=True)
    straight = children.run([*fit, "--run_name", "straight"])
    if straight.code:
        raise RunError(f"the run ended with {straight.code}: see {children.log}")
    console.print(f"  {straight.seconds:.1f} s, {straight.seconds_training:.1f} s of it training", soft_wrap=True)
    draw, n_kills = random.Random(own.seed), 0
    first, n_steps = len(version_folders(out / "stopped")), saved_steps(version_folders(out / "straight")[-1])
    while True:
        folder = next(iter(started_folders(out, first)), None)
        command = [*fit, "--run_name", "stopped"] if folder is None else ["resume", str(folder)]
        kill = None
        if n_kills < own.kills:
            number, early = SIGNALS[draw.randrange(len(SIGNALS))], draw.random() < EARLY_SHARE
            # Of what is left, so much that all the kills find something to end.
            left = straight.seconds_training * (1 - saved_steps(folder) / n_steps)
            window = straight.seconds_starting if early else 1.5 * left / (own.kills - n_kills + 1)
            kill = Kill(number, early, draw.uniform(0, window))
        ended = children.run(command, kill)
        if ended.code == 0:
            break
        if kill is None or ended.code not in STOPPED_CODES:
            raise RunError(f"a run ended with {ended.code}: see {children.log}")
        n_kills += 1
        console.print(f"  kill {n_kills} of {own.kills}: {kill}", soft_wrap=True)
    [folder] = started_folders(out, first)
    compared = compare_runs(version_folders(out / "straight")[-1], folder)
    console.print(comparison_table(compared))
    same = not any(part.difference for part in compared)
    verdict = "identical, bit by bit" if same else "DIFFERENT"
    console.print(f"{verdict}: a run that was left alone, and one that was killed {n_kills} times", soft_wrap=True)
    if n_kills < own.kills:
        console.print(f"note: the run had ended before {own.kills - n_kills} more kills", soft_wrap=True)
    console.print(f"both are in {out}", markup=False, highlight=False, emoji=False, soft_wrap=True)
    return 0 if same else 1


def _parser() -> SeriesParser:
    parser = SeriesParser(
        "verify-resume", "Proves that a run which is killed and gone on with ends as one that was left alone.", _FIXED
    )
    parser.add_argument(
        "--kills", type=int, default=5, help="how often the second run is killed (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=123, help="of the moments and signals (default: %(default)s)")
    parser.add_argument("--out", default="checkpoints/verify-resume", help="folder of both (default: %(default)s)")
    return parser
