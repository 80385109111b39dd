"""One file from a server: streamed to disk, bounded in size and time, resumed where it broke off.

What came is not trusted: whoever asked checks its sha256 and moves what is wrong aside.
"""

import hashlib
import http.client
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

_CHUNK = 1 << 16


class TransferError(Exception):
    """A server that cannot be reached, does not have the file, or does not send it as agreed."""


class _BrokenOffError(TransferError):
    """The connection ended early: what came stays, and another attempt may go on behind it."""


@dataclass(frozen=True)
class Limits:
    """What a server may take of this machine's disk and of its user's time."""

    max_bytes: int
    """Of the whole file."""
    silence_s: float = 30
    """Without a single byte."""
    start_s: float = 30
    """Added to the time that the slowest speed allows for the bytes that came."""
    slowest: float = 10_000
    """Bytes a second on average; with `max_bytes` also the end of the longest download."""
    attempts: int = 4
    """Connections, where each but the last broke off."""
    pause_s: float = 1
    """Between two of them."""


def transfer(url: str, partial: Path, limits: Limits, name: str) -> None:
    """Downloads to a file that keeps what came when it fails, for the next call to go on from.

    Args:
        url: where; redirects are followed.
        partial: the file, which may hold the beginning already. Its owner removes it.
        limits: of size and time.
        name: of what is downloaded, for a person who waits.

    Raises:
        TransferError: why there is no whole file.
        OSError: the disk refused.
    """
    for attempt in range(1, limits.attempts + 1):
        before = partial.stat().st_size if partial.exists() else 0
        try:
            with _Watch(limits, name, before) as watch:
                _attempt(url, partial, limits, watch)
            return
        except _BrokenOffError as error:
            stuck = partial.stat().st_size <= before if partial.exists() else before == 0
            if stuck or attempt == limits.attempts:
                raise TransferError(str(error)) from error
            time.sleep(limits.pause_s)


