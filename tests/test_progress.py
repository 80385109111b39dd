"""Progress: a line now and then in a log, a bar on a terminal, nothing on standard output."""

import os
import subprocess
import sys

import pytest

from lit_cls.io import progress as module
from lit_cls.io.progress import Progress


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with Progress(40, log=lines.append) as progress:
        for _ in range(4):
            progress.advance(10)
    assert lines == []  # it did not take long
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    for total, line in ((40, "1,010 of 40 texts, "), (None, "1,010 texts, ")):
        with Progress(total, log=lines.append) as progress:
            progress.advance(1000)
            progress.advance(10)
        assert lines[-1].startswith(line)
        assert lines[-1].endswith(" texts/s")


def test_phases_count_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    lines: list[str] = []
    with Progress(unit="rows", log=lines.append) as progress:
        progress.report("tokenizing", 5, 10)
        progress.report("comparing", 2, 10)
        progress.report("comparing", 4, 20)
    assert [line.split(" rows")[0] for line in lines] == [
        "tokenizing: 5 of 10",
        "comparing: 2 of 10",
        "comparing: 4 of 20",
    ]


@pytest.mark.parametrize("with_results", [True, False])
def test_on_a_terminal_there_is_a_bar(with_results: bool) -> None:
    """Unless the results are printed on the same one."""
    script = (
        "from lit_cls.io import progress as module\n"
        "module.BAR_AFTER = 0\n"
        "with module.Progress(40, stdout_used=True) as progress:\n"
        "    [progress.advance(10) for _ in range(4)]\n"
        "print('a prediction')\n"
    )
    master, terminal = os.openpty()
    out = terminal if with_results else subprocess.PIPE
    process = subprocess.run([sys.executable, "-c", script], stdout=out, stderr=terminal, check=True)
    os.close(terminal)
    seen = b""
    while True:
        try:
            block = os.read(master, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        seen += block
    os.close(master)
    assert (b"40/40" in seen) is not with_results
    assert (seen if with_results else process.stdout).replace(b"\r", b"") == b"a prediction\n"


def test_standard_error_may_be_closed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`print(file=None)` would write to standard output."""
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(40) as progress:
        progress.advance(10)
    assert capsys.readouterr() == ("", "")
