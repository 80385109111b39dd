"""Guesses about a file: its kind, its columns, and what is no text at all."""

import gzip
import io
import random
import tempfile
import zipfile
from pathlib import Path

import pytest

from lit_cls.data.formats import Format
from lit_cls.data.reader import Table, open_file
from lit_cls.data.sniff import SniffedColumns, refuse_binary, sniff_columns, sniff_format, sniff_separator
from lit_cls.errors import UserError

FILE = Path("some")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("ham\tone, two\nspam\tthree\n", "tsv"),
        ("text,label\none,x\n", "csv"),
        ('{"text": "one, two", "label": "x"}\n', "jsonl"),
        ("PAR1...", "parquet"),
        ("only words\nand more\n", None),
        ("{no json\nat all", None),
    ],
)
def test_kinds(content: str, kind: Format | None) -> None:
    assert sniff_format(content.encode(), FILE) == kind


def test_a_line_without_a_tab_does_not_decide() -> None:
    assert sniff_format(("ham\tone, two\n" * 40 + "glued\n").encode(), FILE) == "tsv"


def test_a_truncated_sample_ends_no_character_in_the_middle() -> None:
    content = ("é" * 100 + "\tx\n").encode() * 1000
    refuse_binary(content, FILE)
    assert sniff_format(content, FILE) == "tsv"
    refuse_binary("é".encode() * 100_000, FILE)  # without any line end


def test_a_json_list() -> None:
    with pytest.raises(UserError, match=r"some is one JSON list: write each of its objects on a line of its own"):
        sniff_format(b' [\n {"text": "a", "label": "x"}]', FILE)


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "printed"),
    [
        (zipped(), "a spreadsheet or a zip archive"),
        (gzip.compress(b"text,label", mtime=0), r"compressed \(gzip\)"),
        (b"%PDF-1.7 ...", "a PDF"),
        (random.Random(1).randbytes(5000), "no text"),
        (b"\x7fELF" + bytes(range(32)) * 20, "no text"),
        (bytes(500), "no text"),
    ],
    ids=["zip", "gzip", "PDF", "random", "ELF", "zeros"],  # an archive has the time at which it was written
)
def test_what_is_no_text(content: bytes, printed: str) -> None:
    with pytest.raises(UserError, match=rf"^some is {printed}"):
        refuse_binary(content, FILE)


@pytest.mark.parametrize("text", ["text,label\na,x\n", "نص 中文 🙂\tx", "a\0b,x\n" + "long " * 100, "one\ftwo\x0b"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_is_text(text: str, encoding: str) -> None:
    assert refuse_binary(text.encode(encoding), FILE) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("lines", "separator"),
    [
        (["text;label", "one, two;x", "three;y"], ";"),
        (["ham;Go until, and, on", "spam;Win, now", "ham;Well"], ";"),
        (["a|b|c", "1|one, two|x", "2|three|y"], "|"),
        (["ham\tGo until, and, on", "spam\tWin, now"], "\t"),
        (["review,sentiment", '"one; two, three",x', "four; five; six,y"], ","),
        (["a,b;c", "d,e;f"], ","),  # as good as the other
        (["only words", "and; more", "and more"], ","),
    ],
)
def test_the_separator_that_gives_rows_as_many_fields(lines: list[str], separator: str) -> None:
    assert sniff_separator("\n".join(lines).encode(), FILE) == separator


def table(*lines: str, header: bool = True) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "some.csv"
        file.write_text("\n".join(lines), encoding="utf-8")
        return open_file(file, "csv", header, hold=True)


def test_few_short_values_are_labels() -> None:
    rows = [f"{i},{'ham' if i % 3 else 'spam'},message number {i},en,,7" for i in range(30)]
    found = sniff_columns(table("id,kind,body,language,empty,version", *rows), None, None)
    assert found == SniffedColumns(text=2, label=1, header=True)


def test_a_first_line_that_is_a_row() -> None:
    # Its first field is a label of other rows.
    rows = [f"{'ham' if i % 3 else 'spam'},message number {i}" for i in range(30)]
    assert sniff_columns(table(*rows), None, None) == SniffedColumns(text=1, label=0, header=False)
    assert sniff_columns(table(*rows, header=False), None, None) == SniffedColumns(text=1, label=0, header=False)


def test_a_column_that_is_known_stays() -> None:
    rows = [f"{i},{'ham' if i % 3 else 'spam'},message number {i}" for i in range(30)]
    assert sniff_columns(table("id,kind,body", *rows), 0, None) == SniffedColumns(0, 1, True)
    assert sniff_columns(table("id,kind,body", *rows), None, 2) == SniffedColumns(1, 2, True)


def test_names_in_another_case() -> None:
    rows = [f"{i % 2},{'ham' if i % 3 else 'spam'},message number {i}" for i in range(30)]
    assert sniff_columns(table("fold,Label ,TEXT", *rows), None, None) == SniffedColumns(2, 1, True)


@pytest.mark.parametrize("lines", [("text", "a", "b"), ("a,b", "x,", "y,")])
def test_one_column_is_too_few(lines: tuple[str, ...]) -> None:
    assert sniff_columns(table(*lines), None, None) is None


def test_one_row() -> None:
    assert sniff_columns(table("a,b", "x,a longer text"), None, None) == SniffedColumns(1, 0, True)
