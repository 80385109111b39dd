"""What the property-based tests share: how many inputs they try, and what any outcome must look like.

`LIT_CLS_FUZZ_EXAMPLES=20000 pytest tests/test_bad_files.py tests/test_bad_configurations.py` tries many;
without it a small number, always the same. The end of the test run says how many inputs were tried.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, settings

from lit_cls.cli import main

MANY = int(os.environ.get("LIT_CLS_FUZZ_EXAMPLES") or 0)
NANO = ["--model.size", "gpt2-nano", "--model.weights", "random"]
ONE_STEP = ["--trainer.max_steps", "1", "--trainer.max_epochs", "1"]

# Words of Python's that mean nothing to someone with a wrong file.
_OF_PYTHON = re.compile(
    r"Traceback|<class |NoneType|object at 0x"
    r"|\b(?:Value|Type|Key|Index|Attribute|Runtime|Overflow|Unicode\w*|OS|Assertion)Error\b"
)


def examples(few: int, share: float = 1.0) -> settings:
    """Settings of a property.

    Args:
        few: examples in the ordinary suite, the same every time.
        share: of `LIT_CLS_FUZZ_EXAMPLES`, where that is set: less for a slow property.
    """
    return settings(
        max_examples=max(1, int(MANY * share)) if MANY else few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def a_new_folder() -> Iterator[Path]:
    """An empty folder to work in."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def run(words: list[str], harmless: tuple[type[BaseException], ...] = ()) -> tuple[int, str, str]:
    """The command in this process; fails on a traceback, and on a message that is not one.

    Returns:
        The exit code, what it printed, and what it said on standard error.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    told = ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the suite makes errors of is not an error to a user
        try:
            code = main(words)
        except SystemExit as end:  # of --help and --print_config
            code = 1 if end.code else 0
        except harmless:
            code = 0
        except BaseException as error:
            told = f"{type(error).__name__}\n{traceback.format_exc()[-3000:]}"
    assert not told, f"{words} ended in {told}"
    out.flush()
    err.flush()
    printed, complaint = out.buffer.getvalue().decode(), err.buffer.getvalue().decode()
    assert code in (0, 2), (words, code)
    if code == 2:
        check_message(complaint)
        assert complaint.count("lit_cls: error: ") == 1, complaint
        # Known only by trying: a class that the configuration names; a share of the batches that is none.
        running = "does not work here" in complaint or "You requested to check" in complaint
        assert running or not list(Path().glob("checkpoints/*/version_*")), f"{words} left a run: {complaint}"
    return code, printed, complaint


def check_message(complaint: str) -> None:
    """One message, in words."""
    at = complaint.find("lit_cls: error: ")
    assert at >= 0, complaint
    message = complaint[at:].removeprefix("lit_cls: error: ").strip()
    assert message, complaint
    assert len(message) < 5_000, f"{len(message)} characters: {message[:500]}"
    found = _OF_PYTHON.search(message)
    assert not found, f"{found[0] if found else ''!r} in: {message}"


def see(line: object) -> None:
    """For a person who looks for faults: shown by `pytest -s`."""
    print(line, file=sys.__stderr__)
