"""Bytes of files and pipes to decoded lines, one at a time, however many there are."""

import codecs
import io
import os
import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lit_cls.data.findings import Finding, Findings
from lit_cls.errors import UserError

LONGEST_LINE = 1 << 26
"""Bytes; a longer one comes from a file without lines, or from a quotation mark that nothing closes."""
_BLOCK = 1 << 16
_SHORT_WAIT = 0.01  # seconds: a program that writes many lines has written the next one by then
_LONG_WAIT = 1.0


@dataclass(frozen=True)
class Encoding:
    """How bytes become text."""

    codec: str = "utf-8"
    name: str = "UTF-8"
    findings: Findings = field(default_factory=list)

    def decode(self, content: bytes) -> str:
        """The text; undecodable bytes, of which there is a finding, are replaced."""
        return content.decode(self.codec, "replace").removeprefix("\ufeff")


@dataclass(eq=False)
class Lines(Iterator[str]):
    """Decoded lines, each with its end; a byte order mark is left out."""

    read: Callable[[], bytes]
    """Returns some bytes, none at the end."""
    name: str
    """Of the file or pipe, for messages."""
    encoding: Encoding = field(default_factory=Encoding)
    pipe: int | None = None
    """The descriptor to wait for."""
    while_waiting: Callable[[], None] | None = None
    """Called about once a second while nothing comes."""
    number: int = field(default=0, init=False)
    """Of the last line, from 1."""
    _whole: deque[bytes] = field(default_factory=deque, init=False)
    _begun: list[bytes] = field(default_factory=list, init=False)  # the blocks of a line whose end has not come
    _ended: bool = field(default=False, init=False)

    def __next__(self) -> str:
        while not self._whole:
            if self._ended:
                raise StopIteration
            while self.while_waiting is not None and not self._comes_within(_LONG_WAIT):
                self.while_waiting()
            self._read()
        self.number += 1
        line = self._whole.popleft()
        if self.number == 1:
            if _wide_codec(line):
                raise UserError(_wide_message(self.name))
            line = line.removeprefix(b"\xef\xbb\xbf") if self.encoding.codec == "utf-8" else line
        try:
            return line.decode(self.encoding.codec, "replace" if self.encoding.findings else "strict")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.name}: line {self.number} is not UTF-8 (byte {error.start + 1} of it): "
                "convert it first, for example with iconv -f cp1252 -t utf-8"
            ) from error

    def put_back(self, line: str) -> None:
        """Returns the last line: it will be the next one again."""
        self._whole.appendleft(line.encode(self.encoding.codec))
        self.number -= 1

    def at_hand(self) -> bool:
        """Whether the next line, or the end, can be read without waiting."""
        while not self._whole and not self._ended:
            if not self._comes_within(_SHORT_WAIT):
                return False
            self._read()
        return True

    def _comes_within(self, seconds: float) -> bool:
        if self.pipe is None:
            return True
        with suppress(OSError, ValueError):  # some systems can only wait for sockets
            return bool(select.select([self.pipe], [], [], seconds)[0])
        return seconds == _LONG_WAIT

    def _read(self) -> None:
        try:
            block = self.read()
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror}") from error
        *whole, begun = block.split(b"\n")
        if whole:
            self._whole.append(b"".join([*self._begun, whole[0], b"\n"]))
            self._whole.extend([line + b"\n" for line in whole[1:]])
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


@contextmanager
def lines_of_file(path: Path, encoding: Encoding) -> Iterator[Lines]:
    """The lines of a file; without UTF-16 bytes between them."""
    with path.open("rb") as stream:
        if encoding.codec in ("utf-8", "cp1252"):
            yield Lines(lambda: os.read(stream.fileno(), _BLOCK), str(path), encoding)
        else:
            recoded = io.BytesIO(encoding.decode(stream.read()).encode("utf-8", "replace"))
            yield Lines(lambda: recoded.read(_BLOCK), str(path))


def lines_of_pipe(descriptor: int, name: str, while_waiting: Callable[[], None] | None = None) -> Lines:
    """The lines of a pipe, which have to be UTF-8."""
    return Lines(lambda: os.read(descriptor, _BLOCK), name, pipe=descriptor, while_waiting=while_waiting)


def check_file(path: Path) -> None:
    """Refuses, with a UserError, a path that is no file with something in it."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: give one file with data.path")
    if not os.path.exists(path):
        raise UserError(f"there is no file {path}: check data.path (it is looked up from {os.path.abspath('.')})")
    if not os.path.isfile(path):
        raise UserError(
            f"{path} is a pipe or a device: write its texts to a file and give that with data.path "
            "(lit_cls predict reads a pipe as standard input, --data.path -)"
        )
    try:
        with path.open("rb") as stream:
            start = stream.read(1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not start:
        raise UserError(f"{path} is empty")


def encoding_of(path: Path, content: bytes | None = None) -> Encoding:
    """UTF-8, else cp1252 (Western European Windows): of the whole file, or of `content`, which was read from it."""
    with path.open("rb") if content is None else io.BytesIO(content) as stream:
        start = stream.read(4)
        if wide := _wide_codec(start):
            return Encoding(wide, wide.upper(), [Finding("encoding", _wide_message(str(path)))])
        wrong = _first_undecodable(stream, "utf-8")
        if wrong is None:
            return Encoding(name="UTF-8 with a byte order mark" if start.startswith(b"\xef\xbb\xbf") else "UTF-8")
        line, byte = wrong
        also = _first_undecodable(stream, "cp1252")
    where = f"line {line}, byte {byte}"
    if also is None:
        message = f"{path} is not UTF-8 ({where}): read as cp1252"
        return Encoding("cp1252", "cp1252", [Finding("encoding", message, refuses=False, lines=[line])])
    message = f"{path} is neither UTF-8 ({where}) nor cp1252 (byte {also[1]}): save it as UTF-8"
    return Encoding("cp1252", "unknown", [Finding("encoding", message, lines=[line])])


def _first_undecodable(stream: io.BufferedIOBase | io.BytesIO, codec: str) -> tuple[int, int] | None:
    """Line, from 1, and byte, from 0, of the first byte that the codec cannot decode."""
    decoder, line, start = codecs.getincrementaldecoder(codec)(), 1, 0
    stream.seek(0)
    while True:
        block = stream.read(1 << 20)
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # A character that began in the block before stands in front of this one.
            at = error.start - (len(error.object) - len(block))
            return line + block.count(b"\n", 0, max(at, 0)), start + at
        if not block:
            return None
        line, start = line + block.count(b"\n"), start + len(block)


def _wide_codec(start: bytes) -> str | None:
    """The codec of UTF-16 or UTF-32, by the first four bytes of a file."""
    if start[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if 0 in start[:4]:
        return "utf-16-le" if start[1:2] == b"\0" else "utf-16-be"
    return None


def _wide_message(name: str) -> str:
    return f"{name} is UTF-16 or UTF-32, or no text at all: save it as UTF-8"
