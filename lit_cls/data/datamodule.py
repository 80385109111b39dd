"""The LightningDataModule: from a source and its options to the loaders of each split."""

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch import LightningDataModule, Trainer
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
from lit_cls.data.sources import Column, EmptyPolicy, SourceName
from lit_cls.data.split_data import Part, Parts, Reading, SplitChoice
from lit_cls.data.splits import SPLIT_NAMES, Balance, SplitName
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError

# The options a checkpoint repeats: all of the constructor's but those that follow from the machine
# or from the model.
_SETTINGS = (
    *("source", "path", "text_column", "label_column", "header", "empty", "balance", "split", "stratify"),
    *("split_seed", "group_near_duplicates", "padding", "max_length", "truncation", "batch_size"),
)

NamedPadding = Literal["longest_in_batch", "longest_in_train", "context_length", "none"]
Padding = NamedPadding | int


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
        group_near_duplicates: keep texts that are the same but for digits, case and punctuation in
            the same split.
        padding: `longest_in_batch`, `longest_in_train`, `context_length`, `none` (batch size 1), or
            a number of tokens.
        max_length: tokens a text is cut to; by default the model's context length, or the padded
            length where that is fixed.
        truncation: which part of a longer text is kept: `head`, `tail`, or half of each.
        batch_size: texts per training batch and device.
        num_workers: processes that prepare batches; never changes a result.
        context_length: of the model; follows from model.size.
        tokenizer: of the model, by name.
    """

    def __init__(
        self,
        source: SourceName | None = Reading.source,
        path: str | None = Reading.path,
        text_column: Column = Reading.text_column,
        label_column: Column = Reading.label_column,
        header: bool = Reading.header,
        empty: EmptyPolicy = Reading.empty,
        balance: Balance = Reading.balance,
        split: SplitChoice = Reading.split,
        stratify: bool = Reading.stratify,
        split_seed: int = Reading.split_seed,
        group_near_duplicates: bool = Reading.group_near_duplicates,
        padding: Padding = "longest_in_batch",
        max_length: int | None = None,
        truncation: Truncation = "head",
        batch_size: int = 8,
        num_workers: int = 0,
        context_length: int = 1024,
        tokenizer: str = Reading.tokenizer,
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
        self.group_near_duplicates = group_near_duplicates
        self.padding = padding
        self.max_length = max_length
        self.truncation = truncation
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.context_length = context_length
        self.tokenizer = tokenizer_for(tokenizer)
        # A configuration file has a list, which cannot be compared by its hash.
        chosen = split if isinstance(split, str) else cast("tuple[float, float, float]", tuple(split))
        self.reading = Reading(
            *(source, path, text_column, label_column, header, empty, balance, chosen, stratify, split_seed),
            group_near_duplicates,
            tokenizer,
        )
        self._parts: Parts | None = None
        self._check_options()

    def _check_options(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"data.batch_size {self.batch_size} is less than 1")
        most = max(16, os.cpu_count() or 1)
        if not 0 <= self.num_workers <= most:
            raise UserError(f"data.num_workers {self.num_workers} is not between 0 and {most}")
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
        self.reading.check()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, sorted; the class id is the place in this tuple."""
        return self.parts.label_names

    @property
    def summary(self) -> DataSummary:
        """What a person is told about the data."""
        parts = self.parts
        return DataSummary(
            source=parts.origin,
            sha256=parts.sha256,
            n_rows=parts.n_rows,
            label_names=parts.label_names,
            max_length=self.cut_to,
            pad_to=self.pad_to,
            splits=tuple(self._summarize(name, parts.splits[name]) for name in SPLIT_NAMES),
            notes=tuple(self.notes),
        )

    @property
    def parts(self) -> Parts:
        """The splits, and the rows that are in none."""
        self.setup()
        assert self._parts is not None, "setup has read them"
        return self._parts

    def part(self, name: SplitName) -> Part:
        """The rows of one split, in order."""
        return self.parts.splits[name]

    def prepare_data(self) -> None:
        """Downloads what has to be downloaded; Lightning calls this in one process."""
        if self.reading.effective_source == "sms_spam" and self.path is None:
            fetch(SMS_SPAM)

    def setup(self, stage: str | None = None) -> None:
        """Reads, splits and tokenises, once; the same for every stage.

        Raises:
            UserError: anything wrong with the data or with options that contradict it.
        """
        if self._parts is not None:
            return
        self._parts = self.reading.read()
        self.notes = list(self._parts.notes)
        self._resolve_lengths(max(map(len, self._parts.splits["train"].token_ids)))

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
            seed=_seed(),
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

    def whole_split(self, name: SplitName) -> DataLoader[Batch]:
        """Every row once, all of them in this process."""
        dataset = self._dataset(self.part(name))
        return make_loader(dataset, EvaluationBatches(dataset))

    def _evaluation_dataloader(self, name: SplitName) -> DataLoader[Batch]:
        dataset = self._dataset(self.part(name))
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return make_loader(dataset, EvaluationBatches(dataset, rank, world_size), self.num_workers)

    def order(self, trainer: Trainer) -> dict[str, float]:
        """What the batches of an epoch follow from, the texts and their padding aside, by option.

        Args:
            trainer: that they are for.
        """
        return {
            "seed_everything": _seed(),
            "data.batch_size times trainer.devices": self.batch_size * trainer.world_size,
            "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
            "trainer.limit_train_batches": trainer.limit_train_batches,
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the data: what prediction needs, and how to find the same splits."""
        settings = {name: getattr(self, name) for name in _SETTINGS}
        if self.path:
            settings["path"] = str(Path(os.path.expanduser(self.path)).resolve())
        if files := self.reading.split_files:
            settings["split"] = [str(Path(os.path.expanduser(file)).resolve()) for file in files]
        elif not isinstance(self.split, str):
            settings["split"] = list(self.split)
        return {
            "settings": settings,
            "label_names": list(self.label_names),
            "cut_to": self.cut_to,
            "pad_to": self.pad_to,
            "tokenizer": self.reading.tokenizer,
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
        other = self.other_splits(state_dict)
        note = (
            f"not the {', '.join(other)} split that the checkpoint was trained with: "
            "texts it is tested on may be among those it was trained on"
        )
        if other and note not in self.notes:
            self.notes.append(note)

    def other_splits(self, state_dict: dict[str, Any]) -> list[SplitName]:
        """The splits whose texts or labels are not those that a checkpoint names."""
        return [name for name in SPLIT_NAMES if self.part(name).sha256 != state_dict["split_sha256"][name]]

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

    def _dataset(self, part: Part) -> TextDataset:
        token_ids = [truncate(ids, self.cut_to, self.truncation) for ids in part.token_ids]
        return TextDataset(token_ids, part.label_ids, self.pad_to, self.padding == "none", pad_id=self.tokenizer.pad_id)

    def _resolve_lengths(self, longest_in_train: int) -> None:
        """Sets `cut_to`, what texts are cut to, and `pad_to`, T of every batch or None."""
        limit = self.max_length or self.context_length
        fixed = {"longest_in_train": longest_in_train, "context_length": self.context_length}
        wanted = self.padding if isinstance(self.padding, int) else fixed.get(self.padding)
        self.pad_to = None if wanted is None else min(wanted, limit)
        self.cut_to = self.pad_to or limit

    def _summarize(self, name: SplitName, part: Part) -> SplitSummary:
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


def _seed() -> int:
    # Where Lightning's own samplers take the seed from: seed_everything leaves it there.
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))
