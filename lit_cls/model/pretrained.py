"""Pretrained weights from the Hugging Face hub, or from its cache on this machine.

The table of backbones pins repository, commit and, where known, the sha256 of each file. A file with
the wrong sha256 is moved aside, never used.
"""

import os
import re
from pathlib import Path

from lit_cls.errors import UserError
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.backbones.base import HubFile
from lit_cls.model.weight_files import file_sha256

_FILE = "model.safetensors"
_MAX_BYTES = 7 * 10**9  # GPT-2 XL takes 6.4 GB


def hub_file(size: str) -> HubFile:
    """Where the pretrained weights of a network are.

    Raises:
        UserError: it has none.
    """
    if (found := BACKBONES[size].pretrained) is None:
        published = (name for name, spec in BACKBONES.items() if spec.pretrained)
        raise UserError(
            f"there are no pretrained weights for {size}: pass --model.weights random (of lit_cls reproduce, "
            f"--weights random), or one of the sizes {', '.join(published)}"
        )
    return found


def hub_source(size: str, weights: str, weights_sha256: str | None) -> HubFile | None:
    """The hub's file that a network was trained from; None where it was another one, or it is not known."""
    published = BACKBONES[size].pretrained
    is_same = published is not None and weights_sha256 is not None and weights_sha256 == published.sha256
    return published if weights == "pretrained" or is_same else None


def is_downloaded(size: str) -> bool:
    """Whether the pretrained weights of a network are in the hub's cache on this machine."""
    import huggingface_hub

    hub = hub_file(size)
    cached = huggingface_hub.try_to_load_from_cache(hub.repository, _FILE, revision=hub.revision)
    return isinstance(cached, str)


def fetch_pretrained(size: str) -> Path:
    """Finds or downloads the pretrained weights of a network, and checks their sha256.

    Raises:
        UserError: there are no such weights, no network, or a damaged file.
    """
    hub = hub_file(size)
    # Imported here: only this path needs it, and it brings an HTTP client with it.
    import huggingface_hub
    from huggingface_hub.utils import logging

    offline = os.environ.get("LIT_CLS_OFFLINE", "0") not in ("", "0")
    logging.set_verbosity_error()  # its retries; an error that ends them is reported below
    try:
        is_local = offline or is_downloaded(size)
        if not is_local:
            _check_offer(hub)
        path = huggingface_hub.hf_hub_download(hub.repository, _FILE, revision=hub.revision, local_files_only=is_local)
    except Exception as error:  # the hub's own, its HTTP client's, the disk's: each has types of its own
        reason = "LIT_CLS_OFFLINE is set" if offline else (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the pretrained weights of {size} are not on this machine and could not be downloaded ({reason}):\n"
            f"  https://huggingface.co/{hub.repository}/resolve/{hub.revision}/{_FILE}\n"
            "Download that file elsewhere and pass --model.weights PATH, or start untrained with --model.weights random"
        ) from error
    _check_cached(Path(path), hub)
    return Path(path)


def _check_offer(hub: HubFile) -> None:
    """The server's statement of size and sha256, before anything is downloaded."""
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(hub.repository, _FILE, revision=hub.revision)
    offered = huggingface_hub.get_hf_file_metadata(url, timeout=30)
    published = hub.sha256 or offered.etag or ""
    if offered.etag != published or not re.fullmatch(r"[0-9a-f]{64}", published):
        raise OSError(f"the server offers a file with the sha256 {offered.etag}, the published one has {published}")
    if not offered.size or offered.size > _MAX_BYTES:
        raise OSError(f"the server offers a file of {offered.size} bytes")


def _check_cached(path: Path, hub: HubFile) -> None:
    """A file with the wrong sha256 is moved out of the hub's cache, so that the next download is whole."""
    blob = path.resolve()  # the cache names a file by its sha256 and links to it
    published = hub.sha256 or blob.name
    if len(published) != 64 or (digest := file_sha256(path)) == published:
        return
    aside = blob.with_name(f"{_FILE}.wrong-sha256-{digest[:8]}")
    os.replace(blob, aside)
    path.unlink(missing_ok=True)
    raise UserError(
        f"the weights {blob} are damaged: their sha256 is {digest}, not the published {published}. They are "
        f"kept as {aside} and not used: run again to download them anew"
    )
