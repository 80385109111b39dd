"""From a source and its options to the rows of each split: what every padding starts from."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from lit_cls.data.sources import Column, EmptyPolicy, Rows, SourceName, read_demo, read_file, read_sms_spam
from lit_cls.data.splits import (
    SPLIT_NAMES,
    Balance,
    Split,
    SplitName,
    ch06_split,
    check_enough_of_each,
    check_fractions,
    check_labels,
    near_key,
    part_sha256,
    split_by_fractions,
    split_in_groups,
    undersample,
)
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.data.tokenizers.base import Tokenizer
from lit_cls.errors import UserError, quote

SplitChoice = Literal["ch06"] | tuple[float, float, float] | tuple[str, str, str]


@dataclass(frozen=True)
class Part:
    """One split, ready to be batched."""

    rows: Rows
    label_ids: list[int]
    sha256: str
    tokenizer: Tokenizer

    @cached_property
    def token_ids(self) -> list[list[int]]:
        """Of the whole texts; they are cut when they are batched."""
        return self.tokenizer.encode(self.rows.texts)


@dataclass(frozen=True)
class Parts:
    """The three splits, and what there is to tell about them."""

    origin: str
    sha256: str
    """Of the source."""
    n_rows: int
    label_names: tuple[str, ...]
    """Sorted; the class id is the place in this tuple."""
    notes: tuple[str, ...]
    splits: dict[SplitName, Part]
    left_out: Rows
    """Rows of the source that are in no split, without the empty ones that were dropped."""

    def source_counts(self) -> list[int]:
        """Number of texts of each class in the whole source, including those left out for balance."""
        counts = Counter(label for part in self.splits.values() for label in part.rows.labels)
        counts.update(self.left_out.labels)
        return [counts[name] for name in self.label_names]


@dataclass(frozen=True)
class Reading:
    """The options that decide which rows are in which split; see `ClassificationData` for each."""

    source: SourceName | None = None
    path: str | None = None
    text_column: Column = "text"
    label_column: Column = "label"
    header: bool = True
    empty: EmptyPolicy = "error"
    balance: Balance = "undersample"
    split: SplitChoice = (0.7, 0.1, 0.2)
    stratify: bool = True
    split_seed: int = 123
    group_near_duplicates: bool = False
    tokenizer: str = "gpt2"

    def check(self) -> None:
        """Refuses options that contradict each other, before anything is read.

        Raises:
            UserError: which ones.
        """
        if self.split_seed < 0:
            raise UserError(f"data.split_seed {self.split_seed} is less than 0")
        if self.split == "ch06" and self.effective_source != "sms_spam":
            raise UserError(f"data.split ch06 is a split of the SMS Spam Collection, not of data.source {self.source}")
        if self.split == "ch06" and self.balance != "undersample":
            raise UserError("data.split ch06 is balanced by its definition: leave data.balance out")
        if self.split_files and (self.path or self.source not in (None, "file")):
            raise UserError("data.split names three files: leave data.path and data.source out")
        fixed = "three files" if self.split_files else "ch06" if self.split == "ch06" else None
        if fixed and self.group_near_duplicates:
            raise UserError(
                f"data.split {fixed} says which row is in which part, and data.group_near_duplicates can keep none "
                "together: leave it out, or give data.split as fractions"
            )
        if not fixed:
            check_fractions(self._fractions)

    @property
    def split_files(self) -> tuple[str, str, str] | None:
        """The three files, where `split` names them."""
        if isinstance(self.split, str) or not isinstance(self.split[0], str):
            return None
        train, validation, test = self.split
        return str(train), str(validation), str(test)

    @property
    def effective_source(self) -> SourceName | None:
        """The source that the options come to, None when they name none."""
        if self.source is None and self.split == "ch06":
            return "sms_spam"
        return self.source or ("file" if self.path else None)

    @property
    def _fractions(self) -> tuple[float, float, float]:
        assert not isinstance(self.split, str), "ch06 has no fractions"
        train, validation, test = self.split
        return float(train), float(validation), float(test)

    def read(self) -> Parts:
        """Reads, balances and splits; once per process for the same options and files.

        Raises:
            UserError: anything wrong with the data or with options that contradict it.
        """
        files = self.split_files or ((self.path,) if self.path else ())
        return _read(self, tuple(_stamp(file) for file in files))

    def _read_files(self, files: tuple[str, str, str]) -> Parts:
        tables = {
            name: read_file(path, self.text_column, self.label_column, self.header, self.empty)
            for name, path in zip(SPLIT_NAMES, files, strict=True)
        }
        notes = [note for rows in tables.values() for note in rows.notes]
        if repeated := _repeated([text for rows in tables.values() for text in rows.texts]):
            notes.append(f"{repeated:,} texts of the three files repeat an earlier one word for word")
        notes.append("the three files are used as they are: data.balance and data.split_seed do not apply")
        for path, rows in zip(files, tables.values(), strict=True):
            if not rows.texts:
                raise UserError(f"{path}: no text is left (data.empty drop): each of the three files needs texts")
        tokenizer = tokenizer_for(self.tokenizer)
        digest = part_sha256(range(3), [rows.sha256 for rows in tables.values()])
        return _assemble(", ".join(files), digest, notes, tables, Rows([], [], [], digest), tokenizer)

    def _read_one(self) -> Parts:
        name, rows = self.read_source()
        notes = list(rows.notes)
        if self.effective_source == "file" and (repeated := _repeated(rows.texts)):
            note = f"{repeated:,} texts repeat an earlier one word for word"
            if not self.group_near_duplicates:
                note += "; a split may have both sides of a pair: --data.group_near_duplicates true keeps them together"
            notes.append(note)
        split = self.divide(rows, notes)
        tables = {part: _pick(rows, split[part]) for part in SPLIT_NAMES}
        used = {i for part in SPLIT_NAMES for i in split[part]}
        left_out = _pick(rows, [i for i in range(len(rows.texts)) if i not in used])
        return _assemble(name, rows.sha256, notes, tables, left_out, tokenizer_for(self.tokenizer))

    def read_source(self) -> tuple[str, Rows]:
        """What the source is called, and its rows.

        Raises:
            UserError: anything wrong with it.
        """
        match self.effective_source, self.path:
            case "demo", None:
                return "demo (synthetic)", read_demo(self.split_seed)
            case "demo", path:
                raise UserError(f"data.source demo makes its own messages: leave data.path {path} out")
            case "sms_spam", path:
                return "SMS Spam Collection", read_sms_spam(path, quoted=self.split == "ch06")
            case "file", str(path):
                rows = read_file(path, self.text_column, self.label_column, self.header, self.empty)
                return path, rows
        raise UserError(
            "no data: pass --data.path FILE (a .csv, .tsv, .txt, .jsonl or .parquet of labelled texts), "
            "or --data.source sms_spam or demo"
        )

    def divide(self, rows: Rows, notes: list[str]) -> Split:
        """Balances and splits rows, by one file's or source's options.

        Args:
            rows: all of the source.
            notes: gets what there is to tell.

        Raises:
            UserError: labels that cannot be told apart, or that have too few texts.
        """
        if self.split == "ch06":
            split = ch06_split(rows.labels)
            used = sum(len(split[name]) for name in SPLIT_NAMES)
            notes.append(
                f"{len(rows.labels) - used:,} of {len(rows.labels):,} rows left out, as in the published split; "
                "data.split_seed and data.stratify do not apply to it"
            )
            return split
        check_labels(rows.labels)
        check_enough_of_each(rows.labels, self._keys(rows.texts))
        kept = list(range(len(rows.labels)))
        if self.balance == "undersample":
            kept = undersample(rows.labels, self.split_seed)
            if left := len(rows.labels) - len(kept):
                notes.append(
                    f"{left:,} of {len(rows.labels):,} rows left out to balance the labels (data.balance undersample)"
                )
        labels, keys = [rows.labels[i] for i in kept], self._keys([rows.texts[i] for i in kept])
        if keys is None:
            split = split_by_fractions(labels, self._fractions, self.split_seed, self.stratify)
        else:
            check_enough_of_each(labels, keys)
            split = split_in_groups(labels, keys, self._fractions, self.split_seed, self.stratify)
            together = len(keys) - len(set(keys))
            notes.append(
                f"{together:,} texts repeat an earlier one but for digits, case and punctuation; each is in the same "
                "part as that one (data.group_near_duplicates)"
            )
        return Split(*([kept[i] for i in split[name]] for name in SPLIT_NAMES))

    def _keys(self, texts: Sequence[str]) -> list[str] | None:
        return [near_key(text) for text in texts] if self.group_near_duplicates else None


def _repeated(texts: Sequence[str]) -> int:
    return len(texts) - len(set(texts))


_Stamp = tuple[str, int, int]
"""Where a file is, when it was changed, and its size."""


@lru_cache(maxsize=2)
def _read(reading: Reading, stamps: tuple["_Stamp | None", ...]) -> Parts:
    # The files' stamps are there for the cache alone: a file that was changed is read again.
    files = reading.split_files
    return reading._read_files(files) if files else reading._read_one()


def _stamp(path: str) -> _Stamp | None:
    """None where there is no file, which reading it will tell."""
    try:
        file = Path(os.path.expanduser(path)).absolute()
        status = file.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return str(file), status.st_mtime_ns, status.st_size


def _pick(rows: Rows, chosen: list[int]) -> Rows:
    return Rows(
        [rows.texts[i] for i in chosen],
        [rows.labels[i] for i in chosen],
        [rows.numbers[i] for i in chosen],
        rows.sha256,
    )


def _assemble(
    origin: str,
    sha256: str,
    notes: list[str],
    tables: dict[SplitName, Rows],
    left_out: Rows,
    tokenizer: Tokenizer,
) -> Parts:
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
    splits: dict[SplitName, Part] = {}
    for name, rows in tables.items():
        label_ids = [class_id[label] for label in rows.labels]
        splits[name] = Part(rows, label_ids, part_sha256(label_ids, rows.texts), tokenizer)
    n_rows = len(left_out.texts) + sum(len(rows.texts) for rows in tables.values())
    return Parts(origin, sha256, n_rows, label_names, tuple(notes), splits, left_out)
