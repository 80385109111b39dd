"""Checks and completion of the parsed configuration of fit, validate and test."""

import os
from argparse import SUPPRESS
from pathlib import Path
from typing import Any, get_args

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from lit_cls.errors import UserError
from lit_cls.runs.run import Keep

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "checkpoints",
    "devices": 1,  # more devices make larger steps: a choice, not a default
    "max_epochs": 5,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,  # what it would find, the checks before training do
    "enable_model_summary": False,  # EpochLog prints its own
    "logger": False,  # the run folder's metrics.csv is always written; this adds others
    "use_distributed_sampler": False,  # it repeats rows (Lightning-AI/pytorch-lightning#7929)
}


FIT_ONLY = {"--keep", "--save_every_n_steps"}
"""Options that validate and test accept from a run's config.yaml, and ignore."""


def add_fit_options(parser: LightningArgumentParser, visible: bool) -> None:
    """Adds the options of `FIT_ONLY`, which only fit has in its help and with defaults."""
    keep = "Which checkpoint is tested: that of the lowest val_loss, or the last (no selection)."
    every = "Save last.ckpt after every so many optimizer steps, beside after every epoch."
    options: dict[str, tuple[Any, Any, str]] = {
        "--keep": (Keep, "best", keep),
        "--save_every_n_steps": (PositiveInt | None, None, every),
    }
    for option, (kind, default, text) in options.items():
        parser.add_argument(
            option, type=kind, default=default if visible else SUPPRESS, help=text if visible else SUPPRESS
        )


def check_groups(config: Namespace) -> None:
    """Refuses groups of options that are something else, and values that no type can express.

    Raises:
        UserError: which one.
    """
    for group in ("trainer", "model", "data"):
        if not isinstance(config.get(group), Namespace):
            raise UserError(f"{group} is {config.get(group)!r} in the configuration, not a group of options")
    if config.trainer.default_root_dir is None:
        raise UserError("trainer.default_root_dir is null: give the folder of all runs, for example checkpoints")
    if type(config.seed_everything) is not int or not 0 <= config.seed_everything < 2**32:
        raise UserError(f"seed_everything {config.seed_everything} is not between 0 and {2**32 - 1}")


def check_nulls(parser: LightningArgumentParser, config: Namespace) -> None:
    """Refuses null where an option has no such value: jsonargparse takes it in a file whatever the type.

    Raises:
        UserError: the first such option.
    """
    hints = {action.dest: getattr(action, "_typehint", None) for action in parser._actions}
    for name, hint in hints.items():
        if hint is not None and type(None) not in get_args(hint) and config.get(name, "") is None:
            raise UserError(f"{name} is null in the configuration: leave it out for the default, or give a value")


def set_usable_defaults(parser: LightningArgumentParser, settings: dict[str, Any]) -> None:
    """Makes a checkpoint's settings the defaults; unknown ones of another version are left out.

    The parser does not check defaults: what is not a number, where one is expected, is left out too.
    """
    defaults = {action.dest: action.default for action in parser._actions}
    parser.set_defaults(
        {
            name: value
            for name, value in settings.items()
            if name in defaults and (value is None or not _is_number(defaults[name]) or _is_number(value))
        }
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def run_name_of(config: Namespace) -> str:
    """The run's name: the option, or the name of the configuration file.

    Raises:
        UserError: it is no name of a folder.
    """
    name = config.run_name or (Path(str(config.config[0])).stem if config.config and config.config[0] else "fit")
    if name in (".", "..") or set(name) & set("/\\\0"):
        raise UserError(f"run_name {name!r} is not a plain folder name")
    return str(name)


def make_repeatable(config: Namespace) -> None:
    """Makes paths absolute: config.yaml must mean the same from another folder, and later."""
    if config.data.path:
        config.data.path = _absolute(config.data.path)
    if not isinstance(config.data.split, str):
        config.data.split = tuple(_absolute(p) if isinstance(p, str) else p for p in config.data.split)
    if config.model.cache_dir is not None:
        config.model.cache_dir = _absolute(config.model.cache_dir)
    if config.model.weights not in ("pretrained", "random"):
        config.model.weights = _absolute(config.model.weights)


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).absolute())
