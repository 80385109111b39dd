"""Lines of files and pipes: decoded, counted, and never waited for longer than need be."""

import os
import threading
import time
from pathlib import Path

import pytest

from lit_cls.data import lines as module
from lit_cls.data.lines import Lines
from lit_cls.errors import UserError


def lines_of(content: bytes, tmp_path: Path, **options: str) -> list[str]:
    (tmp_path / "some.txt").write_bytes(content)
    with (tmp_path / "some.txt").open("rb") as stream:
        return list(Lines(stream.fileno(), "some.txt", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    ["", "\n", "a", "a\n", "a\n\nb", "a\r\nb\rc\n", "\n\n", "é🙂\n" * 3, "long " * 40_000 + "\nb\n", "x\n" * 70_000],
)
def test_nothing_is_lost(content: str, tmp_path: Path) -> None:
    """Blocks end anywhere, in the middle of a character too."""
    found = lines_of(content.encode(), tmp_path)
    assert "".join(found) == content
    assert found == [line + "\n" for line in content.split("\n")[:-1]] + [
        line for line in content.split("\n")[-1:] if line
    ]


def test_a_byte_order_mark_is_left_out_and_other_encodings_refused(tmp_path: Path) -> None:
    assert lines_of(b"\xef\xbb\xbfa\nb\n", tmp_path) == ["a\n", "b\n"]
    assert lines_of(b"caf\xe9\n", tmp_path, encoding="cp1252") == ["café\n"]
    with pytest.raises(UserError, match=r"some.txt: line 2 is not UTF-8 \(byte 4 of it\): convert it first"):
        lines_of(b"a\ncaf\xe9\n", tmp_path)
    for wide in ("utf-16", "utf-16-le", "utf-32"):
        with pytest.raises(UserError, match="some.txt is UTF-16 or UTF-32, or no text at all: save it as UTF-8"):
            lines_of("a text".encode(wide), tmp_path)


def test_a_line_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", 1 << 20)
    assert len(lines_of(b"a\n" + b"x" * (1 << 20), tmp_path)[1]) == 1 << 20
    with pytest.raises(UserError, match="line 2 is longer than 1 MB: one line holds one row; split it"):
        lines_of(b"a\n" + b"x" * (2 << 20), tmp_path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(UserError, match="standard input cannot be read: Is a directory"):
        next(Lines(folder, "standard input"))
    os.close(folder)


def test_a_pipe_is_asked_what_it_has_at_hand() -> None:
    reader, writer = os.pipe()
    lines = Lines(reader, "standard input")
    assert not lines.at_hand()
    os.write(writer, b"one\ntwo\nthr")
    assert lines.at_hand()
    assert (next(lines), next(lines), lines.number) == ("one\n", "two\n", 2)
    assert not lines.at_hand()  # half a line is none
    lines.put_back("two\n")
    assert lines.at_hand()
    assert (next(lines), lines.number) == ("two\n", 2)
    os.write(writer, b"ee")
    os.close(writer)
    assert lines.at_hand()
    assert list(lines) == ["three"]
    assert lines.at_hand()  # the end
    os.close(reader)


def test_somebody_can_look_up_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONG", 0.01)
    reader, writer = os.pipe()
    looked: list[float] = []

    def write_later() -> None:
        while len(looked) < 3:
            time.sleep(0.001)
        os.write(writer, b"at last\n")

    later = threading.Thread(target=write_later)
    later.start()
    assert next(Lines(reader, "standard input", while_waiting=lambda: looked.append(time.monotonic()))) == "at last\n"
    later.join()
    assert len(looked) >= 3
    os.close(reader)
    os.close(writer)