def _attempt(url: str, partial: Path, limits: Limits, watch: "_Watch") -> None:
    have, version = watch.received, partial.with_name(f"{partial.name}.version")
    request = urllib.request.Request(url, headers={"User-Agent": "lit_cls", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if version.exists():  # another file under the same address comes whole
            request.add_header("If-Range", version.read_text(encoding="ascii", errors="replace"))
    try:
        with _network(watch):
            answer = watch.open(request)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
                raise TransferError(f"HTTP Error {error.code}: {' '.join(str(error.reason).split())}") from error
            whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if whole and int(whole[1]) == have:
            return
        discard(partial)
        raise _BrokenOffError("what came before is no part of the file: it is left") from error
    with answer:
        total = _total(answer, have, limits)
        if answer.status != http.client.PARTIAL_CONTENT:
            have = watch.received = watch.before = 0
        _remember_version(answer, version)
        with partial.open("ab" if have else "wb") as file:
            _copy(answer, file, watch, limits, total)


@contextmanager
def _network(watch: "_Watch") -> Iterator[None]:
    """What the network raises, apart from what the disk does."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        if watch.too_slow:
            raise TransferError(watch.told_slow()) from error
        reason = getattr(error, "reason", None) or error
        raise _BrokenOffError(str(reason) or type(error).__name__) from error


def _total(answer: http.client.HTTPResponse, have: int, limits: Limits) -> int | None:
    """Bytes of the whole file, where the server says so and keeps to what was asked."""
    kind = answer.headers.get_content_type() if answer.headers.get("Content-Type") else ""
    if kind == "text/html":
        raise TransferError("a web page came, not the file (does this network ask for a login?)")
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if answer.status == http.client.PARTIAL_CONTENT:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not span or int(span[1]) != have:
            raise TransferError(f"asked for the bytes from {have} on, the server sent others")
        total = int(span[2]) if span[2] != "*" else None
    if total is not None and total > limits.max_bytes:
        raise TransferError(f"more than {_mb(limits.max_bytes)} ({_mb(total)})")
    return total


def _remember_version(answer: http.client.HTTPResponse, version: Path) -> None:
    """What names this very content; a weak ETag does not."""
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    if tag and not tag.startswith("W/") and tag.isascii() and tag.isprintable():
        version.write_text(tag, encoding="ascii")
    else:
        version.unlink(missing_ok=True)


def _copy(
    answer: http.client.HTTPResponse, file: IO[bytes], watch: "_Watch", limits: Limits, total: int | None
) -> None:
    watch.total = total
    while True:
        with _network(watch):
            chunk = answer.read1(_CHUNK)
        if not chunk:
            break
        watch.received += len(chunk)
        if watch.received > limits.max_bytes:
            raise TransferError(f"more than {_mb(limits.max_bytes)}")
        file.write(chunk)
        watch.show()
    if watch.too_slow:
        raise TransferError(watch.told_slow())
    if total is not None and watch.received < total:
        raise _BrokenOffError(f"broke off after {watch.received:,} of {total:,} bytes")


class _Watch:
    """Ends a connection that is too slow, whatever it waits for, and shows a person how far it is.

    A timeout of the socket alone is no bound: a byte each time before it ends lasts for ever, in the
    answer's head too.
    """

    def __init__(self, limits: Limits, name: str, before: int) -> None:
        self.limits, self.name = limits, name
        self.received = self.before = before
        self.total: int | None = None
        self.too_slow = False
        self._started = self._shown = time.monotonic()
        self._sockets: list[socket.socket] = []
        self._end = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._bar: Any = None

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for connected in self._sockets:
            # A failed request leaves its file open on it until the garbage collector comes.
            handle = connected.detach()
            if handle >= 0:
                os.close(handle)
        if self._bar is not None:
            self._bar.stop()

    def open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Connects through the proxies of the environment, and remembers the socket."""
        sockets = self._sockets

        class Http(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(_watched(http.client.HTTPConnection, sockets), req)

        class Https(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(_watched(http.client.HTTPSConnection, sockets), req)

        answer: http.client.HTTPResponse = urllib.request.build_opener(Http, Https).open(
            request, timeout=self.limits.silence_s
        )
        return answer

    def told_slow(self) -> str:
        """Why it was given up."""
        new, seconds = self.received - self.before, time.monotonic() - self._started
        return f"too slow: {new:,} bytes in {seconds:.0f} s, given up"

    def _watch(self) -> None:
        while not self._end.wait(0.1):
            allowed = self.limits.start_s + (self.received - self.before) / self.limits.slowest
            if time.monotonic() - self._started > allowed:
                self.too_slow = True
                for connected in self._sockets:
                    try:
                        connected.shutdown(socket.SHUT_RDWR)
                    except OSError:  # closed already
                        continue

    def show(self) -> None:
        """A bar on a terminal, elsewhere a line every ten seconds; nothing in the first two."""
        now = time.monotonic()
        if sys.stderr.isatty():
            if self._bar is None and now - self._started > 2:
                self._bar = _bar(self.name)
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self.received, total=self.total)
        elif now - self._shown > 10:
            self._shown = now
            of = f" of {_mb(self.total)}" if self.total else ""
            print(f"downloading {self.name}: {_mb(self.received)}{of}", file=sys.stderr, flush=True)


def _watched(kind: type[http.client.HTTPConnection], sockets: list[socket.socket]) -> Callable[..., Any]:
    class Watched(kind):  # type: ignore[valid-type, misc]
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    return Watched


def _bar(name: str) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    bar.add_task(f"downloading {name}")
    bar.start()
    return bar


def partial_name(name: str, url: str) -> str:
    """The same in every attempt at this address; another server's file may be packed otherwise."""
    return f"{name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.partial"


def discard(partial: Path) -> None:
    """Removes what came."""
    partial.unlink(missing_ok=True)
    partial.with_name(f"{partial.name}.version").unlink(missing_ok=True)


def set_aside(file: Path, name: str, digest: str) -> Path:
    """Moves a file with the wrong sha256 to a name that says so, where nobody looks for the right one."""
    aside = file.with_name(f"{name}.wrong-sha256-{digest[:8]}")
    os.replace(file, aside)
    return aside


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 20):.0f} MB" if n_bytes >= 1 << 20 else f"{n_bytes:,} bytes"
