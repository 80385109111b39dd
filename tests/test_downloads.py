"""Downloads against a real server on this machine, with archives that are right, wrong and hostile."""

import hashlib
import io
import os
import re
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lit_cls.data.downloads import SMS_SPAM, Download, cache_folder, fetch
from lit_cls.errors import UserError
from lit_cls.io.atomic import locked

CONTENT = "ham\thello\nspam\twin £5\n".encode() * 50
OTHER = b"ham\tsomething else\n"


def archive(members: dict[str, bytes]) -> bytes:
    """A compressed zip archive; names are written as given, harmless or not."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return stream.getvalue()


class Server:
    """A web server whose responses a test writes down by path: a body, or the raw bytes of a broken server."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.raw: dict[str, bytes] = {}
        self.silence = 0.0
        """Seconds after the raw bytes, with the connection open."""
        self.dawdles = False
        """Whether the server sends a body byte by byte."""
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                if self.path in server.raw:
                    with suppress(ConnectionError):
                        self.wfile.write(server.raw[self.path])
                        time.sleep(server.silence)
                elif self.path in server.bodies:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(server.bodies[self.path])))
                    self.end_headers()
                    body = server.bodies[self.path]
                    with suppress(ConnectionError):  # the client has given up
                        for i in range(len(body) if server.dawdles else 0):
                            self.wfile.write(body[i : i + 1])
                            time.sleep(0.01)
                        self.wfile.write(b"" if server.dawdles else body)
                else:
                    self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                """Keeps the test's output free of access logs."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}{path}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own; no proxy stands before the server on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("LIT_CLS_OFFLINE", raising=False)
    return tmp_path / "cache" / "lit_cls"


def download(*urls: str) -> Download:
    return Download("messages.tsv", hashlib.sha256(CONTENT).hexdigest(), urls, "--data.path")


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_file_is_unpacked_into_the_cache(server: Server, cache: Path) -> None:
    server.bodies["/a.zip"] = archive({"readme": OTHER, "messages.tsv": CONTENT})
    path = fetch(download(server.url("/a.zip")))
    assert path == cache / "messages.tsv"
    assert path.read_bytes() == CONTENT
    assert files_below(cache) == ["messages.tsv"]  # no unfinished file is left, no other member


def test_a_wrong_file_is_refused_and_deleted(server: Server, cache: Path) -> None:
    server.bodies["/a.zip"] = archive({"messages.tsv": OTHER})
    wrong, right = hashlib.sha256(OTHER).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
    message = rf"hash of downloaded file \(messages.tsv\) does not match .* expected {right} but got {wrong}"
    for _ in range(2):  # nor is it ever used: the second call asks the server again
        with pytest.raises(UserError, match=message):
            fetch(download(server.url("/a.zip")))
        assert files_below(cache) == []
    assert server.requests == ["/a.zip", "/a.zip"]


def test_a_server_that_dawdles_is_given_up(server: Server, cache: Path) -> None:
    # Each byte comes long before the socket's timeout: the sum of them is bounded.
    server.bodies["/a.zip"] = bytes(2000)
    server.dawdles = True
    slow = replace(download(server.url("/a.zip")), patience_s=0.5)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"too slow: \d+ bytes in \d s, given up"):
        fetch(slow)
    assert time.monotonic() - began < 5
    assert files_below(cache) == []


def test_a_silent_server_is_given_up(server: Server) -> None:
    server.raw["/a.zip"] = b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n"
    server.silence = 2.0
    began = time.monotonic()
    with pytest.raises(UserError, match="timed out"):
        fetch(replace(download(server.url("/a.zip")), patience_s=0.3))
    assert time.monotonic() - began < 2


def test_a_length_over_the_limit_is_refused_at_once(server: Server) -> None:
    server.raw["/a.zip"] = b"HTTP/1.0 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + bytes(100)
    with pytest.raises(UserError, match="more than 4 MB"):
        fetch(download(server.url("/a.zip")))


def test_an_endless_body_is_refused(server: Server) -> None:
    # No length is announced. 8 MB stand for no end: the rest stays unread.
    server.raw["/a.zip"] = b"HTTP/1.0 200 OK\r\n\r\n" + bytes(8 << 20)
    with pytest.raises(UserError, match="more than 1 MB"):
        fetch(replace(download(server.url("/a.zip")), max_bytes=1 << 20))


def test_a_long_download_shows_its_progress(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.bodies["/a.zip"] = archive({"messages.tsv": CONTENT})
    fetch(download(server.url("/a.zip")))
    assert capsys.readouterr() == ("", "")  # nothing for what takes no time
    monkeypatch.setattr("lit_cls.io.progress.LINE_EVERY", 0.0)
    (cache_folder() / "messages.tsv").unlink()
    fetch(download(server.url("/a.zip")))
    assert re.match(r"downloading messages\.tsv: 64 of \d+ bytes, ", capsys.readouterr().err)


def test_a_cached_file_needs_no_server(server: Server) -> None:
    server.bodies["/a.zip"] = archive({"messages.tsv": CONTENT})
    wanted = download(server.url("/a.zip"))
    first = fetch(wanted)
    server.stop()
    assert fetch(wanted) == first
    assert first.read_bytes() == CONTENT
    assert server.requests == ["/a.zip"]


def test_a_cached_file_is_used_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / "messages.tsv").write_bytes(CONTENT)
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    assert fetch(download("http://127.0.0.1:9/a.zip")) == cache / "messages.tsv"


def test_a_damaged_cached_file_is_replaced(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "messages.tsv").write_bytes(CONTENT[:-1])
    server.bodies["/a.zip"] = archive({"messages.tsv": CONTENT})
    assert fetch(download(server.url("/a.zip"))).read_bytes() == CONTENT


def test_offline_tries_nothing(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.bodies["/a.zip"] = archive({"messages.tsv": CONTENT})
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    with pytest.raises(UserError, match=r"LIT_CLS_OFFLINE is set: nothing was tried\nDownload .* pass --data\.path"):
        fetch(download(server.url("/a.zip")))
    assert server.requests == []
    assert not cache.exists()


@pytest.mark.parametrize("value", ["", "0"])
def test_offline_can_be_switched_off(server: Server, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    server.bodies["/a.zip"] = archive({"messages.tsv": CONTENT})
    monkeypatch.setenv("LIT_CLS_OFFLINE", value)
    assert fetch(download(server.url("/a.zip"))).read_bytes() == CONTENT


def test_offline_does_not_use_a_damaged_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / "messages.tsv").write_bytes(OTHER)
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    with pytest.raises(UserError, match="LIT_CLS_OFFLINE is set"):
        fetch(download("http://127.0.0.1:9/a.zip"))


def damaged_member() -> bytes:
    """An archive in order but for the compressed bytes of the member."""
    whole = bytearray(archive({"messages.tsv": CONTENT}))
    start = whole.index(b"messages.tsv") + len(b"messages.tsv")
    for i in range(start, start + 4):
        whole[i] ^= 0xFF
    return bytes(whole)


def wrong_checksum() -> bytes:
    """An archive of an uncompressed member, one byte of which was changed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("messages.tsv", CONTENT)
    return stream.getvalue().replace(b"hello", b"hallo", 1)


