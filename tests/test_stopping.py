"""The first signal stops, at a good moment; the second one ends the process."""

import os
import signal
import subprocess
import sys

import pytest

from lit_cls.training.signals import Stopped, StopSignals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_with_nothing_to_save_it_is_raised_where_the_program_is(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    came_back = []
    with pytest.raises(Stopped) as stopped:
        _send(number, came_back)
    assert stopped.value.code == code
    assert not came_back
    assert signal.getsignal(number) is before


def _send(number: signal.Signals, came_back: list[bool]) -> None:
    with StopSignals():
        os.kill(os.getpid(), number)
        came_back.append(True)


def test_while_deferring_it_is_noted(capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignals() as signals:
        signals.deferring = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received is signal.SIGTERM
    assert "SIGTERM: saving after this step; a second signal ends at once" in capfd.readouterr().err


def test_another_handler_in_front_is_taken_away_again() -> None:
    with StopSignals() as signals:
        signals.deferring = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Lightning puts its own
        signals.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received is signal.SIGTERM


@pytest.mark.parametrize("second", ["SIGTERM", "SIGINT"])
def test_a_second_signal_ends_at_once(second: str) -> None:
    script = (
        "import os, signal, time\n"
        "from lit_cls.training.signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    signals.deferring = True\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"  # to the process, and to its group
        "    print('saved', flush=True)\n"
        "    time.sleep(1.1)\n"
        f"    os.kill(os.getpid(), signal.{second})\n"
        "    print('went on')\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert told.returncode == 128 + getattr(signal, second)
    assert told.stdout == "saved\n"
