"""The options of the command: which classes they may name, what a complaint means, what device and trainer can do."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from jsonargparse import _common, set_parsing_settings
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from lit_cls.errors import UserError

# What jsonargparse calls the kinds of values, and what a person does.
_KINDS = {
    "<class 'int'>": "a whole number",
    "Expected a int": "a whole number",
    "<class 'float'>": "a number",
    "Expected a float": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "tuple[float, float, float]": "three fractions",
    "tuple[str, str, str]": "three files",
}

# What a configuration that someone sent may name. Naming a class imports its module, which runs that module's code.
_PACKAGES = ("lightning", "lit_cls", "torch", "torchmetrics")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_PLAIN_TEXT = ("default_root_dir", "model_registry", "max_time")  # of the trainer's options, those that take no class
_MAX_CONFIG_BYTES = 1 << 20


def check_class_paths(verb: str, words: Sequence[str]) -> None:
    """Refuses configurations that name foreign code; to be called before the parser, which imports what they name.

    `fit` may name any class: it is its user's own command. The other verbs are given what others wrote.
    Looked at are the options among the words, each file of `--config` and each file that those name
    where a class or a group of options may stand.

    Args:
        verb: whose rule holds: `fit`, `validate`, `test`, `predict`, `resume`.
        words: what follows the verb.

    Raises:
        UserError: a class outside the allowed packages, or a configuration that cannot be read.
    """
    if verb == "fit":
        return
    search = _ClassSearch(verb)
    for at, word in enumerate(words):
        if word == "--":
            break
        short = re.fullmatch(r"-c(?!-)=?(.*)", word, re.DOTALL)
        long = re.fullmatch(r"--([\w.]+)\+?(?:=(.*))?", word, re.DOTALL)
        if not short and not long:
            continue
        name, value = ("config", short[1] or None) if short else (long[1], long[2]) if long else ("", None)
        if value is None and at + 1 < len(words):
            value = words[at + 1]
        search.look(value, tuple(name.split(".")), Path())


class _ClassSearch:
    """Goes through options and the files they name, each once.

    Args:
        verb: for messages.
    """

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self._seen: set[tuple[object, ...]] = set()
        self._alive: list[Any] = []  # an id is of one object only as long as that lives

    def look(self, value: Any, at: tuple[str, ...], folder: Path) -> None:
        """One value, at these keys, of a file in this folder."""
        if len(at) > 50:
            raise UserError(f"the configuration is nested too deeply at {'.'.join(at[:5])}…: leave that option out")
        if isinstance(value, Mapping | list | tuple):
            # YAML's aliases can make a small file a huge tree of the same few branches.
            key = (id(value), at[:2], _takes_class(at))
            if key in self._seen:
                return
            self._seen.add(key)
            self._alive.append(value)
        if isinstance(value, Mapping):
            for name, inner in value.items():
                self.look(inner, (*at, *str(name).rstrip("+").split(".")), folder)
        elif isinstance(value, list | tuple):
            for inner in value:
                self.look(inner, at, folder)
        elif isinstance(value, str) and value:
            self._text(value, at, folder)

    def _text(self, text: str, at: tuple[str, ...], folder: Path) -> None:
        names_class = at[-1:] == ("class_path",)
        if names_class or _takes_class(at):
            name = text.strip()
            # A file's name can read like a class's, as long as there is no such package.
            if _DOTTED.fullmatch(name) and (find_spec(name.split(".")[0]) or not _is_file(text, folder)):
                self._check(name, at)
            elif names_class and "." in text and not _is_file(text, folder):
                raise UserError(f"{'.'.join(at)} is no name of a class: {text!r}")
        if not names_class and not _takes_class(at) and at not in (("trainer",), ("model",), ("data",), ("config",)):
            return
        inner_at = () if at == ("config",) else at
        found = [file for file in dict.fromkeys((Path(text), folder / text)) if _is_file(str(file), Path())]
        for file in found:
            key = (file.resolve(), inner_at)
            if key not in self._seen:
                self._seen.add(key)
                self.look(_yaml_file(file), inner_at, file.parent)
        if not found and re.search(r"[:\[{]", text):  # written out, as the parser takes it too
            inner = _yaml_text(text, "the configuration" if at == ("config",) else ".".join(at))
            if not isinstance(inner, str):
                self.look(inner, inner_at, folder)

    def _check(self, name: str, at: tuple[str, ...]) -> None:
        # Below another class's arguments a type may be as wide as `object`, and torch has classes that start processes.
        allowed = _PACKAGES[:2] if at[-1] == "class_path" and {"init_args", "dict_kwargs"} & set(at) else _PACKAGES
        parts = name.split(".")
        if parts[0] in allowed and not any(part.startswith("_") for part in parts) and _home(parts) in allowed:
            return
        way_out = "a file's name, write ./ before it" if at[-1] != "class_path" else "your own, use it with fit alone"
        raise UserError(
            f"{'.'.join(at)} names {name}: a configuration for {self.verb} may only name classes of "
            f"{', '.join(allowed)}, because naming one runs code. Leave it out; if it is {way_out}"
        )


def _takes_class(at: tuple[str, ...]) -> bool:
    """Whether the parser may read a text at these keys as the name of a class or of its file."""
    if at[:1] == ("trainer",):
        return len(at) > 1 and at[1] not in _PLAIN_TEXT
    return at[:2] == ("model", "lora") or bool({"init_args", "dict_kwargs"} & set(at))


def _home(parts: Sequence[str]) -> str:
    """The package that an object of an allowed package comes from: `torch.os.system` is none of torch's."""
    found: Any = import_module(parts[0])
    for at, part in enumerate(parts[1:], start=1):
        if not hasattr(found, part):
            try:
                import_module(".".join(parts[: at + 1]))
            except Exception:  # there is none now, but there could be when the parser looks
                return ""
        found = getattr(found, part, None)
        if isinstance(found, ModuleType) and found.__name__.split(".")[0] not in _PACKAGES:
            return found.__name__
    home = getattr(found, "__module__", None) or getattr(type(found), "__module__", "")
    return parts[0] if isinstance(found, ModuleType) else str(home).split(".")[0]


