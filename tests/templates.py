"""A report's templates are compiled once in each process: for every report it is a third of a tiny run."""

from collections.abc import Callable
from typing import Any

import jinja2


class _BytecodeInMemory(jinja2.BytecodeCache):
    """Compiled templates, by their names and sources."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], bytes] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        if (bucket.key, bucket.checksum) in self._code:
            bucket.bytecode_from_string(self._code[bucket.key, bucket.checksum])

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        self._code[bucket.key, bucket.checksum] = bucket.bytecode_to_string()


def environment_that_compiles_once() -> Callable[..., jinja2.Environment]:
    """What to put in the place of `jinja2.Environment`; what is compiled depends on the function `finalize` too."""
    caches: dict[Any, _BytecodeInMemory] = {}
    plain = jinja2.Environment

    def make(finalize: Any = None, **options: Any) -> jinja2.Environment:
        used = [cell.cell_contents.__code__ for cell in getattr(finalize, "__closure__", None) or ()]
        key = (getattr(finalize, "__code__", None), *used)
        return plain(finalize=finalize, bytecode_cache=caches.setdefault(key, _BytecodeInMemory()), **options)

    return make
