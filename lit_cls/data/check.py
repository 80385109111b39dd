"""What is to be known of labelled texts before anything is trained on them: `lit_cls data check`, without printing."""

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from lit_cls.data.files import Finding, Findings, first_ten
from lit_cls.data.inspect import Look, look
from lit_cls.data.sources import Rows, is_blank
from lit_cls.data.split_data import Reading
from lit_cls.data.splits import SPLIT_NAMES, Split, SplitName, near_key
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.data.tokenizers.base import Tokenizer
from lit_cls.errors import UserError, quote

PERCENTILES = (5, 25, 50, 75, 95, 99)
MAX_LENGTHS = (32, 64, 128, 256, 512, 1024)
_CHUNK = 1 << 20  # characters that are tokenised at once: their ids are not kept
_IMBALANCED = 1.5  # rows of the largest label for each of the smallest
_MANY_LABELS = 1000

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Cut:
    """What a maximum length would cut."""

    max_length: int
    texts: int
    tokens: int
    """That would not be read."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the texts that a training could use."""

    texts: int
    tokens: int
    percentiles: dict[int, int]
    longest: int
    longest_row: int
    cuts: list[Cut]
    limit: int
    """What a training would cut texts to."""
    cut_rows: list[int]


@dataclass(frozen=True)
class Overlap:
    """Texts of one part that also occur in the train part."""

    part: SplitName
    n: int
    verbatim: int
    near: int
    """The same once masked, word for word the same ones among them."""
    verbatim_pairs: list[tuple[int, int]]
    """Row of the part, first such row of train."""
    near_pairs: list[tuple[int, int]]
    """The others."""


@dataclass(frozen=True)
class PartCount:
    """A part of the split, or the rows that are in none."""

    name: str
    n: int
    labels: dict[str, int]


@dataclass(frozen=True)
class Check:
    """All that `lit_cls data check` tells."""

    look: Look
    lengths: Lengths
    parts: list[PartCount]
    """Train, validation, test and what is left out; none where there is no split."""
    overlaps: list[Overlap]
    findings: Findings
    """Those that refuse come first."""
    starts: bool
    """Whether a training would start with the options that were given."""
    to_mend: int
    """Findings that no option deals with: the file has to change."""
    commands: list[str]
    """With which the training starts, once these are mended."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; every row number."""
        seen = self.look
        plain = ("origin", "format", "encoding", "columns", "text_column", "label_column", "n_rows", "sha256")
        return {
            **{name: getattr(seen, name) for name in plain},
            "first_rows": [{"row": row, "label": label, "text": text} for row, label, text in seen.first_rows],
            "labels": [
                {"label": label, "rows": n, "share": n / sum(seen.labels.values())} for label, n in seen.labels.items()
            ],
            "usable_rows": len(seen.rows.texts),
            "lengths": asdict(self.lengths),
            "parts": [asdict(part) for part in self.parts],
            "overlaps": [asdict(overlap) for overlap in self.overlaps],
            "findings": [asdict(finding) for finding in self.findings],
            "starts": self.starts,
            "to_mend": self.to_mend,
            "commands": self.commands,
        }


def check(reading: Reading, max_length: int | None, progress: Progress) -> Check:
    """Looks at labelled texts as a training would read them.

    What the rows are like is told of those that a training could use; so is the split, as if everything that
    refuses had been dealt with.

    Args:
        reading: the options of the training.
        max_length: one more that is asked about, beside `MAX_LENGTHS`.
        progress: told of what takes long.

    Raises:
        UserError: options that contradict each other; nothing there that could be looked at.
    """
    seen = look(reading)
    rows = seen.rows
    lengths = count_tokens(rows, tokenizer_for(reading.tokenizer), max_length or MAX_LENGTHS[-1], progress)
    keys = _keys(rows.texts, progress)
    found = [*seen.findings, *_about_labels(seen), *_about_repeats(rows, keys, seen.reading.split == "ch06")]
    split = _split(seen, found)
    parts = _count_parts(rows, split) if split else []
    overlaps = [_overlap(rows, keys, split, name) for name in ("validation", "test")] if split else []
    found += _about_imbalance(seen) + _about_lengths(lengths)
    found += _about_overlaps(overlaps, seen.reading.split == "ch06")
    refusals = [finding for finding in found if finding.refuses]
    return Check(
        look=seen,
        lengths=lengths,
        parts=parts,
        overlaps=overlaps,
        findings=[*refusals, *(finding for finding in found if not finding.refuses)],
        starts=not refusals,
        to_mend=sum(not finding.options for finding in refusals),
        commands=_commands(seen, max_length),
    )


