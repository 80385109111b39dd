"""`lit_cls resume`: continues a run that was stopped."""

import os
import shlex
from contextlib import nullcontext

import yaml
from lightning_utilities.core.rank_zero import rank_zero_only

from lit_cls.commands.config_safety import only_allowed_classes
from lit_cls.commands.parser import user_path
from lit_cls.commands.train import TrainCommand
from lit_cls.errors import UserError
from lit_cls.io.atomic import locked
from lit_cls.io.terminal import print_line

_OF_THE_FOLDER = ("--ckpt_path", "--run_name", "--trainer.default_root_dir", "--config", "-c")

HELP = """\
usage: lit_cls resume RUN_FOLDER [any option of fit]

Continues a training that was stopped: in the same folder, with its config.yaml, from its newest intact
checkpoint. It ends with the weights and figures of a run that was never stopped.

  lit_cls resume checkpoints/fit/version_0
"""


def resume(words: list[str]) -> None:
    """Continues the run whose folder is the first of `words`; the others are options that change from here on."""
    if not words or words[0] in ("-h", "--help"):
        print_line(HELP.rstrip())
        return
    folder = user_path(words[0])
    if folder.suffix == ".ckpt":
        raise UserError(
            f"resume takes the folder of a run, not a checkpoint: lit_cls resume {folder.parent}, or for a new run "
            f"lit_cls fit --ckpt_path {folder}"
        )
    if not os.path.isdir(folder):
        raise UserError(f"there is no run folder {folder}: give one, for example checkpoints/fit/version_0")
    config = folder / "config.yaml"
    if not os.path.isfile(config):
        raise UserError(f"{folder} is not the folder of a run that can be resumed: it has no config.yaml")
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{config} cannot be read: {error}") from error
    if not isinstance(settings, dict) or "keep" not in settings:
        raise UserError(f"{folder} is not the folder of a training (lit_cls fit)")
    folder = folder.absolute()
    if given := [option for word in words[1:] if (option := word.split("=")[0]) in _OF_THE_FOLDER]:
        raise UserError(f"{given[0]} is not an option of resume: the folder names the run and its configuration")
    # One of several processes holds it for all.
    with nullcontext() if rank_zero_only.rank else locked(folder):  # type: ignore[attr-defined]
        if (folder / "report" / "report.json").is_file():
            more = f"lit_cls fit --ckpt_path {shlex.quote(str(folder / 'last.ckpt'))} --trainer.max_epochs N"
            if words[1:]:
                raise UserError(f"{folder} is complete, and stays as it is. To train more, in a new folder:\n  {more}")
            print_line(f"{folder} is complete: its figures are in report/. To train more, in a new folder:\n  {more}")
            return
        options = ["--config", str(folder / "config.yaml"), *words[1:]]
        with only_allowed_classes("resume"):
            TrainCommand(["fit", *options], resumed=folder, command=["resume", *words]).start()
