"""Bytes to tables: what is wrong is found, all of it at once, and what can be read is read on."""

import json
from pathlib import Path

import pytest

from lit_cls.data.files import Finding, Findings, and_more, as_texts, decode, first_ten, read_table, refuse, rows_named
from lit_cls.errors import UserError

FILE = Path("some.csv")


def test_refuse_raises_the_first_that_refuses() -> None:
    notes = [Finding("a", "only a note", refuses=False)]
    refuse(notes)
    with pytest.raises(UserError, match=r"^the first$"):
        refuse([*notes, Finding("b", "the first"), Finding("c", "the second")])


@pytest.mark.parametrize(
    ("content", "text", "encoding", "refuses"),
    [
        (b"caf\xc3\xa9", "café", "UTF-8", []),
        (b"\xef\xbb\xbfa", "a", "UTF-8 with a byte order mark", []),
        (b"caf\xe9", "café", "cp1252", [False]),
        (b"caf\xe9\x81", "café\ufffd", "unknown", [True]),
        ("café".encode("utf-16"), "café", "UTF-16", [True]),
        ("café".encode("utf-16-le"), "café", "UTF-16-LE", [True]),
        ("café".encode("utf-16-be"), "café", "UTF-16-BE", [True]),
        ("café".encode("utf-32"), "café", "UTF-32", [True]),
    ],
)
def test_decoding_goes_on(content: bytes, text: str, encoding: str, refuses: list[bool]) -> None:
    found: Findings = []
    assert decode(content, FILE, found) == (text, encoding)
    assert [finding.refuses for finding in found] == refuses


def test_every_bad_json_line_is_found() -> None:
    lines = ['{"text": "a", "label": "x"}', "{bad", "[1]", "", '{"text": "b", "label": "y"}', "also bad", "3"]
    found: Findings = []
    table, _ = read_table("\n".join(lines).encode(), "jsonl", FILE, True, found)
    assert [(finding.kind, finding.lines) for finding in found] == [("json", [2, 6]), ("object", [3, 7])]
    assert found[0].message.startswith("some.csv: line 2 is not JSON: ")
    assert found[0].message.endswith("; likewise 1 more (line 6)")
    assert table.values(0, "text", found) == ["a", "b"]


def test_no_good_line_is_told_by_the_first_bad_one() -> None:
    with pytest.raises(UserError, match=r"line 1 is not JSON"):
        read_table(b"bad\nworse", "jsonl", FILE, True, [])


def test_rows_above_a_malformed_line_are_read() -> None:
    found: Findings = []
    table, _ = read_table(b'text,label\na,x\n"b\n",y\n"never closed,z\nc,z\n', "csv", FILE, True, found)
    assert table.values(1, "label", found) == ["x", "y"]
    assert [(finding.kind, finding.lines) for finding in found] == [("malformed", [5])]
    assert found[0].message.endswith("CSV (unexpected end of data); nothing behind it is looked at")


def test_ragged_rows_have_no_values() -> None:
    table, _ = read_table(b"text,label\na,x\nb\nc,y,z\nd,y\n", "csv", FILE, True, [])
    assert (table.ragged, table.first_ragged, table.n_rows) == ([2, 3], 1, 4)
    assert table.values(0, "text", []) == ["a", None, None, "d"]


def test_samples_are_the_first_values() -> None:
    table, _ = read_table(b"text,label\na,x\nb,y\nc,z\n", "csv", FILE, True, [])
    assert table.sample(0, 2) == ["a", "b"]
    table, _ = read_table(b"a,x\nb,y\nc,z\n", "csv", FILE, False, [])
    assert table.sample(1, 2) == ["x", "y"]
    table, _ = read_table(b'{"text": "a"}\n{"text": "b"}\n', "jsonl", FILE, True, [])
    assert table.sample(0, 1) == ["a"]


def test_values_that_are_no_texts() -> None:
    found: Findings = []
    values = ["a", ["b"], None, 3, {"c": 1}, float("nan"), True]
    assert as_texts(values, FILE, "text", found) == ["a", None, None, "3", None, None, "true"]
    assert [(finding.rows, finding.message) for finding in found] == [
        ([2, 5], "some.csv: the text of row 2 is a list, not a text or a number; likewise 1 more (row 5)")
    ]


def test_rows_in_words() -> None:
    assert rows_named([3]) == "row 3 has"
    assert rows_named([3, 5]) == "2 rows (row 3, 5) have"
    assert first_ten(list(range(1, 12))) == "row 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …"
    assert first_ten(list(range(1, 11))) == "row 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    assert and_more([4], "row") == ""
    assert and_more(list(range(1, 13)), "line") == "; likewise 11 more (line 2, 3, 4, 5, 6, 7, 8, 9, 10, …)"


def test_numbers_of_json_keys_follow_their_first_appearance() -> None:
    records = [{"text": "one", "label": "x"}, {"label": "y", "text": "two", "more": 1}]
    table, encoding = read_table("\n".join(map(json.dumps, records)).encode(), "jsonl", FILE, True, [])
    assert (table.names, encoding) == (["text", "label", "more"], "UTF-8")
    assert table.values(2, "label", []) == [None, "1"]
