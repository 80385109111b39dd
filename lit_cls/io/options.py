"""Constructor options that are stated once, as the fields of dataclasses.

A field's name is the option, its type the validation, its default the default, its line under `Args:` the help.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

C = TypeVar("C", bound=type)
T = TypeVar("T")


def options_from(*groups: type) -> Callable[[C], C]:
    """Gives a class's constructor a keyword parameter for each field of dataclasses, for parsers and readers.

    The constructor itself takes `**options`; `pick` makes the dataclasses of them again. The dataclasses have
    docstrings with an `Args:` section, and no name in common.
    """

    def decorate(cls: C) -> C:
        parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        helps = []
        for group in groups:
            hints = get_type_hints(group)
            for field in fields(group):
                default = inspect.Parameter.empty if field.default is MISSING else field.default
                kind = inspect.Parameter.KEYWORD_ONLY
                parameters.append(inspect.Parameter(field.name, kind, default=default, annotation=hints[field.name]))
            helps.append(inspect.cleandoc(group.__doc__ or "").partition("Args:\n")[2].rstrip())
        cls.__init__.__signature__ = inspect.Signature(parameters)  # type: ignore[misc]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Args:", *helps])
        return cls

    return decorate


def pick(group: type[T], options: dict[str, Any]) -> T:
    """Takes the options of a dataclass out of `options` and makes it; what is left is the caller's to refuse."""
    return group(**{field.name: options.pop(field.name) for field in fields(group) if field.name in options})  # type: ignore[arg-type]
