"""Restricts which classes a configuration of someone else may import: naming one runs the code of its module."""

from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import _common, set_parsing_settings

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
