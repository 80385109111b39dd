"""report.html: a report in one file that opens without a network, with its pictures inside."""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from lit_cls.report.sections import Block, Heading, Image, Paragraph, Table, outline

# Whatever a text may hold: the browser loads nothing and runs nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
:root { color-scheme: light dark; --line: #d8d8d8; --soft: #f4f4f4; --ink: #1b1b1b; --page: #fff; --warn: #a33b00; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d4147; --soft: #23262b; --ink: #e6e6e6; --page: #16181c; --warn: #ffae70; }
}
body { margin: 0 auto; max-width: 68rem; padding: 1rem; color: var(--ink); background: var(--page);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { background: var(--soft); font-weight: 600; overflow-wrap: normal; }
td { white-space: nowrap; }
.word { text-align: left; min-width: 5rem; }
td.word { white-space: pre-wrap; overflow-wrap: break-word; }
.warning { color: var(--warn); font-weight: 600; }
figure { margin: 1rem 0; padding: 0.5rem; background: #fff; border: 1px solid var(--line); box-sizing: border-box;
  width: fit-content; max-width: 100%; overflow-x: auto; }
figure svg { display: block; max-width: 100%; height: auto; }
"""


def render_html(content: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The report as one page.

    Args:
        content: of report.json.
        pictures: the SVG of each picture, by its file's name; ids differ between them.
    """
    body = "\n".join(_block(block, pictures) for block in outline(content))
    title = escape(f"{content['name']}: {content['split']} report")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block, pictures: Mapping[str, str]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_escaped(text)}</h{level}>"
        case Paragraph(text, warning):
            opening = '<p class="warning">' if warning else "<p>"
            return f"{opening}{_escaped(text)}</p>"
        case Image(file, title):
            return f'<figure role="img" aria-label="{_escaped(title)}">\n{_inlined(pictures[file])}</figure>'
    return _table(block)


def _table(table: Table) -> str:
    def row(cells: Any, tag: str) -> str:
        looks = (' class="word"' if i < table.left else "" for i in range(len(table.columns)))
        return (
            "<tr>"
            + "".join(f"<{tag}{look}>{_escaped(cell)}</{tag}>" for cell, look in zip(cells, looks, strict=True))
            + "</tr>"
        )

    head = f"<thead>{row(table.columns, 'th')}</thead>" if any(table.columns) else ""
    body = "\n".join(row(cells, "td") for cells in table.rows)
    return f'<div class="table" tabindex="0"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def _escaped(text: str) -> str:
    """As it is; what HTML has no character for is shown as missing."""
    text = re.sub(r"[\x0b\x0c\x1c-\x1f\x85]", " ", text)
    return escape(re.sub(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]", "�", text))


def _inlined(svg: str) -> str:
    """A picture without what belongs to a file of its own."""
    bare = svg[svg.index("<svg") :]
    return re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", bare).replace("xlink:href=", "href=")
