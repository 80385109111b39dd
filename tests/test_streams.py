"""Rows to classify: which column is read, what is refused, and how many are held at once."""

import json
import os
from pathlib import Path

import pytest

from lit_cls.data.stream import TextStream, Wanted, chunks, given_texts, open_file, open_pipe
from lit_cls.errors import UserError


def file_of(content: str | bytes, path: Path) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pipe_of(content: str, kind: str | None = None, wanted: Wanted | None = None) -> TextStream:
    """A pipe that has been written and closed."""
    reader, writer = os.pipe()
    os.write(writer, content.encode())
    os.close(writer)
    return open_pipe(reader, kind, wanted or Wanted())  # type: ignore[arg-type]


def read(stream: TextStream) -> list[tuple[str | None, str | None]]:
    return [(row.text, row.label) for row in stream.rows()]


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
    stream = open_file(path, None, Wanted())
    assert (stream.columns, stream.label_column, stream.total) == (["id", "text", "label"], "label", 3)
    assert read(stream) == read(stream) == rows


def test_the_column_of_texts() -> None:
    content = "id,review,text,sentiment\n1,a,b,c\n"
    trained = Wanted(usual_texts=("review", "text"), usual_labels=("sentiment", "label"))
    for wanted, row in (
        (trained, ("a", "c")),
        (Wanted(), ("b", None)),
        (Wanted(text="2", label="id"), ("b", "1")),
        (Wanted(text="review", usual_labels=("review",)), ("a", None)),  # a column of texts is none of labels
        (Wanted(usual_texts=("gone", "text"), usual_labels=("gone", "label")), ("b", None)),
    ):
        assert read(pipe_of(content, "csv", wanted)) == [row]
    refused = {
        "no column 'gone' for the texts; its columns are 'id', 'review', 'text', 'sentiment'": Wanted(text="gone"),
        "no column 'gone' for the labels": Wanted(label="gone"),
        "column 'text' is named for both texts and labels": Wanted(text="text", label="2"),
        "no column 'body' for the texts": Wanted(usual_texts=("message", "body")),
    }
    for message, wanted in refused.items():
        with pytest.raises(UserError, match=message):
            pipe_of(content, "csv", wanted)
    with pytest.raises(UserError, match="has 2 columns named 'text': give data.text_column by number"):
        pipe_of("text,text\na,b\n", "csv")


def test_a_usual_number_is_of_columns_without_names() -> None:
    trained = Wanted(header=False, usual_texts=("1", "text"), usual_labels=("0", "label"))
    stream = pipe_of('{"text": "good film", "label": "yes"}\n', "jsonl", trained)
    assert (stream.text_column, stream.label_column, read(stream)) == ("text", "label", [("good film", "yes")])
    with pytest.raises(UserError, match="no column 'text' for the texts; its columns are 'id', 'body'"):
        pipe_of('{"id": 1, "body": "good film"}\n', "jsonl", trained)
    assert pipe_of("yes\tgood film\n", "tsv", trained).text_column == "1"
    named = Wanted(usual_texts=("1", "text"))  # trained by number on columns with names
    assert pipe_of("id,body\n1,good film\n", "csv", named).text_column == "body"


def test_a_file_of_one_column_may_be_texts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its columns are 'one' \(one text a line: --input_format text\)"):
        open_file(file_of("one\ntwo\n", tmp_path / "a.txt"), None, Wanted())


def test_nothing_through_a_pipe_has_the_columns_that_are_named() -> None:
    assert (pipe_of("").kind, pipe_of("", None, Wanted(text="body")).kind) == ("text", "jsonl")


def test_columns_without_names() -> None:
    wanted = Wanted(text="1", header=False)
    stream = pipe_of("ham\tsee you\nspam\twin\n", "tsv", wanted)
    assert (stream.columns, read(stream)) == (["0", "1"], [("see you", None), ("win", None)])
    with pytest.raises(
        UserError, match=r"its columns are '0', '1' \(data.header is false: columns are numbered from 0\)"
    ):
        pipe_of("ham\tsee you\n", "tsv", Wanted(header=False))


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
    stream = pipe_of(content)
    assert (stream.kind, [text for text, _ in read(stream)]) == (kind, rows)
    [note] = stream.notes
    assert note.startswith(f"standard input is read as {'JSON lines' if kind == 'jsonl' else 'texts, one a line'}")
    assert ("name the column of texts with --data.text_column" in note) == (content[:1] == "{" and kind == "text")
    assert pipe_of('{"body": "a"}\n', None, Wanted(text="body")).kind == "jsonl"


