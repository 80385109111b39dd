"""Checks labelled texts before a training: `lit_cls data check`, without printing."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lit_cls.data.findings import Finding, Findings, first_ten
from lit_cls.data.inspect import Inspection, inspect
from lit_cls.data.options import DataOptions, fit_commands
from lit_cls.data.sources import LabelledTexts, is_blank
from lit_cls.data.split_data import divide
from lit_cls.data.splits import SPLIT_NAMES, Split, SplitName, near_key, rows_by_label
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.data.tokenizers.base import Tokenizer
from lit_cls.errors import UserError, quote

PERCENTILES = (5, 25, 50, 75, 95, 99)
MAX_LENGTHS = (32, 64, 128, 256, 512, 1024)
_CHUNK = 1 << 20  # characters tokenised at once; their ids are not kept
_IMBALANCED = 1.5  # rows of the largest label for each of the smallest
_MANY_LABELS = 1000

Progress = Callable[[str, int, int], None]
"""Called with the step, and how many rows of how many are done in it."""


@dataclass(frozen=True)
class TruncationCount:
    """Texts and tokens that a maximum length would truncate."""

    max_length: int
    texts: int
    tokens: int


@dataclass(frozen=True)
class Lengths:
    """Tokens of the texts that `fit` could use, which it would truncate to `limit`."""

    texts: int
    tokens: int
    percentiles: dict[int, int]
    longest: int
    longest_row: int
    cuts: list[TruncationCount]
    limit: int
    cut_rows: list[int]


@dataclass(frozen=True)
class Overlap:
    """Texts of one split that also occur in the train split; pairs are a row of the split, and the first of train."""

    part: SplitName
    n: int
    verbatim: int
    near: int
    """The same once masked, verbatim ones included."""
    verbatim_pairs: list[tuple[int, int]]
    near_pairs: list[tuple[int, int]]
    """The others."""


@dataclass(frozen=True)
class SplitCount:
    """One split, or the rows that are in none."""

    name: str
    n: int
    labels: dict[str, int]


@dataclass(frozen=True)
class Check:
    """The result of `lit_cls data check`."""

    inspection: Inspection
    lengths: Lengths
    parts: list[SplitCount]
    """Train, validation, test and what is left out; none where no split is possible."""
    overlaps: list[Overlap]
    findings: Findings
    """Those that refuse come first."""
    starts: bool
    """Whether `fit` would start with the options that were given."""
    to_mend: int
    """Findings that need a change of the file; with the others dealt with, `commands` start `fit`."""
    commands: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; every row number."""
        seen, total = self.inspection, sum(self.inspection.labels.values())
        plain = ("origin", "format", "encoding", "columns", "text_column", "label_column", "n_rows", "sha256")
        return {
            **{name: getattr(seen, name) for name in plain},
            "first_rows": [dict(zip(("row", "label", "text"), row, strict=True)) for row in seen.first_rows],
            "labels": [{"label": label, "rows": n, "share": n / total} for label, n in seen.labels.items()],
            "usable_rows": len(seen.rows.texts),
            "lengths": asdict(self.lengths),
            **{name: [asdict(one) for one in getattr(self, name)] for name in ("parts", "overlaps", "findings")},
            **{name: getattr(self, name) for name in ("starts", "to_mend", "commands")},
        }


def check(options: DataOptions, max_length: int | None, progress: Progress) -> Check:
    """Checks labelled texts as `fit` would read them.

    Lengths, repeats and the split are of the rows that `fit` could use, as if every refusal had been dealt with.
    Truncation is counted for `max_length` beside `MAX_LENGTHS`. Raises as `inspect`.
    """
    seen = inspect(options)
    rows = seen.rows
    lengths = count_tokens(rows, tokenizer_for(options.tokenizer), max_length or MAX_LENGTHS[-1], progress)
    keys = _keys(rows.texts, progress)
    fixed = seen.options.split == "ch06"
    found = [*seen.findings, *_findings_of_labels(seen), *_findings_of_repeats(rows, keys, fixed)]
    split = _split(seen, found)
    overlaps = []
    if split is not None:
        for name in SPLIT_NAMES[1:]:
            verbatim, near = _repeats(rows, keys, sorted(split[name]), sorted(split["train"]))
            overlaps.append(Overlap(name, len(split[name]), len(verbatim), len(verbatim) + len(near), verbatim, near))
    found += _findings_of_imbalance(seen) + _findings_of_lengths(lengths)
    found += _findings_of_overlaps(overlaps, fixed)
    refusals = [finding for finding in found if finding.refuses]
    return Check(
        inspection=seen,
        lengths=lengths,
        parts=_count_splits(rows, split) if split else [],
        overlaps=overlaps,
        findings=sorted(found, key=lambda finding: not finding.refuses),
        starts=not refusals,
        to_mend=sum(not finding.options for finding in refusals),
        commands=fit_commands(seen.options, seen.needed_name, max_length),
    )