def bzip2() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_BZIP2) as packed:
        packed.writestr("messages.tsv", CONTENT)
    return stream.getvalue()


def encrypted() -> bytes:
    """The flag of an encrypted member, in both headers."""
    whole = bytearray(archive({"messages.tsv": CONTENT}))
    whole[6] |= 1
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    return bytes(whole)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (archive({"messages.tsv": OTHER}), "does not match the known hash"),
        (archive({"folder/messages.tsv": CONTENT}), "the archive has no messages.tsv"),
        (archive({"../messages.tsv": CONTENT}), "the archive has no messages.tsv"),
        (b"<html>Please log in to the network</html>", "not a zip"),
        (archive({"messages.tsv": CONTENT})[:-30], "not a zip"),
        (b"", "not a zip"),
        (wrong_checksum(), "Bad CRC-32"),
        (damaged_member(), "decompressing"),
        (bytes((4 << 20) + 1), "more than 4 MB"),
        (archive({"messages.tsv": bytes(5 << 20)}), "messages.tsv unpacks to more than 4 MB"),
        (bzip2(), "messages.tsv is packed by method 12, which is not expected"),
        (archive({"messages.tsv": CONTENT}).replace(b"PK\x05\x06", b"PK\x05\x07"), "not a zip"),
        (archive({"messages.tsv/": CONTENT}), "the archive has no messages.tsv"),
        (encrypted(), "is encrypted"),
    ],
    ids=[
        *("wrong_hash", "elsewhere", "above", "html", "cut", "nothing", "checksum", "damaged", "too_big"),
        *("bomb", "bzip2", "no_end", "folder", "encrypted"),
    ],
)
def test_a_wrong_archive_is_refused_and_the_second_source_used(
    server: Server, cache: Path, body: bytes, reason: str
) -> None:
    server.bodies["/bad.zip"] = body
    server.bodies["/good.zip"] = archive({"messages.tsv": CONTENT})
    with pytest.raises(UserError, match=rf"messages\.tsv is not on this machine .*\n  http://.*/bad\.zip: .*{reason}"):
        fetch(download(server.url("/bad.zip")))
    assert files_below(cache) == []
    assert fetch(download(server.url("/bad.zip"), server.url("/good.zip"))).read_bytes() == CONTENT
    assert files_below(cache) == ["messages.tsv"]
    assert server.requests == ["/bad.zip", "/bad.zip", "/good.zip"]


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFF\r\nonly the beginning",
        b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nonly the beginning",
        b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: /bad.zip\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: http://[x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n" + b"a: b\r\n" * 500,
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"",
    ],
    ids=[
        *("not_http", "broken_off", "short", "local_file", "loop", "bad_address", "bad_length", "headers"),
        *("error", "hung_up"),
    ],
)
def test_a_broken_server_is_passed_over(server: Server, response: bytes) -> None:
    server.raw["/bad.zip"] = response
    server.bodies["/good.zip"] = archive({"messages.tsv": CONTENT})
    with pytest.raises(UserError, match=r"could not be downloaded:\n  http://.*/bad\.zip: \S+"):
        fetch(download(server.url("/bad.zip")))
    assert fetch(download(server.url("/bad.zip"), server.url("/good.zip"))).read_bytes() == CONTENT


