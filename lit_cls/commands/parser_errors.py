"""The options of the command: what a parser's complaint means, what a device can do, what a trainer must not."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import LightningArgumentParser

from lit_cls.errors import UserError
from lit_cls.model.adapters import ADAPTERS, moved_option_hint

# What jsonargparse calls the kinds of values, and what a person does.
_KINDS = {
    "dict[str, float]": "a number for each label, '{spam: 3, ham: 1}'",
    "<class 'int'>": "a whole number",
    "Expected a int": "a whole number",
    "<class 'float'>": "a number",
    "Expected a float": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'tuple'>": "a list",
    "tuple[float, float, float]": "three fractions",
    "tuple[str, str, str]": "three files",
}

_ADAPTERS = " or ".join(ADAPTERS)

# One of these is set where processes are told of other machines.
CLUSTERS = {"MASTER_ADDR", "SLURM_JOB_ID", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "KUBERNETES_PORT"}
METRICS = ("train_loss", "train_loss_step", "val_loss", "val_acc")  # what callbacks can monitor


def explain(message: str, verb: str) -> str:
    """A parser's message, in the words of the command line instead of Python's types.

    Args:
        message: jsonargparse's.
        verb: whose options were parsed.

    Returns:
        The option, the rule, the value, and where all options are listed.
    """
    way_out = f"\nlit_cls {verb} --help lists every option and its values"
    key = ".".join(
        re.findall(r'Parser key "([\w.]+)"', message)[:1]
        + re.findall(r'Problem with given class_path.*\s+Parser key "(\w+)"', message)[:1]
    )
    unknown = re.search(
        r"unrecognized arguments: --([\w.-]+)|does not accept option '([\w.]+)'|Option '(\w+)' is not accepted",
        message,
        re.IGNORECASE,
    )
    if unknown:
        name = unknown[1] or unknown[2] or f"{key}.{unknown[3]}"
        hint = moved_option_hint(name)
        return f"there is no option --{name}{hint}{way_out}"
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    allowed = _allowed(message)
    if "Adapter is abstract" in message and value and re.match(r"NestedArg\(|\{", value[1]):
        return f"model.adapter has options, but not which adapter it is: pass --model.adapter {_ADAPTERS}{way_out}"
    if key and value and allowed:
        nested = re.fullmatch(r"NestedArg\(key='(.*)', val='?(.*?)'?\)", value[1])
        name, given = (f"{key}.{nested[1]}", nested[2]) if nested else (key, value[1])
        choices = " or ".join([", ".join(allowed[:-1]), allowed[-1]]).removeprefix(" or ")
        hint = moved_option_hint(name, given)
        return f"{name} must be {choices}, not {given}{hint}{way_out}"
    if key and value:
        return f"{key} cannot be {value[1]}{way_out}"
    if re.search("NoneType|object has no attribute|unsupported operand", message):  # of the parser's own code
        return f"{key or 'the configuration'} cannot be read: check its value{way_out}"
    return message.replace("Parser key ", "") + way_out


def explain_class(message: str) -> str:
    """What a class that the configuration names says of its arguments, without jsonargparse's list of types."""
    problem = re.search(r"Problem with given class_path.*\n.*", message)
    if problem:
        return " ".join(problem[0].split())
    told = [line.strip(" -") for line in message.splitlines()]
    mine = [
        line
        for line in told
        if line and not re.search("<class |Subtypes|Errors:|^Given value|^Does not validate|^Expected a", line)
    ]
    return " ".join(" ".join(mine or told).split())


def _allowed(message: str) -> list[str]:
    message = re.sub(r"Given value type: .*", "", message)
    literals = re.findall(r"Literal\[(.*?)\]", message)
    named = dict.fromkeys(word.strip("' ") for group in literals for word in group.split(","))
    kinds = dict.fromkeys(words for kind, words in _KINDS.items() if kind in message)
    if "dict[str, float]" in message:
        kinds.pop("a number", None)  # only as one of several
    adapters = (
        ADAPTERS if "adapters.base.Adapter'" in message and "Problem with given class_path" not in message else ()
    )
    return [*adapters, *named, *kinds]


