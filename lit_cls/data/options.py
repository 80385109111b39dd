"""The options of the data, each stated once: name, type, default, help, checks; and their form on a command line."""

import dataclasses
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from lit_cls.data.formats import Column, ColumnChoice
from lit_cls.data.sources import EmptyPolicy, SourceName
from lit_cls.data.splits import Balance, check_fractions
from lit_cls.errors import UserError

SplitChoice = Literal["ch06"] | tuple[float, float, float] | tuple[str, str, str]
NamedPadding = Literal["longest_in_batch", "longest_in_train", "context_length", "none"]
Padding = NamedPadding | int
Truncation = Literal["head", "tail", "head_tail"]
# They follow from the machine or from the model: no checkpoint stores them.
_NOT_STORED = ("num_workers", "context_length", "tokenizer")


@dataclass(frozen=True)
class DataOptions:
    """Where labelled texts come from, and how they are split, padded and batched.

    Two that read the same rows into the same splits are equal.

    Args:
        source: `sms_spam` (the UCI collection), `demo` (synthetic, needs no download), or `file` (the one in `path`);
            by default `file` when there is a path.
        path: a local file: .csv, .tsv, .txt (tabs), .jsonl or .parquet; with `sms_spam` a copy of that collection.
        text_column: the texts' column, by name or by number from 0.
        label_column: the labels' column, by name or by number from 0.
        header: whether the first line of a .csv, .tsv or .txt names the columns.
        empty: what is done about empty or missing texts: `error`, `drop` or `keep`.
        balance: `undersample` every label to the rarest, or `none`.
        split: fractions of train, validation and test; or three files; or `ch06`, the split of the published table.
        stratify: give each split the same mix of labels.
        split_seed: of balancing and splitting, and of the demo messages.
        group_near_duplicates: keep texts that are the same but for digits, case and punctuation in the same split.
        padding: `longest_in_batch`, `longest_in_train`, `context_length`, `none` (batch size 1), or a number of tokens.
        max_length: tokens a text is truncated to; by default the model's context length, or the padded length where
            that is fixed.
        truncation: which part of a longer text is kept: `head`, `tail`, or half of each.
        batch_size: texts per training batch and device.
        num_workers: processes that prepare batches; never changes a result.
        context_length: of the model; follows from model.size.
        tokenizer: of the model, by name.
    """

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
    # Not compared: options of equal rows share what has been read (`split_data.read`).
    padding: Padding = dataclasses.field(default="longest_in_batch", compare=False)
    max_length: int | None = dataclasses.field(default=None, compare=False)
    truncation: Truncation = dataclasses.field(default="head", compare=False)
    batch_size: int = dataclasses.field(default=8, compare=False)
    num_workers: int = dataclasses.field(default=0, compare=False)
    context_length: int = dataclasses.field(default=1024, compare=False)
    tokenizer: str = "gpt2"

    def __post_init__(self) -> None:
        # A configuration file has a list, which has no hash.
        if not isinstance(self.split, str):
            object.__setattr__(self, "split", tuple(self.split))

    @classmethod
    def stored(cls, settings: dict[str, Any]) -> "DataOptions":
        """The options that `settings` returned; what this version does not know is left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in names})

    def settings(self) -> dict[str, Any]:
        """The options that a checkpoint stores, in plain types; files by their full paths."""
        settings = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NOT_STORED}
        if self.path:
            settings["path"] = _full_path(self.path)
        if not isinstance(self.split, str):
            settings["split"] = [_full_path(file) for file in self.split_files or ()] or list(self.split)
        return settings

    def check(self) -> None:
        """Refuses, with a UserError, values out of range and options that contradict each other."""
        self._check_batches()
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
                f"data.split {fixed} defines the split of each row, and data.group_near_duplicates cannot keep rows "
                "together: leave it out, or give data.split as fractions"
            )
        if not fixed:
            check_fractions(self.fractions)

    def _check_batches(self) -> None:
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
                f"data.padding {self.padding} pads and truncates to that length, data.max_length is "
                f"{self.max_length}: give one of them"
            )

    @property
    def columns(self) -> ColumnChoice:
        """The columns of a file."""
        return ColumnChoice((self.text_column,), (self.label_column,), self.header)

    @property
    def split_files(self) -> tuple[str, str, str] | None:
        """The three files, where `split` names them."""
        if isinstance(self.split, str) or not isinstance(self.split[0], str):
            return None
        train, validation, test = self.split
        return str(train), str(validation), str(test)

    @property
    def effective_source(self) -> SourceName | None:
        """The source that the options lead to, None when they name none."""
        if self.source is None and self.split == "ch06":
            return "sms_spam"
        return self.source or ("file" if self.path else None)

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Of train, validation and test."""
        train, validation, test = cast("tuple[float, float, float]", self.split)
        return float(train), float(validation), float(test)


def _full_path(file: str) -> str:
    return str(Path(os.path.expanduser(file)).resolve())


def fit_commands(options: DataOptions, needed_name: str | None, max_length: int | None) -> list[str]:
    """The command that starts `fit` on a file, after one that gives the file the name it needs, if that is another."""
    copy = [] if needed_name is None else [command_line(["cp", os.path.expanduser(str(options.path)), needed_name])]
    if max_length is not None:
        options = dataclasses.replace(options, max_length=max_length)
    return [*copy, command_line(["lit_cls", "fit", *fit_words(options, needed_name)])]


def fit_words(options: DataOptions, path: str | None = None) -> list[str]:
    """The options that are not the defaults, as `fit` takes them; `path` replaces the file's."""
    words = []
    for field in dataclasses.fields(DataOptions):
        value = path if field.name == "path" and path else getattr(options, field.name)
        if value != field.default:
            words += [f"--data.{field.name}", option_value(value)]
    return words


def option_value(value: object) -> str:
    """A value as the command line spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, tuple):
        return str(value)
    # A list in YAML, where some names need quotes.
    items = [str(item) for item in value]
    return f"[{','.join(item if re.fullmatch(r'[A-Za-z0-9_./+-]+', item) else json.dumps(item) for item in items)}]"


def command_line(words: Sequence[str]) -> str:
    """Words quoted for a shell; control characters are escaped so that bash, zsh and POSIX shells read them."""

    def octal(character: str) -> str:
        if character.isprintable() and character not in "\\'":
            return character
        return "".join(f"\\{byte:03o}" for byte in character.encode())

    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{''.join(map(octal, word))}'" for word in words)
