"""Files as people have them: every layout is written as bytes, read, and compared row by row."""

import csv
import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
from conftest import SHARED

from lit_cls.data.formats import Column, ColumnChoice
from lit_cls.data.sources import EmptyPolicy, LabelledTexts, read_demo, read_file, read_sms_spam
from lit_cls.errors import UserError


def write(path: Path, content: str | bytes) -> str:
    """Writes exactly these bytes: no translation of line ends."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read(
    path: str,
    text_column: Column = "text",
    label_column: Column = "label",
    header: bool = True,
    empty: EmptyPolicy = "error",
) -> LabelledTexts:
    return read_file(path, ColumnChoice((text_column,), (label_column,), header), empty)


# Layouts. Two rows with different labels, so that a swap of rows or of columns shows.


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", "text,label\nhello there,ham\nwin now,spam\n"),
        ("no_last_newline.csv", "text,label\nhello there,ham\nwin now,spam"),
        ("crlf.csv", "text,label\r\nhello there,ham\r\nwin now,spam\r\n"),
        ("old_mac.csv", "text,label\rhello there,ham\rwin now,spam\r"),
        ("bom.csv", b"\xef\xbb\xbftext,label\nhello there,ham\nwin now,spam\n"),
        ("bom_quoted.csv", b'\xef\xbb\xbf"text","label"\n"hello there","ham"\n"win now","spam"\n'),
        ("other_order.csv", "label,text\nham,hello there\nspam,win now\n"),
        ("more_columns.csv", "id,text,,label,\n1,hello there,,ham,\n2,win now,,spam,\n"),
        ("spaces_in_header.csv", "text , label\nhello there,ham\nwin now,spam\n"),
        ("blank_lines.csv", "text,label\n\nhello there,ham\n\n\nwin now,spam\n\n"),
        ("UPPER.CSV", "text,label\nhello there,ham\nwin now,spam\n"),
        ("plain.tsv", "text\tlabel\nhello there\tham\nwin now\tspam\n"),
        ("crlf.tsv", "text\tlabel\r\nhello there\tham\r\n\r\nwin now\tspam\r\n"),
        ("bom.tsv", b"\xef\xbb\xbftext\tlabel\nhello there\tham\nwin now\tspam\n"),
        ("tabs.txt", "text\tlabel\nhello there\tham\nwin now\tspam"),
        ("plain.jsonl", '{"text": "hello there", "label": "ham"}\n{"label": "spam", "text": "win now", "id": 2}\n'),
        ("crlf.jsonl", '{"text":"hello there","label":"ham"}\r\n\r\n{"text":"win now","label":"spam"}\r\n'),
        ("bom.jsonl", b'\xef\xbb\xbf{"text":"hello there","label":"ham"}\n{"text":"win now","label":"spam"}'),
        ("plain.ndjson", '{"text":"hello there","label":"ham"}\n{"text":"win now","label":"spam"}'),
    ],
)
def test_layouts_give_the_same_rows(tmp_path: Path, name: str, content: str | bytes) -> None:
    rows = read(write(tmp_path / name, content))
    assert rows.texts == ["hello there", "win now"]
    assert rows.labels == ["ham", "spam"]
    assert rows.numbers == [1, 2]
    assert rows.notes == []


def test_sha256_is_of_the_files_bytes(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbftext,label\r\na,x\r\n"
    assert read(write(tmp_path / "a.csv", content)).sha256 == hashlib.sha256(content).hexdigest()


def test_kaggles_spam_csv(tmp_path: Path) -> None:
    # Latin-1 with a pound sign, five columns of which three have no name, CRLF, doubled quotes,
    # a line break inside a text.
    content = (
        "v1,v2,,,\r\n"
        'ham,"Go until jurong point, crazy.. Available only in bugis",,,\r\n'
        'spam,"£1000 cash! Call ""now""",,,\r\n'
        'ham,"two\r\nlines",,,\r\n'
    ).encode("latin-1")
    path = write(tmp_path / "spam.csv", content)
    rows = read(path, "v2", "v1")
    assert rows.texts == [
        "Go until jurong point, crazy.. Available only in bugis",
        '£1000 cash! Call "now"',
        "two\r\nlines",
    ]
    assert rows.labels == ["ham", "spam", "ham"]
    assert rows.notes == [f"{path} is not UTF-8 (line 3, byte {content.index(0xA3)}): read as cp1252"]
    assert read(path, 1, 0).texts == rows.texts


