"""Data sets from the network: verified, written in one step, kept in the user's cache."""

import hashlib
import http.client
import io
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from lit_cls.errors import UserError

_TIMEOUT_S = 30
_MAX_BYTES = 64 << 20
# A server that cannot be reached or is none, an archive that is damaged or none.
_FAILURES = (OSError, EOFError, ValueError, RuntimeError, http.client.HTTPException, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Download:
    """One file inside a zip archive that several servers offer."""

    name: str
    """The member of the archive, and the file's name in the cache."""
    sha256: str
    """Of the unpacked file."""
    urls: tuple[str, ...]
    """Where the archive is, tried in this order."""
    option: str
    """The option that takes a local copy instead."""


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
    """The file, from the cache or else from the first server that has it.

    Raises:
        UserError: no server can be reached, or what came is not the file.
    """
    target = cache_folder() / download.name
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == download.sha256:
        return target
    failures = []
    if os.environ.get("LIT_CLS_OFFLINE", "0") not in ("", "0"):
        failures.append("LIT_CLS_OFFLINE is set: nothing was tried")
    else:
        for url in download.urls:
            try:
                content = _member(_get(url), download)
            except _FAILURES as error:
                failures.append(f"{url}: {str(error) or type(error).__name__}")
            else:
                return _store(content, target)
    raise UserError(
        f"{download.name} is not on this machine and could not be downloaded:\n  "
        + "\n  ".join(failures)
        + f"\nDownload {download.urls[0]} elsewhere, unpack it, and pass {download.option} .../{download.name}"
    )


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
        content: bytes = response.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES >> 20} MB")
    return content


def _member(archive: bytes, download: Download) -> bytes:
    """Reads the one wanted member into memory: no path of the archive is ever written to."""
    with zipfile.ZipFile(io.BytesIO(archive)) as unpacked:
        try:
            with unpacked.open(download.name) as stream:
                content = stream.read(_MAX_BYTES + 1)
        except KeyError as error:
            raise ValueError(f"the archive has no {download.name}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != download.sha256:
        raise ValueError(f"the sha256 of {download.name} is {digest}, not {download.sha256}")
    return content


def _store(content: bytes, target: Path) -> Path:
    """Writes beside the target and renames, so that two processes at once leave one whole file."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            partial = Path(folder) / target.name
            partial.write_bytes(content)
            os.replace(partial, target)
    except OSError as error:
        raise UserError(
            f"{target.name} cannot be kept in {target.parent}: {error.strerror}. Set XDG_CACHE_HOME to another folder"
        ) from error
    return target
