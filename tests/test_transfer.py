"""Downloads from servers that break off, dawdle, lie and send something else: real ones, on this machine."""

import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lit_cls.io.atomic import locked
from lit_cls.io.download import Limits, TransferError, discard, partial_name, set_aside, transfer

CONTENT = bytes(range(256)) * 40
LIMITS = Limits(max_bytes=20_000, silence_s=0.6, start_s=1, slowest=10_000, pause_s=0.01)

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Each request takes the next of the answers that a test wrote down; the last one stays."""

    answers: list[Answer]
    requests: list[dict[str, str]]

    def do_GET(self) -> None:
        self.requests.append({name.lower(): value for name, value in self.headers.items()})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def head(self, code: int = 200, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output free of access logs."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Handler]]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    mine = type("Mine", (Handler,), {"answers": [], "requests": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), mine)
    running.daemon_threads = True
    thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}/file", mine
    running.shutdown()
    running.server_close()
    thread.join()


Server = tuple[str, type[Handler]]


def whole(handler: Handler) -> None:
    """A server that knows nothing of ranges."""
    handler.head(Content_Length=len(CONTENT))
    handler.wfile.write(CONTENT)


def cut_at(n_bytes: int, **headers: object) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(Content_Length=len(CONTENT), **headers)
        handler.wfile.write(CONTENT[:n_bytes])

    return answer


def rest(handler: Handler) -> None:
    """A server that sends what is asked for."""
    start = int(handler.requests[-1]["range"].removeprefix("bytes=").removesuffix("-"))
    span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    handler.head(206, Content_Range=span, Content_Length=len(CONTENT) - start)
    handler.wfile.write(CONTENT[start:])


def code(number: int, **headers: object) -> Answer:
    return lambda handler: handler.head(number, Content_Length=0, **headers)


def drip(handler: Handler) -> None:
    """A byte each time before the socket's patience ends."""
    handler.head(Content_Length=len(CONTENT))
    for i in range(200):
        handler.wfile.write(CONTENT[i : i + 1])
        time.sleep(0.1)


