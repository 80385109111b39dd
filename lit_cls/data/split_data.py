"""From a source and its options to the rows of each split, before any padding."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from lit_cls.data.group_split import split_in_groups
from lit_cls.data.options import DataOptions
from lit_cls.data.sources import LabelledTexts, read_demo, read_file, read_sms_spam
from lit_cls.data.splits import (
    SPLIT_NAMES,
    Split,
    SplitName,
    ch06_split,
    check_enough_of_each,
    check_labels,
    near_key,
    split_by_fractions,
    split_sha256,
    undersample,
)
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.data.tokenizers.base import Tokenizer
from lit_cls.errors import UserError, quote


@dataclass(frozen=True)
class LabelledSplit:
    """One split, ready to be batched."""

    rows: LabelledTexts
    label_ids: list[int]
    sha256: str
    tokenizer: Tokenizer

    @cached_property
    def token_ids(self) -> list[list[int]]:
        """Of the whole texts; they are truncated when they are batched."""
        return self.tokenizer.encode(self.rows.texts)


@dataclass(frozen=True)
class SplitData:
    """The three splits, and notes about them."""

    origin: str
    sha256: str
    n_rows: int
    label_names: tuple[str, ...]
    """Sorted; the class id is the place in this tuple."""
    notes: tuple[str, ...]
    splits: dict[SplitName, LabelledSplit]
    left_out: LabelledTexts
    """Rows of the source that are in no split, without the empty ones that were dropped."""

    def source_counts(self) -> list[int]:
        """Number of texts of each class in the whole source, including those left out for balance."""
        counts = Counter(label for split in self.splits.values() for label in split.rows.labels)
        counts.update(self.left_out.labels)
        return [counts[name] for name in self.label_names]


def read(options: DataOptions) -> SplitData:
    """Reads, balances and splits; once per process for the same options and files.

    A UserError says what is wrong with the data, or with options that contradict it.
    """
    files = options.split_files or ((options.path,) if options.path else ())
    return _read(options, tuple(_stamp(file) for file in files))


@lru_cache(maxsize=2)
def _read(options: DataOptions, stamps: tuple[object, ...]) -> SplitData:
    # The files' stamps are there for the cache alone: a file that was changed is read again.
    files = options.split_files
    return _read_files(options, files) if files else _read_one(options)


def _stamp(path: str) -> tuple[str, int, int] | None:
    """Path, time of change and size; None where there is no file, which reading it will refuse."""
    try:
        file = Path(os.path.expanduser(path)).absolute()
        status = file.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return str(file), status.st_mtime_ns, status.st_size


def _read_files(options: DataOptions, files: tuple[str, str, str]) -> SplitData:
    tables = {
        name: read_file(path, options.columns, options.empty) for name, path in zip(SPLIT_NAMES, files, strict=True)
    }
    notes = [note for rows in tables.values() for note in rows.notes]
    if repeated := _repeated([text for rows in tables.values() for text in rows.texts]):
        notes.append(f"{repeated:,} texts of the three files repeat an earlier one word for word")
    notes.append("the three files are used as they are: data.balance and data.split_seed do not apply")
    for path, rows in zip(files, tables.values(), strict=True):
        if not rows.texts:
            raise UserError(f"{path}: no text is left (data.empty drop): each of the three files needs texts")
    digest = split_sha256(range(3), [rows.sha256 for rows in tables.values()])
    return _assemble(options, ", ".join(files), digest, notes, tables, LabelledTexts([], [], [], digest))


def _read_one(options: DataOptions) -> SplitData:
    origin, rows = read_source(options)
    notes = list(rows.notes)
    if options.effective_source == "file" and (repeated := _repeated(rows.texts)):
        note = f"{repeated:,} texts repeat an earlier one word for word"
        if not options.group_near_duplicates:
            note += "; a split may have both sides of a pair: --data.group_near_duplicates true keeps them together"
        notes.append(note)
    split = divide(options, rows, notes)
    tables = {name: rows.pick(split[name]) for name in SPLIT_NAMES}
    used = {i for name in SPLIT_NAMES for i in split[name]}
    left_out = rows.pick([i for i in range(len(rows.texts)) if i not in used])
    return _assemble(options, origin, rows.sha256, notes, tables, left_out)


def read_source(options: DataOptions) -> tuple[str, LabelledTexts]:
    """The name of the source, and its rows; a UserError says what is wrong with it."""
    match options.effective_source, options.path:
        case "demo", None:
            return "demo (synthetic)", read_demo(options.split_seed)
        case "demo", path:
            raise UserError(f"data.source demo makes its own messages: leave data.path {path} out")
        case "sms_spam", path:
            return "SMS Spam Collection", read_sms_spam(path, quoted=options.split == "ch06")
        case "file", str(path):
            return path, read_file(path, options.columns, options.empty)
    raise UserError(
        "no data: pass --data.path FILE (a .csv, .tsv, .txt, .jsonl or .parquet of labelled texts), "
        "or --data.source sms_spam or demo"
    )


def divide(options: DataOptions, rows: LabelledTexts, notes: list[str]) -> Split:
    """Balances and splits the rows of a source, and adds to the notes; raises as `check_labels` and its neighbours."""
    if options.split == "ch06":
        split = ch06_split(rows.labels)
        used = sum(len(split[name]) for name in SPLIT_NAMES)
        notes.append(
            f"{len(rows.labels) - used:,} of {len(rows.labels):,} rows left out, as in the published split; "
            "data.split_seed and data.stratify do not apply to it"
        )
        return split
    near = [near_key(text) for text in rows.texts] if options.group_near_duplicates else None
    check_labels(rows.labels)
    check_enough_of_each(rows.labels, near)
    kept = list(range(len(rows.labels)))
    if options.balance == "undersample":
        kept = undersample(rows.labels, options.split_seed)
        if left := len(rows.labels) - len(kept):
            share = f"{left:,} of {len(rows.labels):,} rows"
            notes.append(f"{share} left out to balance the labels (data.balance undersample)")
    labels = [rows.labels[i] for i in kept]
    if near is None:
        split = split_by_fractions(labels, options.fractions, options.split_seed, options.stratify)
    else:
        keys = [near[i] for i in kept]
        check_enough_of_each(labels, keys)
        split = split_in_groups(labels, keys, options.fractions, options.split_seed, options.stratify)
        together = len(keys) - len(set(keys))
        notes.append(
            f"{together:,} texts repeat an earlier one but for digits, case and punctuation; each is in the same "
            "split as that one (data.group_near_duplicates)"
        )
    return {name: [kept[i] for i in rows_of] for name, rows_of in split.items()}


def _repeated(texts: Sequence[str]) -> int:
    return len(texts) - len(set(texts))


def _assemble(
    options: DataOptions,
    origin: str,
    sha256: str,
    notes: list[str],
    tables: dict[SplitName, LabelledTexts],
    left_out: LabelledTexts,
) -> SplitData:
    """Numbers the classes and checks that each is trained on."""
    label_names = check_labels([label for rows in tables.values() for label in rows.labels])
    for name in SPLIT_NAMES:
        absent = sorted(set(label_names) - set(tables[name].labels))
        if absent and name == "train":
            raise UserError(
                f"labels that occur outside the train split alone: {', '.join(map(quote, absent[:5]))}. "
                "They cannot be learnt: set data.stratify to true, or move rows into the train file"
            )
        if absent:
            notes.append(f"the {name} split has no text of {', '.join(map(quote, absent[:5]))}")
    class_id = {name: i for i, name in enumerate(label_names)}
    splits: dict[SplitName, LabelledSplit] = {}
    for name, rows in tables.items():
        label_ids = [class_id[label] for label in rows.labels]
        digest = split_sha256(label_ids, rows.texts)
        splits[name] = LabelledSplit(rows, label_ids, digest, tokenizer_for(options.tokenizer))
    n_rows = len(left_out.texts) + sum(len(rows.texts) for rows in tables.values())
    return SplitData(origin, sha256, n_rows, label_names, tuple(notes), splits, left_out)