def test_cp1252_is_not_latin_1(tmp_path: Path) -> None:
    # 0x80 and 0x92 are the euro sign and a curly apostrophe in cp1252, control characters in latin-1.
    rows = read(write(tmp_path / "a.csv", b"text,label\nit\x92s \x80 5,x\n"))
    assert rows.texts == ["it’s € 5"]


def test_csv_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ham,hello\nspam,win\n")
    rows = read(path, 1, 0, header=False)
    assert (rows.texts, rows.labels, rows.numbers) == (["hello", "win"], ["ham", "spam"], [1, 2])


@pytest.mark.parametrize(("text_column", "label_column"), [(2, 0), ("2", "0"), ("body", 0), (2, "kind")])
def test_columns_by_name_or_number(tmp_path: Path, text_column: Column, label_column: Column) -> None:
    path = write(tmp_path / "a.tsv", "kind\tid\tbody\nx\t1\tone\ny\t2\ttwo\n")
    rows = read(path, text_column, label_column)
    assert (rows.texts, rows.labels) == (["one", "two"], ["x", "y"])


def test_a_columns_name_comes_before_its_number(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.csv", "1,0\none,x\n"), text_column=1, label_column=0)
    assert (rows.texts, rows.labels) == (["one"], ["x"])


def test_tab_separated_files_are_read_literally(tmp_path: Path) -> None:
    # The SMS collection has texts that open a quote and never close it.
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"opened, never closed\tx\n"whole"\ty\nit""s\tx\n')
    rows = read(path)
    assert rows.texts == ['"opened, never closed', '"whole"', 'it""s']
    assert rows.notes == [f"1 texts of {path} begin and end with a quote; tab-separated files are read literally"]


def test_a_field_of_300_kb(tmp_path: Path) -> None:
    # More than the 128 KiB that Python's csv accepts by itself, with a separator and a line break inside.
    text = ("long, " * 50_000) + "\nend"
    rows = read(write(tmp_path / "a.csv", f'text,label\n"{text}",x\nshort,y\n'))
    assert rows.texts == [text, "short"]


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_nul_characters(tmp_path: Path, name: str, separator: str) -> None:
    path = write(tmp_path / name, f"text{separator}label\nbe\0fore{separator}x\n")
    if name == "a.csv" and sys.version_info < (3, 11):
        with pytest.raises(
            UserError, match=r"the row that begins at line 2 is no well-formed CSV \(line contains NUL\)"
        ):
            read(path)
    else:
        assert read(path).texts == ["be\0fore"]


@pytest.mark.parametrize("text", ["nan", "None", "NA", "null", "0", "<|endoftext|>", "  leading", "🙂", "﷽ نص"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_texts_are_kept_as_they_are(tmp_path: Path, text: str, suffix: str) -> None:
    # Readers that guess types make missing values or numbers of some of these.
    content = {
        "csv": f'text,label\n"{text}",NA\n',
        "tsv": f"text\tlabel\n{text}\tNA\n",
        "jsonl": json.dumps({"text": text, "label": "NA"}),
    }[suffix]
    rows = read(write(tmp_path / f"a.{suffix}", content))
    assert (rows.texts, rows.labels) == ([text], ["NA"])


def test_json_values_that_are_no_strings(tmp_path: Path) -> None:
    records = [
        {"text": 3.5, "label": 0},
        {"text": True, "label": 1},
        {"text": "one", "label": False},
        {"text": 12345678901234567890, "label": -1},
    ]
    rows = read(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records))))
    assert rows.texts == ["3.5", "true", "one", "12345678901234567890"]
    assert rows.labels == ["0", "1", "false", "-1"]


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    # Valid JSON, but no Unicode text: it could be neither hashed, tokenised nor printed.
    path = write(tmp_path / "a.jsonl", r'{"text": "a\ud83dz \ude00", "label": "\ud83d\ude00"}')
    rows = read(path)
    assert rows.texts == ["a\ufffdz \ufffd"]
    assert rows.labels == ["\U0001f600"]


def test_jsonl_line_separators_inside_texts_end_no_line(tmp_path: Path) -> None:
    # str.splitlines would cut at these.
    text = "one\u2028two\x85three\x0cfour"
    rows = read(write(tmp_path / "a.jsonl", json.dumps({"text": text, "label": "x"}, ensure_ascii=False)))
    assert rows.texts == [text]


