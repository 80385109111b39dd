"""What data check prints: nothing that a text could disturb, and every line whole."""

import csv
from pathlib import Path

import pytest

from lit_cls.commands.data_report import Page, plain, print_report
from lit_cls.data.check import check
from lit_cls.data.options import DataOptions


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("short", "short"),
        ("two\nlines\tand \x07 a bell", "two lines and a bell"),
        ("a" * 40, "a" * 40),
        ("a" * 41, "a" * 39 + "…"),
        ("b" * 1000, "b" * 39 + "…"),
        (" " * 100 + "late", "…"),
        ("", ""),
    ],
)
def test_plain(text: str, line: str) -> None:
    assert plain(text) == line


def page_of(path: Path, rows: list[list[str]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text", "label"], *rows])
    print_report(check(DataOptions(path=str(path)), None, lambda doing, done, of: None), Page())
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def cells(lines: list[str], title: str) -> list[list[str]]:
    """The table below a title: its head and its rows."""
    below = lines[lines.index(title) + 1 :]
    return [line.split() for line in below[: below.index("")] if not line.startswith("─")]


def test_every_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"message {'abcdefghij'[i % 10] * (i // 10 + 1)}", "xxy"[i % 3]] for i in range(60)]
    lines = page_of(tmp_path / "a.csv", rows, capsys)
    assert lines[0] == f"{tmp_path / 'a.csv'}: 60 rows"
    assert lines[4] == "columns  text, label: texts from text, labels from label"
    assert cells(lines, "2 labels") == [
        ["label", "rows", "share"],
        ["x", "40", "66.7", "%"],
        ["y", "20", "33.3", "%"],
    ]
    assert cells(lines, "the split (default options)") == [
        ["split", "texts", "x", "y"],
        ["train", "28", "14", "14"],
        ["validation", "4", "2", "2"],
        ["test", "8", "4", "4"],
        ["left", "out", "20", "20", "0"],
    ]
    assert lines[-2:] == ["lit_cls fit would start as it is:", f"lit_cls fit --data.path {tmp_path / 'a.csv'}"]


def test_many_labels_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"message {chr(97 + i // 26) + chr(97 + i % 26)}", f"label {i // 5:02}"] for i in range(125)]
    lines = page_of(tmp_path / "a.csv", rows, capsys)
    table = cells(lines, "25 labels")
    assert len(table) == 22
    assert table[-1] == ["(5", "others)", "25", "20.0", "%"]
    assert cells(lines, "the split (default options)")[0] == ["split", "texts"]  # no column for each of 25


def test_markup_and_control_characters_of_a_file_are_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"[bold red]{'abcdefgh'[i]}[/] \x1b[31mred :smile:", "[b]x" if i % 2 else "y"] for i in range(8)]
    lines = page_of(tmp_path / "a.csv", rows, capsys)
    assert any("[bold red]a[/] [31mred :smile:" in line for line in lines)
    assert cells(lines, "2 labels")[2] == ["[b]x", "4", "50.0", "%"]
    assert "\x1b" not in "".join(lines)


def test_mistakes_of_the_file_come_before_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"message {'abcdefgh'[i]}", "xy"[i % 2]] for i in range(8)] + [["one", ""], ["two", "X"]]
    lines = page_of(tmp_path / "a.csv", rows, capsys)
    assert "refused  row 9 has no label. Label them or remove them" in lines
    assert lines.count("→ in the file") == 2
    assert lines[-2] == "lit_cls fit would refuse this. Correct the file (2 findings), then:"


def test_names_that_a_terminal_would_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a :smile: \x1b[31m.csv"
    lines = [
        ["bo\x1b[2Jdy", "ki\nnd"],
        *([f"message {'abcdefghij'[i % 10] * (i + 1)}", "xy"[i % 2]] for i in range(20)),
    ]
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(lines)
    print_report(check(DataOptions(path=str(path)), None, lambda doing, done, of: None), Page())
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.splitlines())
    assert f"{tmp_path}/a :smile: \\x1b[31m.csv: 20 rows\n" in printed
    options = r"--data.text_column $'bo\033[2Jdy' --data.label_column $'ki\012nd'"
    assert f"→ {options}\n" in printed
    assert printed.endswith(rf"  lit_cls fit --data.path $'{tmp_path}/a :smile: \033[31m.csv' {options}" + "\n")
