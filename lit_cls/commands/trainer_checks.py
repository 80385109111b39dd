"""Checks of the Trainer's options: what this device can do, and what contradicts how a run works here."""

import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from lit_cls.errors import UserError

# One of these is set where processes run on several machines.
CLUSTERS = {"MASTER_ADDR", "SLURM_JOB_ID", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "KUBERNETES_PORT"}
METRICS = ("train_loss", "train_loss_step", "val_loss", "val_acc")  # what callbacks can monitor


def check_processes(option: str, n: int) -> None:
    """Refuses a number of processes that would exhaust the machine.

    Raises:
        UserError: how many there may be.
    """
    most = max(16, os.cpu_count() or 1)  # a small machine may still try out what a large one will do
    if n > most:
        raise UserError(f"{option} {n} is more processes than this machine runs, at most {most}")


def _number_of(devices: Any) -> int:
    return int(devices) if re.fullmatch(r"\d{1,99}", str(devices)) else 0


def check_device(precision: Any, accelerator: str) -> None:
    """Refuses a device that this machine lacks, and a precision that the device lacks.

    Raises:
        UserError: no GPU, half precision without one, or bfloat16 on one that has none.
    """
    name = str(precision)
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda", "mps") and not has_gpu:
        raise UserError(
            f"trainer.accelerator {accelerator}: torch {torch.__version__} finds no GPU on this machine; "
            "pass --trainer.accelerator cpu, or leave it out"
        )
    on_gpu = has_gpu and accelerator != "cpu"
    if name in ("16", "16-mixed", "16-true") and not on_gpu:
        raise UserError(
            f"trainer.precision {name} needs a GPU, and there is none: pass --trainer.precision bf16-mixed or 32-true"
        )
    on_cuda = on_gpu and torch.cuda.is_available()
    if name.startswith("bf16") and on_cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        gpu = torch.cuda.get_device_name()
        raise UserError(
            f"trainer.precision {name}: {gpu} has no bfloat16; pass --trainer.precision 16-mixed or 32-true"
        )


def check_trainer(config: Mapping[str, Any], callbacks: Sequence[Any], compares_losses: bool) -> None:
    """Refuses options of the Trainer that contradict how a run works here.

    Args:
        config: the Trainer's options.
        callbacks: named by the configuration.
        compares_losses: whether the checkpoint of the lowest val_loss is kept.

    Raises:
        UserError: which option, and what to use instead.
    """
    if compares_losses and config["limit_val_batches"] == 0:
        raise UserError("keep best compares val_loss, but trainer.limit_val_batches is 0: pass --keep last")
    for name, least in (("num_nodes", 1), ("log_every_n_steps", 0), ("check_val_every_n_epoch", 1)):
        if config[name] is not None and config[name] < least:
            raise UserError(f"trainer.{name} {config[name]} is less than {least}")
    check_processes("trainer.devices", _number_of(config["devices"]))
    if config["num_nodes"] > 1 and not CLUSTERS & set(os.environ):
        raise UserError(
            f"trainer.num_nodes {config['num_nodes']}: nothing says where the other machines are, and the run would "
            "wait for them; start it through SLURM or torchrun, or set MASTER_ADDR and NODE_RANK"
        )
    for callback in callbacks:
        monitored = getattr(callback, "monitor", None)
        if monitored not in (None, *METRICS):
            raise UserError(
                f"trainer.callbacks: {type(callback).__name__} monitors {monitored!r}, which is not measured: "
                f"there are {', '.join(METRICS)}"
            )
    if config["use_distributed_sampler"]:
        raise UserError("trainer.use_distributed_sampler repeats rows: leave it out, rows are dealt out without it")
    if config["accumulate_grad_batches"] < 1:
        raise UserError(f"trainer.accumulate_grad_batches {config['accumulate_grad_batches']} is less than 1")
    if config["overfit_batches"]:
        raise UserError("trainer.overfit_batches replaces the order of texts: use --trainer.limit_train_batches")
    if re.search("spawn|fork|notebook", str(config["strategy"])):
        raise UserError(
            f"trainer.strategy {config['strategy']} keeps its processes' predictions to itself: use ddp instead"
        )
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise UserError("GradientAccumulationScheduler is not supported: use --trainer.accumulate_grad_batches")


def class_that_raised(error: Exception, trainer: Mapping[str, Any]) -> str | None:
    """The class, among those that the configuration names, in whose file an error arose."""
    files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    options = ("callbacks", "logger", "profiler", "plugins")
    for thing in [thing for option in options for thing in as_list(trainer[option])]:
        modules = {sys.modules.get(kind.__module__) for kind in type(thing).__mro__}
        if files & {getattr(module, "__file__", None) for module in modules}:
            return type(thing).__name__
    return None


def as_list(value: Any) -> list[Any]:
    """A value of an option that may be one object, several or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
