"""The pretrained weights: from the hub, from its cache, and damaged in either."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from test_gpt import CONFIG, hugging_face_gpt2, some_ids
from test_weights import logits_of

from lit_cls.errors import UserError
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.pretrained import fetch_pretrained, hub_file
from lit_cls.model.weight_files import file_sha256


def test_pretrained_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        fetch_pretrained("gpt2-medium")
    message = str(caught.value)
    assert "LIT_CLS_OFFLINE is set" in message
    assert "https://huggingface.co/openai-community/gpt2-medium/resolve/6dcaa7a952f7" in message
    assert "--model.weights PATH" in message
    with pytest.raises(UserError, match=r"no pretrained weights for gpt2-nano: pass --model.weights random"):
        fetch_pretrained("gpt2-nano")


def test_pretrained_weights_come_from_the_cache_and_are_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hub's cache in its real layout: a snapshot links to a file named by its sha256."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    theirs = hugging_face_gpt2(CONFIG)
    hub = hub_file("gpt2-small")
    folder = tmp_path / f"models--{hub.repository.replace('/', '--')}"
    theirs.save_pretrained(tmp_path / "saved")
    content = (tmp_path / "saved" / "model.safetensors").read_bytes()
    blob = folder / "blobs" / file_sha256(tmp_path / "saved" / "model.safetensors")
    link = folder / "snapshots" / hub.revision / "model.safetensors"
    for file in (blob, link):
        file.parent.mkdir(parents=True)
    blob.write_bytes(content)
    link.symlink_to(os.path.relpath(blob, link.parent))
    changed = replace(BACKBONES["gpt2-small"], pretrained=replace(hub, sha256=blob.name))
    monkeypatch.setitem(BACKBONES, "gpt2-small", changed)
    path = fetch_pretrained("gpt2-small")
    logits, _ = logits_of(path)
    with torch.no_grad():
        torch.testing.assert_close(logits, theirs(some_ids()).logits, atol=2e-5, rtol=1e-5)
    damaged = content[:-4] + b"abcd"
    blob.write_bytes(damaged)
    os.utime(blob, ns=(1, 1))
    aside = blob.with_name(f"model.safetensors.wrong-sha256-{hashlib.sha256(damaged).hexdigest()[:8]}")
    with pytest.raises(
        UserError, match=rf"are damaged: .*{blob.name}. They are kept as {aside} and not used: run again"
    ):
        fetch_pretrained("gpt2-small")
    assert aside.read_bytes() == damaged
    assert not blob.exists()
    with pytest.raises(UserError, match="LIT_CLS_OFFLINE is set"):  # nor is it ever used
        fetch_pretrained("gpt2-small")


HUB = """
import sys
from dataclasses import replace
from lit_cls.errors import UserError
from lit_cls.model import pretrained
from lit_cls.model.backbones import BACKBONES
small = BACKBONES["gpt2-small"]
BACKBONES["gpt2-small"] = replace(small, pretrained=replace(small.pretrained, sha256=sys.argv[1]))
try:
    print(pretrained.fetch_pretrained("gpt2-small"))
except UserError as error:
    print(error)
"""


class Hub:
    """The part of the hub that a download needs, on this machine: a head with name and size, and ranges."""

    def __init__(self, content: bytes, name: str) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.cut: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(send=False)

            def do_GET(self) -> None:
                self.answer(send=True)

            def answer(self, send: bool) -> None:
                if "/resolve/" not in self.path:  # the hub's own questions about the repository
                    self.send_error(404)
                    return
                hub.requests.append((self.command, self.headers.get("Range")))
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.send_header("ETag", f'"{name}"')
                self.send_header("X-Repo-Commit", hub_file("gpt2-small").revision)
                self.end_headers()
                if send:
                    self.wfile.write(content[start : hub.cut])

            def log_message(self, format: str, *args: object) -> None:
                """Keeps the test's output free of access logs."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def fetch(self, home: Path, published: str) -> str:
        """What `fetch_pretrained` says, in a process whose hub this is."""
        endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        env = {
            **os.environ,
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "no_proxy": "127.0.0.1",
        }
        env = {name: value for name, value in env.items() if name not in ("LIT_CLS_OFFLINE", "HF_HUB_CACHE")}
        told = subprocess.run(
            [sys.executable, "-c", HUB, published], env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert not told.returncode, told.stderr
        return told.stdout.strip()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def test_pretrained_weights_from_the_hub(tmp_path: Path) -> None:
    """Broken off, resumed, verified, linked into the hub's cache, and used from there."""
    content = os.urandom(100_000)
    name = hashlib.sha256(content).hexdigest()
    hub = Hub(content, name)
    try:
        hub.cut = 30_000
        assert "could not be downloaded (" in hub.fetch(tmp_path, name)
        assert not list(tmp_path.rglob("model.safetensors"))
        hub.cut = None
        path = Path(hub.fetch(tmp_path, name))
        assert path.read_bytes() == content
        assert path.resolve().name == name
        asked = len(hub.requests)
        assert Path(hub.fetch(tmp_path, name)) == path
        assert len(hub.requests) == asked
    finally:
        hub.stop()


def test_wrong_weights_from_the_hub(tmp_path: Path) -> None:
    content, right = os.urandom(1000), "0" * 64
    wrong = hashlib.sha256(content).hexdigest()
    liar, other = Hub(content, right), Hub(content, wrong)
    try:
        told = liar.fetch(tmp_path, right)
        [aside] = tmp_path.rglob("*.wrong-sha256-*")
        assert f"are damaged: their sha256 is {wrong}, not the published {right}. They are kept as {aside}" in told
        assert aside.read_bytes() == content
        told = other.fetch(tmp_path, right)
        assert f"the server offers a file with the sha256 {wrong}, the published one has {right}" in told
    finally:
        liar.stop()
        other.stop()
