"""Progress: a line now and then, a bar on a terminal, nothing of it on standard output."""

import os
import subprocess
import sys

import pytest

from lit_cls.io import progress as module
from lit_cls.io.progress import Progress


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with Progress(40, told.append) as progress:
        for _ in range(4):
            progress.advance(10)
    assert told == []  # it did not take long
    monkeypatch.setattr(module, "EVERY", 0.0)
    for total, line in ((40, "1,010 of 40 texts, "), (None, "1,010 texts, ")):
        with Progress(total, told.append) as progress:
            progress.advance(1000)
            progress.advance(10)
        assert told[-1].startswith(line)
        assert told[-1].endswith(" texts/s")


@pytest.mark.parametrize("with_answers", [True, False])
def test_on_a_terminal_there_is_a_bar(with_answers: bool) -> None:
    """Unless the answers are on the same one."""
    script = (
        "from lit_cls.io.progress import Progress\n"
        "with Progress(40, print, answers=True) as progress:\n"
        "    [progress.advance(10) for _ in range(4)]\n"
        "print('an answer')\n"
    )
    master, terminal = os.openpty()
    out = terminal if with_answers else subprocess.PIPE
    told = subprocess.run([sys.executable, "-c", script], stdout=out, stderr=terminal, check=True)
    os.close(terminal)
    shown = b""
    while True:
        try:
            block = os.read(master, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        shown += block
    os.close(master)
    assert (b"40/40" in shown) is not with_answers
    assert (shown if with_answers else told.stdout).replace(b"\r", b"") == b"an answer\n"


def test_where_standard_error_is_closed_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", None)
    told: list[str] = []
    with Progress(40, told.append) as progress:
        progress.advance(10)
    assert len(told) == 1  # who tells knows that nobody hears it
