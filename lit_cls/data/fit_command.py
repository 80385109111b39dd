"""Command lines that start `fit` on a file."""

import dataclasses
import json
import os
import re
import shlex
from collections.abc import Sequence

from lit_cls.data.options import DataOptions


def fit_commands(options: DataOptions, needed_name: str | None, max_length: int | None) -> list[str]:
    """The command that starts `fit` on a file, after one that gives the file the name it needs.

    Args:
        options: of the data.
        needed_name: if it is not the one in `options`.
        max_length: None for the default.
    """
    copy = [] if needed_name is None else [command_line(["cp", os.path.expanduser(str(options.path)), needed_name])]
    if max_length is not None:
        options = dataclasses.replace(options, max_length=max_length)
    return [*copy, command_line(["lit_cls", "fit", *fit_words(options, needed_name)])]


def fit_words(options: DataOptions, path: str | None = None) -> list[str]:
    """The options that are not the defaults, as `fit` takes them.

    Args:
        options: of the data.
        path: of the file, if it is not the one in `options`.
    """
    words = []
    for field in dataclasses.fields(DataOptions):
        value = path if field.name == "path" and path else getattr(options, field.name)
        if value != field.default:
            words += [f"--data.{field.name}", option_value(value)]
    return words


def option_value(value: object) -> str:
    """A value as the command line spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, tuple):
        return str(value)
    # A list in YAML, where some names need quotes.
    items = [str(item) for item in value]
    return f"[{','.join(item if re.fullmatch(r'[A-Za-z0-9_./+-]+', item) else json.dumps(item) for item in items)}]"


def command_line(words: Sequence[str]) -> str:
    """Words quoted for a shell; control characters are escaped so that bash, zsh and POSIX shells read them."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_octal(word)}'" for word in words)


def _octal(word: str) -> str:
    plain = (character.isprintable() and character not in "\\'" for character in word)
    return "".join(
        character if is_plain else "".join(f"\\{byte:03o}" for byte in character.encode())
        for character, is_plain in zip(word, plain, strict=True)
    )
