"""Prints the result of `lit_cls data check`."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from lit_cls.data.check import Check, Lengths, Overlap
from lit_cls.data.findings import Finding
from lit_cls.data.options import DataOptions, command_line, fit_words
from lit_cls.io.terminal import print_to, stdout_console

_SHOWN_COLUMNS = 20
_SHOWN_LABELS = 20
_SHOWN_PAIRS = 3


class Page:
    """Standard output: tables as wide as a terminal, elsewhere as 120 columns; lines that are never broken."""

    def __init__(self) -> None:
        self.console = stdout_console()

    def line(self, text: str = "") -> None:
        """Prints one line; control characters are escaped."""
        escaped = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
        print_to(self.console, escaped)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
        """Prints a table below its title; columns after the first `left` ones hold figures."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for i, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if i < left else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.line()
        self.line(title)
        print_to(self.console, table)


def print_report(found: Check, page: Page) -> None:
    """Prints everything, the findings and the command to train with at the end."""
    seen = found.inspection
    page.line(f"{seen.origin}: {seen.n_rows:,} rows")
    for name in ("format", "encoding", "sha256"):
        page.line(f"{name:<8} {getattr(seen, name)}")
    more = ", …" if len(seen.columns) > _SHOWN_COLUMNS else ""
    columns = ", ".join(plain(column) or "(no name)" for column in seen.columns[:_SHOWN_COLUMNS])
    page.line(f"columns  {columns}{more}: texts from {plain(seen.text_column)}, labels from {plain(seen.label_column)}")
    rows = [(str(number), plain(label), plain(text, 90)) for number, label, text in seen.first_rows]
    page.table("first rows", ("row", "label", "text"), rows, left=3)
    _print_labels(page, seen.labels)
    if found.lengths.texts:
        _print_lengths(page, found.lengths)
    if found.parts:
        _print_split(page, found)
    _print_findings(page, found.findings, seen.origin)
    if found.starts:
        page.line("lit_cls fit would start as it is:")
    elif found.to_mend:
        n = "1 finding" if found.to_mend == 1 else f"{found.to_mend} findings"
        page.line(f"lit_cls fit would refuse this. Correct the file ({n}), then:")
    else:
        page.line("lit_cls fit would refuse this as it is. It starts with:")
    for command in found.commands:
        page.line(f"  {command}")


def _print_labels(page: Page, labels: dict[str, int]) -> None:
    total = sum(labels.values())
    first = list(labels.items())[:_SHOWN_LABELS]
    rows = [(plain(label), f"{n:,}", _percent(n, total)) for label, n in first]
    if len(labels) > len(first):
        rest = total - sum(n for _, n in first)
        rows.append((f"({len(labels) - len(first):,} others)", f"{rest:,}", _percent(rest, total)))
    page.table(f"{len(labels):,} label{'' if len(labels) == 1 else 's'}", ("label", "rows", "share"), rows)


def _print_lengths(page: Page, lengths: Lengths) -> None:
    page.table(
        f"lengths of the {lengths.texts:,} texts that can be used, {lengths.tokens:,} tokens in all",
        ("share of texts", *(f"{p} %" for p in lengths.percentiles), f"all (row {lengths.longest_row})"),
        [("tokens at most", *(f"{value:,}" for value in lengths.percentiles.values()), f"{lengths.longest:,}")],
    )
    rows = []
    for count in lengths.cuts:
        shares = _percent(count.texts, lengths.texts), _percent(count.tokens, lengths.tokens)
        rows.append((f"{count.max_length:,}", f"{count.texts:,}", *shares))
    columns = ("data.max_length", "texts", "share of texts", "share of tokens lost")
    page.table("texts that a maximum length would truncate", columns, rows)


def _print_split(page: Page, found: Check) -> None:
    labels = sorted({label for split in found.parts for label in split.labels})
    named = labels if len(labels) <= _SHOWN_LABELS // 2 else []
    page.table(
        f"the split ({_describe_split(found.inspection.options)}{'' if found.starts else '; after the corrections'})",
        ("split", "texts", *map(plain, named)),
        [
            (split.name, f"{split.n:,}", *(f"{split.labels.get(label, 0):,}" for label in named))
            for split in found.parts
        ],
    )
    page.table(
        "texts that also occur in the train split",
        ("split", "texts", "word for word", "but for digits, case, punctuation", "for example"),
        [_overlap_row(overlap) for overlap in found.overlaps],
    )


def _overlap_row(overlap: Overlap) -> tuple[str, ...]:
    pairs = [*overlap.verbatim_pairs[:_SHOWN_PAIRS], *overlap.near_pairs[:_SHOWN_PAIRS]][:_SHOWN_PAIRS]
    return (
        overlap.part,
        f"{overlap.n:,}",
        f"{overlap.verbatim:,} ({_percent(overlap.verbatim, overlap.n)})",
        f"{overlap.near:,} ({_percent(overlap.near, overlap.n)})",
        ", ".join(f"row {row} repeats {train}" for row, train in pairs),
    )


def _describe_split(options: DataOptions) -> str:
    words = fit_words(options)
    named = {name.removeprefix("--data."): value for name, value in zip(words[::2], words[1::2], strict=True)}
    names = ("balance", "split", "stratify", "split_seed", "group_near_duplicates")
    return ", ".join(f"{name} {named[name]}" for name in names if name in named) or "default options"


def _print_findings(page: Page, findings: Sequence[Finding], origin: str) -> None:
    page.line()
    page.line("findings" if findings else "nothing was found")
    for finding in findings:
        kind = "refused" if finding.refuses else "note"
        page.line(f"  {kind:<8} {plain(finding.message.removeprefix(f'{origin}: '), 1000)}")
        if finding.options or finding.refuses:
            page.line(f"           → {command_line(finding.options) or 'in the file'}")
    page.line()


def plain(text: str, most: int = 40) -> str:
    """The beginning of a text, on one line."""
    start = text[: 2 * most]
    line = " ".join("".join(character if character.isprintable() else " " for character in start).split())
    return line if len(line) <= most and len(start) == len(text) else f"{line[: most - 1]}…"


def _percent(n: int, of: int) -> str:
    return f"{100 * n / max(of, 1):.1f} %"
