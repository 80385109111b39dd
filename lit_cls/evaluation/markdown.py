"""report.md: a report in GitHub's Markdown."""

import re
from collections.abc import Mapping
from typing import Any

from lit_cls.evaluation.outline import Block, Heading, Image, Paragraph, Table, outline

# All that Markdown or HTML could read as more than itself, and what GitHub makes links of.
_SPECIAL = re.compile(r"[\\`*_\[\]|~$]|^[#+=-]")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"})


def render_markdown(content: Mapping[str, Any]) -> str:
    """The report as text.

    Args:
        content: of report.json.
    """
    return "\n\n".join(_block(block) for block in outline(content)) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escaped(text)}"
        case Paragraph(text, warning):
            return f"**{escaped(text)}**" if warning else escaped(text)
        case Image(file, title):
            return f"![{escaped(title)}]({file})"
    return _table(block)


def _table(table: Table) -> str:
    rule = ["---" if i < table.left else "---:" for i in range(len(table.columns))]
    rows = [[escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def escaped(text: str) -> str:
    """On one line, and as it is: nothing in it is markup, a link or the end of a cell."""
    line = " ".join(re.sub(r"[^\S ]+|[\x00-\x1f\x7f]", " ", text).split(" "))
    line = _SPECIAL.sub(r"\\\g<0>", line.translate(_ENTITIES)).replace("://", "&#58;//")
    return re.sub(r"\b(www)\.", r"\1&#46;", line, flags=re.IGNORECASE)