def test_jsonl_columns_by_number(tmp_path: Path) -> None:
    # Numbers follow the order in which keys first appear, whatever the order in later lines.
    path = write(tmp_path / "a.jsonl", '{"text": "one", "label": "x"}\n{"label": "y", "text": "two"}\n')
    rows = read(path, 0, 1)
    assert (rows.texts, rows.labels) == (["one", "two"], ["x", "y"])


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"id": [1, 2, 3], "text": ["one", None, "three"], "label": [0, 1, 0]})
    parquet.write_table(table, path)
    rows = read(str(path), empty="drop")
    assert (rows.texts, rows.labels, rows.numbers) == (["one", "three"], ["0", "0"], [1, 3])
    assert rows.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read(str(path), 1, "2", empty="drop").texts == ["one", "three"]


def test_parquet_strings_of_other_types(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    texts = pyarrow.array(["one", "two", "one"]).dictionary_encode()
    labels = pyarrow.array([True, False, True])
    parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)
    rows = read(str(path))
    assert (rows.texts, rows.labels) == (["one", "two", "one"], ["true", "false", "true"])


def test_parquet_dates_have_no_quotes_of_their_own(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    days = pyarrow.array([0, 366], type=pyarrow.date32())
    parquet.write_table(pyarrow.table({"text": ["one", "two"], "label": days}), path)
    assert read(str(path)).labels == ["1970-01-01", "1971-01-02"]


def test_parquet_bytes_are_no_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [b"one", b"two"], "label": ["x", "y"]}), path)
    with pytest.raises(UserError, match=r"the text of row 1 is bytes, not a text or a number"):
        read(str(path))


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path / "a.csv", "text,label\none,x\n")
    assert read("~/a.csv").texts == ["one"]


# Empty and repeated texts.

# LabelledTexts 2 (nothing) and 4 (white space) are empty; 5 repeats 1.
_WITH_EMPTY = "text,label\none,x\n,y\nthree,x\n  ,y\none,x\n"


def test_empty_texts_are_an_error_by_default(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", _WITH_EMPTY)
    with pytest.raises(UserError, match=r"a\.csv: 2 rows \(row 2, 4\) have no text\. Pass --data\.empty drop"):
        read(path)


def test_one_empty_text_in_the_singular(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\none,x\n,y\n")
    with pytest.raises(UserError, match=r"a\.csv: row 2 has no text"):
        read(path)


def test_empty_texts_dropped(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.csv", _WITH_EMPTY), empty="drop")
    assert rows.texts == ["one", "three", "one"]
    assert rows.numbers == [1, 3, 5]
    assert "2 empty texts dropped: row 2, 4" in rows.notes


def test_empty_texts_kept(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.csv", _WITH_EMPTY), empty="keep")
    assert [text.strip() for text in rows.texts] == ["one", "", "three", "", "one"]
    assert rows.labels == ["x", "y", "x", "y", "x"]
    assert "2 empty texts kept: row 2, 4" in rows.notes


def test_missing_json_texts_are_empty_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one", "label": "x"}\n{"text": null, "label": "y"}\n{"label": "y"}\n')
    with pytest.raises(UserError, match=r"2 rows \(row 2, 3\) have no text"):
        read(path)
    assert read(path, empty="keep").texts == ["one", "", ""]


def test_many_row_numbers_are_shortened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n" + ",x\n" * 12)
    with pytest.raises(UserError, match=r"12 rows \(row 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …\) have no text"):
        read(path)


# Wrong input.


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*no\.csv: check data\.path \(it is looked up from "):
        read(str(tmp_path / "no.csv"))


def test_impossible_file_name(tmp_path: Path) -> None:
    # What happens when a text is given in place of a path.
    with pytest.raises(UserError, match=r"check data\.path|cannot be read"):
        read(str(tmp_path / ("a very long name " * 20)))


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder: give one file with data\.path"):
        read(str(tmp_path))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_unreadable_file(tmp_path: Path) -> None:
    # A file like any other, but that its first byte cannot be read, not even by root.
    (tmp_path / "a.csv").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=r"a\.csv cannot be read: \w+"):
        read(str(tmp_path / "a.csv"))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} is empty"):
        read(write(tmp_path / name, b""))


@pytest.mark.parametrize("name", ["a.xlsx", "a.json", "SMSSpamCollection"])
def test_unknown_kind(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "text,label\none,x\n")
    with pytest.raises(
        UserError,
        match=rf"{name} is of an unsupported format: .* is needed\. .*--data\.source sms_spam",
    ):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16(tmp_path: Path, encoding: str) -> None:
    bom = "" if encoding == "utf-16" else "\ufeff"
    path = write(tmp_path / "a.csv", (bom + "text,label\none,x\n").encode(encoding))
    with pytest.raises(UserError, match=r"a\.csv is UTF-16 or UTF-32, or no text at all: save it as UTF-8"):
        read(path)


def test_undecodable_bytes(tmp_path: Path) -> None:
    # 0x81 is no character of cp1252; 0xFF before it is none of UTF-8.
    path = write(tmp_path / "a.csv", b"text,label\nab\xff\x81,x\n")
    with pytest.raises(UserError, match=r"neither UTF-8 \(line 2, byte 13\) nor cp1252 \(byte 14\): save it as UTF-8"):
        read(path)


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('text,label\n"one" two,x\n', 2, "',' expected after '\"'"),
        ('text,label\none,x\n"never closed,y\nthree,y\n', 3, "unexpected end of data"),
    ],
)
def test_malformed_csv(tmp_path: Path, content: str, line: int, reason: str) -> None:
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(
        UserError, match=rf"a\.csv: the row that begins at line {line} is no well-formed CSV \({reason}\)"
    ):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "header", "end"),
    [
        ("a.csv", "text,label\n", True, " below its header"),
        ("a.tsv", "text\tlabel\r\n\r\n", True, " below its header"),
        ("a.csv", "\n\n", False, ""),
        ("a.jsonl", "\n \n", True, ""),
    ],
)
def test_no_rows(tmp_path: Path, name: str, content: str, header: bool, end: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=rf"{re.escape(name)} has no rows{end}$"):
        read(path, header=header)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\none,x\na, b,y\n", r"row 2 has 3 fields, not 2 like the first line\. Quote texts"),
        (
            "text,label\none\ntwo,x\nthree\n",
            r"row 1 has 1 field, not 2 .*; likewise 1 more \(row 3\)\. Quote",
        ),
        ("text,label\none,x\n   \n", r"row 2 has 1 field, not 2 like the first line\."),
    ],
)
def test_ragged_rows(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(UserError, match=message):
        read(path)


def test_ragged_rows_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "one\tx\ntwo\ty\tz\n")
    with pytest.raises(UserError, match=r"row 2 has 3 fields, not 2 like the first line"):
        read(path, 0, 1, header=False)