def drip_head(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Wait: ")
    for _ in range(200):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def silent(handler: Handler) -> None:
    time.sleep(3)


def endless(handler: Handler) -> None:
    """No length is told, and there is no end."""
    handler.head()
    while True:
        handler.wfile.write(CONTENT)


def endless_chunks(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        handler.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")


def page(handler: Handler) -> None:
    handler.head(Content_Type="text/html; charset=utf-8", Content_Length=13)
    handler.wfile.write(b"<html></html>")


def test_the_whole_file(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, handler = server
    handler.answers = [whole]
    transfer(url, tmp_path / "p", LIMITS, "it")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert capsys.readouterr() == ("", "")  # nothing for what takes no time
    assert "range" not in handler.requests[0]


@pytest.mark.parametrize(
    ("headers", "if_range"),
    [
        ({"ETag": '"abc"'}, '"abc"'),
        ({"ETag": 'W/"abc"'}, None),
        ({"Last_Modified": "yesterday"}, "yesterday"),
        ({}, None),
    ],
)
def test_what_broke_off_is_resumed(
    server: Server, tmp_path: Path, headers: dict[str, str], if_range: str | None
) -> None:
    url, handler = server
    handler.answers = [cut_at(5000, **headers), rest]
    transfer(url, tmp_path / "p", LIMITS, "it")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert [request.get("range") for request in handler.requests] == [None, "bytes=5000-"]
    assert handler.requests[1].get("if-range") == if_range


def test_another_call_goes_on(server: Server, tmp_path: Path) -> None:
    url, handler = server
    handler.answers = [cut_at(5000, ETag='"abc"'), code(503)]
    with pytest.raises(TransferError, match="HTTP Error 503: Service Unavailable"):
        transfer(url, tmp_path / "p", LIMITS, "it")
    assert (tmp_path / "p").read_bytes() == CONTENT[:5000]
    handler.answers = [rest]
    transfer(url, tmp_path / "p", LIMITS, "it")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert handler.requests[2]["if-range"] == '"abc"'
    discard(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_ranges_sends_all_anew(server: Server, tmp_path: Path) -> None:
    url, handler = server
    (tmp_path / "p").write_bytes(b"something else" * 100)
    handler.answers = [whole]
    transfer(url, tmp_path / "p", LIMITS, "it")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert handler.requests[0]["range"] == "bytes=1400-"


def test_what_is_whole_already(server: Server, tmp_path: Path) -> None:
    url, handler = server
    (tmp_path / "p").write_bytes(CONTENT)
    handler.answers = [code(416, Content_Range=f"bytes */{len(CONTENT)}")]
    transfer(url, tmp_path / "p", LIMITS, "it")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert len(handler.requests) == 1


@pytest.mark.parametrize("headers", [{}, {"Content_Range": "bytes */7"}, {"Content_Range": "nonsense"}])
def test_a_range_that_the_file_does_not_have(server: Server, tmp_path: Path, headers: dict[str, str]) -> None:
    url, handler = server
    (tmp_path / "p").write_bytes(CONTENT * 2)
    handler.answers = [code(416, **headers), whole]
    transfer(url, tmp_path / "p", LIMITS, "it")
    assert (tmp_path / "p").read_bytes() == CONTENT
    assert [request.get("range") for request in handler.requests] == [f"bytes={2 * len(CONTENT)}-", None]


@pytest.mark.parametrize("span", ["bytes 0-99/10240", "bytes 1-9/10", "", "pages 5-6/7"])
def test_other_bytes_than_were_asked_for(server: Server, tmp_path: Path, span: str) -> None:
    url, handler = server
    (tmp_path / "p").write_bytes(CONTENT[:5000])
    handler.answers = [code(206, Content_Range=span)]
    with pytest.raises(TransferError, match="asked for the bytes from 5000 on, the server sent others"):
        transfer(url, tmp_path / "p", LIMITS, "it")
    assert (tmp_path / "p").read_bytes() == CONTENT[:5000]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (drip, r"too slow: \d+ bytes in \d s, given up"),
        (drip_head, "too slow: 0 bytes in 1 s, given up"),
        (silent, "timed out"),
        (endless, "more than 20,000 bytes"),
        (endless_chunks, "more than 20,000 bytes"),
        (cut_at(0), "broke off after 0 of 10,240 bytes"),
        (code(200, Content_Type="text/plain", Content_Range="x", ETag="\x80"), None),
        (page, "a web page came, not the file"),
        (code(404), "HTTP Error 404: Not Found"),
        (code(500), "HTTP Error 500: Internal Server Error"),
        (code(302, Location="/file"), "HTTP Error 302: .*infinite loop"),
        (code(302, Location="file:///etc/passwd"), "HTTP Error 302: .*not allowed"),
        (code(302, Location="http://[x"), "."),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n"), "SSH-2.0-OpenSSH"),
        (lambda handler: handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + b"a: b\r\n" * 500), "got more than 100 headers"),
    ],
    ids=[
        *("drip", "drip_head", "silent", "endless", "endless_chunks", "cut", "empty", "page", "404", "500"),
        *("loop", "local_file", "bad_address", "ssh", "headers"),
    ],
)
def test_servers_that_are_given_up(server: Server, tmp_path: Path, answer: Answer, message: str | None) -> None:
    url, handler = server
    handler.answers = [answer]
    started = time.monotonic()
    if message is None:
        transfer(url, tmp_path / "p", LIMITS, "it")
    else:
        with pytest.raises(TransferError, match=message):
            transfer(url, tmp_path / "p", LIMITS, "it")
    assert time.monotonic() - started < 4
    assert not (tmp_path / "p").exists() or (tmp_path / "p").stat().st_size <= LIMITS.max_bytes


def test_a_length_over_the_limit_is_refused_before_a_byte_is_read(server: Server, tmp_path: Path) -> None:
    url, handler = server
    handler.answers = [code(200)]
    handler.answers = [lambda h: h.head(Content_Length=10**12)]
    with pytest.raises(TransferError, match=r"more than 20,000 bytes \(953674 MB\)"):
        transfer(url, tmp_path / "p", LIMITS, "it")
    assert not (tmp_path / "p").exists()


def test_a_server_that_always_breaks_off_is_asked_so_often_and_no_more(server: Server, tmp_path: Path) -> None:
    url, handler = server

    def a_little(h: Handler) -> None:
        start = int(h.requests[-1].get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        h.head(206 if start else 200, Content_Range=span, Content_Length=len(CONTENT) - start)
        h.wfile.write(CONTENT[start : start + 100])

    handler.answers = [a_little]
    with pytest.raises(TransferError, match=r"broke off after 400 of 10,240 bytes"):
        transfer(url, tmp_path / "p", LIMITS, "it")
    assert len(handler.requests) == 4
    assert (tmp_path / "p").read_bytes() == CONTENT[:400]


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    with pytest.raises(TransferError, match="refused"):
        transfer(url, tmp_path / "p", LIMITS, "it")


def test_a_long_download_is_told(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = server
    handler.answers = [whole]
    clock = iter(range(0, 100_000, 11))
    monkeypatch.setattr("lit_cls.io.download.time.monotonic", lambda: next(clock))
    transfer(url, tmp_path / "p", Limits(20_000, start_s=10**9), "it")
    assert capsys.readouterr().err.startswith("downloading it: ")


def test_one_downloads_while_the_others_wait(tmp_path: Path) -> None:
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


def test_names(tmp_path: Path) -> None:
    assert partial_name("x.zip", "http://a/x") == partial_name("x.zip", "http://a/x")
    assert partial_name("x.zip", "http://a/x") != partial_name("x.zip", "http://b/x")
    (tmp_path / "new").write_bytes(b"x")
    assert set_aside(tmp_path / "new", "x.zip", "0123456789").name == "x.zip.wrong-sha256-01234567"
    assert [file.name for file in tmp_path.iterdir()] == ["x.zip.wrong-sha256-01234567"]
