"""A folder that is whole or not there."""

from pathlib import Path

import pytest

from lit_cls.errors import UserError
from lit_cls.io.atomic import whole_folder


def test_it_appears_when_all_of_it_is_there(tmp_path: Path) -> None:
    out = tmp_path / "new" / "exported"
    with whole_folder(out) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "a.txt").write_text("a")
        (folder / "part" / "a.txt").chmod(0o600)
        (folder / "b.txt").write_text("b")
        assert not out.exists()
        assert folder.name.endswith(".partial")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["b.txt", "part", "part/a.txt"]
    assert [path.name for path in out.parent.iterdir()] == ["exported"]
    assert (out / "part" / "a.txt").stat().st_mode == (out / "b.txt").stat().st_mode


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_nothing_is_left_of_what_failed(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "exported") as folder:
            (folder / "a.txt").write_text("a")
            raise error

    with pytest.raises(error):
        fail()
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("a")
    (tmp_path / "file").write_text("b")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(UserError, match="exists already and is not an empty folder"), whole_folder(tmp_path / name):
            pytest.fail("it must not begin")
    with whole_folder(tmp_path / "empty") as folder:
        (folder / "c.txt").write_text("c")
    assert (tmp_path / "empty" / "c.txt").read_text() == "c"


def test_what_came_meanwhile_stays(tmp_path: Path) -> None:
    def race() -> None:
        with whole_folder(tmp_path / "exported"):
            (tmp_path / "exported").mkdir()
            (tmp_path / "exported" / "a.txt").write_text("another's")

    with pytest.raises(UserError, match="exists already"):
        race()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["exported", "exported/a.txt"]
    assert (tmp_path / "exported" / "a.txt").read_text() == "another's"


def test_the_rest_of_one_that_was_killed_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "exported.partial").mkdir()
    (tmp_path / "exported.partial" / "a.txt").write_text("half")
    with whole_folder(tmp_path / "exported") as folder:
        (folder / "b.txt").write_text("whole")
    assert (tmp_path / "exported" / "b.txt").read_text() == "whole"
    assert (tmp_path / "exported.partial" / "a.txt").read_text() == "half"