@pytest.mark.parametrize(
    ("text_column", "label_column", "role", "wanted"),
    [
        ("txt", "label", "text", "'txt'"),
        ("text", "kind", "label", "'kind'"),
        (2, "label", "text", "2"),
        (-1, 0, "text", "-1"),
    ],
)
def test_missing_column(tmp_path: Path, text_column: Column, label_column: Column, role: str, wanted: str) -> None:
    path = write(tmp_path / "a.csv", "text,label\none,x\n")
    message = (
        rf"a\.csv has no column {wanted} for the {role}s; its columns are 'text', 'label'\. "
        rf"Name one with --data\.{role}_column; a file without a header line also needs --data\.header false"
    )
    with pytest.raises(UserError, match=message):
        read(path, text_column, label_column)


def test_missing_column_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "one,x\ntwo,y\n")
    with pytest.raises(UserError, match=r"no column 'text' .* '0', '1' \(data\.header is false: columns are numbered"):
        read(path, header=False)


def test_missing_key_in_jsonl_is_quoted_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": "one", "label": "x"}\n')
    with pytest.raises(
        UserError, match=r"a\.jsonl has no column 'text' for the texts; its columns are 'body', 'label'"
    ):
        read(path)


def test_one_column_for_both_texts_and_labels(tmp_path: Path) -> None:
    # A classifier that reads the label has an accuracy of 100 % and is worth nothing.
    path = write(tmp_path / "a.csv", "text,label\none,x\ntwo,y\n")
    with pytest.raises(UserError, match=r"label_column"):
        read(path, "label", 1)


def test_two_columns_of_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,text\none,x,uno\n")
    with pytest.raises(UserError, match=r"a\.csv has 2 columns named 'text': give data\.text_column by number"):
        read(path)
    assert read(path, 2).texts == ["uno"]