def count_tokens(rows: Rows, tokenizer: Tokenizer, limit: int, progress: Progress) -> Lengths:
    """How long texts are, and what each maximum would cut.

    Args:
        rows: the texts.
        tokenizer: of the network.
        limit: what a training would cut them to; asked about beside `MAX_LENGTHS`.
        progress: told of each chunk.
    """
    counts = np.zeros(len(rows.texts), dtype=np.int64)
    start = 0
    while start < len(counts):
        end, characters = start, 0
        while end < len(counts) and (end == start or characters < _CHUNK):
            characters += len(rows.texts[end])
            end += 1
        counts[start:end] = [len(ids) for ids in tokenizer.encode(rows.texts[start:end])]
        start = end
        progress("tokenising", start, len(counts))
    some = len(counts) > 0
    percentiles = np.percentile(counts, PERCENTILES, method="inverted_cdf").tolist() if some else []
    return Lengths(
        texts=len(counts),
        tokens=int(counts.sum()),
        percentiles={p: int(value) for p, value in zip(PERCENTILES, percentiles, strict=False)},
        longest=int(counts.max()) if some else 0,
        longest_row=rows.numbers[int(counts.argmax())] if some else 0,
        cuts=[
            Cut(n, int((counts > n).sum()), int(np.maximum(counts - n, 0).sum())) for n in sorted({*MAX_LENGTHS, limit})
        ],
        limit=limit,
        cut_rows=[rows.numbers[i] for i in np.flatnonzero(counts > limit)],
    )


def _keys(texts: Sequence[str], progress: Progress) -> list[str]:
    keys = []
    for i, text in enumerate(texts, start=1):
        keys.append(near_key(text))
        if i % 10_000 == 0:
            progress("comparing", i, len(texts))
    return keys


def _split(seen: Look, found: Findings) -> Split | None:
    """The split of the usable rows; None, and why, where there is none."""
    if len(set(seen.rows.labels)) < 2:
        return None
    whole = not any(finding.kind == "malformed" for finding in found)
    try:
        split = seen.reading.divide(seen.rows, [])
    except UserError as error:
        if whole:
            found.append(Finding("split", str(error)))
        return None
    names = set(seen.rows.labels)
    for name in SPLIT_NAMES:
        absent = sorted(names - {seen.rows.labels[i] for i in split[name]})
        if not (absent and whole):
            continue
        told = f"the {name} part has no text of {', '.join(map(quote, absent[:5]))}"
        rows = [n for n, label in zip(seen.rows.numbers, seen.rows.labels, strict=True) if label in absent]
        refuses = name == "train"
        options = () if seen.reading.stratify else ("--data.stratify", "true")
        found.append(Finding("absent_label", told + refuses * ": it cannot be learnt", rows, refuses, options))
    return split


def _count_parts(rows: Rows, split: Split) -> list[PartCount]:
    parts: list[tuple[str, list[int]]] = [(name, split[name]) for name in SPLIT_NAMES]
    used = {i for _, chosen in parts for i in chosen}
    parts.append(("left out", [i for i in range(len(rows.texts)) if i not in used]))
    return [
        PartCount(name, len(chosen), dict(sorted(Counter(rows.labels[i] for i in chosen).items())))
        for name, chosen in parts
    ]


