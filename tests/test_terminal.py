"""Standard output for tables: a closed pipe is left to the caller, and widths are those of a page."""

import io
import sys

import pytest
from conftest import closed_pipe
from rich.console import Console

from lit_cls.io.terminal import check_stdout_is_read, print_error, print_line, print_to, stdout_console


@pytest.mark.parametrize("plain", [False, True])
def test_a_closed_pipe_ends_no_process(plain: bool) -> None:
    with closed_pipe(), pytest.raises(BrokenPipeError):
        stdout_console(plain).print("a line")


def test_lines_as_they_are_and_tables_of_120_columns(capsys: pytest.CaptureFixture[str]) -> None:
    stdout_console(plain=True).print("[b]:smile: 1", soft_wrap=True)
    assert capsys.readouterr().out == "[b]:smile: 1\n"
    assert stdout_console().width == 120


def test_a_line_that_nobody_reads_stops_no_work(capsys: pytest.CaptureFixture[str]) -> None:
    done = []
    with closed_pipe():
        for line in ("a note", "another"):
            print_line(line)
            done.append(line)
    assert done == ["a note", "another"]
    assert capsys.readouterr() == ("", "")


def test_standard_error_that_is_closed_stops_no_work(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    print_error("a note")
    assert capfd.readouterr() == ("", "a note\n")
    monkeypatch.setattr(sys, "stderr", None)
    print_error("another")
    assert capfd.readouterr() == ("", "")


def test_lines_are_printed_as_they_are_and_never_broken() -> None:
    stream = io.StringIO()
    print_to(Console(file=stream, width=10), "[b]path/to/a/file[/b] :smile:")
    assert stream.getvalue() == "[b]path/to/a/file[/b] :smile:\n"


def test_a_command_ends_when_nobody_reads_its_output() -> None:
    check_stdout_is_read()  # a captured stream cannot be asked
    with closed_pipe(), pytest.raises(BrokenPipeError):
        check_stdout_is_read()
