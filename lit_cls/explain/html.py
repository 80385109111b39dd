"""How explained words are shown: their colours, what is left out of long ones, and the HTML page."""

import base64
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lit_cls.explain.attribution import Attribution, Word

LEVELS = 8
"""Shades of a colour."""
# The ends of ColorBrewer's RdBu, which people who do not see red and green apart tell apart.
_FOR = ((222, 235, 247), (33, 102, 172))
_AGAINST = ((253, 224, 210), (178, 24, 43))
_LONGEST_WORD = 200  # characters
_LONGEST_UNREAD = 40  # words on end

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Explained:
    """A text, the answer to it, and what each method says."""

    answer: str
    """In a line, with the probability."""
    lines: tuple[str, ...]
    """What there is to know besides: the rule, the cut."""
    methods: dict[str, tuple[str, Attribution]]
    """By the method's name in words: what the figures add up to, in a line, and they themselves."""


def largest(words: Sequence[Word]) -> float:
    """The figure that has the deepest colour."""
    return max((abs(word.score) for word in words if word.score is not None), default=0.0)


def level(score: float, deepest: float) -> int:
    """The shade, from -`LEVELS` to `LEVELS`; 0 is no colour."""
    return round(LEVELS * score / deepest) if deepest else 0


def colours(shade: int) -> tuple[Colour, Colour]:
    """Background of a shade that is not 0, and the text on it: black or white, whichever is read better.

    Either way the contrast is at least 4.5, the least of WCAG 2.1 for text.
    """
    light, strong = _FOR if shade > 0 else _AGAINST
    share = (abs(shade) - 1) / (LEVELS - 1)
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(light, strong, strict=True))
    is_light = _luminance((red, green, blue)) > 0.179
    return (red, green, blue), ((0, 0, 0) if is_light else (255, 255, 255))


def _luminance(colour: Colour) -> float:
    """Relative luminance of WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def figure(score: float) -> str:
    """A score with its sign."""
    return f"{round(score, 3) + 0.0:+.3f}"


def shown_words(words: Sequence[Word]) -> list[Word]:
    """Words as they can be shown: control characters replaced, what is very long abridged, unread ones as one."""
    found: list[Word] = []
    unread: list[str] = []
    for word in [*words, Word("", 0.0)]:
        if word.score is None:
            unread.append(word.text)
            continue
        if unread:
            found.append(Word(_abridged(unread), None))
            unread = []
        found.append(Word(_visible(word.text), word.score))
    return found[:-1]


def _abridged(words: list[str]) -> str:
    left_out = len(words) - _LONGEST_UNREAD
    if left_out <= 0:
        return "".join(map(_visible, words))
    half = _LONGEST_UNREAD // 2
    head, tail = ("".join(map(_visible, part)) for part in (words[:half], words[-half:]))
    return f"{head} … {left_out:,} words … {tail.lstrip()}"


def _visible(text: str) -> str:
    if len(text) > _LONGEST_WORD:
        text = f"{text[: _LONGEST_WORD // 2]}…{text[-_LONGEST_WORD // 2 :]}"
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    is_shown = ("\n", "\t")
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) == "Cc" and c not in is_shown else c for c in text
    )


def page(explained: Sequence[Explained], checkpoint: str, cut_to: int) -> str:
    """The whole page: no script, nothing from elsewhere, and a policy that forbids both.

    Args:
        explained: the texts.
        checkpoint: what explained them.
        cut_to: tokens that are read of a text.
    """
    style = _style()
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    swatches = "".join(f'<span class="{_class(shade)}">&nbsp;</span>' for shade in range(-LEVELS, LEVELS + 1) if shade)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{sha256}'\">",
        '<meta name="viewport" content="width=device-width">\n<title>lit_cls explain</title>',
        f"<style>{style}</style>\n</head>\n<body>\n<h1>Which words the answers rest on</h1>",
        f"<p>{escape(checkpoint)}</p>",
        f'<p class="legend">against the label {swatches} for it · <span class="unread">not read (cut at {cut_to:,} '
        "tokens)</span> · figures are changes of the log-odds: in a word's tooltip, and below each text</p>",
    ]
    for number, one in enumerate(explained, start=1):
        parts.append(f"<section>\n<h2>{number}. {escape(one.answer)}</h2>")
        parts += [f"<p>{escape(line)}</p>" for line in one.lines]
        for method, (sums, attribution) in one.methods.items():
            words = shown_words(attribution.words)
            scale = f"; deepest colour {largest(words):.3f}" if words else ""
            parts.append(f"<h3>{escape(method)}</h3>\n<p>{escape(sums)}{scale}</p>")
            parts.append(f'<div class="text" dir="auto">{_coloured(words, cut_to)}</div>')
        parts.append(f"{_table(one)}\n</section>")
    return "\n".join([*parts, "</body>\n</html>\n"])


def _coloured(words: Sequence[Word], cut_to: int) -> str:
    deepest = largest(words)
    found = []
    for word in words:
        text = word.text.lstrip()
        before = word.text[: len(word.text) - len(text)]
        if word.score is None:
            attributes = f'class="unread" title="not read (cut at {cut_to:,} tokens)"'
        else:
            shade = level(word.score, deepest)
            attributes = f'class="{_class(shade)}" title="{figure(word.score)}"'
        found.append(f"{escape(before)}<span {attributes}>{escape(text)}</span>")
    return "".join(found)


def _class(shade: int) -> str:
    return f"for{shade}" if shade > 0 else f"against{-shade}" if shade else "none"


def _table(one: Explained) -> str:
    rows = ["".join(f"<th>{escape(method)}</th>" for method in one.methods) + "<th>word</th>"]
    for alike in zip(*(shown_words(attribution.words) for _, attribution in one.methods.values()), strict=True):
        cells = ("not read" if word.score is None else figure(word.score) for word in alike)
        rows.append("".join(f"<td>{cell}</td>" for cell in cells) + f"<td>{escape(alike[0].text.strip())}</td>")
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<details><summary>figures</summary>\n<table>\n{body}\n</table>\n</details>"


def _style() -> str:
    lines = [
        ":root{color-scheme:light dark}",
        "body{font:16px/1.7 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;overflow-wrap:anywhere}",
        ".text{white-space:pre-wrap;border-left:3px solid gray;padding-left:1em}",
        ".unread{opacity:.6;font-style:italic}",
        "td,th{text-align:right;padding:0 1em 0 0}td:last-child,th:last-child{text-align:left;white-space:pre-wrap}",
        "[class^=for],[class^=against]{border-radius:3px;padding:0 2px}",
        "[class^=against]{text-decoration:underline dotted}",  # not by its colour alone
    ]
    for shade in range(-LEVELS, LEVELS + 1):
        if shade:
            background, text = ("#" + bytes(colour).hex() for colour in colours(shade))
            lines.append(f".{_class(shade)}{{background:{background};color:{text}}}")
    return "\n".join(lines)
