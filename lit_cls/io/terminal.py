"""Lines and tables on standard output and standard error, safe where those are closed: the one way to print."""

import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # `lit_cls --help` imports no rich
    from rich.console import Console

WIDTH = 120
"""Columns of a table where there is no terminal."""


def stdout_console(plain: bool = False) -> "Console":
    """Standard output for tables, as wide as a terminal, elsewhere 120 columns; `plain`: all as it is, of any width."""
    import rich
    from rich.console import Console

    class PipeConsole(Console):
        """Leaves a closed pipe to `cli.main`: rich would end the process with an error."""

        def on_broken_pipe(self) -> NoReturn:
            raise  # noqa: PLE0704 - what is being handled

    if plain:
        return PipeConsole(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console = rich.get_console()  # the one that Lightning's bar is drawn on: lines are printed above it
    return console if console.is_terminal else PipeConsole(width=WIDTH)


def print_to(console: "Console", thing: Any) -> None:
    """Prints a line or a table as it is: a line is never broken, so that a path can be copied and a log searched."""
    console.print(thing, markup=False, highlight=False, emoji=False, soft_wrap=isinstance(thing, str))


def print_line(line: str) -> None:
    """Prints a line to standard output; if it is closed, the work continues and `cli.main` reports that."""
    with suppress(OSError):
        print(line, flush=True)


def print_error(line: str) -> None:
    """Prints a line to standard error; if it is closed, the work continues."""
    if sys.stderr is None:  # closed before the start: print would take standard output instead
        return
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def is_terminal(stream: Any) -> bool:
    """Whether a person watches a stream; one that was closed before the start is None."""
    return stream is not None and stream.isatty()


def check_stdout_is_read() -> None:
    """Raises a BrokenPipeError once nobody reads standard output any more, even while there is nothing to write."""
    closed = False
    with suppress(OSError, ValueError, AttributeError):  # not a real stream, or a system without poll
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        raise BrokenPipeError


def discard_stdout() -> None:
    """Sends whatever is still to be written nowhere: Python would try it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