@pytest.mark.parametrize("line", ['{"text": "one"', "text,label", "[" * 100_000])
def test_a_line_that_is_not_json(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one", "label": "x"}\n\n' + line)
    with pytest.raises(UserError, match=r"a\.jsonl: line 3 is not JSON: \w+"):
        read(path)


@pytest.mark.parametrize("line", ['["one", "x"]', '"one"', "3", "null"])
def test_a_line_that_is_no_object(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", line)
    message = rf"a\.jsonl: line 1 is not an object with a text: '{re.escape(line)}'"
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": ["one"], "label": "x"}, r"the text of row 2 is a list, not a text or a number"),
        ({"text": "one", "label": {"name": "x"}}, r"the label of row 2 is an object, not a text or a number"),
    ],
)
def test_nested_json_values(tmp_path: Path, record: dict[str, object], message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one", "label": "x"}\n' + json.dumps(record))
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\none,x\ntwo,\nthree,  \n"),
        ("a.jsonl", '{"text":"one","label":"x"}\n{"text":"two"}\n{"text":"three","label":null}'),
    ],
)
@pytest.mark.parametrize("empty", ["error", "drop", "keep"])
def test_rows_without_a_label(tmp_path: Path, name: str, content: str, empty: EmptyPolicy) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=r"2 rows \(row 2, 3\) have no label\. Label them or remove them"):
        read(path, empty=empty)


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    path = write(tmp_path / "a.parquet", b"PAR1")
    with pytest.raises(UserError, match=r"a\.parquet needs pyarrow to be read: pip install 'lit_cls\[parquet\]'"):
        read(path)


def test_damaged_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "a.parquet", b"PAR1 and nothing that follows")
    with pytest.raises(UserError, match=r"a\.parquet cannot be read as parquet: \w+"):
        read(path)


def test_parquet_without_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    empty = pyarrow.array([], type=pyarrow.string())
    parquet.write_table(pyarrow.table({"text": empty, "label": empty}), path)
    with pytest.raises(UserError, match=r"a\.parquet has no rows"):
        read(str(path))


def test_missing_parquet_column(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one"], "kind": ["x"]}), path)
    with pytest.raises(UserError, match=r"has no column 'label' for the labels; its columns are 'text', 'kind'"):
        read(str(path))


# Named sources.


def test_demo_rows() -> None:
    rows = read_demo(3)
    assert len(rows.texts) == len(rows.labels) == 1000
    assert rows.numbers == list(range(1, 1001))
    assert any("synthetic" in note for note in rows.notes)
    assert rows.sha256 == read_demo(3).sha256 != read_demo(4).sha256


def test_another_file_is_not_the_sms_collection(tmp_path: Path) -> None:
    path = write(tmp_path / "SMSSpamCollection", "ham\thello\nspam\twin\n")
    with pytest.raises(UserError, match=r"is not the SMS Spam Collection: its sha256 is [0-9a-f]{64}, not 7d039a24"):
        read_sms_spam(path, quoted=False)


@pytest.mark.parametrize(("name", "message"), [("", "is a folder"), ("no", "there is no file")])
def test_sms_collection_that_is_not_there(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_sms_spam(str(tmp_path / name), quoted=False)


@pytest.mark.shared
def test_sms_collection_line_by_line(sms_file: Path) -> None:
    rows = read_sms_spam(str(sms_file), quoted=False)
    lines = sms_file.read_text(encoding="utf-8").splitlines()
    assert [f"{label}\t{text}" for label, text in zip(rows.labels, rows.texts, strict=True)] == lines
    assert len(lines) == 5574
    assert rows.numbers[-1] == 5574


@pytest.mark.shared
def test_sms_collection_as_the_published_code_reads_it(sms_file: Path) -> None:
    rows = read_sms_spam(str(sms_file), quoted=True)
    assert (len(rows.texts), rows.labels.count("ham"), rows.labels.count("spam")) == (5572, 4825, 747)
    assert sum("\n" in text for text in rows.texts) == 1  # three messages glued into one


@pytest.mark.shared
def test_sms_collection_as_a_users_file(tmp_path: Path, sms_file: Path) -> None:
    # The same lines, as a .txt without header: the reader for any file and the named source agree.
    path = write(tmp_path / "sms.txt", sms_file.read_bytes())
    assert read(path, 1, 0, header=False).texts == read_sms_spam(str(sms_file), quoted=False).texts


@pytest.mark.shared
def test_long_reviews() -> None:
    file = SHARED / "data" / "imdb_sample.csv"
    rows = read(str(file), "review", "sentiment")
    with file.open(encoding="utf-8", newline="") as stream:
        expected = list(csv.DictReader(stream))
    assert rows.texts == [row["review"] for row in expected]
    assert (rows.labels.count("positive"), rows.labels.count("negative")) == (501, 498)
