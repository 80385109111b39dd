"""report.md, read back by another program."""

import re
from pathlib import Path

import pytest
from made_reports import HARD_LABELS, HARD_TEXTS, hard_file, made_report, markdown_page

from lit_cls.data.datamodule import ClassificationData
from lit_cls.report.pages import escape_markdown, render_markdown


@pytest.mark.parametrize("text", [*HARD_TEXTS, *HARD_LABELS, "_a_ b_c", "| --- |", "`", "\\", "\\|", "a ![b](c)"])
def test_a_cell_is_read_as_what_it_was(text: str) -> None:
    page = markdown_page(f"| column |\n| --- |\n| {escape_markdown(text)} |\n")
    [[_, [cell]]] = page.cells()
    assert cell == " ".join(re.sub(r"[\x00\x07]", "\ufffd", text).split())
    assert {tag for tag, _ in page.tags} == {"table", "thead", "tbody", "tr", "th", "td"}


def test_nothing_becomes_a_link_of_itself() -> None:
    line = escape_markdown("see https://example.com/a, WWW.example.com or you@example.com")
    assert "://" not in line
    assert "www." not in line.lower()
    assert "@" not in line
    assert "see https://example.com/a, WWW.example.com or you@example.com" in "".join(markdown_page(line).text)


@pytest.mark.plots
def test_a_whole_report(tmp_path: Path) -> None:
    data = ClassificationData(path=hard_file(tmp_path), max_length=64)
    content = made_report(tmp_path, data)
    written = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert written == render_markdown(content)
    page = markdown_page(written)
    assert not {"script", "a", "em", "strong", "code", "del"}.intersection(tag for tag, _ in page.tags)
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert pictures == ["confusion.svg", "reliability.svg", "curves.svg", "learning.svg"]
    assert all((tmp_path / "report" / str(name)).exists() for name in pictures)
    assert sum(tag == "h2" for tag, _ in page.tags) == 7
    assert len(page.cells()) == written.count("\n| ---") > 8