def _overlap(rows: Rows, keys: Sequence[str], split: Split, part: SplitName) -> Overlap:
    texts: dict[str, int] = {}
    masked: dict[str, int] = {}
    for i in sorted(split.train, key=rows.numbers.__getitem__):
        texts.setdefault(rows.texts[i], rows.numbers[i])
        masked.setdefault(keys[i], rows.numbers[i])
    verbatim, near = [], []
    for i in sorted(split[part], key=rows.numbers.__getitem__):
        if rows.texts[i] in texts:
            verbatim.append((rows.numbers[i], texts[rows.texts[i]]))
        elif keys[i] in masked:
            near.append((rows.numbers[i], masked[keys[i]]))
    return Overlap(part, len(split[part]), len(verbatim), len(verbatim) + len(near), verbatim, near)


def _about_labels(seen: Look) -> Findings:
    n, labels = sum(seen.labels.values()), len(seen.labels)
    if labels <= _MANY_LABELS and (labels <= n / 2 or n < 20):
        return []
    column = quote(seen.label_column)
    told = f"{labels:,} different labels in {n:,} rows are many: {column} may not be the column of labels"
    return [Finding("many_labels", told, refuses=False, options=("--data.label_column", "NAME"))]


def _about_repeats(rows: Rows, keys: Sequence[str], fixed: bool) -> Findings:
    """Texts that repeat an earlier one, and those that have more than one label."""
    together = () if fixed else ("--data.group_near_duplicates", "true")
    first: dict[str, int] = {}
    first_key: dict[str, int] = {}
    repeats, nears = [], []
    for i, text in enumerate(rows.texts):
        if is_blank(text):
            continue
        if text in first:
            repeats.append((rows.numbers[i], first[text]))
        elif keys[i] in first_key:
            nears.append((rows.numbers[i], first_key[keys[i]]))
        first.setdefault(text, rows.numbers[i])
        first_key.setdefault(keys[i], rows.numbers[i])
    found = []
    for kind, pairs, how in (("duplicates", repeats, "word for word"), ("near_duplicates", nears, _NEARLY)):
        if pairs:
            numbers = [number for number, _ in pairs]
            told = (
                f"{_texts(len(pairs))} an earlier one {how}: {first_ten(numbers)}; "
                f"row {pairs[0][0]} is as row {pairs[0][1]}"
            )
            found.append(Finding(kind, told, numbers, refuses=False, options=together))
    return found + _about_conflicts(rows, together)


_NEARLY = "but for digits, case and punctuation"


def _texts(n: int) -> str:
    return "1 text repeats" if n == 1 else f"{n:,} texts repeat"


def _about_conflicts(rows: Rows, together: tuple[str, ...]) -> Findings:
    places: dict[str, list[int]] = {}
    for i, text in enumerate(rows.texts):
        if not is_blank(text):
            places.setdefault(text, []).append(i)
    conflicts = [same for same in places.values() if len({rows.labels[i] for i in same}) > 1]
    if not conflicts:
        return []
    numbers = sorted(rows.numbers[i] for same in conflicts for i in same)
    one = conflicts[0][0]
    other = next(i for i in conflicts[0] if rows.labels[i] != rows.labels[one])
    told = (
        f"{len(conflicts):,} {'text has' if len(conflicts) == 1 else 'texts have'} more than one label "
        f"({first_ten(numbers)}): row {rows.numbers[one]} is {quote(rows.labels[one])}, row {rows.numbers[other]} "
        f"{quote(rows.labels[other])}. Correct the labels or remove the rows; kept in one part they do less harm"
    )
    return [Finding("conflicts", told, numbers, refuses=False, options=together)]


