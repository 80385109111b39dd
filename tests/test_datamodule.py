"""From options to batches: what each option changes, and what it must leave alone."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SHARED
from lightning.pytorch import LightningModule, Trainer

from lit_cls.data.batches import EvaluationBatches
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.options import DataOptions
from lit_cls.data.splits import SPLIT_NAMES, split_sha256
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError

TOKENIZER = tokenizer_for("gpt2")

# Worker processes are forked; newer Pythons warn about forking beside threads, and torch about few cores.
with_workers = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning", "ignore:This DataLoader will create:UserWarning"
)

CONTEXT = 64
COUNTS = {"news": 70, "ads": 40, "letters": 55}  # neither sorted nor balanced


def words(n: int) -> str:
    """A text of n tokens."""
    return " ".join(["a"] * n)


def write_csv(path: Path, rows: Iterable[tuple[str, str]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """165 different texts of 2 to about 100 tokens, some longer than the context, labels in no order."""
    rng = np.random.default_rng(2)
    labels = [label for label, n in COUNTS.items() for _ in range(n)]
    rows = [
        (f"{i} {words(1 + int(rng.geometric(0.04)))}", labels[j]) for i, j in enumerate(rng.permutation(len(labels)))
    ]
    return write_csv(tmp_path / "texts.csv", rows)


@pytest.fixture
def three_files(tmp_path: Path) -> tuple[str, str, str]:
    """Train texts of 3 to 10 tokens; longer ones in validation (20) and test (30)."""
    train = [(words(n), "xy"[n % 2]) for n in (3, 10, 7, 4, 9, 5)]
    validation = [(words(n), "xy"[n % 2]) for n in (2, 20, 11)]
    test = [(words(n), "xy"[n % 2]) for n in (30, 12, 6, 1)]
    parts = {"train": train, "validation": validation, "test": test}
    a, b, c = (write_csv(tmp_path / f"{name}.csv", rows) for name, rows in parts.items())
    return a, b, c


def data(path: str | None = None, **options: Any) -> ClassificationData:
    return ClassificationData(path=path, **{"context_length": CONTEXT, **options})


def hashes(module: ClassificationData) -> dict[str, str]:
    return {part.name: part.sha256 for part in module.summary.splits}


# Splits.


def test_default_split_of_a_file(file: str) -> None:
    summary = data(file).summary
    assert summary.source == file
    assert summary.n_rows == 165
    assert summary.label_names == ("ads", "letters", "news")
    # 40 of each label: 28, 4 and 8.
    assert [part.labels for part in summary.splits] == [dict.fromkeys(summary.label_names, n) for n in (28, 4, 8)]
    assert [part.n for part in summary.splits] == [84, 12, 24]
    assert "45 of 165 rows left out to balance the labels (data.balance undersample)" in summary.notes


def test_splits_are_rows_of_the_file(file: str) -> None:
    module = data(file, balance="none")
    with open(file, encoding="utf-8", newline="") as stream:
        in_file = [(row["text"], row["label"]) for row in csv.DictReader(stream)]
    numbers = []
    for name in SPLIT_NAMES:
        part = module.splits[name]
        for text, label, number, label_id in zip(
            part.rows.texts, part.rows.labels, part.rows.numbers, part.label_ids, strict=True
        ):
            assert in_file[number - 1] == (text, label)
            assert module.label_names[label_id] == label
        assert part.token_ids == TOKENIZER.encode(part.rows.texts)
        numbers += part.rows.numbers
    assert sorted(numbers) == list(range(1, 166))
    assert not [note for note in module.summary.notes if "balance" in note]


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "longest_in_train"},
        {"padding": "context_length"},
        {"padding": "none", "batch_size": 1},
        {"padding": 10},
        {"max_length": 5},
        {"batch_size": 64},
        {"truncation": "tail"},
        {"truncation": "head_tail", "max_length": 7},
        {"context_length": 1024},
        {"context_length": 8},
        {"num_workers": 3},
        {"source": "file"},
    ],
    ids=str,
)
@pytest.mark.parametrize("balance", ["undersample", "none"])
def test_nothing_but_the_split_options_changes_a_split(file: str, balance: str, options: dict[str, Any]) -> None:
    assert hashes(data(file, balance=balance, **options)) == hashes(data(file, balance=balance))


@pytest.mark.parametrize(
    "options", [{"split_seed": 124}, {"stratify": False}, {"balance": "none"}, {"split": (0.6, 0.2, 0.2)}], ids=str
)
def test_each_split_option_changes_the_split(file: str, options: dict[str, Any]) -> None:
    # The counterpart of the test above: the hashes do see what they should.
    assert hashes(data(file, **options))["train"] != hashes(data(file))["train"]


def test_fractions(file: str) -> None:
    assert [part.n for part in data(file, split=[0.5, 0.25, 0.25]).summary.splits] == [60, 30, 30]


def test_the_data_are_read_once(file: str) -> None:
    module = data(file)
    before = hashes(module)
    Path(file).unlink()
    for stage in ("fit", "validate", "test", "predict", None):
        module.prepare_data()
        module.setup(stage)
    assert hashes(module) == before


def test_summary_is_plain_json(file: str) -> None:
    summary = data(file).summary
    stored = json.loads(json.dumps(asdict(summary)))
    assert stored["label_names"] == ["ads", "letters", "news"]
    assert [part["name"] for part in stored["splits"]] == list(SPLIT_NAMES)
    assert stored["notes"] == list(summary.notes)


def test_demo() -> None:
    summary = data(source="demo", split_seed=5).summary
    assert summary.n_rows == 1000
    assert summary.label_names == ("ham", "spam")
    assert all(len(set(part.labels.values())) == 1 for part in summary.splits)
    assert any("synthetic" in note for note in summary.notes)
    assert hashes(data(source="demo", split_seed=5)) != hashes(data(source="demo", split_seed=6))


def test_special_spelling_is_ordinary_text(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [(f"{i} <|endoftext|> more", "xy"[i % 2]) for i in range(8)])
    module = data(path)
    for name in SPLIT_NAMES:
        assert all(TOKENIZER.pad_id not in ids and len(ids) > 3 for ids in module.splits[name].token_ids)


def test_kept_empty_texts_have_one_token(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("", "xy"[i % 2]) for i in range(8)])
    module = data(path, empty="keep")
    (batch, *_) = module.train_dataloader()
    assert batch["input_ids"].tolist() == [[TOKENIZER.pad_id]] * 4  # two of the four of each label
    assert batch["lengths"].tolist() == [1, 1, 1, 1]


def test_dropped_texts_are_in_no_split(tmp_path: Path) -> None:
    texts = [(f"text {i}" if i % 3 else "", "xy"[i % 2]) for i in range(30)]
    module = data(write_csv(tmp_path / "a.csv", texts), empty="drop", balance="none")
    assert sorted(n for name in SPLIT_NAMES for n in module.splits[name].rows.numbers) == [
        i + 1 for i in range(30) if i % 3
    ]
    assert any(note.startswith("10 empty texts dropped: row 1, 4, 7, ") for note in module.summary.notes)


# Three files.


def test_three_files_are_used_as_they_are(three_files: tuple[str, str, str]) -> None:
    module = data(split=three_files)
    assert [module.splits[name].rows.numbers for name in SPLIT_NAMES] == [[1, 2, 3, 4, 5, 6], [1, 2, 3], [1, 2, 3, 4]]
    assert [len(ids) for ids in module.splits["train"].token_ids] == [3, 10, 7, 4, 9, 5]
    assert module.label_names == ("x", "y")
    assert module.summary.n_rows == 13
    assert any("data.balance and data.split_seed do not apply" in note for note in module.summary.notes)


def test_a_label_that_train_lacks(three_files: tuple[str, str, str], tmp_path: Path) -> None:
    test = write_csv(tmp_path / "more.csv", [("one", "x"), ("two", "z")])
    module = data(split=(three_files[0], three_files[1], test))
    with pytest.raises(
        UserError, match=r"labels that occur outside the train split alone: 'z'\. They cannot be learnt"
    ):
        module.setup()


def test_a_label_that_validation_lacks_is_reported(three_files: tuple[str, str, str], tmp_path: Path) -> None:
    validation = write_csv(tmp_path / "less.csv", [("one", "x")])
    module = data(split=(three_files[0], validation, three_files[2]))
    assert "the validation split has no text of 'y'" in module.summary.notes


def test_labels_nearly_the_same_in_two_files(three_files: tuple[str, str, str], tmp_path: Path) -> None:
    test = write_csv(tmp_path / "capital.csv", [("one", "X"), ("two", "y")])
    with pytest.raises(UserError, match=r"differ in case, white space or Unicode form alone: 'X' \(1 row\) and 'x' "):
        data(split=(*three_files[:2], test)).setup()


def test_a_missing_one_of_three_files(three_files: tuple[str, str, str]) -> None:
    with pytest.raises(UserError, match=r"there is no file .*no\.csv"):
        data(split=(three_files[0], "no.csv", three_files[2])).setup()


@pytest.mark.parametrize("place", [1, 2])
def test_a_file_of_which_nothing_is_left(three_files: tuple[str, str, str], tmp_path: Path, place: int) -> None:
    paths = list(three_files)
    paths[place] = write_csv(tmp_path / "blank.csv", [("", "x"), (" ", "y")])
    module = data(split=tuple(paths), empty="drop")
    with pytest.raises(UserError, match=r"blank\.csv|validation|test"):
        hashes(module)


# Padding and truncation.


def shapes(module: ClassificationData, loader: str) -> list[tuple[int, ...]]:
    return [tuple(batch["input_ids"].shape) for batch in getattr(module, f"{loader}_dataloader")()]


def test_longest_in_batch(three_files: tuple[str, str, str]) -> None:
    module = data(split=three_files, batch_size=2)
    assert (module.summary.pad_to, module.summary.max_length) == (None, CONTEXT)
    # Evaluation has its own batch size, which all of these few texts fit into.
    assert shapes(module, "test") == [(4, 30)]
    assert shapes(module, "val") == [(3, 20)]
    assert sorted(shapes(module, "train")) == [(2, 4), (2, 7), (2, 10)]
    assert [part.cut for part in module.summary.splits] == [0, 0, 0]


def test_longest_in_train_is_measured_on_train_alone(three_files: tuple[str, str, str]) -> None:
    module = data(split=three_files, padding="longest_in_train", batch_size=4)
    assert (module.summary.pad_to, module.summary.max_length) == (10, 10)
    assert set(shapes(module, "train")) == {(4, 10), (2, 10)}
    assert shapes(module, "val") == [(3, 10)]
    assert shapes(module, "test") == [(4, 10)]
    assert [part.cut for part in module.summary.splits] == [0, 2, 2]
    assert [part.tokens_longest for part in module.summary.splits] == [10, 20, 30]
    assert [part.tokens_median for part in module.summary.splits] == [7, 11, 12]


def test_context_length(three_files: tuple[str, str, str]) -> None:
    module = data(split=three_files, padding="context_length", context_length=16, batch_size=3)
    assert shapes(module, "train") == [(3, 16), (3, 16)]
    assert shapes(module, "test") == [(4, 16)]
    assert [part.cut for part in module.summary.splits] == [0, 1, 1]


def test_a_number_of_tokens(three_files: tuple[str, str, str]) -> None:
    module = data(split=three_files, padding=9, batch_size=3)
    assert (module.summary.pad_to, module.summary.max_length) == (9, 9)
    assert shapes(module, "train") == [(3, 9), (3, 9)]
    assert [part.cut for part in module.summary.splits] == [1, 2, 2]


def test_no_padding(three_files: tuple[str, str, str]) -> None:
    module = data(split=three_files, padding="none", batch_size=1)
    assert sorted(shapes(module, "train")) == [(1, n) for n in (3, 4, 5, 7, 9, 10)]
    assert sorted(shapes(module, "test")) == [(1, n) for n in (1, 6, 12, 30)]
    assert sorted(shapes(module, "val")) == [(1, n) for n in (2, 11, 20)]


@pytest.mark.parametrize("padding", ["longest_in_batch", "longest_in_train", "context_length"])
def test_max_length_truncates_whatever_the_padding(three_files: tuple[str, str, str], padding: str) -> None:
    module = data(split=three_files, padding=padding, max_length=8, batch_size=3)
    assert module.summary.max_length == 8
    assert max(n for _, n in shapes(module, "train")) == 8
    assert max(n for _, n in shapes(module, "test")) == 8
    assert [part.cut for part in module.summary.splits] == [2, 2, 2]


@pytest.mark.parametrize("padding", ["longest_in_batch", "context_length"])
def test_no_text_is_longer_than_the_context(file: str, padding: str) -> None:
    # The fixture has texts above 64 tokens; nothing longer may reach the position table.
    module = data(file, padding=padding)
    longest = [part.tokens_longest for part in module.summary.splits]
    assert longest[0] > CONTEXT
    for loader in ("train", "val", "test", "predict"):
        assert max(n for _, n in shapes(module, loader)) <= CONTEXT
    expected = [sum(len(ids) > CONTEXT for ids in module.splits[name].token_ids) for name in SPLIT_NAMES]
    assert [part.cut for part in module.summary.splits] == expected


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [("head", slice(0, 4)), ("tail", slice(-4, None)), ("head_tail", np.r_[0:2, -2:0])],
)
def test_truncation_keeps_the_tokens_it_names(tmp_path: Path, truncation: str, kept: Any) -> None:
    texts = [(f"one two three four five six seven eight nine {i}", "xy"[i % 2]) for i in range(8)]
    module = data(write_csv(tmp_path / "a.csv", texts), truncation=truncation, max_length=4)
    whole = module.splits["train"].token_ids
    for batch in module.predict_dataloader():
        for row, ids in zip(batch["row_ids"].tolist(), batch["input_ids"], strict=True):
            assert ids.tolist() == np.array(whole[row])[kept].tolist()


# Loaders.


@pytest.mark.parametrize("padding", ["longest_in_batch", "longest_in_train"])
def test_batches_are_the_rows_they_say(file: str, padding: str) -> None:
    module = data(file, padding=padding)
    for loader, name in (("train", "train"), ("val", "validation"), ("test", "test"), ("predict", "train")):
        part = module.splits[name]  # type: ignore[arg-type]
        seen: list[int] = []
        for batch in getattr(module, f"{loader}_dataloader")():
            rows = batch["row_ids"].tolist()
            seen += rows
            assert batch["labels"].tolist() == [part.label_ids[row] for row in rows]
            assert ("step_examples" in batch) == (loader == "train")
            for row, ids, n in zip(rows, batch["input_ids"].tolist(), batch["lengths"].tolist(), strict=True):
                assert n == min(len(part.token_ids[row]), module.summary.max_length)
                assert ids[:n] == part.token_ids[row][:n]
                assert set(ids[n:]) <= {TOKENIZER.pad_id}
        assert sorted(seen) == list(range(len(part.label_ids)))


@with_workers
def test_workers_change_nothing(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", 200)  # several batches of these few texts
    plain, parallel = data(file, max_length=20), data(file, max_length=20, num_workers=2)
    for loader in ("train", "val", "test"):
        pairs = list(
            zip(getattr(plain, f"{loader}_dataloader")(), getattr(parallel, f"{loader}_dataloader")(), strict=True)
        )
        assert len(pairs) > 1
        for one, other in pairs:
            assert one.keys() == other.keys()
            assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in one)


def row_ids(loader: Iterable[dict[str, Any]]) -> list[list[int]]:
    return [batch["row_ids"].tolist() for batch in loader]


def test_the_training_seed_orders_batches_and_nothing_else(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    one = data(file)
    first = row_ids(one.train_dataloader())
    evaluated = data(file)
    for _ in range(3):
        row_ids(evaluated.val_dataloader())
    assert row_ids(evaluated.train_dataloader()) == first
    monkeypatch.setenv("PL_GLOBAL_SEED", "2")
    other = data(file)
    assert row_ids(other.train_dataloader()) != first
    assert row_ids(other.test_dataloader()) == row_ids(one.test_dataloader())
    assert hashes(other) == hashes(one)


def trainer(**options: Any) -> Trainer:
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler"),
        False,
    )
    return Trainer(accelerator="cpu", **{**quiet, **options})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # 84 texts in batches of 8: 10 of 8 and one of 4.
        ({}, [8] * 10 + [4]),
        ({"accumulate_grad_batches": 4}, [32] * 8 + [20] * 3),
        ({"accumulate_grad_batches": 4, "limit_train_batches": 6}, [32] * 4 + [16] * 2),
        ({"accumulate_grad_batches": 4, "limit_train_batches": 0.5}, [32] * 4 + [8]),
        ({"limit_train_batches": 1.0}, [8] * 10 + [4]),
        ({"limit_train_batches": 1}, [8]),
    ],
    ids=str,
)
def test_step_examples_follow_the_trainer(file: str, options: dict[str, Any], expected: list[int]) -> None:
    # Without grouping by length the small batch is the last one.
    module = data(file, padding="longest_in_train")
    module.trainer = trainer(**options)
    found = [batch["step_examples"] for batch in module.train_dataloader()]
    assert found[: len(expected)] == expected


class Recorder(LightningModule):
    """Notes which rows Lightning shows it, and learns next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: list[list[list[int]]] = []

    def on_train_epoch_start(self) -> None:
        self.epochs.append([])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.epochs[-1].append(batch["row_ids"].tolist())
        return self.weight * 1.0

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Only there so that validation takes place."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_lightning_shows_every_row_once_an_epoch_in_a_new_order(file: str) -> None:
    seen = []
    for validate in (0, 1.0):
        recorder = Recorder()
        trainer(max_epochs=3, limit_val_batches=validate).fit(recorder, datamodule=data(file))
        seen.append(recorder.epochs)
    assert len(seen[0]) == 3
    for epoch in seen[0]:
        assert Counter(row for rows in epoch for row in rows) == Counter(range(84))
    assert seen[0][0] != seen[0][1] != seen[0][2] != seen[0][0]
    assert seen[1] == seen[0]  # evaluating in between changes nothing


