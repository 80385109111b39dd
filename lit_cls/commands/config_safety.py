"""Restricts which classes a stranger's configuration may name, as that runs code, and the number of YAML aliases."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import yaml
from jsonargparse import _common, get_loader, set_loader, set_parsing_settings

from lit_cls.errors import UserError

ALLOWED_PACKAGES = ("lightning", "lit_cls", "torch", "torchmetrics")


@contextmanager
def only_allowed_classes(command: str) -> Iterator[None]:
    """Has the parser refuse names of classes from other packages, before it imports anything of them.

    `fit` may name any class: its configuration is its user's own. The other commands get files that others wrote.
    """
    before = dict(_common.parsing_settings)
    if command != "fit":
        set_parsing_settings(
            import_path_denylist=["*"],
            import_path_allowlist=list(ALLOWED_PACKAGES),
            instantiate_subclass_spec_in_any=False,  # such a value could be any class
        )
    try:
        yield
    finally:
        # The library cannot undo it, and a later command of this process may be fit.
        _common.parsing_settings.clear()
        _common.parsing_settings.update(before)


def _load(content: str) -> Any:
    """Refuses many YAML aliases: the parser copies what they stand for, and aliases of aliases multiply."""
    with suppress(yaml.YAMLError, RecursionError):  # which the parser describes
        n = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content)) if "*" in content else 0
        if n > 10:  # 10 repeat a value 3 * 3 * 4 times at most
            raise UserError(f"the configuration has {n} YAML aliases, more than 10: write out what they stand for")
    return _load_any(content)


_load_any = get_loader("yaml")
set_loader("yaml", _load, (yaml.YAMLError,))  # for files, files that these name, and values
