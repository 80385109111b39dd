"""report.md: a report in GitHub's Markdown."""

import re
from collections.abc import Mapping
from typing import Any

from lit_cls.report.sections import Block, Heading, Image, Paragraph, Table, outline

# All that Markdown or HTML could read as more than itself, and what GitHub makes links of.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_NO_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # beside white space: what HTML has none for
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
            line = re.sub(r"^([#+=-])", r"\\\1", escaped(text))
            return f"**{line}**" if warning else line
        case Image(file, title):
            return f"![{escaped(title)}]({file})"
    return _table(block)


def _table(table: Table) -> str:
    rule = ["---" if i < table.left else "---:" for i in range(len(table.columns))]
    rows = [[escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def escaped(text: str) -> str:
    """On one line, and as it is: nothing in it is markup, a link or the end of a cell."""
    line = " ".join(_NO_CHARACTER.sub("�", text).split())
    line = _SPECIAL.sub(r"\\\g<0>", line.translate(_ENTITIES)).replace("://", "&#58;//")
    line = re.sub(r":(?=[a-z0-9_+-]+:)", "&#58;", line)  # GitHub's :emoji:
    return re.sub(r"\b(www)\.", r"\1&#46;", line, flags=re.IGNORECASE)
