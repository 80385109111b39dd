"""The LightningDataModule: from a source and its options to the loaders of each split."""

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lit_cls.data.batches import (
    Batch,
    EvaluationBatches,
    TextDataset,
    TrainingBatches,
    Truncation,
    make_loader,
    truncate,
)
from lit_cls.data.downloads import SMS_SPAM, fetch
from lit_cls.data.sources import Column, EmptyPolicy, Rows, SourceName, read_demo, read_file, read_sms_spam
from lit_cls.data.splits import (
    SPLIT_NAMES,
    Balance,
    Split,
    SplitName,
    ch06_split,
    check_enough_of_each,
    check_labels,
    part_sha256,
    split_by_fractions,
    undersample,
)
from lit_cls.data.tokenizer import encode
from lit_cls.errors import UserError

# The options a checkpoint repeats: all of the constructor's but those that follow from the machine
# or from the model.
_SETTINGS = (
    *("source", "path", "text_column", "label_column", "header", "empty", "balance", "split", "stratify"),
    *("split_seed", "padding", "max_length", "truncation", "batch_size"),
)

NamedPadding = Literal["longest_in_batch", "longest_in_train", "context_length", "none"]
Padding = NamedPadding | int
SplitChoice = Literal["ch06"] | tuple[float, float, float] | tuple[str, str, str]


@dataclass(frozen=True)
class SplitSummary:
    """What a person is told about one split."""

    name: SplitName
    n: int
    labels: dict[str, int]
    tokens_median: int
    tokens_longest: int
    cut: int
    """Texts longer than the maximum, of which only a part is read."""
    sha256: str