def test_numbers_are_texts_as_json_spells_them() -> None:
    lines = ['{"text": 1.50}', '{"text": true}', '{"text": null}', '{"text": "\\ud800"}', '{"text": NaN}']
    assert [text for text, _ in read(pipe_of("\n".join(lines)))] == ["1.5", "true", None, "\ufffd", None]
    with pytest.raises(UserError, match="standard input: the text of row 2 is a list, not a text or a number"):
        read(pipe_of('{"text": "a"}\n{"text": [1]}\n'))


def test_what_is_wrong_with_a_file_is_told_before_any_work(tmp_path: Path) -> None:
    for name, content, message in (
        (
            "ragged.csv",
            "text,label\na,b\nc\n",
            r"row 2 \(line 3\) has 1 fields, not 2 like the first line. Quote texts",
        ),
        ("bad.jsonl", '{"text": "a"}\n{"text": \n', "bad.jsonl: line 2 is not JSON"),
        ("list.jsonl", '{"text": "a"}\n{"text": {}}\n', "the text of row 2 is an object"),
        ("blank.jsonl", "\n\n", "blank.jsonl has no rows"),
        ("empty.csv", "", "empty.csv is empty"),
        ("lines.csv", "\n\n", "lines.csv is empty"),
        ("wide.csv", "text,label\na,b\n".encode("utf-16"), "neither UTF-8|UTF-16"),
        ("some.doc", "text", "is of no known kind"),
        ("bytes.csv", b"text\n\x81\xff\n", "neither UTF-8"),
    ):
        with pytest.raises(UserError, match=message):
            open_file(file_of(content, tmp_path / name), None, Wanted())
    with pytest.raises(UserError, match="there is no file"):
        open_file(tmp_path / "gone.csv", None, Wanted())
    with pytest.raises(UserError, match="is no regular file: a pipe is given as standard input"):
        open_file(tmp_path, None, Wanted())
    with pytest.raises(UserError, match="there is no file"):
        open_file(tmp_path / f"{'a' * 300}.csv", None, Wanted())
    with pytest.raises(UserError, match="parquet is not read from a pipe"):
        pipe_of("", "parquet")
    for kind in ("csv", "tsv"):
        with pytest.raises(UserError, match="standard input is empty"):
            pipe_of("", kind)


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    stream = open_file(file_of("id,text\n", tmp_path / "a.csv"), None, Wanted())
    assert (stream.total, read(stream), list(chunks(stream))) == (0, [], [])


def test_windows_files(tmp_path: Path) -> None:
    marked = open_file(file_of(b"\xef\xbb\xbftext,label\r\ngood,yes\r\n", tmp_path / "a.csv"), None, Wanted())
    assert (marked.columns, read(marked), marked.notes) == (["text", "label"], [("good", "yes")], [])
    western = open_file(file_of(b"text\tlabel\r\ncaf\xe9\tyes\r\n", tmp_path / "b.txt"), None, Wanted())
    assert read(western) == [("café", "yes")]
    [note] = western.notes
    assert "b.txt is not UTF-8 (line 2, byte 15): read as cp1252" in note


def test_a_file_of_plain_texts(tmp_path: Path) -> None:
    stream = open_file(file_of("one\ntwo, three\n\n", tmp_path / "a.txt"), "text", Wanted(text="ignored"))
    assert (stream.columns, stream.total) == (["text"], 3)
    assert [text for text, _ in read(stream)] == ["one", "two, three", ""]


def test_chunks_are_small_at_first_and_bounded() -> None:
    stream = given_texts([f"text {i}" for i in range(5000)])
    sizes = [len(rows) for rows in chunks(stream)]
    assert sizes[:8] == [16, 32, 64, 128, 256, 512, 1024, 1024]
    assert sum(sizes) == 5000
    long = given_texts(["x" * 400_000] * 7)
    assert [len(rows) for rows in chunks(long)] == [3, 3, 1]
    assert [row.text for rows in chunks(stream) for row in rows] == [f"text {i}" for i in range(5000)]


def test_a_pipe_that_says_no_more_is_answered() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"one\ntwo\nthree and a ha")
    coming = chunks(open_pipe(reader, None, Wanted()))
    assert [row.text for row in next(coming)] == ["one", "two"]
    os.write(writer, b"lf\n")
    assert [row.text for row in next(coming)] == ["three and a half"]
    os.close(writer)
    assert list(coming) == []
    os.close(reader)


def test_a_label_that_comes_later() -> None:
    rows = [{"text": "a"}, {"text": "b", "label": "yes"}, {"text": "c", "label": None}]
    stream = pipe_of("\n".join(map(json.dumps, rows)))
    assert stream.label_column is None
    assert read(stream) == [("a", None), ("b", "yes"), ("c", None)]
    assert read(pipe_of('{"label": "a text"}\n', "jsonl", Wanted(text="label"))) == [("a text", None)]
