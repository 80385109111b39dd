"""Data sets from the network: verified, written in one step, kept in the user's cache."""

import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from lit_cls.errors import UserError
from lit_cls.io.atomic import locked, rename
from lit_cls.io.download import Limits, TransferError, discard, partial_name, set_aside, transfer

# An archive that is damaged, or none.
_DAMAGED = (EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
# Others need memory for which the archive gives the figure, or a decoder that is seldom used.
_PACKED_AS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LIMITS = Limits(max_bytes=4 << 20)


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
    limits: Limits = _LIMITS
    """Of the archive; its size also holds for the unpacked file."""


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

    What broke off is kept and gone on from by the next call; what has the wrong sha256 is kept aside.

    Raises:
        UserError: no server can be reached, or what came is not the file.
    """
    target = cache_folder() / download.name
    if _is_there(target, download):
        return target
    if os.environ.get("LIT_CLS_OFFLINE", "0") not in ("", "0"):
        raise _refusal(download, ["LIT_CLS_OFFLINE is set: nothing was tried"])
    failures = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, wait=True):
            if _is_there(target, download):  # another process had it first
                return target
            for url in download.urls:
                archive = target.parent / partial_name(download.name, url)
                try:
                    transfer(url, archive, download.limits, download.name)
                    _unpack(archive, download, target)
                except (TransferError, *_DAMAGED) as error:
                    failures.append(f"{url}: {str(error) or type(error).__name__}")
                else:
                    return target
    except OSError as error:
        raise UserError(
            f"{target.name} cannot be kept in {target.parent}: {error.strerror or error}. "
            "Set XDG_CACHE_HOME to another folder"
        ) from error
    raise _refusal(download, failures)


def _is_there(target: Path, download: Download) -> bool:
    if not target.is_file() or target.stat().st_size > download.limits.max_bytes:
        return False
    return hashlib.sha256(target.read_bytes()).hexdigest() == download.sha256


def _refusal(download: Download, failures: list[str]) -> UserError:
    return UserError(
        f"{download.name} is not on this machine and could not be downloaded:\n  "
        + "\n  ".join(failures)
        + f"\nDownload {download.urls[0]} elsewhere, unpack it, and pass {download.option} .../{download.name}"
    )


def _unpack(archive: Path, download: Download, target: Path) -> None:
    """Writes the one wanted member to the target: no path of the archive is ever written to."""
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            unpacked = Path(folder) / target.name
            digest = _member(archive, download, unpacked)
            if digest == download.sha256:
                rename(unpacked, target)
                return
            aside = set_aside(unpacked, target.name, digest)
            aside = aside.replace(target.parent / aside.name)
    finally:
        discard(archive)  # whole, so there is nothing to go on from
    raise ValueError(f"the sha256 of {download.name} is {digest}, not {download.sha256}: not used, kept as {aside}")


def _member(archive: Path, download: Download, unpacked: Path) -> str:
    """Unpacks into a file of our own and returns its sha256."""
    digest, size = hashlib.sha256(), 0
    # At most as large as its limit; in memory, what the disk refuses is not mistaken for damage.
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as packed:
        try:
            member = packed.getinfo(download.name)
        except KeyError as error:
            raise ValueError(f"the archive has no {download.name}") from error
        if member.compress_type not in _PACKED_AS:
            raise ValueError(f"{download.name} is packed by method {member.compress_type}, which is not expected")
        with packed.open(member) as stream, unpacked.open("wb") as file:
            while chunk := stream.read(1 << 16):
                size += len(chunk)
                if size > download.limits.max_bytes:
                    raise ValueError(f"{download.name} unpacks to more than {download.limits.max_bytes >> 20} MB")
                digest.update(chunk)
                file.write(chunk)
    return digest.hexdigest()