def count_tokens(rows: LabelledTexts, tokenizer: Tokenizer, limit: int, progress: Progress) -> Lengths:
    """How long texts are, and what each of `MAX_LENGTHS` and `limit`, the length `fit` uses, would truncate."""
    counts, start = np.zeros(len(rows.texts), dtype=np.int64), 0
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
            TruncationCount(n, int((counts > n).sum()), int(np.maximum(counts - n, 0).sum()))
            for n in sorted({*MAX_LENGTHS, limit})
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


def _split(seen: Inspection, found: Findings) -> Split | None:
    """The split of the usable rows; None, and a finding, where none is possible."""
    if len(set(seen.rows.labels)) < 2:
        return None
    whole = not any(finding.kind == "malformed" for finding in found)
    try:
        split = divide(seen.options, seen.rows, [])
    except UserError as error:
        if whole:
            found.append(Finding("split", str(error)))
        return None
    for name in SPLIT_NAMES:
        absent = sorted(set(seen.rows.labels) - {seen.rows.labels[i] for i in split[name]})
        if not (absent and whole):
            continue
        message = f"the {name} split has no text of {', '.join(map(quote, absent[:5]))}"
        rows = [n for n, label in zip(seen.rows.numbers, seen.rows.labels, strict=True) if label in absent]
        refuses = name == "train"
        options = () if seen.options.stratify else ("--data.stratify", "true")
        found.append(Finding("absent_label", message + refuses * ": it cannot be learnt", rows, refuses, options))
    return split


def _count_splits(rows: LabelledTexts, split: Split) -> list[SplitCount]:
    splits: dict[str, list[int]] = {name: split[name] for name in SPLIT_NAMES}
    used = {i for chosen in splits.values() for i in chosen}
    splits["left out"] = [i for i in range(len(rows.texts)) if i not in used]
    counts = {name: Counter(rows.labels[i] for i in chosen) for name, chosen in splits.items()}
    return [SplitCount(name, count.total(), dict(sorted(count.items()))) for name, count in counts.items()]