# What a checkpoint keeps.


@pytest.mark.parametrize(
    "options",
    [{}, {"split": (0.5, 0.25, 0.25), "stratify": False, "balance": "none", "split_seed": 9, "truncation": "tail"}],
    ids=str,
)
def test_settings_in_a_checkpoint_find_the_same_splits(file: str, options: dict[str, Any]) -> None:
    module = data(file, **options)
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    stream.seek(0)
    state = torch.load(stream, weights_only=True)  # plain types alone
    again = ClassificationData(**state["settings"], context_length=CONTEXT)
    assert hashes(again) == hashes(module) == state["split_sha256"]
    assert again.state_dict() == state
    # Every option is kept but those that follow from the machine or the model.
    kept = {field.name for field in fields(DataOptions)} - {"num_workers", "context_length", "tokenizer"}
    assert state["settings"].keys() == kept
    assert all(state["settings"][name] == getattr(module.options, name) for name in kept - {"path", "split"})
    assert state["label_names"] == ["ads", "letters", "news"]


def test_paths_in_a_checkpoint_hold_from_other_folders(
    file: str, three_files: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data("texts.csv").state_dict()["settings"]["path"] == str(Path(file).resolve())
    names = ("train.csv", "validation.csv", "test.csv")
    assert data(split=names).state_dict()["settings"]["split"] == [str(Path(path).resolve()) for path in three_files]


def test_a_checkpoints_lengths_are_taken_over(three_files: tuple[str, str, str]) -> None:
    """Even where the train split at hand has another longest text."""
    train, validation, test = three_files
    trained = data(split=three_files, padding="longest_in_train")
    other = data(split=(validation, train, test), padding="longest_in_train", batch_size=2)
    assert other.summary.pad_to != 10
    other.load_state_dict(trained.state_dict())
    assert (other.summary.max_length, other.summary.pad_to) == (10, 10)
    assert shapes(other, "train") == [(2, 10), (1, 10)]
    assert shapes(other, "test") == [(4, 10)]
    assert any("the checkpoint was trained with" in note for note in other.summary.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"padding": "context_length"},
            "data.padding is context_length, the checkpoint was trained with longest_in",
        ),
        ({"max_length": 5}, "data.max_length is 5, the checkpoint was trained with None"),
        ({"truncation": "tail"}, "data.truncation is tail, the checkpoint was trained with head: leave the option out"),
    ],
)
def test_texts_are_read_as_the_checkpoints_were(file: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        data(file, **options).load_state_dict(data(file).state_dict())


def test_another_split_than_the_checkpoints_is_reported_once(file: str) -> None:
    module = data(file, split_seed=2)
    for _ in range(2):
        module.load_state_dict(data(file, split_seed=1).state_dict())
    printed = [note for note in module.summary.notes if "checkpoint" in note]
    assert len(printed) == 1
    assert printed[0].startswith("not the train, validation, test split that the checkpoint was trained with")


def test_other_labels_than_the_checkpoints(file: str, three_files: tuple[str, str, str]) -> None:
    message = r"the checkpoint knows the labels x, y; the data has ads, letters, news\. Give the data it was trained on"
    with pytest.raises(UserError, match=message):
        data(file).load_state_dict(data(split=three_files).state_dict())


# Wrong options and wrong data.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size 0 is less than 1"),
        ({"num_workers": -1}, r"data\.num_workers -1 is not between 0 and"),
        ({"split_seed": -3}, r"data\.split_seed -3 is less than 0"),
        (
            {"padding": "none", "batch_size": 2},
            r"data\.padding none needs data\.batch_size 1, not 2: .*accumulate_grad",
        ),
        ({"padding": "none"}, r"data\.padding none needs data\.batch_size 1, not 8"),
        ({"padding": 0}, r"data\.padding 0 is not between 1 and the model's context length, 64"),
        ({"padding": 65}, r"data\.padding 65 is not between 1 and the model's context length, 64"),
        ({"max_length": 0}, r"data\.max_length 0 is not between 1 and"),
        ({"max_length": 65}, r"data\.max_length 65 is not between 1 and the model's context length, 64"),
        ({"split": "ch06", "source": "demo"}, r"ch06 is a split of the SMS Spam Collection, not of data\.source demo"),
        ({"split": "ch06", "source": "file", "path": "a.csv"}, r"ch06 is a split of .* not of data\.source file"),
        ({"split": "ch06", "balance": "none"}, r"ch06 is balanced by its definition: leave data\.balance out"),
        ({"split": ("a", "b", "c"), "path": "d"}, r"names three files: leave data\.path and data\.source out"),
        ({"split": ("a", "b", "c"), "source": "demo"}, r"names three files: leave data\.path and data\.source out"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        data(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"no data: pass --data\.path FILE .* or --data\.source sms_spam or demo"),
        ({"source": "file"}, r"no data: pass --data\.path FILE"),
        ({"source": "demo", "path": "a.csv"}, r"data\.source demo makes its own messages: leave data\.path a\.csv out"),
        ({"path": "no.csv"}, r"there is no file no\.csv"),
        ({"source": "sms_spam", "path": "no.csv"}, r"there is no file no\.csv"),
        ({"source": "demo", "split": (0.7, 0.1, 0.1)}, r"data\.split \[0\.7, 0\.1, 0\.1\]: three positive fractions"),
    ],
    ids=str,
)
def test_wrong_data_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        data(**options).setup()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["x"] * 9, r"the data has only 'x' \(9 rows\): check data\.label_column"),
        (["x"] * 9 + ["y"] * 2, r"at least 3 of each label are needed\): 'y' has 2\."),
        (["x", "X"] * 9, r"differ in case, white space or Unicode form alone: 'X' \(9 rows\) and 'x' \(9 rows\)"),
    ],
)
def test_labels_that_cannot_be_split(tmp_path: Path, labels: list[str], message: str) -> None:
    path = write_csv(tmp_path / "a.csv", [(f"text {i}", label) for i, label in enumerate(labels)])
    with pytest.raises(UserError, match=message):
        data(path).setup()


