"""README.md of an exported folder."""

from collections.abc import Sequence

from lit_cls.exports.parity import LIMIT
from lit_cls.exports.source import ExportSource


def readme(
    title: str, source: ExportSource, usage: Sequence[str], notes: Sequence[str], comparison: Sequence[str]
) -> str:
    """The page.

    Args:
        title: its heading.
        source: the exported checkpoint.
        usage: lines of code that classify two texts.
        notes: paragraphs on the format.
        comparison: lines on the differences from the checkpoint.
    """
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