def _about_imbalance(seen: Look) -> Findings:
    counts = Counter(seen.rows.labels)
    if len(counts) < 2 or seen.reading.split == "ch06":
        return []
    (most, n_most), (least, n_least) = counts.most_common()[0], counts.most_common()[-1]
    if n_most < _IMBALANCED * n_least:
        return []
    told = f"{quote(most)} has {n_most:,} texts, {quote(least)} {n_least:,} ({n_most / n_least:.1f} to 1)"
    if seen.reading.balance == "undersample":
        left_out = sum(counts.values()) - len(counts) * n_least
        told += f": data.balance undersample leaves {left_out:,} out; to train on all of them, weighted"
    else:
        told += ": so that the rare label is not passed over, weight it"
    rows = [n for n, label in zip(seen.rows.numbers, seen.rows.labels, strict=True) if label == least]
    options = ("--data.balance", "none", "--model.class_weights", "balanced")
    return [Finding("imbalance", told, rows, refuses=False, options=options)]


def _about_lengths(lengths: Lengths) -> Findings:
    if not lengths.cut_rows:
        return []
    cut = next(cut for cut in lengths.cuts if cut.max_length == lengths.limit)
    told = (
        f"{cut.texts:,} {'text is' if cut.texts == 1 else 'texts are'} longer than {cut.max_length:,} tokens and would "
        f"be cut ({first_ten(lengths.cut_rows)}; {100 * cut.tokens / lengths.tokens:.1f} % of all tokens): keep their "
        "beginning (the default), their end or half of each"
    )
    options = ("--data.truncation", "head_tail")
    return [Finding("cut", told, lengths.cut_rows, refuses=False, options=options)]


def _about_overlaps(overlaps: Sequence[Overlap], fixed: bool) -> Findings:
    found = []
    for overlap in overlaps:
        if not overlap.near:
            continue
        pairs = [*overlap.verbatim_pairs, *overlap.near_pairs]
        told = (
            f"{overlap.near:,} of {overlap.n:,} {overlap.part} texts ({100 * overlap.near / overlap.n:.1f} %) also "
            f"occur in the train part, {overlap.verbatim:,} of them word for word: row {pairs[0][0]} is as row "
            f"{pairs[0][1]}" + ("; the published split is as it is" if fixed else "")
        )
        options = () if fixed else ("--data.group_near_duplicates", "true")
        rows = sorted(row for row, _ in pairs)
        found.append(Finding(f"{overlap.part}_in_train", told, rows, refuses=False, options=options))
    return found


def _commands(seen: Look, max_length: int | None) -> list[str]:
    """What starts a training on these rows."""
    copy = [] if seen.name is None else [command_line(["cp", os.path.expanduser(str(seen.reading.path)), seen.name])]
    cut = [] if max_length is None else ["--data.max_length", str(max_length)]
    return [*copy, command_line(["lit_cls", "fit", *fit_words(seen.reading, seen.name), *cut])]


def command_line(words: Sequence[str]) -> str:
    """Words as a shell is given them; what a terminal would obey is spelt out, as bash, zsh and POSIX read it."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_octal(word)}'" for word in words)


def _octal(word: str) -> str:
    plain = (character.isprintable() and character not in "\\'" for character in word)
    return "".join(
        character if is_plain else "".join(f"\\{byte:03o}" for byte in character.encode())
        for character, is_plain in zip(word, plain, strict=True)
    )


def fit_words(reading: Reading, path: str | None = None) -> list[str]:
    """The options of a reading that are not the defaults.

    Args:
        reading: the options.
        path: of the file, if it is not the one of `reading`.
    """
    usual = Reading()
    words = []
    for field in fields(Reading):
        value = path if field.name == "path" and path else getattr(reading, field.name)
        if value != getattr(usual, field.name):
            words += [f"--data.{field.name}", spelt(value)]
    return words


def spelt(value: object) -> str:
    """A value as an option of the command line has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, tuple):
        return str(value)
    # A list in YAML, where some names need quotes.
    items = [str(item) for item in value]
    return f"[{','.join(item if re.fullmatch(r'[A-Za-z0-9_./+-]+', item) else json.dumps(item) for item in items)}]"
