"""README.md of an exported folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_cls.exports.parity import LIMIT
from lit_cls.exports.source import ExportSource
from lit_cls.io.templates import environment


def write_readme(folder: Path, template: str, source: ExportSource, comparison: Sequence[str], **values: Any) -> None:
    """Writes the page of a format, with the lines of its comparison; `values` are the format's own."""
    page = environment("lit_cls.exports").get_template(template)
    text = page.render(source=source, comparison=comparison, limit=LIMIT, **values)
    (folder / "README.md").write_text(text, encoding="utf-8")
