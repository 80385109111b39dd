"""Shared fixtures and helpers.

Fits are most of the suite's time, so these are made once per session and shared. All are read-only: copy a file before
changing it, and pass `--out` or a folder of your own to whatever writes beside it.

| fixture | what it gives |
|---|---|
| `shared_reviews` | the csv of 110 short texts that `reviews` writes for one test, for the whole session |
| `trained_checkpoint(model, data, **trainer)` | gpt2-nano after an epoch on `shared_reviews`; one fit per set |
| `altered_checkpoint(model, data, decision, adapter, **trainer)` | after one step; random head, biases, adapters |
| `finished_run(*options)` | the folder of a whole `lit_cls fit` of gpt2-nano on `shared_reviews`, report included |

Reports have no plots, which take a third of a small run, except in tests marked `plots`.
"""

import gc
import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Neither torch nor lit_cls: the process that hands out the tests imports this file before it starts any other.
import jinja2
import pytest
from templates import environment_that_compiles_once

# Before torch looks: tests that are not about a GPU give the same on every machine, and of several that run at once
# each takes one core.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a shell starts in the background ignores Ctrl-C, which some tests send to themselves and to their processes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Processes that the tests start read lit_cls compiled, as installed packages are, instead of compiling it each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No test may reach a model hub, whatever the machine allows.
os.environ["HF_HUB_OFFLINE"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, what needs the reference files where they are not."""
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs the reference files in {SHARED.name}/ beside the checkout"))


def pytest_collection_finish() -> None:
    """Lets the garbage collector leave out all that is imported by now, and run less often: it took 5 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many inputs the property-based tests tried; across all workers, where there are several."""
    tried: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error", ""):  # "" has the reports of the teardown
        for report in terminalreporter.getreports(outcome):
            if report.when == "teardown":
                tried.update({name: n for name, n in report.user_properties if name.startswith("tried: ")})
    for name, n in sorted(tried.items()):
        terminalreporter.write_line(f"{name} {n:,}")


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Iterator[Callable[[str], None]]:
    """Counts what is tried; the end of the test run shows the sums."""
    tried: dict[str, int] = {}

    def one_more(what: str) -> None:
        tried[what] = tried.get(what, 0) + 1

    yield one_more
    for what, n in tried.items():
        record_property(f"tried: {what}", n)


@contextmanager
def closed_pipe() -> Iterator[None]:
    """Standard output is a pipe that nobody reads, as that of `lit_cls … | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    with suppress(BrokenPipeError), open(writer, "w", 1, encoding="utf-8") as stream, redirect_stdout(stream):
        yield


@pytest.fixture(scope="session")
def sms_file() -> Path:
    """The real SMS Spam Collection; for tests marked `shared`."""
    return SHARED / "data" / "SMSSpamCollection"


def write_reviews(path: Path) -> str:
    """110 short texts of very different lengths: 76 of them train, which 8 does not divide."""
    lines = ["text,label"]
    for i in range(110):
        word = "good" if i % 2 else "poor"
        lines.append(f"{' '.join([word, 'film'] * (1 + i % 7))} {i},{'yes' if i % 2 else 'no'}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    return write_reviews(tmp_path / "reviews.csv")


@pytest.fixture(scope="session")
def shared_reviews(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_reviews(tmp_path_factory.mktemp("reviews") / "reviews.csv")


def pairwise(*axes: Iterable[Any], strength: int = 2) -> list[Any]:
    """The full product of some values for `parametrize`, of which all but a few are marked `slow`.

    Args:
        axes: the values of each parameter.
        strength: of how many axes each combination of values is in at least one of those few; with 1,
            each value is.
    """
    product = list(itertools.product(*axes))
    parts = [
        set(itertools.combinations(((axis, repr(value)) for axis, value in enumerate(case)), strength))
        for case in product
    ]
    missing = set().union(*parts)
    chosen: set[int] = set()
    uses: Counter[Any] = Counter()  # of values: of two cases with as many that are missing, the one of rarer values
    while missing:
        best = max(
            range(len(product)),
            key=lambda i: (len(missing & parts[i]), -sum(uses[axis, repr(v)] for axis, v in enumerate(product[i]))),
        )
        missing -= parts[best]
        uses.update((axis, repr(value)) for axis, value in enumerate(product[best]))
        chosen.add(best)
    return [pytest.param(*case, marks=() if i in chosen else pytest.mark.slow) for i, case in enumerate(product)]


class OncePerOptions:
    """Makes something once for each set of options.

    Args:
        make: gets a new folder and the options.
    """

    def __init__(self, make: Callable[..., Path], folders: pytest.TempPathFactory) -> None:
        self._make, self._folders = make, folders
        self._made: dict[str, Path] = {}

    def __call__(self, *args: object, **options: object) -> Path:
        key = repr((args, sorted(options.items())))  # of plain values and dataclasses
        if key not in self._made:
            self._made[key] = self._make(self._folders.mktemp("shared"), *args, **options)
        return self._made[key]


@pytest.fixture(scope="session")
def trained_checkpoint(shared_reviews: str, tmp_path_factory: pytest.TempPathFactory) -> OncePerOptions:
    import torch
    from small_fits import data, module, save

    def make(
        folder: Path, model: Mapping[str, Any] | None = None, texts: Mapping[str, Any] | None = None, **options: object
    ) -> Path:
        torch.manual_seed(4)
        return save(folder, module(**(model or {})), data(shared_reviews, **(texts or {})), **options)

    return OncePerOptions(make, tmp_path_factory)


@pytest.fixture(scope="session")
def altered_checkpoint(shared_reviews: str, tmp_path_factory: pytest.TempPathFactory) -> OncePerOptions:
    from altered import altered

    def make(
        folder: Path, model: dict[str, object] | None = None, texts: dict[str, object] | None = None, **options: Any
    ) -> Path:
        return altered(folder, shared_reviews, model, texts, **options)

    return OncePerOptions(make, tmp_path_factory)


@pytest.fixture(scope="session")
def finished_run(shared_reviews: str, tmp_path_factory: pytest.TempPathFactory) -> OncePerOptions:
    from lit_cls.cli import main

    nano = ["--model.size", "gpt2-nano", "--model.weights", "random", "--model.learning_rate", "1e-3"]
    cpu = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.max_epochs", "1"]

    def make(folder: Path, *words: str) -> Path:
        here = ["--data.path", shared_reviews, "--data.balance", "none", "--trainer.default_root_dir", str(folder)]
        assert main(["fit", *here, *nano, *cpu, "--run_name", "shared", *words]) == 0
        return folder / "shared" / "version_0"

    return OncePerOptions(make, tmp_path_factory)


@pytest.fixture(autouse=True)
def _no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("plots"):
        monkeypatch.setattr(
            "lit_cls.report.content.find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
        )
        monkeypatch.setattr("lit_cls.commands.reproduce.draw_table_plots", lambda results, out: [])
        monkeypatch.setattr("lit_cls.commands.sweep.draw_sweep", lambda grid, runs, out: [])


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """A run flushes some seventy times, which takes longer than its training; test_atomic_writes.py proves that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _compiled_templates() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2, "Environment", environment_that_compiles_once())
        yield
