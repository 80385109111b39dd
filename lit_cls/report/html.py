"""HTML pages in one file that open without a network: report.html with its plots inside, and parts for other pages."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lit_cls.report.blocks import Block, Heading, Image, Paragraph, Table
from lit_cls.report.sections import report_sections

STYLE = """
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


def render_html(content: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """report.html from the content of report.json and the SVG of each plot by file name; no id is in two of them."""
    body = "\n".join(_render(block, plots) for block in report_sections(content))
    # Plots have style attributes, which a hash does not allow.
    policy = "style-src 'unsafe-inline'; img-src data:"
    return html_page(f"{content['name']}: {content['split']} report", body, STYLE, policy)


def html_page(title: str, body: str, style: str, policy: str) -> str:
    """A page that loads nothing and runs nothing, whatever its texts contain.

    `title` is plain text, `body` HTML, `style` CSS; `policy` is what the content security policy allows.
    """
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; {policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def html_table(table: Table) -> str:
    """A `table` element; columns of words have the class `word`."""

    def row(cells: Sequence[str], tag: str) -> str:
        classes = (' class="word"' if i < table.left else "" for i in range(len(table.columns)))
        rendered = (f"<{tag}{name}>{escaped(cell)}</{tag}>" for cell, name in zip(cells, classes, strict=True))
        return f"<tr>{''.join(rendered)}</tr>"

    head = f"<thead>{row(table.columns, 'th')}</thead>" if any(table.columns) else ""
    body = "\n".join(row(cells, "td") for cells in table.rows)
    return f"<table>{head}<tbody>\n{body}\n</tbody></table>"


def escaped(text: str) -> str:
    """The text as HTML; characters that HTML does not allow are shown as missing."""
    text = re.sub(r"[\x0b\x0c\x1c-\x1f\x85]", " ", text)
    return escape(re.sub(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]", "�", text))


def _render(block: Block, plots: Mapping[str, str]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escaped(text)}</h{level}>"
        case Paragraph(text, warning):
            opening = '<p class="warning">' if warning else "<p>"
            return f"{opening}{escaped(text)}</p>"
        case Image(file, title):
            return f'<figure role="img" aria-label="{escaped(title)}">\n{_inline(plots[file])}</figure>'
    return f'<div class="table" tabindex="0">{html_table(block)}</div>'


def _inline(svg: str) -> str:
    """A plot without what belongs to a file of its own."""
    bare = svg[svg.index("<svg") :]
    return re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", bare).replace("xlink:href=", "href=")
