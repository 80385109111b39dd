"""Data sets from the network: fetched through pooch, verified, kept in the user's cache."""

import hashlib
import io
import os
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_cls.errors import UserError
from lit_cls.io.atomic import locked
from lit_cls.io.progress import Progress

_CHUNK = 64  # bytes between two checks of a transfer's limits: a server that sends one at a time does not evade them
_SLOWEST = 10_000  # bytes a second on average
# Others need memory for which the archive gives the figure, or a decoder that is seldom used.
_PACKED_AS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# An archive that is damaged, or none.
_DAMAGED = (EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Download:
    """One file inside a zip archive that several servers offer."""

    name: str
    """The member of the archive, and the file's name in the cache."""
    sha256: str
    """Of the unpacked file."""
    urls: tuple[str, ...]
    """Of the archive, tried in this order."""
    option: str
    """The option that takes a local copy instead."""
    max_bytes: int = 4 << 20
    """Of the archive, and of the unpacked file."""
    patience_s: float = 30
    """Seconds without a byte; also added to those that the slowest speed allows."""


SMS_SPAM = Download(
    name="SMSSpamCollection",
    sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
    urls=(
        "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
    ),
    option="--data.path",
)


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/lit_cls`, by default `~/.cache/lit_cls`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_cls"


def fetch(download: Download) -> Path:
    """The file, from the cache or else from the first server that has this very one; a UserError if none has it."""
    target = cache_folder() / download.name
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == download.sha256:
        return target
    if os.environ.get("LIT_CLS_OFFLINE", "0") not in ("", "0"):
        raise _refusal(download, ["LIT_CLS_OFFLINE is set: nothing was tried"])
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")  # it would print the address; what fails is raised
    failures = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, wait=True):  # another process may have it meanwhile: pooch looks again
            for url in download.urls:
                try:
                    pooch.retrieve(
                        url,
                        known_hash=download.sha256,
                        fname=download.name,
                        path=target.parent,
                        downloader=lambda url, file, _: _unpack(url, Path(file), download),
                    )
                except (RequestException, *_DAMAGED) as error:
                    failures.append(f"{url}: {' '.join(str(error).split()) or type(error).__name__}")
                else:
                    return target
    except OSError as error:
        raise UserError(
            f"{target.name} cannot be kept in {target.parent}: {error.strerror or error}. "
            "Set XDG_CACHE_HOME to another folder"
        ) from error
    raise _refusal(download, failures)


def _refusal(download: Download, failures: list[str]) -> UserError:
    return UserError(
        f"{download.name} is not on this machine and could not be downloaded:\n  "
        + "\n  ".join(failures)
        + f"\nDownload {download.urls[0]} elsewhere, unpack it, and pass {download.option} .../{download.name}"
    )


class _LimitedTransfer:
    """Ends a transfer that is too large or too slow, and shows its progress: a progress bar in pooch's sense.

    A timeout of the socket alone is no bound: one byte each time before it ends lasts for ever.
    """

    total = 0  # bytes that the server announced; set by pooch

    def __init__(self, received: io.BytesIO, download: Download, progress: Progress) -> None:
        self._received, self._download, self._progress = received, download, progress
        self._began = time.monotonic()

    def update(self, _: int) -> None:
        """Called after each chunk, with its nominal size."""
        n, most, seconds = self._received.tell(), self._download.max_bytes, time.monotonic() - self._began
        if max(n, self.total) > most:
            raise ValueError(f"more than {most >> 20} MB")
        if seconds > self._download.patience_s + n / _SLOWEST:
            raise ValueError(f"too slow: {n:,} bytes in {seconds:.0f} s, given up")
        self._progress.report(f"downloading {self._download.name}", n, self.total)

    def close(self) -> None:
        """Called at the end, as is `reset`."""

    reset = close


def _unpack(url: str, file: Path, download: Download) -> None:
    """Writes the one wanted member of an archive to a file: no path of the archive is ever written to."""
    import pooch

    archive = io.BytesIO()  # in memory, what the disk refuses is not mistaken for damage
    headers = {"User-Agent": "lit_cls", "Accept-Encoding": "identity"}
    with Progress(unit="bytes") as progress:
        limits: Any = _LimitedTransfer(archive, download, progress)
        get = pooch.HTTPDownloader(limits, _CHUNK, timeout=download.patience_s, headers=headers)
        get(url, archive, None)
    with zipfile.ZipFile(archive) as packed:
        if download.name not in packed.namelist():
            raise ValueError(f"the archive has no {download.name}")
        member = packed.getinfo(download.name)
        if member.compress_type not in _PACKED_AS:
            raise ValueError(f"{download.name} is packed by method {member.compress_type}, which is not expected")
        with packed.open(member) as stream:
            content = stream.read(download.max_bytes + 1)
    if len(content) > download.max_bytes:
        raise ValueError(f"{download.name} unpacks to more than {download.max_bytes >> 20} MB")
    file.write_bytes(content)
