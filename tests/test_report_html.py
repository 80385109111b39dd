"""report.html: one file, nothing from elsewhere, nothing that runs, the same figures as report.md."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from made_reports import HARD_LABELS, Page, hard_file, made_report, markdown_page

from lit_cls.data.datamodule import ClassificationData


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard")
    made_report(folder, ClassificationData(path=hard_file(folder), max_length=64))
    return folder / "report"


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_it_loads_and_runs_nothing(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form", "foreignobject")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value is not None
                assert value.startswith(("#", "data:image/png")), (tag, name, value)
            assert not re.search(r"url\((?!#)", value or ""), (tag, name, value)
    [policy] = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    style = page.text[next(i for i, text in enumerate(page.text) if "color-scheme" in text)]
    assert "@import" not in style
    assert "url(" not in style


def test_texts_and_labels_stand_there_as_they_are(page: Page) -> None:
    cells = {cell for table in page.cells() for row in table for cell in row}
    assert set(HARD_LABELS) <= cells
    assert any(cell.startswith("<script>alert('x')</script><img src=https://example.com/x.png") for cell in cells)
    assert any(re.search(r"wor?d?… \(1,00\d characters\)$", cell) for cell in cells)


def test_ids_are_unique_and_found(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 50
    wanted = set()
    for _, attributes in page.tags:
        for name, value in attributes.items():
            wanted.update(re.findall(r"url\(#([^)]+)\)", value or ""))
            if name == "href" and (value or "").startswith("#"):
                wanted.add(str(value)[1:])
    assert wanted
    assert wanted <= set(ids)


def test_its_tables_are_those_of_the_markdown(page: Page, folder: Path) -> None:
    assert page.cells() == markdown_page((folder / "report.md").read_text(encoding="utf-8")).cells()


def test_pictures_are_those_of_the_folder(page: Page, folder: Path) -> None:
    """Each file is whole XML; the page has as many drawings, with their words."""
    titles = [attributes["aria-label"] for tag, attributes in page.tags if tag == "figure"]
    assert len(titles) == 4
    words = "".join(page.text)
    for path in sorted(folder.glob("*.svg")):
        drawing = ET.parse(path).getroot()
        texts = [text for text in drawing.itertext() if text.strip()]
        assert texts
        assert all(text in words for text in texts)
    assert sum(tag == "svg" for tag, _ in page.tags) == len(list(folder.glob("*.svg"))) == 4


def test_every_tag_is_closed(folder: Path) -> None:
    """Without its doctype and void tags it is XML: nothing was left open or crossed."""
    page = (folder / "report.html").read_text(encoding="utf-8").removeprefix("<!doctype html>\n")
    assert ET.fromstring(re.sub(r"<meta ([^>]*)>", r"<meta \1/>", page)).tag == "html"
