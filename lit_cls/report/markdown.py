"""GitHub's Markdown: report.md, and tables for other pages."""

import re
from collections.abc import Mapping
from typing import Any

from lit_cls.report.blocks import Block, Heading, Image, Paragraph, Table
from lit_cls.report.sections import report_sections

# Everything that Markdown or HTML could read as markup, and what GitHub turns into links.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_NO_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # not allowed in HTML, beside white space
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"})


def render_markdown(content: Mapping[str, Any]) -> str:
    """report.md from the content of report.json."""
    return "\n\n".join(_render(block) for block in report_sections(content)) + "\n"


def _render(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escaped(text)}"
        case Paragraph(text, warning):
            line = re.sub(r"^([#+=-])", r"\\\1", escaped(text))
            return f"**{line}**" if warning else line
        case Image(file, title):
            return f"![{escaped(title)}]({file})"
    return markdown_table(block)


def markdown_table(table: Table) -> str:
    """The lines of a table, without a line break at the end."""
    rule = ["---" if i < table.left else "---:" for i in range(len(table.columns))]
    rows = [[escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def escaped(text: str) -> str:
    """The text on one line, without anything that is read as markup, a link or the end of a cell."""
    line = " ".join(_NO_CHARACTER.sub("�", text).split())
    line = _SPECIAL.sub(r"\\\g<0>", line.translate(_ENTITIES)).replace("://", "&#58;//")
    line = re.sub(r":(?=[a-z0-9_+-]+:)", "&#58;", line)  # GitHub's :emoji:
    return re.sub(r"\b(www)\.", r"\1&#46;", line, flags=re.IGNORECASE)
