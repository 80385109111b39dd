"""The lines of a file or of a pipe, one at a time, however long it is."""

import os
import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal

from lit_cls.errors import UserError

LONGEST_LINE = 1 << 26
"""Bytes; what is longer has no lines, or a quotation mark that nothing closes."""
_BLOCK = 1 << 16
_SHORT = 0.01  # seconds: whoever writes many lines has written the next one by then
_LONG = 1.0

Encoding = Literal["utf-8", "cp1252"]


class Lines(Iterator[str]):
    """Decoded lines, each with its end; a byte order mark is left out.

    Args:
        descriptor: of what is read, open.
        name: of it, for messages.
        encoding: of it.
        while_waiting: called about once a second while nothing comes.
    """

    def __init__(
        self, descriptor: int, name: str, encoding: Encoding = "utf-8", while_waiting: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self.number = 0
        """Of the last line, from 1."""
        self._descriptor = descriptor
        self._encoding = encoding
        self._while_waiting = while_waiting
        self._whole: deque[bytes] = deque()
        self._begun: list[bytes] = []  # the blocks of a line whose end has not come
        self._ended = False

    def __next__(self) -> str:
        while not self._whole and not self._ended:
            if self._while_waiting is not None:
                while not self._comes_within(_LONG):
                    self._while_waiting()
            self._read()
        if not self._whole:
            raise StopIteration
        self.number += 1
        line = self._whole.popleft()
        if self.number == 1:
            line = self._checked_beginning(line)
        try:
            return line.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.name}: line {self.number} is not UTF-8 (byte {error.start + 1} of it): "
                "convert it first, for example with iconv -f cp1252 -t utf-8"
            ) from error

    def put_back(self, line: str) -> None:
        """The next line will be this one, which was the last."""
        self._whole.appendleft(line.encode(self._encoding))
        self.number -= 1

    def at_hand(self) -> bool:
        """Whether the next line, or the end, is there without being waited for."""
        while not self._whole and not self._ended:
            if not self._comes_within(_SHORT):
                return False
            self._read()
        return True

    def _comes_within(self, seconds: float) -> bool:
        with suppress(OSError, ValueError):  # on some systems only sockets can be asked
            return bool(select.select([self._descriptor], [], [], seconds)[0])
        return seconds == _LONG

    def _read(self) -> None:
        try:
            block = os.read(self._descriptor, _BLOCK)
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror}") from error
        *whole, begun = block.split(b"\n")
        if whole:
            self._whole.append(b"".join([*self._begun, whole[0], b"\n"]))
            self._whole.extend(line + b"\n" for line in whole[1:])
            self._begun = []
        if begun:
            self._begun.append(begun)
        if not block:
            self._ended = True
            if self._begun:
                self._whole.append(b"".join(self._begun))
        elif len(self._begun) * _BLOCK > LONGEST_LINE and sum(map(len, self._begun)) > LONGEST_LINE:
            raise UserError(
                f"{self.name}: line {self.number + len(self._whole) + 1} is longer than {LONGEST_LINE >> 20} MB: "
                "one line holds one row; split it"
            )

    def _checked_beginning(self, line: bytes) -> bytes:
        if line[:2] in (b"\xff\xfe", b"\xfe\xff") or 0 in line[:4]:
            raise UserError(f"{self.name} is UTF-16 or UTF-32, or no text at all: save it as UTF-8")
        return line.removeprefix(b"\xef\xbb\xbf") if self._encoding == "utf-8" else line
