"""Rows of texts and labels, from files and pipes: which columns are read, what is wrong, what a held table collects."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_cls.data.formats import ColumnChoice, format_of
from lit_cls.data.reader import TextTable, open_file, open_pipe, table_of_texts
from lit_cls.errors import UserError

ANY = ColumnChoice(text_named=False, label_named=False)
"""No column was named."""


def named(text: str | None = None, label: str | None = None) -> ColumnChoice:
    """The columns that a user named."""
    return ColumnChoice((text or "text",), (label or "label",), True, text is not None, label is not None)


def file_of(content: str | bytes, path: Path) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def from_file(path: Path, choice: ColumnChoice = ANY, format: Any = None, hold: bool = False) -> TextTable:
    return open_file(path, format or format_of(path), choice.header, hold).select(choice)


def noted_pipe(content: str, format: Any, choice: ColumnChoice) -> tuple[TextTable, list[str]]:
    """A pipe that has been written and closed."""
    reader, writer = os.pipe()
    os.write(writer, content.encode())
    os.close(writer)
    table, notes = open_pipe(reader, format, choice)
    return table.select(ANY if table.format == "text" else choice), notes


def from_pipe(content: str, format: Any = None, choice: ColumnChoice = ANY) -> TextTable:
    return noted_pipe(content, format, choice)[0]


def read(rows: TextTable) -> list[tuple[str | None, str | None]]:
    return [(row.text, row.label) for row in rows.rows()]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "jsonl", "ndjson", "parquet"])
def test_a_file_of_any_format_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    rows = [("good film", "yes"), ("", "no"), ("poor ümlaut", "no")]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {"id": [0, 1, 2], "text": [t for t, _ in rows], "label": [label for _, label in rows]}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif suffix in ("jsonl", "ndjson"):
        lines = [json.dumps({"id": i, "text": t, "label": label}) for i, (t, label) in enumerate(rows)]
        file_of("\n".join(lines), path)
    else:
        between = "," if suffix == "csv" else "\t"
        lines = [between.join(("id", "text", "label")), *(between.join((str(i), *row)) for i, row in enumerate(rows))]
        file_of("\n".join(lines), path)
    stream = from_file(path)
    assert (stream.table.columns, stream.label_column) == (["id", "text", "label"], "label")
    assert read(stream) == read(stream) == rows


def test_the_column_of_texts() -> None:
    content = "id,review,text,sentiment\n1,a,b,c\n"
    trained = replace(ANY, text=("review", "text"), label=("sentiment", "label"))
    for wanted, row in (
        (trained, ("a", "c")),
        (ANY, ("b", None)),
        (named("2", "id"), ("b", "1")),
        (
            replace(named("review"), label=("review",)),
            ("a", None),
        ),  # a column of texts is none of labels
        (replace(ANY, text=("gone", "text"), label=("gone", "label")), ("b", None)),
    ):
        assert read(from_pipe(content, "csv", wanted)) == [row]
    refused = {
        "no column 'gone' for the texts; its columns are 'id', 'review', 'text', 'sentiment'": named("gone"),
        "no column 'gone' for the labels": named(None, "gone"),
        "column 'text' is named for both texts and labels": named("text", "2"),
        "no column 'body' for the texts": replace(ANY, text=("message", "body")),
    }
    for message, wanted in refused.items():
        with pytest.raises(UserError, match=message):
            from_pipe(content, "csv", wanted)
    with pytest.raises(UserError, match="has 2 columns named 'text': give data.text_column by number"):
        from_pipe("text,text\na,b\n", "csv")


def test_a_usual_number_is_of_columns_without_names() -> None:
    trained = replace(ANY, text=("1", "text"), label=("0", "label"), header=False)
    stream = from_pipe('{"text": "good film", "label": "yes"}\n', "jsonl", trained)
    assert (stream.text_column, stream.label_column, read(stream)) == ("text", "label", [("good film", "yes")])
    with pytest.raises(UserError, match="no column 'text' for the texts; its columns are 'id', 'body'"):
        from_pipe('{"id": 1, "body": "good film"}\n', "jsonl", trained)
    assert from_pipe("yes\tgood film\n", "tsv", trained).text_column == "1"
    named = replace(ANY, text=("1", "text"))  # trained by number on columns with names
    assert from_pipe("id,body\n1,good film\n", "csv", named).text_column == "body"


def test_a_file_of_one_column_may_be_texts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its columns are 'one' \(one text a line: --input_format text\)"):
        from_file(file_of("one\ntwo\n", tmp_path / "a.txt"))


def test_nothing_through_a_pipe_has_the_columns_that_are_named() -> None:
    assert from_pipe("").table.format == "text"
    assert from_pipe("", None, named("body")).table.format == "jsonl"


def test_columns_without_names() -> None:
    wanted = replace(ANY, text=("1",), text_named=True, header=False)
    stream = from_pipe("ham\tsee you\nspam\twin\n", "tsv", wanted)
    assert (stream.table.columns, read(stream)) == (["0", "1"], [("see you", None), ("win", None)])
    with pytest.raises(
        UserError, match=r"its columns are '0', '1' \(data.header is false: columns are numbered from 0\)"
    ):
        from_pipe("ham\tsee you\n", "tsv", replace(ANY, header=False))


@pytest.mark.parametrize(
    ("content", "kind", "rows"),
    [
        ("a text\n\nanother, text\n", "text", ["a text", "", "another, text"]),
        ('{"text": "a", "n": 1}\n\n{"n": 2}\n', "jsonl", ["a", None]),
        ('{"body": "a"}\n', "text", ['{"body": "a"}']),
        ("{not json\nb\n", "text", ["{not json", "b"]),
        ("", "text", []),
        ("no end of line", "text", ["no end of line"]),
    ],
)
def test_what_a_pipe_holds_is_seen_by_its_first_line(content: str, kind: str, rows: list[str | None]) -> None:
    stream, [note] = noted_pipe(content, None, ANY)
    assert (stream.table.format, [text for text, _ in read(stream)]) == (kind, rows)
    assert note.startswith(f"standard input is read as {'JSON lines' if kind == 'jsonl' else 'texts, one a line'}")
    assert ("name the column of texts with --data.text_column" in note) == (content[:1] == "{" and kind == "text")
    assert from_pipe('{"body": "a"}\n', None, named("body")).table.format == "jsonl"


def test_numbers_are_texts_as_json_spells_them() -> None:
    lines = ['{"text": 1.50}', '{"text": true}', '{"text": null}', '{"text": "\\ud800"}', '{"text": NaN}']
    assert [text for text, _ in read(from_pipe("\n".join(lines)))] == ["1.5", "true", None, "\ufffd", None]
    with pytest.raises(UserError, match="standard input: the text of row 2 is a list, not a text or a number"):
        read(from_pipe('{"text": "a"}\n{"text": [1]}\n'))


def test_the_first_fault_of_a_file_is_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("ragged.csv", "text,label\na,b\nc\n", "row 2 has 1 field, not 2 like the first line. Quote texts"),
        ("bad.jsonl", '{"text": "a"}\n{"text": \n', "bad.jsonl: line 2 is not JSON"),
        ("list.jsonl", '{"text": "a"}\n{"text": {}}\n', "the text of row 2 is an object"),
        ("blank.jsonl", "\n\n", "blank.jsonl has no rows"),
        ("empty.csv", "", "empty.csv is empty"),
        ("lines.csv", "\n\n", "lines.csv has no rows"),
        ("wide.csv", "text,label\na,b\n".encode("utf-16"), "neither UTF-8|UTF-16"),
        ("bytes.csv", b"text\n\x81\xff\n", "neither UTF-8"),
    ):
        with pytest.raises(UserError, match=message):
            list(from_file(file_of(content, tmp_path / name)).rows())
    with pytest.raises(UserError, match="parquet is not read from a pipe"):
        from_pipe("", "parquet")
    for kind in ("csv", "tsv"):
        with pytest.raises(UserError, match="standard input is empty"):
            from_pipe("", kind)


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    stream = from_file(file_of("id,text\n", tmp_path / "a.csv"))
    assert (read(stream), list(stream.chunks())) == ([], [])


def test_windows_files(tmp_path: Path) -> None:
    marked = from_file(file_of(b"\xef\xbb\xbftext,label\r\ngood,yes\r\n", tmp_path / "a.csv"))
    assert (marked.table.columns, read(marked), marked.table.notes) == (["text", "label"], [("good", "yes")], [])
    western = from_file(file_of(b"text\tlabel\r\ncaf\xe9\tyes\r\n", tmp_path / "b.txt"))
    assert read(western) == [("café", "yes")]
    [note] = western.table.notes
    assert "b.txt is not UTF-8 (line 2, byte 15): read as cp1252" in note.message


def test_a_file_of_plain_texts(tmp_path: Path) -> None:
    stream = from_file(file_of("one\ntwo, three\n\n", tmp_path / "a.txt"), format="text")
    assert stream.table.columns == ["text"]
    assert [text for text, _ in read(stream)] == ["one", "two, three", ""]


def test_chunks_are_small_at_first_and_bounded() -> None:
    stream = table_of_texts([f"text {i}" for i in range(5000)]).select(ANY)
    sizes = [len(rows) for rows in stream.chunks()]
    assert sizes[:8] == [16, 32, 64, 128, 256, 512, 1024, 1024]
    assert sum(sizes) == 5000
    long = table_of_texts(["x" * 400_000] * 7).select(ANY)
    assert [len(rows) for rows in long.chunks()] == [3, 3, 1]
    assert [row.text for rows in stream.chunks() for row in rows] == [f"text {i}" for i in range(5000)]


def test_a_pipe_that_says_no_more_is_handled() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"one\ntwo\nthree and a ha")
    coming = open_pipe(reader, None, ANY)[0].select(ANY).chunks()
    assert [row.text for row in next(coming)] == ["one", "two"]
    os.write(writer, b"lf\n")
    assert [row.text for row in next(coming)] == ["three and a half"]
    os.close(writer)
    assert list(coming) == []
    os.close(reader)


def test_a_label_that_comes_later() -> None:
    rows = [{"text": "a"}, {"text": "b", "label": "yes"}, {"text": "c", "label": None}]
    stream = from_pipe("\n".join(map(json.dumps, rows)))
    assert stream.label_column is None
    assert read(stream) == [("a", None), ("b", "yes"), ("c", None)]
    assert read(from_pipe('{"label": "a text"}\n', "jsonl", named("label"))) == [("a text", None)]


# What a held table collects, for fit and `data check`.


def held(content: str | bytes, name: str, tmp_path: Path, header: bool = True) -> TextTable:
    choice = ColumnChoice() if header else ColumnChoice((0,), (1,), header=False)
    return from_file(file_of(content, tmp_path / name), choice, hold=True)


def test_every_bad_json_line_is_found(tmp_path: Path) -> None:
    lines = ['{"text": "a", "label": "x"}', "{bad", "[1]", "", '{"text": "b", "label": "y"}', "also bad", "3"]
    rows = held("\n".join(lines), "some.jsonl", tmp_path)
    assert read(rows) == [("a", "x"), ("b", "y")]
    found = rows.table.findings()
    assert [(finding.kind, finding.lines) for finding in found] == [("json", [2, 6]), ("object", [3, 7])]
    assert "some.jsonl: line 2 is not JSON: " in found[0].message
    assert found[0].message.endswith("; likewise 1 more (line 6)")


def test_without_a_good_line_the_first_bad_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1 is not JSON"):
        held("bad\nworse", "some.jsonl", tmp_path)


def test_rows_above_a_malformed_line_are_read(tmp_path: Path) -> None:
    rows = held('text,label\na,x\n"b\n",y\n"never closed,z\nc,z\n', "some.csv", tmp_path)
    assert [label for _, label in read(rows)] == ["x", "y"]
    [finding] = rows.table.findings()
    assert (finding.kind, finding.lines) == ("malformed", [5])
    assert finding.message.endswith("CSV (unexpected end of data); nothing after it is read")


def test_ragged_rows_are_found_and_left_out(tmp_path: Path) -> None:
    rows = held("text,label\na,x\nb\nc,y,z\nd,y\n", "some.csv", tmp_path)
    assert (read(rows), rows.table.n_rows) == ([("a", "x"), ("d", "y")], 4)
    [finding] = rows.table.findings()
    assert (finding.kind, finding.rows) == ("ragged", [2, 3])


def test_values_that_are_no_texts_are_found(tmp_path: Path) -> None:
    values = ["a", ["b"], None, 3, {"c": 1}, True]
    lines = [json.dumps({"text": value, "label": "x"}) for value in values]
    rows = held("\n".join([*lines, '{"text": "b", "label": []}']), "some.jsonl", tmp_path)
    assert [row.number for row in rows.rows()] == [1, 3, 4, 6]
    texts, labels = rows.table.findings()
    assert texts.rows == [2, 5]
    assert texts.message.endswith("the text of row 2 is a list, not a text or a number; likewise 1 more (row 5)")
    assert labels.message.endswith("the label of row 7 is a list, not a text or a number")


def test_columns_of_json_lines_are_in_the_order_of_their_appearance(tmp_path: Path) -> None:
    records = [{"text": "one", "label": "x"}, {"label": "y", "text": "two", "more": 1}]
    table = held("\n".join(map(json.dumps, records)), "some.jsonl", tmp_path).table
    assert (table.columns, table.encoding, table.n_rows) == (["text", "label", "more"], "UTF-8", 2)


def test_a_header_may_turn_out_to_be_a_row(tmp_path: Path) -> None:
    table = held("text,label\na,x\nb,y\n", "some.csv", tmp_path).table
    assert (table.first(1), table.n_rows) == ([["a", "x"]], 2)
    other = table.without_header()
    assert (other.columns, other.first(1), other.n_rows) == (["0", "1"], [["text", "label"]], 3)
    assert held("a,x\nb,y\n", "some.csv", tmp_path, header=False).table.first(5) == [["a", "x"], ["b", "y"]]


def test_a_parquet_column_that_has_no_values_in_python(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    dates = pyarrow.array([2**40], pyarrow.int64()).cast(pyarrow.timestamp("s"))  # beyond the year 9999
    table = pyarrow.table({"text": ["a"], "label": ["x"], "when": dates})
    pyarrow.parquet.write_table(table, tmp_path / "some.parquet")
    rows = from_file(tmp_path / "some.parquet", ColumnChoice(), hold=True)
    assert [(row.text, row.label) for row in rows.rows(all_fields=False)] == [("a", "x")]
    assert rows.table.findings() == []
    assert next(rows.rows()).fields == ("a", "x", None)
    assert "column 'when', of parquet's type timestamp" in rows.table.findings()[0].message
