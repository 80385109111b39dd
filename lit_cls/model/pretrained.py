"""OpenAI's weights: which there are, and where on this machine they are.

Repositories, commits and, where known, the sha256 of each file are pinned here. The hub's cache
keeps the files; one with the wrong sha256 is set aside, not used.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lit_cls.errors import UserError
from lit_cls.io.atomic import locked, rename
from lit_cls.io.download import Limits, TransferError, discard, set_aside, transfer
from lit_cls.model.weight_files import file_sha256, sha256_of

if TYPE_CHECKING:
    from lit_cls.model.weights import ModelSize

# Repository and commit of each published model on the Hugging Face hub.
_PRETRAINED: dict[str, tuple[str, str]] = {
    "gpt2-small": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    "gpt2-medium": ("openai-community/gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da"),
    "gpt2-large": ("openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519"),
    "gpt2-xl": ("openai-community/gpt2-xl", "15ea56dee5df4983c59b2538573817e1667135e2"),
}

_FILE = "model.safetensors"
# The published sha256 at those commits, where it is known here; of the others the hub's own word is taken.
_SHA256 = {
    "gpt2-small": "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    "gpt2-xl": "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
}
_MAX_DOWNLOAD_BYTES = 7 * 10**9  # GPT-2 XL takes 6.4 GB


def check_pretrained(size: "ModelSize") -> None:
    """Not every size has pretrained weights.

    Raises:
        UserError: this one has none.
    """
    if size not in _PRETRAINED:
        raise UserError(
            f"there are no pretrained weights for {size}: pass --model.weights random (of lit_cls reproduce, "
            f"--weights random), or one of the sizes {', '.join(_PRETRAINED)}"
        )


def hub_source(size: "ModelSize", weights: str, weights_sha256: str | None) -> tuple[str, str] | None:
    """Repository and commit on the Hugging Face hub of the weights that a network was trained from.

    Args:
        size: of the network.
        weights: as `ModelSettings` has it.
        weights_sha256: of their file.

    Returns:
        None where they are not those that OpenAI published, or not known to be.
    """
    published = weights == "pretrained" or (weights_sha256 is not None and weights_sha256 == _SHA256.get(size))
    return _PRETRAINED.get(size) if published else None


def fetch_pretrained(size: "ModelSize") -> Path:
    """OpenAI's weights for a size, from the Hugging Face hub or its cache on this machine.

    The commit is pinned; the file's sha256, which names it in the cache, is checked.

    Raises:
        UserError: there are no such weights, no network, or a damaged download.
    """
    check_pretrained(size)
    # Imported here: only this path needs it, and it brings an HTTP client with it.
    import huggingface_hub
    from huggingface_hub.utils import logging

    repo, revision = _PRETRAINED[size]
    offline = os.environ.get("LIT_CLS_OFFLINE", "0") not in ("", "0")
    logging.set_verbosity_error()  # its retries; the end of them is told below
    try:
        if offline or is_downloaded(size):
            path = huggingface_hub.hf_hub_download(repo, _FILE, revision=revision, local_files_only=True)
        else:
            path = _download(size)
    except Exception as error:  # the hub's own, its HTTP client's, the disk's: each has types of its own
        reason = "LIT_CLS_OFFLINE is set" if offline else (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the pretrained weights of {size} are not on this machine and could not be downloaded ({reason}):\n"
            f"  https://huggingface.co/{repo}/resolve/{revision}/{_FILE}\n"
            "Download that file elsewhere and pass --model.weights PATH, or start untrained with --model.weights random"
        ) from error
    _check_cached(size, Path(path))
    return Path(path)


def _download(size: str) -> str:
    """Fetches the file to where the hub's cache keeps it, which then links it into place.

    The hub's own download starts anew after each break and waits for ever on a server that dawdles.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repo, revision = _PRETRAINED[size]
    url = huggingface_hub.hf_hub_url(repo, _FILE, revision=revision)
    offered = huggingface_hub.get_hf_file_metadata(url, timeout=30)
    published = _SHA256.get(size) or offered.etag or ""
    if offered.etag != published or not re.fullmatch(r"[0-9a-f]{64}", published):
        raise TransferError(
            f"the server offers a file with the sha256 {offered.etag}, the published one has {published}"
        )
    if not offered.size or offered.size > _MAX_DOWNLOAD_BYTES:
        raise TransferError(f"the server offers a file of {offered.size} bytes")
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    with locked(blobs, wait=True):
        if not (blobs / published).exists():
            partial = blobs / f"{published}.partial"
            transfer(url, partial, Limits(max_bytes=offered.size), f"the weights of {size}")
            digest = sha256_of((partial,))
            if digest != published:
                aside = set_aside(partial, _FILE, digest)
                discard(partial)
                raise TransferError(f"its sha256 is {digest}, not {published}: not used, kept as {aside}")
            rename(partial, blobs / published)
            discard(partial)
    return huggingface_hub.hf_hub_download(repo, _FILE, revision=revision)


def _check_cached(size: str, path: Path) -> None:
    """A file with the wrong sha256 is moved out of the hub's cache, whose next download is whole."""
    blob = path.resolve()  # the cache names a file by its sha256 and links to it
    published = _SHA256.get(size) or blob.name
    if len(published) != 64 or (digest := file_sha256(path)) == published:
        return
    aside = set_aside(blob, _FILE, digest)
    path.unlink(missing_ok=True)
    raise UserError(
        f"the cached weights {blob} are damaged: their sha256 is {digest}, not the published {published}. They are "
        f"kept as {aside} and not used: run again to download them anew"
    )


def is_downloaded(size: "ModelSize") -> bool:
    """Whether the pretrained weights of a size are in the hub's cache on this machine."""
    import huggingface_hub

    repo, revision = _PRETRAINED[size]
    return isinstance(huggingface_hub.try_to_load_from_cache(repo, _FILE, revision=revision), str)
