"""Rows by format, against the readers of training and of Python."""

import csv
import json
from pathlib import Path

import pytest

from lit_cls.data.findings import RowFaults
from lit_cls.data.formats import as_text, format_of, parquet_columns, parquet_records, records_of
from lit_cls.data.lines import Encoding, lines_of_file
from lit_cls.errors import UserError


def values_of(content: bytes, tmp_path: Path, kind: str) -> list[object]:
    (tmp_path / "some").write_bytes(content)
    with lines_of_file(tmp_path / "some", Encoding()) as lines:
        return list(records_of(kind, lines, RowFaults("some", at_once=True)))  # type: ignore[arg-type]


def test_csv_is_read_as_python_reads_it(tmp_path: Path) -> None:
    rows = [
        ["id", "text"],
        ["1", 'a "quoted"\nnew line,\r\n and more'],
        ["2", ""],
        ["", "x" * 200_000],
        ["3", "é\u2028🙂"],
    ]
    for end in ("\n", "\r\n", "\r"):
        with (tmp_path / "w.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator=end).writerows(rows)
        assert values_of((tmp_path / "w.csv").read_bytes() + b"\n\n", tmp_path, "csv") == rows
    with pytest.raises(UserError, match="some: the row that begins at line 3 is no well-formed CSV "):
        values_of(b'a,b\n1,2\n2,"x" y\n', tmp_path, "csv")
    with pytest.raises(UserError, match=r"begins at line 4 is no well-formed CSV \(unexpected end of data\)"):
        values_of(b'a,b\n1,"two\nlines"\n3,"never closed\n\n5,6\n', tmp_path, "csv")


def test_tabs_are_literal_and_texts_are_lines(tmp_path: Path) -> None:
    content = b'text\tlabel\n"a\tb\r\n\nc"\td\n'
    assert values_of(content, tmp_path, "tsv") == [["text", "label"], ['"a', "b"], ['c"', "d"]]
    assert values_of(content, tmp_path, "text") == [["text\tlabel"], ['"a\tb'], [""], ['c"\td']]


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b", "n": 10**30, "x": {"y": [1, None]}}, {"text": None}]
    content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    assert values_of(content, tmp_path, "jsonl") == rows
    for wrong, message in (
        (b'{"a": 1}\n{"a": \n', "line 2 is not JSON: "),
        (b'{"a": 1}\n\n[1]\n', r"line 3 is not an object with a text: '\[1\]'"),
        (b"[" * 100_000, "line 1 is not JSON: "),
    ):
        with pytest.raises(UserError, match=message):
            values_of(wrong, tmp_path, "jsonl")


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    file, faults = tmp_path / "rows.parquet", RowFaults("rows.parquet", at_once=True)
    table = pyarrow.table({"text": [f"text {i}" for i in range(3000)], "n": list(range(3000))})
    pyarrow.parquet.write_table(table, file, row_group_size=700)
    assert parquet_columns(file) == (["text", "n"], 3000)
    assert list(parquet_records(file, faults)) == [(f"text {i}", i) for i in range(3000)]
    assert next(parquet_records(file, faults, [1])) == (None, 0)
    content = file.read_bytes()
    (tmp_path / "no.parquet").write_bytes(content[:-100])
    with pytest.raises(UserError, match="no.parquet cannot be read as parquet"):
        parquet_columns(tmp_path / "no.parquet")
    damaged = bytearray(content)
    damaged[20:60] = bytes(40)
    (tmp_path / "no.parquet").write_bytes(damaged)
    with pytest.raises(UserError, match="no.parquet cannot be read as parquet"):
        list(parquet_records(tmp_path / "no.parquet", faults))


def test_a_name_shows_the_format() -> None:
    names = {
        **{"a.csv": "csv", "a.TSV": "tsv", "a.txt": "tsv", "a.jsonl": "jsonl", "a.ndjson": "jsonl"},
        **{"a.parquet": "parquet", "a.doc": None},
    }
    assert {name: format_of(Path(name)) for name in names} == names


def test_values_as_texts() -> None:
    values = ["a", 1.5, 3, True, None, float("nan"), "\ud800", "\ud83d\ude42"]
    assert [as_text(value) for value in values] == ["a", "1.5", "3", "true", None, None, "\ufffd", "🙂"]
    for value, name in (([1], "a list"), ({}, "an object"), (b"", "bytes")):
        with pytest.raises(TypeError, match=name):
            as_text(value)
