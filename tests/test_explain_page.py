"""What is shown of explained words: readable colours, long texts abridged, a page that is complete in itself."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from lit_cls.explain.attribution import Attribution
from lit_cls.explain.html import LEVELS, Explanation, colours, displayed_words, explanation_page, shade_of, signed
from lit_cls.explain.words import Word


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Of WCAG 2.1, from 1 to 21."""

    def luminance(colour: tuple[int, int, int]) -> float:
        r, g, b = (c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def test_every_shade_is_readable_and_different() -> None:
    shades = [shade for shade in range(-LEVELS, LEVELS + 1) if shade]
    for shade in shades:
        background, text = map(rgb, colours(shade))
        assert contrast(background, text) >= 4.5
        assert (background[2] > background[0]) is (shade > 0)  # blue for, red against
    assert len({colours(shade)[0] for shade in shades}) == 2 * LEVELS
    depth = [contrast(rgb(colours(shade)[0]), (255, 255, 255)) for shade in range(1, LEVELS + 1)]
    assert depth == sorted(depth)


def test_shades_and_figures() -> None:
    assert [shade_of(score, 2.0) for score in (2.0, -2.0, 1.0, 0.1, -0.1, 0.0)] == [8, -8, 4, 0, 0, 0]
    assert shade_of(0.0, 0.0) == 0
    assert [signed(score) for score in (0.5, -0.5, -0.0001)] == ["+0.500", "-0.500", "+0.000"]


def test_what_cannot_be_shown_is_replaced_and_what_is_long_abridged() -> None:
    [word] = displayed_words([Word("a\x1b[2J\0b\r\nc\td", 1.0)])
    assert word.text == "a\ufffd[2J\ufffdb\nc\td"
    [word] = displayed_words([Word("x" * 150 + "y" * 150, None)])
    assert word.text == "x" * 100 + "…" + "y" * 100
    unread = [Word(f" {i}", None) for i in range(1000)]
    first, middle, last = displayed_words([Word("read", 1.0), *unread, Word(" read", 0.5)])
    assert (first.score, middle.score, last.score) == (1.0, None, 0.5)
    assert middle.text.startswith(" 0 1 2")
    assert middle.text.endswith(" 997 998 999")
    assert " 19 … 960 words … 980 " in middle.text
    assert [word.text for word in displayed_words(unread[:40])] == ["".join(word.text for word in unread[:40])]
    assert displayed_words([]) == []


class Reader(HTMLParser):
    """The text of the coloured parts, the tags, and the titles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "div":
            self.depth += 1
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "div"

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.texts[-1] += data


HOSTILE = ['<script src="https://x.example/a.js">', " </div>&amp;", "\n\n'\" onclick=alert(1)", "  <!--", " ]]>🙂"]


@pytest.fixture
def hostile() -> str:
    scores = (0.5, -1.0, 0.0, None, 0.25)
    words = tuple(Word(text, score) for text, score in zip(HOSTILE, scores, strict=True))
    one = Attribution("<b>spam</b>", 1.0, words)
    return explanation_page([Explanation("<i>spam</i>", ("<u>",), {"<a>": ("<s>", one)})], "<em>.ckpt", 12)


def test_whatever_the_text_it_stays_text(hostile: str) -> None:
    reader = Reader()
    reader.feed(hostile)
    assert reader.texts == ["".join(HOSTILE)]
    ours = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "span", "section", "div"}
    assert {tag for tag, _ in reader.tags} == ours | {"details", "summary", "table", "thead", "tbody", "tr", "th", "td"}
    titles = [attributes["title"] for tag, attributes in reader.tags if "title" in attributes]
    assert titles == ["+0.500", "-1.000", "+0.000", "not read (truncated at 12 tokens)", "+0.250"]
    classes = [attributes["class"] for _, attributes in reader.tags if "title" in attributes]
    assert classes == ["for4", "against8", "none", "unread", "for2"]


def test_the_page_needs_nothing_and_lets_nothing_in(hostile: str) -> None:
    reader = Reader()
    reader.feed(hostile)
    names = {name for _, attributes in reader.tags for name in attributes}
    assert names == {"lang", "charset", "http-equiv", "content", "name", "class", "title", "dir"}
    [policy] = [a["content"] for _, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    style = re.search("<style>(.*)</style>", hostile, re.DOTALL)
    assert style is not None
    sha256 = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{sha256}'"
    assert "url(" not in style[1]
    assert "@import" not in style[1]
