"""Display of explained words: colours, abridged texts, and the HTML page."""

import base64
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from lit_cls.explain.attribution import Attribution
from lit_cls.explain.words import Word
from lit_cls.io.templates import environment

LEVELS = 8
"""Number of shades of each colour."""
# The ends of ColorBrewer's RdBu, which people with red-green colour blindness can tell apart.
_FOR = ((222, 235, 247), (33, 102, 172))
_AGAINST = ((253, 224, 210), (178, 24, 43))
_MAX_WORD = 200  # characters
_MAX_UNREAD = 40  # consecutive words


@dataclass(frozen=True)
class Explanation:
    """A text's prediction and the attributions of each method."""

    prediction: str
    """Label and probability, in a line."""
    notes: tuple[str, ...]
    """Lines about the label, the decision rule and the truncation."""
    methods: dict[str, tuple[str, Attribution]]
    """By the method's name in words: a line about the sum of the scores, and the attribution."""


def largest(words: Sequence[Word]) -> float:
    """The largest absolute score, which has the deepest colour."""
    return max((abs(word.score) for word in words if word.score is not None), default=0.0)


def shade_of(score: float, deepest: float) -> int:
    """The shade, from -`LEVELS` to `LEVELS`; 0 is no colour."""
    return round(LEVELS * score / deepest) if deepest else 0


def colours(shade: int) -> tuple[str, str]:
    """Background of a shade that is not 0, and the text on it: black or white, whichever has more contrast.

    Either way the contrast is at least 4.5, the minimum of WCAG 2.1 for text.
    """
    light, strong = _FOR if shade > 0 else _AGAINST
    share = (abs(shade) - 1) / (LEVELS - 1)
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(light, strong, strict=True))
    is_light = _luminance((red, green, blue)) > 0.179
    return f"#{red:02x}{green:02x}{blue:02x}", "#000000" if is_light else "#ffffff"


def _luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance of WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def signed(score: float | None) -> str:
    """A score with its sign."""
    return "not read" if score is None else f"{round(score, 3) + 0.0:+.3f}"


def displayed_words(words: Sequence[Word]) -> list[Word]:
    """The words with control characters replaced, long ones abridged, and consecutive unread ones joined."""
    found: list[Word] = []
    for unread, group in groupby(words, key=lambda word: word.score is None):
        if unread:
            found.append(Word(_abridged([word.text for word in group]), None))
        else:
            found += [Word(_visible(word.text), word.score) for word in group]
    return found


def score_rows(explanation: Explanation) -> list[tuple[str, list[str]]]:
    """Each displayed word and its score by each method."""
    by_method = [displayed_words(attribution.words) for _, attribution in explanation.methods.values()]
    return [(same[0].text, [signed(word.score) for word in same]) for same in zip(*by_method, strict=True)]


def _abridged(words: list[str]) -> str:
    left_out = len(words) - _MAX_UNREAD
    if left_out <= 0:
        return "".join(map(_visible, words))
    half = _MAX_UNREAD // 2
    head, tail = ("".join(map(_visible, part)) for part in (words[:half], words[-half:]))
    return f"{head} … {left_out:,} words … {tail.lstrip()}"


def _visible(text: str) -> str:
    if len(text) > _MAX_WORD:
        text = f"{text[: _MAX_WORD // 2]}…{text[-_MAX_WORD // 2 :]}"
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join("�" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)


def explanation_page(explanations: Sequence[Explanation], checkpoint: str, max_length: int) -> str:
    """The whole page: no script, nothing from elsewhere, and a policy that forbids both."""
    pages = environment("lit_cls.explain", "lit_cls.report")
    functions = (colours, displayed_words, largest, score_rows, shade_of, signed, css_class)
    pages.globals.update({function.__name__: function for function in functions})
    pages.globals["shades"] = [shade for shade in range(-LEVELS, LEVELS + 1) if shade]
    style = pages.get_template("explanation.css").render()
    return pages.get_template("explanation.html").render(
        explanations=explanations,
        checkpoint=checkpoint,
        max_length=max_length,
        style=Markup(style),
        style_sha256=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def css_class(shade: int) -> str:
    """The class of a shade's words."""
    return f"for{shade}" if shade > 0 else f"against{-shade}" if shade else "none"
