"""A report's templates are compiled once in each process: for every report it is a third of a tiny run."""

from functools import partial

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


def environment_that_compiles_once() -> "partial[jinja2.Environment]":
    """What to put in the place of `jinja2.Environment`."""
    return partial(jinja2.Environment, bytecode_cache=_BytecodeInMemory())
