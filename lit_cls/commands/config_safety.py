"""Restricts which classes a configuration of someone else may import: naming one runs the code of its module."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from jsonargparse import _common, set_parsing_settings

from lit_cls.errors import UserError

_ADAPTER = ("model", "adapter")
_PACKAGES = ("lightning", "lit_cls", "torch", "torchmetrics")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_PLAIN_TEXT = ("default_root_dir", "model_registry", "max_time")  # options of the trainer that take no class
_MAX_CONFIG_BYTES = 1 << 20


def check_class_paths(command: str, words: Sequence[str]) -> None:
    """Refuses configurations that name foreign code; runs before the parser, which imports the names.

    `fit` may name any class: its configuration is its user's own. The other commands get files that others wrote.
    Inspects the options among the words, each file of `--config` and each file that those name where a class or a
    group of options may stand.

    Raises:
        UserError: a class outside the allowed packages, or a configuration that cannot be read.
    """
    if command == "fit":
        return
    search = _ClassSearch(command)
    for at, word in enumerate(words):
        short = re.fullmatch(r"-c(?!-)=?(.*)", word, re.DOTALL)
        long = re.fullmatch(r"--([\w.]+)\+?(?:=(.*))?", word, re.DOTALL)
        if not short and not long:
            continue
        name, value = ("config", short[1] or None) if short else (long[1], long[2]) if long else ("", None)
        if value is None and at + 1 < len(words):
            value = words[at + 1]
        search.visit(value, tuple(name.split(".")), Path())


class _ClassSearch:
    """Visits options and the files they name, each once."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._seen: set[tuple[object, ...]] = set()
        self._alive: list[Any] = []  # an id identifies an object only as long as that lives

    def visit(self, value: Any, at: tuple[str, ...], folder: Path) -> None:
        """Visits one value, at these keys, of a file in this folder."""
        if len(at) > 50:
            raise UserError(f"the configuration is nested too deeply at {'.'.join(at[:5])}…: leave that option out")
        if isinstance(value, Mapping | list | tuple):
            # YAML's aliases can make a huge tree of few branches out of a small file.
            key = (id(value), at[:2], _takes_class(at))
            if key in self._seen:
                return
            self._seen.add(key)
            self._alive.append(value)
        if isinstance(value, Mapping):
            for name, inner in value.items():
                self.visit(inner, (*at, *str(name).rstrip("+").split(".")), folder)
        elif isinstance(value, list | tuple):
            for inner in value:
                self.visit(inner, at, folder)
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
                raise UserError(f"{'.'.join(at)} is not the name of a class: {text!r}")
        if not names_class and not _takes_class(at) and at not in (("trainer",), ("model",), ("data",), ("config",)):
            return
        inner_at = () if at == ("config",) else at
        found = [file for file in dict.fromkeys((Path(text), folder / text)) if _is_file(str(file), Path())]
        for file in found:
            key = (file.resolve(), inner_at)
            if key not in self._seen:
                self._seen.add(key)
                self.visit(_yaml_file(file), inner_at, file.parent)
        if not found and re.search(r"[:\[{]", text):  # inline YAML, which the parser takes too
            inner = _yaml_text(text, "the configuration" if at == ("config",) else ".".join(at))
            if not isinstance(inner, str):
                self.visit(inner, inner_at, folder)

    def _check(self, name: str, at: tuple[str, ...]) -> None:
        # Below another class's arguments a type may be as wide as `object`, and torch has classes that start processes.
        allowed = _PACKAGES[:2] if at[-1] == "class_path" and {"init_args", "dict_kwargs"} & set(at) else _PACKAGES
        parts = name.split(".")
        if parts[0] in allowed and not any(part.startswith("_") for part in parts) and _home(parts) in allowed:
            return
        hint = "a file's name, write ./ before it" if at[-1] != "class_path" else "your own, use it only with fit"
        raise UserError(
            f"{'.'.join(at)} names {name}: a configuration for {self.command} may only name classes of "
            f"{', '.join(allowed)}, because naming one runs code. Leave it out; if it is {hint}"
        )


def _takes_class(at: tuple[str, ...]) -> bool:
    """Whether the parser may read a text at these keys as the name of a class or of its file."""
    if at[:1] == ("trainer",):
        return len(at) > 1 and at[1] not in _PLAIN_TEXT
    return at[:2] == _ADAPTER or bool({"init_args", "dict_kwargs"} & set(at))


def _home(parts: Sequence[str]) -> str:
    """The package that defines an object of an allowed package: `torch.os.system` is not torch's."""
    found: Any = import_module(parts[0])
    for at, part in enumerate(parts[1:], start=1):
        if not hasattr(found, part):
            try:
                import_module(".".join(parts[: at + 1]))
            except Exception:  # there is none now, but there could be when the parser imports it
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
def only_allowed_classes(command: str) -> Iterator[None]:
    """Applies the same rule inside the parser, for names that `check_class_paths` does not see; `fit` is exempt.

    Does nothing where jsonargparse is too old to have such a rule.
    """
    before = dict(_common.parsing_settings)
    if command != "fit" and "import_path_verdicts" in before:
        set_parsing_settings(
            import_path_denylist=["*"],
            import_path_allowlist=[*_PACKAGES, "lit_cls"],
            instantiate_subclass_spec_in_any=False,  # such a value could be any class
        )
    try:
        yield
    finally:
        # The library cannot undo it, and a later command of this process may be fit.
        _common.parsing_settings.clear()
        _common.parsing_settings.update(before)
