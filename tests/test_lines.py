"""Lines of files and pipes: decoded, counted, and never waited for longer than need be."""

import os
import threading
import time
from pathlib import Path

import pytest

from lit_cls.data import lines as module
from lit_cls.data.lines import Encoding, check_file, encoding_of, lines_of_file, lines_of_pipe
from lit_cls.errors import UserError


def lines_of(content: bytes, tmp_path: Path, encoding: Encoding | None = None) -> list[str]:
    (tmp_path / "some.txt").write_bytes(content)
    with lines_of_file(tmp_path / "some.txt", encoding or Encoding()) as lines:
        return list(lines)


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
    assert lines_of(b"caf\xe9\n", tmp_path, Encoding("cp1252")) == ["café\n"]
    with pytest.raises(UserError, match=r"some.txt: line 2 is not UTF-8 \(byte 4 of it\): convert it first"):
        lines_of(b"a\ncaf\xe9\n", tmp_path)
    for wide in ("utf-16", "utf-16-le", "utf-32"):
        with pytest.raises(UserError, match=r"some.txt is UTF-16 or UTF-32, or no text at all: save it as UTF-8"):
            lines_of("a text".encode(wide), tmp_path)


def test_a_line_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", 1 << 20)
    assert len(lines_of(b"a\n" + b"x" * (1 << 20), tmp_path)[1]) == 1 << 20
    with pytest.raises(UserError, match="line 2 is longer than 1 MB: one line holds one row; split it"):
        lines_of(b"a\n" + b"x" * (2 << 20), tmp_path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(UserError, match="standard input cannot be read: Is a directory"):
        next(lines_of_pipe(folder, "standard input"))
    os.close(folder)


def test_a_pipe_is_asked_what_it_has_at_hand() -> None:
    reader, writer = os.pipe()
    lines = lines_of_pipe(reader, "standard input")
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
    monkeypatch.setattr(module, "_LONG_WAIT", 0.01)
    reader, writer = os.pipe()
    looked: list[float] = []

    def write_later() -> None:
        while len(looked) < 3:
            time.sleep(0.001)
        os.write(writer, b"at last\n")

    later = threading.Thread(target=write_later)
    later.start()
    assert next(lines_of_pipe(reader, "standard input", lambda: looked.append(time.monotonic()))) == "at last\n"
    later.join()
    assert len(looked) >= 3
    os.close(reader)
    os.close(writer)


def encoding(content: bytes, tmp_path: Path) -> tuple[str, str, list[bool]]:
    """The text, the name of the encoding, and of each finding whether it refuses."""
    (tmp_path / "some.csv").write_bytes(content)
    found = encoding_of(tmp_path / "some.csv")
    with lines_of_file(tmp_path / "some.csv", found) as lines:
        text = "".join(lines)
    assert text == found.decode(content)
    return text, found.name, [finding.refuses for finding in found.findings]


@pytest.mark.parametrize(
    ("content", "text", "name", "refuses"),
    [
        (b"caf\xc3\xa9", "café", "UTF-8", []),
        (b"\xef\xbb\xbfa", "a", "UTF-8 with a byte order mark", []),
        (b"caf\xe9", "café", "cp1252", [False]),
        (b"caf\xe9\x81", "café\ufffd", "unknown", [True]),
        ("café".encode("utf-16"), "café", "UTF-16", [True]),
        ("café".encode("utf-16-le"), "café", "UTF-16-LE", [True]),
        ("café".encode("utf-16-be"), "café", "UTF-16-BE", [True]),
        ("café".encode("utf-32"), "café", "UTF-32", [True]),
    ],
)
def test_decoding_continues_after_a_finding(
    content: bytes, text: str, name: str, refuses: list[bool], tmp_path: Path
) -> None:
    assert encoding(content, tmp_path) == (text, name, refuses)


@pytest.mark.parametrize("before", [0, 5, (1 << 20) - 1, (1 << 20) - 2, 3 << 20])
def test_the_encoding_is_found_wherever_it_shows(before: int, tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    start = b"a\n" * (before // 2) + b"b" * (before % 2)
    for content in (start, start + "é🙂 naïve\n".encode()):
        file.write_bytes(content)
        assert encoding_of(file) == Encoding()
    file.write_bytes(start + b"caf\xe9 \n" + start)
    [finding] = encoding_of(file).findings
    assert finding.message == f"{file} is not UTF-8 (line {before // 2 + 1}, byte {before + 3}): read as cp1252"
    file.write_bytes(start + b"caf\xe9 \n" + start + b"\x81")
    [finding] = encoding_of(file).findings
    end = f"byte {before + 3}) nor cp1252 (byte {2 * before + 6}): save it as UTF-8"
    assert finding.refuses
    assert finding.message.endswith(end)


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "is a folder: give one file"),
        (tmp_path / "gone.csv", r"there is no file .*check data\.path"),
        (tmp_path / f"{'a' * 300}.csv", "there is no file"),
        (Path("/dev/null"), r"is a pipe or a device: .*--data\.path -"),
    ):
        with pytest.raises(UserError, match=message):
            check_file(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text("text\na\n")
    file.chmod(0)
    with pytest.raises(UserError, match=r"some.csv cannot be read: Permission denied"):
        check_file(file)
