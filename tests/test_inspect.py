"""A file with everything wrong at once: all of it is found, with the rows, and the rest is read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lit_cls.data.inspect import Inspection, inspect
from lit_cls.data.options import DataOptions
from lit_cls.data.split_data import read
from lit_cls.errors import UserError

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / name

    return write


def seen(path: Path, **options: object) -> Inspection:
    return inspect(replace(DataOptions(path=str(path)), **options))  # type: ignore[arg-type]


def rows_of(found: Inspection) -> dict[str, list[int]]:
    """Of each finding that refuses."""
    return {finding.kind: finding.rows or finding.lines for finding in found.findings if finding.refuses}


def options_of(found: Inspection) -> dict[str, str]:
    return {finding.kind: " ".join(finding.options) for finding in found.findings if finding.refuses}


TEN = "".join(f"message {i},{'ham' if i % 2 else 'spam'}\n" for i in range(10))


def test_all_that_is_wrong_at_once(write: Write) -> None:
    more = ["", " ,ham", "one, two,ham", "three,", "four,Ham", "five,other", "six,sp\x07am", f"seven,{'x' * 1001}"]
    path = write("a.csv", f"text,label\n{TEN}" + "\n".join(more) + "\n")
    found = seen(path)
    assert rows_of(found) == {
        "ragged": [12],
        "empty": [11],
        "unlabelled": [13],
        "alike_labels": [14],
        "few_texts": [15],
        "control": [16],
        "long_label": [17],
    }
    assert options_of(found)["empty"] == "--data.empty drop"
    assert (found.n_rows, found.rows.numbers) == (17, [*range(1, 11), 14])
    assert found.rows.labels[-1] == "ham"  # the usual spelling of Ham
    assert found.rows.texts[-1] == "four"
    assert found.options == DataOptions(path=str(path), empty="drop")


def test_messages_are_those_of_fit(write: Write) -> None:
    path = write("a.csv", "text,label\n" + TEN + ",ham\n")
    with pytest.raises(UserError) as refusal:
        read(DataOptions(path=str(path)))
    assert [finding.message for finding in seen(path).findings if finding.refuses] == [str(refusal.value)]


def test_a_file_without_fault(write: Write) -> None:
    path = write("a.csv", "text,label\n" + TEN)
    found = seen(path)
    assert found.findings == []
    assert (found.format, found.encoding) == ("comma-separated, with quoting", "UTF-8")
    assert (found.columns, found.text_column, found.label_column) == (["text", "label"], "text", "label")
    assert found.first_rows == [(1, "spam", "message 0"), (2, "ham", "message 1"), (3, "spam", "message 2")]
    assert found.labels == {"spam": 5, "ham": 5}
    assert found.options == DataOptions(path=str(path))


def test_empty_texts_that_were_dealt_with(write: Write) -> None:
    path = write("a.csv", "text,label\n" + TEN + ",ham\n")
    assert (rows_of(seen(path, empty="drop")), len(seen(path, empty="drop").rows.texts)) == ({}, 10)
    assert (rows_of(seen(path, empty="keep")), len(seen(path, empty="keep").rows.texts)) == ({}, 11)


def test_kaggles_spam_csv(write: Write) -> None:
    rows = "".join(f"{'ham' if i % 3 else 'spam'},costs £{i} or so,,,\r\n" for i in range(12))
    path = write("spam.csv", ("v1,v2,,,\r\n" + rows).encode("latin-1"))
    found = seen(path)
    assert options_of(found) == {"columns": "--data.text_column v2 --data.label_column v1"}
    assert found.encoding == "cp1252"
    assert [finding.kind for finding in found.findings if not finding.refuses] == ["encoding"]
    assert "A guess" in found.findings[1].message
    assert len(read(found.options).splits["train"].rows.texts) > 0


@pytest.mark.parametrize("name", ["a.tsv", "a.txt"])
def test_a_file_without_a_header(write: Write, name: str) -> None:
    path = write(name, "".join(f"{'ham' if i % 3 else 'spam'}\tmessage {i}\n" for i in range(12)))
    found = seen(path)
    assert options_of(found) == {"columns": "--data.header false --data.text_column 1 --data.label_column 0"}
    assert found.n_rows == 12
    read(found.options)


def test_columns_of_one_name_are_numbered(write: Write) -> None:
    path = write("a.csv", "text,text\n" + TEN)
    assert options_of(seen(path)) == {"columns": "--data.text_column 0 --data.label_column 1"}
    read(seen(path).options)


def test_one_column_for_both(write: Write) -> None:
    path = write("a.csv", "text,label\n" + TEN)
    found = seen(path, label_column="text")
    assert options_of(found) == {"columns": "--data.text_column text --data.label_column label"}
    assert "is named for both" in found.findings[0].message


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("messages", "text,label\n" + TEN, "messages.csv"),
        ("messages.data", "text\tlabel\n" + TEN.replace(",", "\t"), "messages.data.tsv"),
        ("messages.csv", "text\tlabel\n" + TEN.replace(",", "\t"), "messages.tsv"),
        ("messages.txt", "text,label\n" + TEN, "messages.csv"),
        ("messages.csv", "".join(f"ham\tone, {i}\nspam\ttwo, three, {i}\n" for i in range(5)), "messages.tsv"),
        ("messages.csv", '{"text": "a, b", "label": "x"}\n{"text": "b", "label": "y"}\n' * 5, "messages.jsonl"),
        ("messages.json", '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n' * 5, "messages.json.jsonl"),
    ],
)
def test_a_name_that_is_not_that_of_its_kind(write: Write, name: str, content: str, wanted: str) -> None:
    path = write(name, content)
    found = seen(path)
    assert options_of(found)["name"] == f"--data.path {path.with_name(wanted)}"
    assert found.needed_name == str(path.with_name(wanted))
    path.rename(found.needed_name)
    read(replace(found.options, path=found.needed_name))


def test_semicolons(write: Write) -> None:
    found = seen(write("a.csv", "text;label\n" + TEN.replace(",", ";")))
    assert list(rows_of(found)) == ["separator"]
    assert (found.columns, len(found.rows.texts)) == (["text", "label"], 10)


def test_semicolons_where_the_first_line_has_a_comma(write: Write) -> None:
    rows = "".join(f"ham;Go until, and on, {i}\nspam;Win, {i}\nham;{i}\n" for i in range(5))
    found = seen(write("a.csv", rows))
    assert list(rows_of(found)) == ["separator", "columns"]
    assert (found.rows.texts[0], found.rows.labels[:2]) == ("Go until, and on, 0", ["ham", "spam"])


def test_other_separators_within_texts_change_nothing(write: Write) -> None:
    path = write("a.csv", "review,sentiment\n" + "".join(f'"a; b\t; {i}",{"xy"[i % 2]}\n' for i in range(12)))
    found = seen(path)
    assert list(rows_of(found)) == ["columns"]
    read(found.options)


def test_a_name_that_is_free(write: Write) -> None:
    # The printed `cp` would overwrite what is there.
    path = write("messages.txt", "text,label\n" + TEN)
    for taken, wanted in (("messages.csv", "messages_1.csv"), ("messages_1.csv", "messages_2.csv")):
        write(taken, "mine")
        assert seen(path).needed_name == str(path.with_name(wanted))


def test_what_follows_from_a_malformed_row_is_no_finding(write: Write) -> None:
    # All of y, and most of x, are behind the quote that is never closed.
    found = seen(write("a.csv", "text,label\na,x\nb,x\n" + 'c,y\n"d,y\n' + TEN))
    assert rows_of(found) == {"malformed": [5]}
    assert found.rows.labels == ["x", "x", "y"]
    assert rows_of(seen(write("a.csv", 'text,label\na,x\n"b,y\n'))) == {"malformed": [3]}


def test_a_label_that_ends_with_a_control_character(write: Write) -> None:
    # A run would be trained to its end, and its checkpoint refused.
    lines = [json.dumps({"text": f"a{i}", "label": ["x", "y\n", "\tz"][i % 3]}) for i in range(12)]
    found = seen(write("a.jsonl", "\n".join(lines)))
    assert [finding.rows for finding in found.findings if finding.kind == "control"] == [[2, 3, 5, 6, 8, 9, 11, 12]]
    with pytest.raises(UserError, match=r"the label of row 2 has a line break or another control character: 'y\\n'"):
        read(found.options)


def test_utf_16(write: Write) -> None:
    found = seen(write("a.csv", ("text,label\n" + TEN).encode("utf-16")))
    assert (found.encoding, list(rows_of(found)), len(found.rows.texts)) == ("UTF-16", ["encoding"], 10)


def test_values_of_a_kind_that_is_no_text(write: Write) -> None:
    lines = [json.dumps({"text": f"a{i}", "label": "xy"[i % 2]}) for i in range(8)]
    found = seen(write("a.jsonl", "\n".join([*lines, '{"text": ["b"], "label": "x"}', '{"text": "c", "label": {}}'])))
    assert [finding.rows for finding in found.findings if finding.kind == "nested"] == [[9], [10]]
    assert set(rows_of(found)) == {"nested"}  # and no word of empty texts
    assert found.rows.numbers == list(range(1, 9))


def test_one_label(write: Write) -> None:
    assert set(rows_of(seen(write("a.csv", "text,label\na,x\nb,x\nc,x\n")))) == {"one_label"}


def test_groups_count_once(write: Write) -> None:
    path = write("a.csv", "text,label\n" + TEN + "".join(f"win {i},rare\n" for i in range(4)))
    assert rows_of(seen(path)) == {}
    assert rows_of(seen(path, group_near_duplicates=True)) == {"few_texts": list(range(1, 15))}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "has no rows below its header"),
        ("a", b"words and\nno columns\n", "is of an unsupported format, by its name and by its content"),
        ("a.csv", b"text\na\nb\n", "has no column 'label' for the labels"),
        ("a.csv", b"\x7fELF" + bytes(range(32)) * 9, "is no text"),
        ("a.parquet", b"no such thing", "cannot be read as parquet"),
    ],
)
def test_what_cannot_be_looked_at(write: Write, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        seen(write(name, content))


def test_options_that_contradict_each_other(write: Write) -> None:
    with pytest.raises(UserError, match=r"data\.split names three files: leave data\.path"):
        seen(write("a.csv", TEN), split=("a.csv", "b.csv", "c.csv"))


def test_the_demo_messages() -> None:
    found = inspect(DataOptions(source="demo"))
    assert (found.n_rows, set(found.labels)) == (1000, {"ham", "spam"})
    assert rows_of(found) == {}


@pytest.mark.shared
def test_the_sms_collection_is_recognised(sms_file: Path) -> None:
    found = seen(sms_file)
    assert options_of(found) == {"source": "--data.source sms_spam"}
    assert (found.n_rows, found.labels) == (5574, {"ham": 4827, "spam": 747})
    assert found.options == DataOptions(path=str(sms_file), source="sms_spam")
    assert rows_of(seen(sms_file, source="sms_spam")) == {}
    published = seen(sms_file, split="ch06")
    assert (rows_of(published), published.n_rows) == ({}, 5572)