def _repeats(
    rows: LabelledTexts, keys: Sequence[str], places: Sequence[int], train: Sequence[int] = ()
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs of row numbers: rows that repeat an earlier one (or one of `train`, if given), and the first of its kind.

    Those that are the same word for word, and the others that share a `near_key`.
    """
    first = dict(reversed([(rows.texts[i], rows.numbers[i]) for i in train]))
    first_key = dict(reversed([(keys[i], rows.numbers[i]) for i in train]))
    verbatim, near = [], []
    for i in places:
        text, key, number = rows.texts[i], keys[i], rows.numbers[i]
        if text in first:
            verbatim.append((number, first[text]))
        elif key in first_key:
            near.append((number, first_key[key]))
        if not train:
            first.setdefault(text, number)
            first_key.setdefault(key, number)
    return verbatim, near


def _findings_of_labels(seen: Inspection) -> Findings:
    n, labels = sum(seen.labels.values()), len(seen.labels)
    if labels <= _MANY_LABELS and (labels <= n / 2 or n < 20):
        return []
    column = quote(seen.label_column)
    message = f"{labels:,} different labels in {n:,} rows are many: {column} may not be the column of labels"
    return [Finding("many_labels", message, refuses=False, options=("--data.label_column", "NAME"))]


def _findings_of_repeats(rows: LabelledTexts, keys: Sequence[str], fixed: bool) -> Findings:
    """Findings about texts that repeat an earlier one, and about those with more than one label."""
    together = () if fixed else ("--data.group_near_duplicates", "true")
    repeats, nears = _repeats(rows, keys, [i for i, text in enumerate(rows.texts) if not is_blank(text)])
    found, nearly = [], "but for digits, case and punctuation"
    for kind, pairs, how in (("duplicates", repeats, "word for word"), ("near_duplicates", nears, nearly)):
        if pairs:
            numbers = [number for number, _ in pairs]
            repeat = "1 text repeats" if len(pairs) == 1 else f"{len(pairs):,} texts repeat"
            example = f"row {pairs[0][0]} repeats row {pairs[0][1]}"
            message = f"{repeat} an earlier one {how}: {first_ten(numbers)}; {example}"
            found.append(Finding(kind, message, numbers, refuses=False, options=together))
    return found + _findings_of_conflicts(rows, together)


def _findings_of_conflicts(rows: LabelledTexts, together: tuple[str, ...]) -> Findings:
    alike = rows_by_label(rows.texts).items()
    conflicts = [same for text, same in alike if len({rows.labels[i] for i in same}) > 1 and not is_blank(text)]
    if not conflicts:
        return []
    numbers = sorted(rows.numbers[i] for same in conflicts for i in same)
    one = conflicts[0][0]
    other = next(i for i in conflicts[0] if rows.labels[i] != rows.labels[one])
    message = (
        f"{len(conflicts):,} {'text has' if len(conflicts) == 1 else 'texts have'} more than one label "
        f"({first_ten(numbers)}): row {rows.numbers[one]} is {quote(rows.labels[one])}, row {rows.numbers[other]} "
        f"{quote(rows.labels[other])}. Correct the labels or remove the rows; kept in one split they do less harm"
    )
    return [Finding("conflicts", message, numbers, refuses=False, options=together)]


def _findings_of_imbalance(seen: Inspection) -> Findings:
    counts = Counter(seen.rows.labels)
    if len(counts) < 2 or seen.options.split == "ch06":
        return []
    (most, n_most), (least, n_least) = counts.most_common()[0], counts.most_common()[-1]
    if n_most < _IMBALANCED * n_least:
        return []
    message = f"{quote(most)} has {n_most:,} texts, {quote(least)} {n_least:,} ({n_most / n_least:.1f} to 1)"
    if seen.options.balance == "undersample":
        left_out = sum(counts.values()) - len(counts) * n_least
        message += f": data.balance undersample leaves {left_out:,} out; to train on all of them, weighted"
    else:
        message += ": weight the rare label, so that it is not ignored"
    rows = [n for n, label in zip(seen.rows.numbers, seen.rows.labels, strict=True) if label == least]
    options = ("--data.balance", "none", "--model.class_weights", "balanced")
    return [Finding("imbalance", message, rows, refuses=False, options=options)]


def _findings_of_lengths(lengths: Lengths) -> Findings:
    if not lengths.cut_rows:
        return []
    cut = next(cut for cut in lengths.cuts if cut.max_length == lengths.limit)
    message = (
        f"{cut.texts:,} {'text is' if cut.texts == 1 else 'texts are'} longer than {cut.max_length:,} tokens and would "
        f"be truncated ({first_ten(lengths.cut_rows)}; {100 * cut.tokens / lengths.tokens:.1f} % of all tokens): keep "
        "their beginning (the default), their end or half of each"
    )
    return [Finding("cut", message, lengths.cut_rows, refuses=False, options=("--data.truncation", "head_tail"))]


def _findings_of_overlaps(overlaps: Sequence[Overlap], fixed: bool) -> Findings:
    found = []
    for overlap in filter(lambda overlap: overlap.near, overlaps):
        pairs = [*overlap.verbatim_pairs, *overlap.near_pairs]
        message = (
            f"{overlap.near:,} of {overlap.n:,} {overlap.part} texts ({100 * overlap.near / overlap.n:.1f} %) also "
            f"occur in the train split, {overlap.verbatim:,} of them word for word: row {pairs[0][0]} repeats row "
            f"{pairs[0][1]}" + ("; the published split is fixed" if fixed else "")
        )
        options = () if fixed else ("--data.group_near_duplicates", "true")
        rows = sorted(row for row, _ in pairs)
        found.append(Finding(f"{overlap.part}_in_train", message, rows, refuses=False, options=options))
    return found
