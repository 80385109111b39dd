"""Files and folders appear whole or not at all, nothing is overwritten, and a folder is held by one process."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lit_cls.errors import RunError, UserError
from lit_cls.io.atomic import (
    check_new_file,
    check_output_file,
    csv_text,
    locked,
    output_file,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "naïve\r\n")
    assert path.read_bytes() == "naïve\r\n".encode()

    def fail() -> None:
        with whole_file(path) as stream:
            stream.write(b"half")
            assert path.read_bytes() == "naïve\r\n".encode()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == "naïve\r\n".encode()
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_file_and_folder_are_flushed_before_and_after_the_renaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "a.txt", list[tuple[bool, bool]]()

    def record(descriptor: int) -> None:
        flushed.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))

    monkeypatch.setattr(os, "fsync", record)
    write_text(path, "text")
    assert flushed == [(False, False), (True, True)]
    flushed.clear()
    with output_file(tmp_path / "b.csv", "--output", print) as stream:
        stream.write(b"text")
    assert [folder for folder, _ in flushed] == [False, True]


def test_two_writers_of_one_file_each_write_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as one, whole_file(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"  # the later to end
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_new_file_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("another's")
    with pytest.raises(UserError, match="was created meanwhile, and nothing is overwritten"):
        write_text(path, "ours", overwrite=False)
    with pytest.raises(UserError, match="--out .*a.txt exists already, and nothing is overwritten"):
        check_new_file(path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "another's")]


def test_csv_has_every_character_even_where_nul_would_be_an_escape() -> None:
    assert csv_text([["a\0b", 'say "x"', "two\nlines", 1]]) == 'a\0b,"say ""x""","two\nlines",1\r\n'


def test_json_is_written_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "report" / "report.json"
    write_json(path, {"label": "naïve"})
    with pytest.raises(TypeError):
        write_json(path, {"label": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"label": "naïve"}
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_an_output_file_is_renamed_once_it_is_complete(tmp_path: Path) -> None:
    path, partial, told = tmp_path / "a.csv", tmp_path / "a.csv.partial", list[str]()

    def stopped() -> None:
        with output_file(path, "--output", told.append) as stream:
            stream.write(b"some of the old")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv.partial"]
    assert partial.read_bytes() == b"some of the old"
    with output_file(path, "--output", told.append) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert (path.read_bytes(), partial.exists()) == (b"new", False)
    assert told == [f"note: {partial}, of an attempt that was stopped, is overwritten"]


def test_an_output_file_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def overtaken() -> None:
        with output_file(path, "--output", print) as stream:
            stream.write(b"new")
            path.write_text("another's")

    with pytest.raises(RunError, match="was created meanwhile"):
        overtaken()
    assert path.read_text() == "another's"
    with pytest.raises(UserError, match="exists already, and nothing is overwritten: give another name"):
        check_output_file(path, "--output")
    with pytest.raises(UserError, match="there is no folder"):
        check_output_file(tmp_path / "gone" / "a.csv", "--output")
    with (
        output_file(tmp_path / "b.csv", "--output", print) as stream,
        pytest.raises(UserError, match="another process is writing"),
        output_file(tmp_path / "b.csv", "--output", print),
    ):
        pass
    assert stream.closed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.csv.partial").symlink_to("/dev/full")

    def fill() -> None:
        with output_file(tmp_path / "a.csv", "--output", print) as stream:
            stream.write(b"x" * 100_000)

    with pytest.raises(RunError, match="a.csv cannot be written: No space left on device"):
        fill()
    assert not (tmp_path / "a.csv").exists()


def test_a_name_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    for name in ("a" * 300, "a" * 250):  # the second one is too long only with .partial behind it
        with pytest.raises(UserError, match="cannot be created: File name too long. Give another name"):
            check_output_file(tmp_path / name, "--output")
    (tmp_path / "a.csv.partial").mkdir()
    with pytest.raises(UserError, match=r"--output .*a.csv is written as a.csv.partial first.*: Is a directory"):
        check_output_file(tmp_path / "a.csv", "--output")
    with (
        pytest.raises(RunError, match="a.csv cannot be written: Is a directory$"),
        output_file(tmp_path / "a.csv", "--output", print),
    ):
        pass
    (tmp_path / "b.csv.partial").write_text("of an attempt that was stopped")
    check_output_file(tmp_path / "b.csv", "--output")
    check_output_file(tmp_path / "c.csv", "--output")
    assert (tmp_path / "b.csv.partial").read_text() == "of an attempt that was stopped"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv.partial", "b.csv.partial"]
    with (
        output_file(tmp_path / "d.csv", "--output", print),
        pytest.raises(UserError, match="another process is writing"),
    ):
        check_output_file(tmp_path / "d.csv", "--output")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(0)
    with pytest.raises(UserError, match="the folder .*locked cannot be written to"):
        check_output_file(tmp_path / "locked" / "a.csv", "--output")


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


def test_a_folder_is_locked_by_one_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UserError, match="belongs to a run that is still running"), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_lock_behind_nor_does_its_worker(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from lit_cls.io.atomic import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        with pytest.raises(UserError), locked(tmp_path):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path):  # though its worker lives on
            os.kill(worker, signal.SIGKILL)