def _is_file(text: str, folder: Path) -> bool:
    try:
        return Path(text).is_file() or (folder / text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False


def _yaml_file(file: Path) -> Any:
    if file.stat().st_size > _MAX_CONFIG_BYTES:
        raise UserError(f"{file} is larger than {_MAX_CONFIG_BYTES >> 20} MB: not a configuration")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the configuration {file} is not UTF-8 or cannot be read: {error}") from error
    return _yaml_text(text, f"the configuration {file}")


def _yaml_text(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where} cannot be read: {' '.join(str(error).split())}") from error


@contextmanager
def only_allowed_classes(verb: str) -> Iterator[None]:
    """The same rule inside the parser, for what `check_class_paths` may not foresee; `fit` is free.

    Nothing where jsonargparse is too old to know such a rule.
    """
    before = dict(_common.parsing_settings)
    if verb != "fit" and "import_path_verdicts" in before:
        set_parsing_settings(
            import_path_denylist=["*"],
            import_path_allowlist=list(_PACKAGES),
            instantiate_subclass_spec_in_any=False,  # such a value could be any class
        )
    try:
        yield
    finally:
        # The library has no way back, and a later verb of this process may be fit.
        _common.parsing_settings.clear()
        _common.parsing_settings.update(before)


def explain(message: str, verb: str) -> str:
    """A parser's message, in the words of the command line instead of Python's types.

    Args:
        message: jsonargparse's.
        verb: whose options were parsed.

    Returns:
        The option, the rule, the value, and where all options are listed.
    """
    way_out = f"\nlit_cls {verb} --help lists every option and its values"
    key = re.search(r'Parser key "([\w.]+)"', message)
    unknown = re.search(
        r"unrecognized arguments: --([\w.-]+)|does not accept option '([\w.]+)'|Option '(\w+)' is not accepted",
        message,
        re.IGNORECASE,
    )
    if unknown:
        name = unknown[1] or unknown[2] or f"{key[1] if key else ''}.{unknown[3]}"
        return f"there is no option --{name}{way_out}"
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    allowed = _allowed(message)
    if key and value and allowed:
        nested = re.fullmatch(r"NestedArg\(key='(.*)', val='?(.*?)'?\)", value[1])
        name, given = (f"{key[1]}.{nested[1]}", nested[2]) if nested else (key[1], value[1])
        choices = " or ".join([", ".join(allowed[:-1]), allowed[-1]]).removeprefix(" or ")
        return f"{name} must be {choices}, not {given}{way_out}"
    if key and value:
        return f"{key[1]} cannot be {value[1]}{way_out}"
    return message.replace("Parser key ", "") + way_out


def _allowed(message: str) -> list[str]:
    message = re.sub(r"Given value type: .*", "", message)
    literals = re.findall(r"Literal\[(.*?)\]", message)
    named = dict.fromkeys(word.strip("' ") for group in literals for word in group.split(","))
    kinds = dict.fromkeys(words for kind, words in _KINDS.items() if kind in message)
    return [*named, *kinds]


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
