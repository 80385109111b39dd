"""Checks and completion of the parsed configuration of fit, validate and test, the Trainer's options among them."""

import itertools
import os
import re
import traceback
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.callbacks import GradientAccumulationScheduler
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
# One of these is set where processes run on several machines.
_CLUSTERS = {"MASTER_ADDR", "SLURM_JOB_ID", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "KUBERNETES_PORT"}
_METRICS = ("train_loss", "train_loss_step", "val_loss", "val_acc")  # what callbacks can monitor


def add_fit_options(parser: LightningArgumentParser, visible: bool) -> None:
    """Adds the options of `FIT_ONLY`, which only fit has in its help and with defaults."""
    hidden: dict[str, Any] = {} if visible else {"default": SUPPRESS, "help": SUPPRESS}
    keep = "Which checkpoint is tested: that of the lowest val_loss, or the last (no selection)."
    parser.add_argument("--keep", type=Keep, **{"default": "best", "help": keep, **hidden})
    every = "Save last.ckpt after every so many optimizer steps, beside after every epoch."
    parser.add_argument("--save_every_n_steps", type=PositiveInt | None, **{"default": None, "help": every, **hidden})


def check_values(parser: LightningArgumentParser, config: Namespace) -> None:
    """Refuses groups of options that are something else, and values that no type can express.

    Null is refused where an option has no such value: jsonargparse takes it in a file whatever the type.
    """
    for group in ("trainer", "model", "data"):
        if not isinstance(config.get(group), Namespace):
            raise UserError(f"{group} is {config.get(group)!r} in the configuration, not a group of options")
    if config.trainer.default_root_dir is None:
        raise UserError("trainer.default_root_dir is null: give the folder of all runs, for example checkpoints")
    if type(config.seed_everything) is not int or not 0 <= config.seed_everything < 2**32:
        raise UserError(f"seed_everything {config.seed_everything} is not between 0 and {2**32 - 1}")
    for action in parser._actions:
        name, hint = action.dest, getattr(action, "_typehint", None)
        if hint is not None and type(None) not in get_args(hint) and config.get(name, "") is None:
            raise UserError(f"{name} is null in the configuration: leave it out for the default, or give a value")


def set_usable_defaults(parser: LightningArgumentParser, settings: dict[str, Any]) -> None:
    """Makes a checkpoint's settings the defaults, which are not checked: other options and kinds are left out."""
    number: Any = int | float | None
    kinds = {a.dest: number if isinstance(a.default, int | float) else object for a in parser._actions}
    parser.set_defaults({name: value for name, value in settings.items() if isinstance(value, kinds.get(name, ()))})


def run_name_of(config: Namespace) -> str:
    """The run's name: the option, or the name of the configuration file; a UserError if it is no name of a folder."""
    name = config.run_name or (Path(str(config.config[0])).stem if config.config and config.config[0] else "fit")
    if name in (".", "..") or set(name) & set("/\\\0"):
        raise UserError(f"run_name {name!r} is not a plain folder name")
    return str(name)


def make_repeatable(config: Namespace) -> None:
    """Makes paths absolute: config.yaml must mean the same from another folder, and later."""

    def absolute(path: Any) -> Any:
        return str(Path(os.path.expanduser(path)).absolute()) if isinstance(path, str) else path

    config.data.path = absolute(config.data.path or None)
    if not isinstance(config.data.split, str):
        config.data.split = tuple(map(absolute, config.data.split))
    config.model.cache_dir = absolute(config.model.cache_dir)
    if config.model.weights not in ("pretrained", "random"):
        config.model.weights = absolute(config.model.weights)


def check_device(precision: Any, accelerator: str) -> None:
    """Refuses a device that this machine lacks, and a precision that the device lacks."""
    name, option = str(precision), f"trainer.precision {precision}"
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda", "mps") and not has_gpu:
        raise UserError(
            f"trainer.accelerator {accelerator}: torch {torch.__version__} finds no GPU on this machine; "
            "pass --trainer.accelerator cpu, or leave it out"
        )
    on_gpu = has_gpu and accelerator != "cpu"
    if name in ("16", "16-mixed", "16-true") and not on_gpu:
        raise UserError(f"{option} needs a GPU, and there is none: pass --trainer.precision bf16-mixed or 32-true")
    on_cuda = on_gpu and torch.cuda.is_available()
    if name.startswith("bf16") and on_cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        gpu = torch.cuda.get_device_name()
        raise UserError(f"{option}: {gpu} has no bfloat16; pass --trainer.precision 16-mixed or 32-true")


def check_trainer(config: Mapping[str, Any], callbacks: Sequence[Any], compares_losses: bool) -> None:
    """Refuses options of the Trainer, and `callbacks` of the configuration, that contradict how a run works here."""
    if compares_losses and config["limit_val_batches"] == 0:
        raise UserError("keep best compares val_loss, but trainer.limit_val_batches is 0: pass --keep last")
    least = {"num_nodes": 1, "log_every_n_steps": 0, "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1}
    for name, lowest in least.items():
        if config[name] is not None and config[name] < lowest:
            raise UserError(f"trainer.{name} {config[name]} is less than {lowest}")
    interval = config["val_check_interval"]
    if isinstance(interval, int | float) and interval <= 0:
        raise UserError(f"trainer.val_check_interval {interval:g} is not more than 0")
    most = max(16, os.cpu_count() or 1)  # a small machine may still try out what a large one will do
    devices = str(config["devices"])
    if re.fullmatch(r"\d{1,99}", devices) and int(devices) > most:
        raise UserError(f"trainer.devices {int(devices)} is more processes than this machine runs, at most {most}")
    if config["num_nodes"] > 1 and not _CLUSTERS & set(os.environ):
        raise UserError(
            f"trainer.num_nodes {config['num_nodes']}: nothing says where the other machines are, and the run would "
            "wait for them; start it through SLURM or torchrun, or set MASTER_ADDR and NODE_RANK"
        )
    for callback in callbacks:
        monitored = getattr(callback, "monitor", None)
        if monitored not in (None, *_METRICS):
            raise UserError(
                f"trainer.callbacks: {type(callback).__name__} monitors {monitored!r}, which is not measured: "
                f"there are {', '.join(_METRICS)}"
            )
    if config["use_distributed_sampler"]:
        raise UserError("trainer.use_distributed_sampler repeats rows: leave it out, rows are dealt out without it")
    if config["overfit_batches"]:
        raise UserError("trainer.overfit_batches replaces the order of texts: use --trainer.limit_train_batches")
    if re.search("spawn|fork|notebook", strategy := str(config["strategy"])):
        raise UserError(f"trainer.strategy {strategy} keeps its processes' predictions to itself: use ddp instead")
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise UserError("GradientAccumulationScheduler is not supported: use --trainer.accumulate_grad_batches")


def class_that_raised(error: Exception, trainer: Mapping[str, Any]) -> str | None:
    """The class, among those that the configuration names, in whose module an error arose."""
    modules = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)}
    things = [as_list(trainer[option]) for option in ("callbacks", "logger", "profiler", "plugins")]
    kinds = map(type, itertools.chain.from_iterable(things))
    return next((kind.__name__ for kind in kinds if modules & {base.__module__ for base in kind.__mro__}), None)


def as_list(value: Any) -> list[Any]:
    """A value of an option that may be one object, several or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