def test_texts_dropped_from_a_label_leave_too_few(tmp_path: Path) -> None:
    # Enough rows, but not enough with a text.
    rows = [(f"text {i}", "x") for i in range(9)] + [("one", "y"), ("two", "y"), ("", "y")]
    path = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(UserError, match=r"row 12 has no text"):
        data(path).setup()
    with pytest.raises(UserError, match=r"'y' has 2"):
        data(path, empty="drop").setup()


def test_nothing_left_after_dropping(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("", "x"), (" ", "y")])
    with pytest.raises(UserError, match=r"at least two different labels, the data has none \(0 rows\)"):
        data(path, empty="drop").setup()


def test_chance_may_leave_a_label_out_of_an_unstratified_train_split(tmp_path: Path) -> None:
    # Three of 303 rows, a tenth of the rows for training: many a seed puts none of the three there.
    rows = [(f"text {i}", "common" if i >= 3 else "rare") for i in range(303)]
    path = write_csv(tmp_path / "a.csv", rows)
    options: dict[str, Any] = {"balance": "none", "split": (0.1, 0.1, 0.8), "split_seed": 4}
    with pytest.raises(UserError, match=r"outside the train split alone: 'rare'\. .*set data\.stratify to true"):
        data(path, stratify=False, **options).setup()
    assert data(path, **options).summary.splits[0].labels["rare"] == 1


