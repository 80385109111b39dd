"""Rows by format, against the readers of training and of Python."""

import csv
import json
import os
from pathlib import Path

import pytest

from lit_cls.data.formats import encoding_of, format_of, parquet_columns, parquet_records, records_of
from lit_cls.data.lines import Lines
from lit_cls.errors import UserError


def values_of(content: bytes, tmp_path: Path, kind: str) -> list[object]:
    (tmp_path / "some").write_bytes(content)
    with (tmp_path / "some").open("rb") as stream:
        return [record.values for record in records_of(kind, Lines(stream.fileno(), "some"))]  # type: ignore[arg-type]


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

    file = tmp_path / "rows.parquet"
    table = pyarrow.table({"text": [f"text {i}" for i in range(3000)], "n": list(range(3000))})
    pyarrow.parquet.write_table(table, file, row_group_size=700)
    assert parquet_columns(file) == (["text", "n"], 3000)
    assert [record.values for record in parquet_records(file)] == [(f"text {i}", i) for i in range(3000)]
    content = file.read_bytes()
    (tmp_path / "no.parquet").write_bytes(content[:-100])
    with pytest.raises(UserError, match="no.parquet cannot be read as parquet"):
        parquet_columns(tmp_path / "no.parquet")
    damaged = bytearray(content)
    damaged[20:60] = bytes(40)
    (tmp_path / "no.parquet").write_bytes(damaged)
    with pytest.raises(UserError, match="no.parquet cannot be read as parquet"):
        list(parquet_records(tmp_path / "no.parquet"))


@pytest.mark.parametrize("before", [0, 5, (1 << 20) - 1, (1 << 20) - 2, 3 << 20])
def test_the_encoding_is_found_wherever_it_shows(before: int, tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    start = b"a\n" * (before // 2) + b"b" * (before % 2)
    for content in (start, start + "é🙂 naïve\n".encode()):
        file.write_bytes(content)
        assert encoding_of(file) == ("utf-8", [])
    file.write_bytes(start + b"caf\xe9 \n" + start)
    told = f"{file} is not UTF-8 (line {before // 2 + 1}, byte {before + 3}): read as cp1252"
    assert encoding_of(file) == ("cp1252", [told])
    file.write_bytes(start + b"caf\xe9 \n" + start + b"\x81")
    with pytest.raises(UserError, match=rf"byte {before + 3}\) nor cp1252 \(byte {2 * before + 6}\): save it as UTF-8"):
        encoding_of(file)


def test_a_name_says_what_a_file_is() -> None:
    names = {
        "a.csv": "csv",
        "a.TSV": "tsv",
        "a.txt": "tsv",
        "a.jsonl": "jsonl",
        "a.ndjson": "jsonl",
        "a.parquet": "parquet",
    }
    assert {name: format_of(Path(name)) for name in names} == names
    with pytest.raises(UserError, match=r"a.doc is of no known kind: .*--input_format text\|csv\|tsv\|jsonl\|parquet"):
        format_of(Path("a.doc"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text("text\na\n")
    file.chmod(0)
    with pytest.raises(UserError, match=r"some.csv cannot be read: Permission denied"):
        encoding_of(file)
