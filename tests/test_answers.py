"""Answers written down: columns, formats, and files that are whole or not there."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lit_cls.commands.prediction_writer import AnswerWriter, check_new_file, format_of, whole_file
from lit_cls.errors import RunError, UserError

SHARES = {"ham": 0.25, "spam": 0.75}
OURS = ["label", "probability", "probability_ham", "probability_spam", "truncated"]


def written(form: str, columns: list[str], rows: list[Any], cut: bool = False) -> tuple[str, list[str]]:
    stream, told = io.BytesIO(), list[str]()
    writer = AnswerWriter(stream, form, columns, ("ham", "spam"), told.append)  # type: ignore[arg-type]
    for row in rows:
        writer.write(row, "spam", SHARES, cut)
    assert writer.n == len(rows)
    return stream.getvalue().decode(), told


def test_csv_keeps_every_column_in_its_order() -> None:
    awkward = ['a "quoted"\nnew line, and a comma', "", "é🙂", " padded ", "lone\rreturn", "\r", "a\r\nb"]
    text, told = written("csv", ["id", "text", "id"], [[str(i), value, "x"] for i, value in enumerate(awkward)])
    names, *rows = csv.reader(io.StringIO(text, newline=""))
    assert names == ["id", "text", "id", *OURS]
    assert rows == [[str(i), value, "x", "spam", "0.75", "0.25", "0.75", "false"] for i, value in enumerate(awkward)]
    assert told == []
    assert text.count("\r") == 3  # of the texts alone
    assert written("csv", ["text"], [])[0] == ",".join(["text", *OURS]) + "\n"


def test_json_lines_keep_nested_fields_and_their_order() -> None:
    rows = [{"x": {"y": [1, None, "é"]}, "text": "a\nb", "n": 10**30}, {"text": None, "more": 1.5}]
    text, _ = written("jsonl", ["x", "text", "n"], rows, cut=True)
    found = [json.loads(line) for line in text.splitlines()]
    answer = dict(zip(OURS, ["spam", 0.75, 0.25, 0.75, True], strict=True))
    assert found == [{**row, **answer} for row in rows]
    assert list(found[1]) == ["text", "more", *OURS]
    with pytest.raises(UserError, match="two columns are named 'a', and a JSON object has each name once: write CSV"):
        written("jsonl", ["a", "b", "a"], [])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_column_of_a_name_of_ours_is_renamed_and_told_once(form: str) -> None:
    columns = ["label", "text", "input_label", "truncated"]
    text, told = written(form, columns, [["ham", "a", "b", "no"]] * 2)
    expected = {"input_input_label": "ham", "text": "a", "input_label": "b", "input_truncated": "no"}
    rows = (
        list(csv.DictReader(io.StringIO(text))) if form == "csv" else [json.loads(line) for line in text.splitlines()]
    )
    for row in rows:
        assert list(row) == [*expected, *OURS]
        assert {name: row[name] for name in expected} == expected
        assert row["label"] == "spam"
    assert told == [
        "note: the input's column 'label' is 'input_input_label' in the output",
        "note: the input's column 'truncated' is 'input_truncated' in the output",
    ]


def test_values_that_csv_has_no_kind_for() -> None:
    row = {"text": "a", "n": 1.5, "none": None, "yes": True, "deep": {"é": [1]}, "nan": float("nan"), "half": "\ud800"}
    text, _ = written("csv", list(row), [row])
    assert next(csv.DictReader(io.StringIO(text))) == {
        **{"text": "a", "n": "1.5", "none": "", "yes": "true", "deep": '{"é": [1]}', "nan": "", "half": "?"},
        **dict(zip(OURS, ["spam", "0.75", "0.25", "0.75", "false"], strict=True)),
    }
    assert json.loads(written("jsonl", list(row), [row])[0])["nan"] is None
    with pytest.raises(UserError, match="row 2 has 'new', which the first one has not.*--output_format jsonl"):
        written("csv", ["text"], [{"text": "a"}, {"text": "b", "new": 1}])


def test_lines_for_a_person() -> None:
    assert written("lines", ["text"], [["a  b\nc"]]) == ("spam\tham 0.2500  spam 0.7500\ta b c\n", [])
    assert written("lines", ["text"], [["w"]], cut=True)[0].endswith("w  (cut: longer than the classifier reads)\n")


def test_the_name_of_a_file_says_what_is_written() -> None:
    assert [format_of(Path(name), None) for name in ("a.csv", "a.JSONL", "a.ndjson")] == ["csv", "jsonl", "jsonl"]
    assert format_of(Path("a.txt"), "csv") == "csv"
    with pytest.raises(UserError, match="say different things"):
        format_of(Path("a.csv"), "jsonl")
    with pytest.raises(UserError, match="a name that ends in .csv or .jsonl, or --output_format"):
        format_of(Path("a.txt"), None)


def test_a_file_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path, partial, told = tmp_path / "a.csv", tmp_path / "a.csv.partial", list[str]()

    def stopped() -> None:
        with whole_file(path, told.append) as stream:
            stream.write(b"some of the old")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv.partial"]
    assert partial.read_bytes() == b"some of the old"
    with whole_file(path, told.append) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert (path.read_bytes(), partial.exists()) == (b"new", False)
    assert told == [f"note: {partial}, of an attempt that was stopped, is written anew"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def overtaken() -> None:
        with whole_file(path, print) as stream:
            stream.write(b"new")
            path.write_text("another's")

    with pytest.raises(RunError, match="has come to be meanwhile"):
        overtaken()
    assert path.read_text() == "another's"
    with pytest.raises(UserError, match="is there already, and nothing is overwritten: give another name"):
        check_new_file(path)
    with pytest.raises(UserError, match="there is no folder"):
        check_new_file(tmp_path / "gone" / "a.csv")
    with (
        whole_file(tmp_path / "b.csv", print) as stream,
        pytest.raises(UserError, match="another process is writing"),
        whole_file(tmp_path / "b.csv", print),
    ):
        pass
    assert stream.closed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv.partial").symlink_to("/dev/full")

    def fill() -> None:
        with whole_file(tmp_path / "a.csv", print) as stream:
            stream.write(b"x" * 100_000)

    with pytest.raises(RunError, match="a.csv cannot be written: No space left on device"):
        fill()
    assert not (tmp_path / "a.csv").exists()


def test_a_name_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    for name in ("a" * 300, "a" * 250):  # the second one is too long only with .partial behind it
        with pytest.raises(UserError, match="cannot be made: File name too long. Give another name"):
            check_new_file(tmp_path / name)
    (tmp_path / "a.csv.partial").mkdir()
    with pytest.raises(UserError, match=r"--output .*a.csv is written as a.csv.partial first.*: Is a directory"):
        check_new_file(tmp_path / "a.csv")
    with (
        pytest.raises(RunError, match="a.csv cannot be written: Is a directory$"),
        whole_file(tmp_path / "a.csv", print),
    ):
        pass
    (tmp_path / "b.csv.partial").write_text("of an attempt that was stopped")
    check_new_file(tmp_path / "b.csv")
    check_new_file(tmp_path / "c.csv")
    assert (tmp_path / "b.csv.partial").read_text() == "of an attempt that was stopped"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv.partial", "b.csv.partial"]
    with whole_file(tmp_path / "d.csv", print), pytest.raises(UserError, match="another process is writing"):
        check_new_file(tmp_path / "d.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look anywhere")
def test_a_folder_that_is_locked(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(0)
    with pytest.raises(UserError, match="the folder .*locked cannot be written to"):
        check_new_file(tmp_path / "locked" / "a.csv")