def test_a_missing_page_is_passed_over(server: Server) -> None:
    server.bodies["/good.zip"] = archive({"messages.tsv": CONTENT})
    assert fetch(download(server.url("/no.zip"), server.url("/good.zip"))).read_bytes() == CONTENT
    assert server.requests == ["/no.zip", "/good.zip"]


def test_the_second_source_is_left_alone_when_the_first_has_it(server: Server) -> None:
    server.bodies["/a.zip"] = server.bodies["/b.zip"] = archive({"messages.tsv": CONTENT})
    fetch(download(server.url("/a.zip"), server.url("/b.zip")))
    assert server.requests == ["/a.zip"]


def test_every_failure_is_listed_with_a_hint(server: Server) -> None:
    server.bodies["/b.zip"] = b"no zip"
    with pytest.raises(UserError) as caught:
        fetch(download(server.url("/a.zip"), server.url("/b.zip")))
    lines = str(caught.value).split("\n")
    assert lines[0] == "messages.tsv is not on this machine and could not be downloaded:"
    assert lines[1].startswith(f"  {server.url('/a.zip')}: 404 Client Error")
    assert lines[2].startswith(f"  {server.url('/b.zip')}: ")
    assert lines[3] == (f"Download {server.url('/a.zip')} elsewhere, unpack it, and pass --data.path .../messages.tsv")


def test_no_server_at_all(server: Server) -> None:
    url = server.url("/a.zip")
    server.stop()
    with pytest.raises(UserError, match=r"/a\.zip: .*[Rr]efused"):
        fetch(download(url))


def test_no_path_of_the_archive_leaves_its_folder(server: Server, cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    hostile = ["../evil", "../../evil", "x/../../evil", str(outside / "evil"), "..\\evil"]
    server.bodies["/a.zip"] = archive({**dict.fromkeys(hostile, OTHER), "messages.tsv": CONTENT})
    names = zipfile.ZipFile(io.BytesIO(server.bodies["/a.zip"])).namelist()
    assert names == [*hostile, "messages.tsv"]  # zipfile has not cleaned them when writing
    assert fetch(download(server.url("/a.zip"))) == cache / "messages.tsv"
    assert files_below(tmp_path) == [os.path.join("cache", "lit_cls", "messages.tsv")]


def test_a_failed_download_leaves_the_cached_file(server: Server, cache: Path) -> None:
    # Another release's file of that name may still be of use to its owner.
    cache.mkdir(parents=True)
    (cache / "messages.tsv").write_bytes(OTHER)
    server.bodies["/a.zip"] = b"no zip"
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch(download(server.url("/a.zip")))
    assert (cache / "messages.tsv").read_bytes() == OTHER


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    server.bodies["/a.zip"] = archive({"messages.tsv": CONTENT})
    with pytest.raises(UserError, match=r"Not a directory|File exists"):
        fetch(download(server.url("/a.zip")))


def test_downloads_at_once_leave_one_whole_file(server: Server, cache: Path) -> None:
    server.bodies["/a.zip"] = archive({"messages.tsv": CONTENT})
    wanted = download(server.url("/a.zip"))
    failures: list[Exception] = []

    def one() -> None:
        try:
            assert fetch(wanted).read_bytes() == CONTENT
        except Exception as error:
            failures.append(error)

    threads = [Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert files_below(cache) == ["messages.tsv"]


def test_one_process_downloads_while_the_others_wait(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    order: list[str] = []

    def other() -> None:
        with locked(tmp_path, wait=True):
            order.append("other")

    with locked(tmp_path, wait=True):
        thread = Thread(target=other)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    assert list(tmp_path.iterdir()) == []


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache" / "lit_cls"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lit_cls"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "lit_cls"


def test_the_sms_collection_has_two_sources_over_https() -> None:
    assert len(SMS_SPAM.urls) == 2
    assert SMS_SPAM.urls[0].startswith("https://archive.ics.uci.edu/")
    assert all(url.startswith("https://") and url.endswith(".zip") for url in SMS_SPAM.urls)


@pytest.mark.shared
def test_the_sms_collection_from_a_server(server: Server, cache: Path, sms_file: Path) -> None:
    # The layout of the UCI archive: the collection and a readme.
    content = sms_file.read_bytes()
    server.bodies["/sms.zip"] = archive({"SMSSpamCollection": content, "readme": OTHER})
    path = fetch(replace(SMS_SPAM, urls=(server.url("/sms.zip"),)))
    assert path == cache / "SMSSpamCollection"
    assert path.read_bytes() == content
