"""Pictures that can be opened; what they show, a person has to look at."""

import struct
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest
from experiment_folders import answers, baseline, record, results, row_result

from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.experiments import plots
from lit_cls.experiments.counts import Count
from lit_cls.experiments.plots import draw_sweep, draw_table_plots, require_reports
from lit_cls.experiments.results import Results
from lit_cls.experiments.rows import ROWS

NAMES = ("accuracy_by_row", "accuracy_against_time", "accuracy_against_parameters", "learning_curves")


def pixels(path: Path) -> bytes:
    """A PNG's width and height in pixels, and its decompressed content."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, size = 8, b"", b""
    while at < len(content):
        (length,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        block = content[at + 8 : at + 8 + length]
        size, data = (block[:8], data) if kind == b"IHDR" else (size, data + block * (kind == b"IDAT"))
        at += 12 + length
    width, height = struct.unpack(">II", size)
    assert width > 800
    assert height > 150
    return zlib.decompress(data)


def is_drawn(paths: Sequence[Path]) -> None:
    """Each is a PNG with something on it, and has an SVG with lines beside it."""
    for path in paths:
        assert len(set(pixels(path))) > 20
        svg = ET.parse(path.with_suffix(".svg")).getroot()
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(svg.iter("{http://www.w3.org/2000/svg}path"))) > 10


def made(tmp_path: Path, numbers: Sequence[int], **options: object) -> Results:
    rows = []
    for number in numbers:
        runs = {
            seed: record(
                tmp_path / f"row{number}" / f"version_{seed}",
                answers(30 + number + seed % 3, 60),
                seconds=10.0 * number,
                trained=1000 * number,
                **options,
            )
            for seed in (123, 1)
        }
        rows.append(row_result(number, runs))
    return results([*rows, row_result(19, {}, ("failed",))], [baseline("majority", answers(28, 60))])


# The table.


@pytest.fixture(scope="module")
def drawn_table(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """The plots of a table with these rows, in a folder of their own; once for each set of rows."""

    @cache
    def draw(*numbers: int) -> list[Path]:
        folder = tmp_path_factory.mktemp("table")
        (folder / "out").mkdir()
        return draw_table_plots(made(folder, numbers), folder / "out")

    return draw


ALL_BUT_THE_FAILED_ONE = [n for n in ROWS if n < 19]


@pytest.mark.parametrize("numbers", [[1], pytest.param([1, 5, 16], marks=pytest.mark.slow), ALL_BUT_THE_FAILED_ONE])
def test_four_pictures_of_the_table(drawn_table: Callable[..., list[Path]], numbers: list[int]) -> None:
    drawn = drawn_table(*numbers)
    out = drawn[0].parent
    assert drawn == [out / f"{name}.png" for name in NAMES]
    is_drawn(drawn)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")
    )


def test_a_longer_table_is_a_higher_picture(drawn_table: Callable[..., list[Path]]) -> None:
    heights = []
    for numbers in ([1], ALL_BUT_THE_FAILED_ONE):
        heights.append(struct.unpack(">I", drawn_table(*numbers)[0].read_bytes()[20:24])[0])
    assert heights[1] > heights[0] + 400


def test_other_figures_are_other_pictures(drawn_table: Callable[..., list[Path]]) -> None:
    one, other = drawn_table(1), drawn_table(3)
    for before, after in zip(one[:3], other[:3], strict=True):
        assert pixels(before) != pixels(after), before.name


def test_no_baselines_and_rows_on_one_spot(tmp_path: Path) -> None:
    right, cost = answers(40, 60), {"seconds": 10.0, "trained": 50}
    rows = [row_result(n, {123: record(tmp_path / f"version_{n}", right, **cost)}) for n in (1, 18, 4)]
    drawn = draw_table_plots(results(rows), tmp_path)
    assert [path.stem for path in drawn] == list(NAMES)
    is_drawn(drawn)


@pytest.mark.parametrize("right", [0, 60])
def test_every_answer_wrong_or_right(tmp_path: Path, right: int) -> None:
    rows = [row_result(1, {123: record(tmp_path / "version_0", answers(right, 60))})]
    drawn = draw_table_plots(results(rows, [baseline("majority", answers(right, 60))]), tmp_path)
    assert [path.stem for path in drawn] == list(NAMES)
    is_drawn(drawn)


def test_without_a_finished_row_nothing_is_drawn(tmp_path: Path) -> None:
    nothing = results([row_result(1, {}, ("failed",))], [baseline("majority", answers(28, 60))])
    assert draw_table_plots(nothing, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# A sweep.


def counts(right: int) -> dict[SplitName, Count]:
    return {"train": (60, 60), "validation": (right // 2, 30), "test": (right, 60)}


def test_a_sweep_of_one_option(tmp_path: Path) -> None:
    runs = {(value,): (counts(right), 2.0) for value, right in (("1", 40), ("2", 50), ("all", 60))}
    drawn = draw_sweep({"model.trainable_layers": ["1", "2", "all"]}, runs, tmp_path)
    assert drawn == [tmp_path / "sweep.png"]
    is_drawn(drawn)


def test_a_sweep_of_two_options_with_a_run_missing(tmp_path: Path) -> None:
    """A whole line is missing, too: no run of the last value of the second option has finished."""
    grid = {"model.trainable_layers": ["1", "all"], "model.learning_rate": ["1e-3", "1e-4", "1e-5"]}
    runs = {("1", "1e-3"): (counts(40), 2.0), ("1", "1e-4"): (counts(41), 2.5), ("all", "1e-4"): (counts(50), 9.0)}
    (some,) = draw_sweep(grid, runs, tmp_path)
    is_drawn([some])
    before = pixels(some)
    runs["all", "1e-3"] = (counts(45), 8.0)
    (more,) = draw_sweep(grid, runs, tmp_path)
    assert pixels(more) != before


def test_values_without_a_run_have_no_line(tmp_path: Path) -> None:
    rates, runs = ["1e-3", "1e-4"], {("1", "1e-3"): (counts(40), 2.0), ("all", "1e-4"): (counts(50), 9.0)}
    drawn = []
    for chosen in (rates, [*rates, "1e-5"]):
        grid = {"model.trainable_layers": ["1", "all"], "model.learning_rate": chosen}
        drawn.append(pixels(draw_sweep(grid, runs, tmp_path)[0]))
    assert drawn[0] == drawn[1]


def test_a_sweep_without_a_run(tmp_path: Path) -> None:
    assert draw_sweep({"model.size": ["gpt2-nano"]}, {}, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# What has to be installed.


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        ({"sklearn"}, "scikit-learn"),
        ({"matplotlib"}, "matplotlib"),
        ({"sklearn", "matplotlib"}, "matplotlib and scikit-learn"),
    ],
)
def test_what_the_report_needs_is_named(absent: set[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> ModuleSpec | None:
        return None if name in absent else find_spec(name)

    monkeypatch.setattr(plots, "find_spec", without)
    with pytest.raises(UserError, match=rf"^the report needs {told}, not installed here: pip install 'lit_cls\[repo"):
        require_reports()


def test_with_everything_installed_nothing_is_said() -> None:
    assert all(find_spec(name) for name in ("matplotlib", "sklearn"))
    require_reports()


def test_runs_without_a_curve_have_a_picture_too(tmp_path: Path) -> None:
    run = record(tmp_path / "version_0", answers(5, 7), epochs=0)
    assert len(draw_table_plots(results([row_result(1, {123: run})]), tmp_path)) == 4