def check_processes(option: str, n: int) -> None:
    """Refuses a number of processes that would only bring the machine down.

    Raises:
        UserError: how many there may be.
    """
    most = max(16, os.cpu_count() or 1)  # a small machine may still try out what a large one will do
    if n > most:
        raise UserError(f"{option} {n} is more processes than this machine runs, at most {most}")


def _number_of(devices: Any) -> int:
    return int(devices) if re.fullmatch(r"\d{1,99}", str(devices)) else 0


def check_device(precision: Any, accelerator: str) -> None:
    """Refuses a device that is not there, and a precision that the device lacks.

    Raises:
        UserError: no GPU, half precision without one, or bfloat16 on one that has none.
    """
    wanted = str(precision)
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda", "mps") and not has_gpu:
        raise UserError(
            f"trainer.accelerator {accelerator}: torch {torch.__version__} finds no GPU on this machine; "
            "pass --trainer.accelerator cpu, or leave it out"
        )
    on_gpu = has_gpu and accelerator != "cpu"
    if wanted in ("16", "16-mixed", "16-true") and not on_gpu:
        raise UserError(
            f"trainer.precision {wanted} needs a GPU, and there is none: pass --trainer.precision bf16-mixed or 32-true"
        )
    on_cuda = on_gpu and torch.cuda.is_available()
    if wanted.startswith("bf16") and on_cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise UserError(
            f"trainer.precision {wanted}: {name} has no bfloat16; pass --trainer.precision 16-mixed or 32-true"
        )


def check_trainer(config: Mapping[str, Any], callbacks: Sequence[Any], compares_losses: bool) -> None:
    """Refuses options of the Trainer that contradict how a run here works.

    Args:
        config: the Trainer's options.
        callbacks: those that the configuration names.
        compares_losses: whether the checkpoint of the lowest val_loss is kept.

    Raises:
        UserError: which one, and what to use instead.
    """
    if compares_losses and config["limit_val_batches"] == 0:
        raise UserError("keep best compares val_loss, but trainer.limit_val_batches is 0: pass --keep last")
    for name, least in (("num_nodes", 1), ("log_every_n_steps", 0), ("check_val_every_n_epoch", 1)):
        if config[name] is not None and config[name] < least:
            raise UserError(f"trainer.{name} {config[name]} is less than {least}")
    check_processes("trainer.devices", _number_of(config["devices"]))
    if config["num_nodes"] > 1 and not CLUSTERS & set(os.environ):
        raise UserError(
            f"trainer.num_nodes {config['num_nodes']}: nothing says where the other machines are, and they would be "
            "waited for; start it through SLURM or torchrun, or set MASTER_ADDR and NODE_RANK"
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


def parse(parser: LightningArgumentParser, words: list[str]) -> Namespace:
    """Parses words, whatever they are.

    Raises:
        UserError: they, or a file they name, cannot be read.
        ArgumentError: a wrong option or value, which `told` puts into words.
    """
    try:
        return parser.parse_args(words)
    except (ArgumentError, UserError, UnicodeDecodeError):
        raise
    except Exception as error:  # of any kind: a value that jsonargparse or PyYAML did not expect
        raise UserError(f"the configuration cannot be read: {shlex.join(words[1:])}: {error}") from error


@contextmanager
def told(verb: str) -> Iterator[None]:
    """Mistakes that the libraries find, as errors of the user's."""
    try:
        yield
    except ArgumentError as error:
        raise UserError(explain(str(error), verb)) from error
    except UnicodeDecodeError as error:
        raise UserError(f"the configuration is not UTF-8: {error}") from error
    except MisconfigurationException as error:
        raise UserError(f"{error}") from error