@pytest.mark.parametrize("options", [{"source": "sms_spam"}, {"split": "ch06"}], ids=str)
def test_the_sms_collection_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    module = data(**options)
    for step in (module.prepare_data, module.setup):
        with pytest.raises(UserError, match=r"SMSSpamCollection is not on this machine.*\n.*LIT_CLS_OFFLINE is set"):
            step()


def test_other_sources_need_no_download(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    for module in (data(file), data(source="demo")):
        module.prepare_data()
        assert sum(part.n for part in module.summary.splits) > 100
    assert not (tmp_path / "cache").exists()


# The reference data.


def ch06(sms_file: Path, **options: Any) -> ClassificationData:
    return ClassificationData(path=str(sms_file), split="ch06", **options)


@pytest.mark.shared
@pytest.mark.parametrize("options", [{}, {"padding": "context_length", "batch_size": 3, "max_length": 50}], ids=str)
def test_ch06_is_the_published_split(sms_file: Path, options: dict[str, Any]) -> None:
    reference = json.loads((SHARED / "reference" / "ch06_split.json").read_text(encoding="utf-8"))
    module = ch06(sms_file, **options)
    assert module.summary.label_names == ("ham", "spam")
    assert module.summary.sha256 == reference["source_file"]["sha256"]
    for part in module.summary.splits:
        expected = reference[part.name]
        rows = module.splits[part.name].rows
        assert (part.n, part.labels["spam"]) == (expected["n"], expected["spam"])
        assert part.tokens_longest == expected["longest_tokens"]
        assert part.sha256 == expected["sha256"]
        assert rows.texts[0].startswith(expected["first_text_starts"])
        assert split_sha256([int(label == "spam") for label in rows.labels], rows.texts) == expected["sha256"]


@pytest.mark.shared
def test_ch06_padded_as_published(sms_file: Path) -> None:
    # The published code pads to the longest training text and sees 1,040 of 1,045; here none is lost.
    module = ch06(sms_file, padding="longest_in_train")
    batches = list(module.train_dataloader())
    assert {batch["input_ids"].shape[1] for batch in batches} == {120}
    assert sorted(row for batch in batches for row in batch["row_ids"].tolist()) == list(range(1045))


@pytest.mark.shared
def test_ch06_tells_what_it_leaves_out(sms_file: Path) -> None:
    # 5,572 rows, of which 1,494 are used.
    assert any("4,078" in note for note in ch06(sms_file).summary.notes)


@pytest.mark.shared
def test_sms_collection_split_anew(sms_file: Path) -> None:
    module = ClassificationData(source="sms_spam", path=str(sms_file))
    assert [part.labels for part in module.summary.splits] == [{"ham": n, "spam": n} for n in (523, 75, 149)]
    natural = ClassificationData(source="sms_spam", path=str(sms_file), balance="none")
    assert sum(part.n for part in natural.summary.splits) == 5574


@pytest.mark.shared
def test_sms_collection_from_the_cache(sms_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    (tmp_path / "lit_cls").mkdir()
    (tmp_path / "lit_cls" / "SMSSpamCollection").write_bytes(sms_file.read_bytes())
    cached = ClassificationData(source="sms_spam")
    cached.prepare_data()
    assert hashes(cached) == hashes(ClassificationData(source="sms_spam", path=str(sms_file)))


@pytest.mark.shared
def test_long_reviews_are_truncated_and_counted() -> None:
    module = ClassificationData(
        path=str(SHARED / "data" / "imdb_sample.csv"), text_column="review", label_column="sentiment", balance="none"
    )
    splits = module.summary.splits
    assert sum(part.n for part in splits) == 999
    assert sum(part.cut for part in splits) == 17
    assert max(part.tokens_longest for part in splits) > 1024
    lengths = sorted(len(ids) for name in SPLIT_NAMES for ids in module.splits[name].token_ids)
    assert lengths[499] == 221


# Texts that are nearly the same.


def test_groups_travel_with_a_checkpoint(file: str) -> None:
    module = data(file, group_near_duplicates=True)
    state = module.state_dict()
    assert state["settings"]["group_near_duplicates"] is True
    again = ClassificationData(**state["settings"], context_length=CONTEXT)
    assert again.other_splits(state) == []
    assert data(file).other_splits(state) != []


def test_a_checkpoint_of_a_version_without_groups(file: str) -> None:
    module = data(file)
    state = module.state_dict()
    del state["settings"]["group_near_duplicates"]
    again = ClassificationData(**state["settings"], context_length=CONTEXT)
    again.load_state_dict(state)
    assert again.other_splits(state) == []
    assert again.notes == module.notes
