"""The pages of a report, report.md and report.html, from the content of report.json and the package's templates."""

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from lit_cls.io.templates import environment
from lit_cls.report.numbers import count, decimal, interval, percent, small

# Everything that Markdown or HTML could read as markup, and what GitHub turns into links.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_NO_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # not allowed in HTML, beside white space
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"})


def render_markdown(content: Mapping[str, Any]) -> str:
    """report.md, in GitHub's Markdown."""
    page = _render("report.md.j2", content, lambda text: Markup(escape_markdown(text)))
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def render_html(content: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """report.html, one file that opens without a network, from the SVG of each plot by file name."""
    inline = {}
    for file, svg in plots.items():  # without what belongs to a file of its own
        bare = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg[svg.index("<svg") :])
        inline[file] = Markup(bare.replace("xlink:href=", "href="))
    return _render("report.html", {**content, "plots": inline}, visible)


def _render(template: str, content: Mapping[str, Any], write_text: Callable[[str], str]) -> str:
    pages = environment("lit_cls.report", finalize=lambda value: write_text(value) if type(value) is str else value)
    pages.filters.update(count=count, decimal=decimal, interval=interval, percent=percent, small=small)
    pages.filters.update(plain=_plain, shell=shlex.join, paragraph=_paragraph)
    pages.filters["renamed"] = lambda name, names: names.get(name, name)
    return pages.get_template(template).render(content, confusions=_confusions(content["figures"]))


def _confusions(figures: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    """The number of texts of each label and wrong prediction, the most frequent first."""
    names = [label["label"] for label in figures["labels"]]
    pairs = [
        (n, names[i], names[j]) for i, row in enumerate(figures["confusion"]) for j, n in enumerate(row) if i != j and n
    ]
    return sorted(pairs, key=lambda pair: -pair[0])


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def visible(text: str) -> str:
    """The text with characters that HTML does not allow shown as missing."""
    return _NO_CHARACTER.sub("�", re.sub(r"[\x0b\x0c\x1c-\x1f\x85]", " ", text))


def escape_markdown(text: str) -> str:
    """The text on one line, without anything that is read as markup, a link or the end of a cell."""
    line = " ".join(_NO_CHARACTER.sub("�", text).split())
    line = _SPECIAL.sub(r"\\\g<0>", line.translate(_ENTITIES)).replace("://", "&#58;//")
    line = re.sub(r":(?=[a-z0-9_+-]+:)", "&#58;", line)  # GitHub's :emoji:
    return re.sub(r"\b(www)\.", r"\1&#46;", line, flags=re.IGNORECASE)


def _paragraph(text: str) -> Markup:
    """A paragraph in Markdown, whose beginning is no heading, list or rule."""
    return Markup(re.sub(r"^([#+=-])", r"\\\1", escape_markdown(text)))
