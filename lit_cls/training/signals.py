"""SIGTERM and Ctrl-C: a training stops at the next place where its state can be saved."""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AT_ONCE = 1.0  # seconds


class Stopped(SystemExit):
    """Raised when a run stops after a signal; its exit code is 143 for SIGTERM, 130 for Ctrl-C."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(128 + received)
        self.received = received


class StopSignals:
    """A context in which the first signal stops the run, and a second one ends the process at once.

    While `deferring`, the first is only recorded, in `received`: the caller that set it raises `Stopped` when
    the state is saved. Otherwise there is nothing to save, and `Stopped` is raised at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deferring = False
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.deferring = False
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                if handler is not None:  # it was not set from Python
                    signal.signal(number, handler)

    def install(self) -> None:
        """Installs the handlers; called again after Lightning has installed its own for SIGTERM."""
        if threading.current_thread() is threading.main_thread():  # elsewhere Python does not allow it
            for number in _SIGNALS:
                if self._before.get(number) is not signal.SIG_IGN:  # of a process in the background
                    signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            # The same signal may come twice: to the process, and to its group.
            if time.monotonic() - self._since > _AT_ONCE:
                os._exit(128 + number)
            return
        self.received, self._since = signal.Signals(number), time.monotonic()
        if not self.deferring:
            raise Stopped(self.received)
        # Not through print: the signal may have come in the middle of one.
        message = f"\nlit_cls: {self.received.name}: saving after this step; a second signal ends at once\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, message.encode())
