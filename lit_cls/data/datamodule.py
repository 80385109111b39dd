"""The LightningDataModule: from a source and its options to the loaders of each split."""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from lit_cls.data import split_data
from lit_cls.data.batches import Batch, EvaluationBatches, TextDataset, TrainingBatches, make_loader, truncate
from lit_cls.data.downloads import SMS_SPAM, fetch
from lit_cls.data.options import DataOptions
from lit_cls.data.split_data import LabelledSplit, SplitData
from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError


@dataclass(frozen=True)
class SplitSummary:
    """One split in figures."""

    name: SplitName
    n: int
    labels: dict[str, int]
    tokens_median: int
    tokens_longest: int
    cut: int
    """Texts longer than the maximum, which are truncated."""
    sha256: str


@dataclass(frozen=True)
class DataSummary:
    """The data in figures; stored with the run."""

    source: str
    sha256: str
    n_rows: int
    label_names: tuple[str, ...]
    max_length: int
    pad_to: int | None
    splits: tuple[SplitSummary, ...]
    notes: tuple[str, ...]


class ClassificationData(LightningDataModule):
    """Labelled texts: read, balanced, split, tokenised, padded; the arguments are the fields of `DataOptions`."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = DataOptions(**options)  # from here jsonargparse knows the options of the command line
        self.options.check()
        self.tokenizer = tokenizer_for(self.options.tokenizer)
        self._split_data: SplitData | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        """As in `SplitData`."""
        return self.split_data.label_names

    @property
    def summary(self) -> DataSummary:
        """The data in figures."""
        data = self.split_data
        return DataSummary(
            source=data.origin,
            sha256=data.sha256,
            n_rows=data.n_rows,
            label_names=data.label_names,
            max_length=self.cut_to,
            pad_to=self.pad_to,
            splits=tuple(self._summarize(name, data.splits[name]) for name in SPLIT_NAMES),
            notes=tuple(self.notes),
        )

    @property
    def split_data(self) -> SplitData:
        """The splits, and the rows that are in none."""
        self.setup()
        assert self._split_data is not None, "setup has read it"
        return self._split_data

    @property
    def splits(self) -> dict[SplitName, LabelledSplit]:
        """The rows of each split, in order."""
        return self.split_data.splits

    def prepare_data(self) -> None:
        """Downloads the SMS Spam Collection if it is needed; Lightning calls this in one process."""
        if self.options.effective_source == "sms_spam" and self.options.path is None:
            fetch(SMS_SPAM)

    def setup(self, stage: str | None = None) -> None:
        """Reads, splits and tokenises, once; the same for every stage. Raises as `split_data.read`."""
        if self._split_data is not None:
            return
        self._split_data = split_data.read(self.options)
        self.notes = list(self._split_data.notes)
        self._resolve_lengths(max(map(len, self._split_data.splits["train"].token_ids)))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the train split."""
        train, options, trainer = self.splits["train"], self.options, self.trainer
        rank, world_size = self._processes
        batches = TrainingBatches(
            lengths=[min(len(ids), self.cut_to) for ids in train.token_ids],
            batch_size=options.batch_size,
            seed=_seed(),
            by_length=options.padding == "longest_in_batch",
            accumulate=1 if trainer is None else trainer.accumulate_grad_batches,
            rank=rank,
            world_size=world_size,
        )
        if trainer is not None and (limit := trainer.limit_train_batches) is not None:
            batches.limit = limit if isinstance(limit, int) else int(limit * len(batches))
        return make_loader(self._dataset(train), batches, options.num_workers)

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
        dataset = self._dataset(self.splits[name])
        return make_loader(dataset, EvaluationBatches(dataset))

    def _evaluation_dataloader(self, name: SplitName) -> DataLoader[Batch]:
        dataset = self._dataset(self.splits[name])
        return make_loader(dataset, EvaluationBatches(dataset, *self._processes), self.options.num_workers)

    @property
    def _processes(self) -> tuple[int, int]:
        """The rank of this process, and the number of all."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def order(self, trainer: Trainer) -> dict[str, float]:
        """The values that decide the batches of an epoch, the texts and their padding aside, by option."""
        return {
            "seed_everything": _seed(),
            "data.batch_size times trainer.devices": self.options.batch_size * trainer.world_size,
            "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
            "trainer.limit_train_batches": trainer.limit_train_batches,
        }

    def state_dict(self) -> dict[str, Any]:
        """Names, lengths and tokenizer for prediction, and the settings that lead to the same splits."""
        return {
            "settings": self.options.settings(),
            "label_names": list(self.label_names),
            "cut_to": self.cut_to,
            "pad_to": self.pad_to,
            "tokenizer": self.options.tokenizer,
            "split_sha256": {name: split.sha256 for name, split in self.splits.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the lengths of a checkpoint; a UserError refuses one of other labels or lengths."""
        for option in ("padding", "max_length", "truncation"):
            value, trained = getattr(self.options, option), state_dict["settings"][option]
            if value != trained:
                raise UserError(
                    f"data.{option} is {value}, the checkpoint was trained with {trained}: "
                    "leave the option out, or train anew"
                )
        if list(self.label_names) != state_dict["label_names"]:
            raise UserError(
                f"the checkpoint knows the labels {', '.join(state_dict['label_names'])}; the data has "
                f"{', '.join(self.label_names)}. Give the data it was trained on, or train anew"
            )
        self.cut_to, self.pad_to = state_dict["cut_to"], state_dict["pad_to"]
        other = ", ".join(self.other_splits(state_dict))
        leak = "texts it is tested on may be among those it was trained on"
        note = f"not the {other} split that the checkpoint was trained with: {leak}"
        if other and note not in self.notes:
            self.notes.append(note)

    def other_splits(self, state_dict: dict[str, Any]) -> list[SplitName]:
        """The splits whose texts or labels are not those that a checkpoint names."""
        return [name for name in SPLIT_NAMES if self.splits[name].sha256 != state_dict["split_sha256"][name]]

    def _dataset(self, split: LabelledSplit) -> TextDataset:
        token_ids = [truncate(ids, self.cut_to, self.options.truncation) for ids in split.token_ids]
        unpadded = self.options.padding == "none"
        return TextDataset(token_ids, split.label_ids, self.pad_to, unpadded, pad_id=self.tokenizer.pad_id)

    def _resolve_lengths(self, longest_in_train: int) -> None:
        """Sets `cut_to`, the length texts are truncated to, and `pad_to`, T of every batch or None."""
        padding, context = self.options.padding, self.options.context_length
        limit = self.options.max_length or context
        fixed = {"longest_in_train": longest_in_train, "context_length": context}
        length = padding if isinstance(padding, int) else fixed.get(padding)
        self.pad_to = None if length is None else min(length, limit)
        self.cut_to = self.pad_to or limit

    def _summarize(self, name: SplitName, split: LabelledSplit) -> SplitSummary:
        lengths = sorted(map(len, split.token_ids))
        return SplitSummary(
            name=name,
            n=len(lengths),
            labels=dict(sorted(Counter(split.rows.labels).items())),
            tokens_median=lengths[len(lengths) // 2],
            tokens_longest=lengths[-1],
            cut=sum(length > self.cut_to for length in lengths),
            sha256=split.sha256,
        )


def _seed() -> int:
    # Where Lightning's own samplers take the seed from: seed_everything leaves it there.
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))
