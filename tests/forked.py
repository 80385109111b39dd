"""`lit_cls` in processes of their own that are forked from one that has imported torch and Lightning.

Importing them takes longer than most runs of the tests. What depends on how the interpreter starts, as an entry point
or what is imported, is tested by `subprocess`.
"""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jinja2
from templates import environment_that_compiles_once

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["lit_cls.commands.train", "torch.distributed.fsdp", "sklearn.linear_model", "matplotlib.figure", __name__]
)


@dataclass(frozen=True)
class Finished:
    """What a process printed, and its exit code: minus the number of the signal that killed it."""

    returncode: int
    stdout: str
    stderr: str


class Forked:
    """`lit_cls` with some words in a process and a session of its own, without a terminal and without a network.

    Args:
        words: the command and its options.
        cwd: the folder to work in.
        env: environment variables beside those of this process.
        stdin: the path of what standard input is; without it, there is none.
    """

    def __init__(self, *words: str, cwd: Path, env: dict[str, str] | None = None, stdin: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        for path in self._outputs:
            path.touch()
        environment = {**os.environ, "LIT_CLS_OFFLINE": "1", "COLUMNS": "200", **(env or {})}
        self.process = _SERVER.Process(target=_run, args=(words, str(cwd), environment, self._outputs, stdin))
        self.process.start()

    def wait_for(self, printed: str, timeout: float = 200) -> None:
        """Returns once standard output has this."""
        deadline = time.monotonic() + timeout
        while printed not in self._outputs[0].read_text(encoding="utf-8"):
            if self.process.exitcode is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"never printed {printed!r}: {self.finished()}")
            time.sleep(0.02)

    def finished(self, timeout: float = 240) -> Finished:
        """Waits for the end; kills the process if it does not come."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        with self._folder:
            printed = [path.read_text(encoding="utf-8") for path in self._outputs]
        assert self.process.exitcode is not None
        return Finished(self.process.exitcode, *printed)


def fork(*words: str, cwd: Path, env: dict[str, str] | None = None, processes: int = 1) -> Finished:
    """Runs `lit_cls` with these words.

    Args:
        words: the command and its options.
        cwd: the folder to work in.
        env: environment variables beside those of this process.
        processes: how many form one distributed run, as a cluster starts them; what comes back is of the first.
    """
    if processes == 1:
        return Forked(*words, cwd=cwd, env=env).finished()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}
    started = [Forked(*words, cwd=cwd, env={**(env or {}), **place, "LOCAL_RANK": str(i)}) for i in range(processes)]
    first, *others = [process.finished() for process in started]
    assert all(other.returncode == first.returncode for other in others), (first, others)
    return first


def _run(
    words: tuple[str, ...], cwd: str, environment: dict[str, str], outputs: list[Path], stdin: Path | None
) -> None:
    from lit_cls.cli import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    jinja2.Environment = environment_that_compiles_once()  # type: ignore[assignment,misc]
    for descriptor, path in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    if stdin is not None:
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["lit_cls", *words]
    sys.exit(main(list(words)))