@dataclass(frozen=True)
class DataSummary:
    """What a person is told about the data; stored with the run."""

    source: str
    sha256: str
    n_rows: int
    label_names: tuple[str, ...]
    max_length: int
    pad_to: int | None
    splits: tuple[SplitSummary, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain types, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Part:
    """One split, ready to be batched."""

    rows: Rows
    label_ids: list[int]
    token_ids: list[list[int]]
    """Of the whole texts; they are cut when they are batched."""
    sha256: str


class ClassificationData(LightningDataModule):
    """Labelled texts: read, balanced, split, tokenised, padded.

    Args:
        source: `sms_spam` (the UCI collection), `demo` (synthetic, needs no download), or `file`
            (the one in `path`); by default `file` when there is a path.
        path: a local file: .csv, .tsv, .txt (tabs), .jsonl or .parquet; with `sms_spam` a copy of
            that collection.
        text_column: the texts' column, by name or by number from 0.
        label_column: the labels' column, by name or by number from 0.
        header: whether the first line of a .csv, .tsv or .txt names the columns.
        empty: what is done about empty or missing texts: `error`, `drop` or `keep`.
        balance: `undersample` every label to the rarest, or `none`.
        split: fractions of train, validation and test; or three files; or `ch06`, the split of the
            published table.
        stratify: give each split the same mix of labels.
        split_seed: of balancing and splitting, and of the demo messages.
        padding: `longest_in_batch`, `longest_in_train`, `context_length`, `none` (batch size 1), or
            a number of tokens.
        max_length: tokens a text is cut to; by default the model's context length, or the padded
            length where that is fixed.
        truncation: which part of a longer text is kept: `head`, `tail`, or half of each.
        batch_size: texts per batch and device.
        num_workers: processes that prepare batches; never changes a result.
        context_length: of the model; follows from model.size.
    """

    def __init__(
        self,
        source: SourceName | None = None,
        path: str | None = None,
        text_column: Column = "text",
        label_column: Column = "label",
        header: bool = True,
        empty: EmptyPolicy = "error",
        balance: Balance = "undersample",
        split: SplitChoice = (0.7, 0.1, 0.2),
        stratify: bool = True,
        split_seed: int = 123,
        padding: Padding = "longest_in_batch",
        max_length: int | None = None,
        truncation: Truncation = "head",
        batch_size: int = 8,
        num_workers: int = 0,
        context_length: int = 1024,
    ) -> None:
        super().__init__()
        self.source = source
        self.path = path
        self.text_column = text_column
        self.label_column = label_column
        self.header = header
        self.empty = empty
        self.balance = balance
        self.split = split
        self.stratify = stratify
        self.split_seed = split_seed
        self.padding = padding
        self.max_length = max_length
        self.truncation = truncation
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.context_length = context_length
        self._parts: dict[SplitName, _Part] = {}
        self._check_options()

    def _check_options(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"data.batch_size {self.batch_size} is less than 1")
        if self.num_workers < 0:
            raise UserError(f"data.num_workers {self.num_workers} is less than 0")
        if self.split_seed < 0:
            raise UserError(f"data.split_seed {self.split_seed} is less than 0")
        if self.padding == "none" and self.batch_size > 1:
            raise UserError(
                f"data.padding none needs data.batch_size 1, not {self.batch_size}: texts of different lengths cannot "
                "share a batch unpadded; --trainer.accumulate_grad_batches gives larger steps"
            )
        for name, value in (("padding", self.padding), ("max_length", self.max_length)):
            if isinstance(value, int) and not 1 <= value <= self.context_length:
                raise UserError(
                    f"data.{name} {value} is not between 1 and the model's context length, {self.context_length}"
                )
        if isinstance(self.padding, int) and self.max_length not in (None, self.padding):
            raise UserError(
                f"data.padding {self.padding} pads and cuts to that length, data.max_length says {self.max_length}: "
                "give one of them"
            )
        if self.split == "ch06" and self._source != "sms_spam":
            raise UserError(f"data.split ch06 is a split of the SMS Spam Collection, not of data.source {self.source}")
        if self.split == "ch06" and self.balance != "undersample":
            raise UserError("data.split ch06 is balanced by its definition: leave data.balance out")
        if self._split_files and (self.path or self.source not in (None, "file")):
            raise UserError("data.split names three files: leave data.path and data.source out")

    @property
    def _split_files(self) -> tuple[str, str, str] | None:
        if isinstance(self.split, str) or not isinstance(self.split[0], str):
            return None
        train, validation, test = self.split
        return str(train), str(validation), str(test)

    @property
    def _fractions(self) -> tuple[float, float, float]:
        assert not isinstance(self.split, str), "ch06 has no fractions"
        train, validation, test = self.split
        return float(train), float(validation), float(test)

    @property
    def _source(self) -> SourceName | None:
        """The source that the options come to, None when they name none."""
        if self.source is None and self.split == "ch06":
            return "sms_spam"
        return self.source or ("file" if self.path else None)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, sorted; the class id is the place in this tuple."""
        self.setup()
        return self._label_names

    @property
    def summary(self) -> DataSummary:
        """What a person is told about the data."""
        self.setup()
        return DataSummary(
            source=self._origin,
            sha256=self._sha256,
            n_rows=self._n_rows,
            label_names=self._label_names,
            max_length=self.cut_to,
            pad_to=self.pad_to,
            splits=tuple(self._summarize(name) for name in SPLIT_NAMES),
            notes=tuple(self.notes),
        )

    def part(self, name: SplitName) -> _Part:
        """The rows of one split, in order."""
        self.setup()
        return self._parts[name]

    def prepare_data(self) -> None:
        """Downloads what has to be downloaded; Lightning calls this in one process."""
        if self._source == "sms_spam" and self.path is None:
            fetch(SMS_SPAM)

    def setup(self, stage: str | None = None) -> None:
        """Reads, splits and tokenises, once; the same for every stage.

        Raises:
            UserError: anything wrong with the data or with options that contradict it.
        """
        if self._parts:
            return
        self._origin, self.notes, self._sha256, self._n_rows, tables = self._read()
        self._label_names = check_labels([label for rows in tables.values() for label in rows.labels])
        self._check_labels_everywhere(tables)
        class_id = {name: i for i, name in enumerate(self._label_names)}
        for name, rows in tables.items():
            label_ids = [class_id[label] for label in rows.labels]
            self._parts[name] = _Part(rows, label_ids, encode(rows.texts), part_sha256(label_ids, rows.texts))
        self._resolve_lengths(max(map(len, self._parts["train"].token_ids)))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the train split."""
        part = self.part("train")
        limit, rank, world_size, accumulate = None, 0, 1, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            accumulate = self.trainer.accumulate_grad_batches
            limit = self.trainer.limit_train_batches
        batches = TrainingBatches(
            lengths=[min(len(ids), self.cut_to) for ids in part.token_ids],
            batch_size=self.batch_size,
            # Where Lightning's own samplers take the seed from: seed_everything leaves it there.
            seed=int(os.environ.get("PL_GLOBAL_SEED", "0")),
            by_length=self.padding == "longest_in_batch",
            accumulate=accumulate,
            rank=rank,
            world_size=world_size,
        )
        if limit is not None:
            batches.limit = limit if isinstance(limit, int) else int(limit * len(batches))
        return make_loader(self._dataset(part), batches, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split, every row once."""
        return self._evaluation_dataloader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split, every row once."""
        return self._evaluation_dataloader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The train split in evaluation order: its accuracy stands beside the test split's."""
        return self._evaluation_dataloader("train")

    def _evaluation_dataloader(self, name: SplitName) -> DataLoader[Batch]:
        part = self.part(name)
        batches = EvaluationBatches(
            lengths=[min(len(ids), self.cut_to) for ids in part.token_ids],
            batch_size=self.batch_size,
            by_length=self.pad_to is None,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )
        return make_loader(self._dataset(part), batches, self.num_workers)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: what prediction needs, and how to find the same splits."""
        settings = {name: getattr(self, name) for name in _SETTINGS}
        if self.path:
            settings["path"] = str(Path(self.path).expanduser().resolve())
        if files := self._split_files:
            settings["split"] = [str(Path(file).expanduser().resolve()) for file in files]
        elif not isinstance(self.split, str):
            settings["split"] = list(self.split)
        return {
            "settings": settings,
            "label_names": list(self.label_names),
            "cut_to": self.cut_to,
            "pad_to": self.pad_to,
            "split_sha256": {part.name: part.sha256 for part in self.summary.splits},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what a checkpoint says of lengths: the network reads as it was trained to.

        Raises:
            UserError: the data's labels are not those of the checkpoint.
        """
        self.check_reading(state_dict)
        if list(self.label_names) != state_dict["label_names"]:
            raise UserError(
                f"the checkpoint knows the labels {', '.join(state_dict['label_names'])}; the data has "
                f"{', '.join(self.label_names)}. Give the data it was trained on, or train anew"
            )
        self.cut_to, self.pad_to = state_dict["cut_to"], state_dict["pad_to"]
        theirs = state_dict["split_sha256"]
        other = [name for name in SPLIT_NAMES if self._parts[name].sha256 != theirs[name]]
        note = (
            f"not the {', '.join(other)} split that the checkpoint was trained with: "
            "texts it is tested on may be among those it was trained on"
        )
        if other and note not in self.notes:
            self.notes.append(note)

    def check_reading(self, state_dict: dict[str, Any]) -> None:
        """Texts must be cut and padded as the checkpoint's were.

        Raises:
            UserError: an option that says otherwise.
        """
        theirs = state_dict["settings"]
        for name in ("padding", "max_length", "truncation"):
            if getattr(self, name) != theirs[name]:
                raise UserError(
                    f"data.{name} is {getattr(self, name)}, the checkpoint was trained with {theirs[name]}: "
                    "leave the option out, or train anew"
                )

    def _dataset(self, part: _Part) -> TextDataset:
        token_ids = [truncate(ids, self.cut_to, self.truncation) for ids in part.token_ids]
        return TextDataset(token_ids, part.label_ids, self.pad_to)

    def _read(self) -> tuple[str, list[str], str, int, dict[SplitName, Rows]]:
        """Source, notes, sha256 and number of rows of the source, and the rows of each split."""
        if self._split_files:
            parts = {
                name: read_file(path, self.text_column, self.label_column, self.header, self.empty)
                for name, path in zip(SPLIT_NAMES, self._split_files, strict=True)
            }
            notes = [note for rows in parts.values() for note in rows.notes]
            notes.append("the three files are used as they are: data.balance and data.split_seed do not apply")
            for path, rows in zip(self._split_files, parts.values(), strict=True):
                if not rows.texts:
                    raise UserError(f"{path}: no text is left (data.empty drop): each of the three files needs texts")
            digest = part_sha256(range(3), [rows.sha256 for rows in parts.values()])
            return ", ".join(self._split_files), notes, digest, sum(len(r.texts) for r in parts.values()), parts
        name, rows = self._read_one()
        notes = list(rows.notes)
        split = self._split_one(rows, notes)
        tables = {
            part: Rows(
                [rows.texts[i] for i in split[part]],
                [rows.labels[i] for i in split[part]],
                [rows.numbers[i] for i in split[part]],
                rows.sha256,
            )
            for part in SPLIT_NAMES
        }
        return name, notes, rows.sha256, len(rows.texts), tables

    def _read_one(self) -> tuple[str, Rows]:
        match self._source, self.path:
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

    def _split_one(self, rows: Rows, notes: list[str]) -> Split:
        if self.split == "ch06":
            split = ch06_split(rows.labels)
            used = sum(len(split[name]) for name in SPLIT_NAMES)
            notes.append(
                f"{len(rows.labels) - used:,} of {len(rows.labels):,} rows left out, as in the published split; "
                "data.split_seed and data.stratify do not apply to it"
            )
            return split
        check_labels(rows.labels)
        check_enough_of_each(rows.labels)
        kept = list(range(len(rows.labels)))
        if self.balance == "undersample":
            kept = undersample(rows.labels, self.split_seed)
            if left := len(rows.labels) - len(kept):
                notes.append(
                    f"{left:,} of {len(rows.labels):,} rows left out to balance the labels (data.balance undersample)"
                )
        split = split_by_fractions([rows.labels[i] for i in kept], self._fractions, self.split_seed, self.stratify)
        return Split(*([kept[i] for i in split[name]] for name in SPLIT_NAMES))

    def _check_labels_everywhere(self, tables: dict[SplitName, Rows]) -> None:
        """Every label must be trained on; one that is missing elsewhere is told."""
        for name in SPLIT_NAMES:
            absent = sorted(set(self._label_names) - set(tables[name].labels))
            if absent and name == "train":
                raise UserError(
                    f"labels that occur outside the train split alone: {', '.join(map(repr, absent[:5]))}. "
                    "They cannot be learnt: set data.stratify to true, or move rows into the train file"
                )
            if absent:
                self.notes.append(f"the {name} split has no text of {', '.join(map(repr, absent[:5]))}")

    def _resolve_lengths(self, longest_in_train: int) -> None:
        """Sets `cut_to`, what texts are cut to, and `pad_to`, T of every batch or None."""
        limit = self.max_length or self.context_length
        fixed = {"longest_in_train": longest_in_train, "context_length": self.context_length}
        wanted = self.padding if isinstance(self.padding, int) else fixed.get(self.padding)
        self.pad_to = None if wanted is None else min(wanted, limit)
        self.cut_to = self.pad_to or limit

    def _summarize(self, name: SplitName) -> SplitSummary:
        part = self._parts[name]
        lengths = sorted(map(len, part.token_ids))
        return SplitSummary(
            name=name,
            n=len(lengths),
            labels=dict(sorted(Counter(part.rows.labels).items())),
            tokens_median=lengths[len(lengths) // 2],
            tokens_longest=lengths[-1],
            cut=sum(length > self.cut_to for length in lengths),
            sha256=part.sha256,
        )
