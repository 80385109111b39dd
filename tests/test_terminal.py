"""Standard output for tables: a closed pipe is left to the caller, and widths are those of a page."""

import pytest
from conftest import closed_pipe

from lit_cls.io.terminal import standard_output, tell


@pytest.mark.parametrize("plain", [False, True])
def test_a_closed_pipe_ends_no_process(plain: bool) -> None:
    with closed_pipe(), pytest.raises(BrokenPipeError):
        standard_output(plain).print("a line")


def test_lines_as_they_are_and_tables_of_120_columns(capsys: pytest.CaptureFixture[str]) -> None:
    standard_output(plain=True).print("[b]:smile: 1", soft_wrap=True)
    assert capsys.readouterr().out == "[b]:smile: 1\n"
    assert standard_output().width == 120


def test_a_line_that_nobody_reads_stops_no_work() -> None:
    with closed_pipe():
        tell("a note")
        tell("another")
