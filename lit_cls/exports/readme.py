"""README.md of an exported folder."""

from collections.abc import Sequence

from lit_cls.exports.parity import LIMIT
from lit_cls.exports.source import ExportSource


def readme(
    title: str, source: ExportSource, usage: Sequence[str], notes: Sequence[str], comparison: Sequence[str]
) -> str:
    """A page: lines of code that classify two texts, paragraphs on the format, and the lines of the comparison."""
    paragraphs = [
        f"# {title}",
        f"Labels: {', '.join(source.label_names)}. Written by lit_cls from {source.path.name}.",
        "\n".join(f"    {line}" for line in usage),
        *notes,
        f"Compared when it was written (at most {LIMIT:.0e} is allowed):",
        "\n".join(f"- {line}" for line in comparison),
        "NOTICE has the licence of the vocabulary.",
    ]
    return "\n\n".join(paragraphs) + "\n"
