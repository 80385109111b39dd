"""Batches: nothing lost, nothing twice, the same order whoever asks, as few pads as promised."""

from collections import Counter

import numpy as np
import pytest
import torch

from lit_cls.data.batches import (
    EvaluationBatches,
    PlannedBatch,
    TextDataset,
    TrainingBatches,
    Truncation,
    make_loader,
    pad,
    truncate,
)
from lit_cls.data.tokenizers import tokenizer_for

SEEDS = [0, 1, 123]

# Not a multiple of any batch size or number of processes below; lengths from a seed, as uneven as
# those of messages: many short, a few long.
N_TEXTS = 103
LENGTHS = [int(n) for n in np.random.default_rng(5).geometric(0.04, N_TEXTS)]

# Worker processes are forked; newer Pythons warn about forking beside threads, and torch about few cores.
with_workers = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning", "ignore:This DataLoader will create:UserWarning"
)

TOKENIZER = tokenizer_for("gpt2")


def rows_of(batches: TrainingBatches | EvaluationBatches) -> list[list[int]]:
    return [planned.rows for planned in batches]


def dataset(lengths: list[int] = LENGTHS, pad_to: int | None = None, unpadded: bool = False) -> TextDataset:
    """Texts that can be distinguished: row r is its length times the id r."""
    labels = [row % 3 for row in range(len(lengths))]
    return TextDataset([[row] * n for row, n in enumerate(lengths)], labels, pad_to, unpadded, pad_id=TOKENIZER.pad_id)


# Truncation.


@pytest.mark.parametrize(
    ("keep", "max_length", "expected"),
    [
        ("head", 4, [0, 1, 2, 3]),
        ("tail", 4, [6, 7, 8, 9]),
        ("head_tail", 4, [0, 1, 8, 9]),
        ("head_tail", 5, [0, 1, 2, 8, 9]),  # the odd one goes to the head
        ("head", 1, [0]),
        ("tail", 1, [9]),
        ("head_tail", 1, [0]),
        ("head", 9, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("tail", 9, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("head_tail", 9, [0, 1, 2, 3, 4, 6, 7, 8, 9]),
    ],
)
def test_truncate(keep: Truncation, max_length: int, expected: list[int]) -> None:
    assert truncate(list(range(10)), max_length, keep) == expected


@pytest.mark.parametrize("keep", ["head", "tail", "head_tail"])
@pytest.mark.parametrize("max_length", [10, 11, 1024])
def test_texts_that_fit_are_whole(keep: Truncation, max_length: int) -> None:
    assert truncate(list(range(10)), max_length, keep) == list(range(10))


# Padding.


def test_pad_to_the_longest_of_the_batch() -> None:
    batch = pad([[5], [6, 7, 8], [9, 10]], None, TOKENIZER.pad_id)
    p = TOKENIZER.pad_id
    assert batch["input_ids"].tolist() == [[5, p, p], [6, 7, 8], [9, 10, p]]
    assert batch["lengths"].tolist() == [1, 3, 2]
    assert batch["input_ids"].dtype == batch["lengths"].dtype == torch.int64


def test_pad_to_a_number() -> None:
    batch = pad([[5], [6, 7]], 4, TOKENIZER.pad_id)
    p = TOKENIZER.pad_id
    assert batch["input_ids"].tolist() == [[5, p, p, p], [6, 7, p, p]]
    assert batch["lengths"].tolist() == [1, 2]


def test_lengths_count_a_real_end_of_text_token() -> None:
    # An empty text is that token; comparing ids with the pad id would give it the length 0.
    assert pad([[TOKENIZER.pad_id], [5, TOKENIZER.pad_id, TOKENIZER.pad_id]], None, TOKENIZER.pad_id)[
        "lengths"
    ].tolist() == [1, 3]


def test_a_batch_has_what_the_contract_says() -> None:
    batch = dataset()[PlannedBatch([4, 2, 9], step_examples=24)]
    assert batch["row_ids"].tolist() == [4, 2, 9]
    assert batch["labels"].tolist() == [1, 2, 0]
    assert batch["lengths"].tolist() == [LENGTHS[4], LENGTHS[2], LENGTHS[9]]
    assert batch["step_examples"] == 24
    assert batch["input_ids"].shape == (3, max(LENGTHS[4], LENGTHS[2], LENGTHS[9]))
    for ids, row, n in zip(batch["input_ids"].tolist(), [4, 2, 9], batch["lengths"].tolist(), strict=True):
        assert ids == [row] * n + [TOKENIZER.pad_id] * (len(ids) - n)
    assert {batch[name].dtype for name in ("input_ids", "lengths", "labels", "row_ids")} == {torch.int64}


def test_no_labels_at_prediction() -> None:
    batch = TextDataset([[1], [2, 3]], None, None, pad_id=TOKENIZER.pad_id)[PlannedBatch([1, 0])]
    assert set(batch) == {"input_ids", "lengths", "row_ids"}


@pytest.mark.parametrize("pad_to", [None, 6])
def test_a_batch_without_rows(pad_to: int | None) -> None:
    # What a process gets when the last batch has fewer rows than there are processes.
    batch = dataset(pad_to=pad_to)[PlannedBatch([], step_examples=3)]
    assert batch["input_ids"].shape == (0, pad_to or 1)
    assert batch["lengths"].shape == batch["labels"].shape == batch["row_ids"].shape == (0,)
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64


# The order of training.


def training(
    seed: int = 123,
    epoch: int = 0,
    batch_size: int = 8,
    by_length: bool = False,
    accumulate: int = 1,
    limit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    lengths: list[int] = LENGTHS,
) -> TrainingBatches:
    batches = TrainingBatches(lengths, batch_size, seed, by_length, accumulate, limit, rank, world_size)
    batches.set_epoch(epoch)
    return batches


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 8, 200])
def test_an_epoch_has_every_row_once_over_all_processes(batch_size: int, world_size: int, by_length: bool) -> None:
    ranks = [
        training(batch_size=batch_size, by_length=by_length, rank=rank, world_size=world_size, epoch=2)
        for rank in range(world_size)
    ]
    found = [rows_of(rank) for rank in ranks]
    assert sorted(row for batches in found for rows in batches for row in rows) == list(range(N_TEXTS))
    # Processes that had different numbers of batches would wait for each other forever.
    assert {len(batches) for batches in found} == {len(ranks[0])}
    assert {len(rank) for rank in ranks} == {len(ranks[0])}
    assert max(len(rows) for batches in found for rows in batches) <= batch_size


def test_a_last_batch_smaller_than_the_number_of_processes() -> None:
    # 103 = 6 · 16 + 7, 100 = 6 · 16 + 4, 97 = 6 · 16 + 1: one row for four processes.
    found = [rows_of(training(batch_size=4, rank=rank, world_size=4, lengths=LENGTHS[:97])) for rank in range(4)]
    assert [len(batches) for batches in found] == [7, 7, 7, 7]
    assert sorted(len(batches[-1]) for batches in found) == [0, 0, 0, 1]


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_follows_from_seed_and_epoch_alone(seed: int, by_length: bool) -> None:
    for epoch in range(3):
        one = rows_of(training(seed, epoch, by_length=by_length))
        torch.manual_seed(epoch)  # neither torch's nor numpy's global random state has a part in it
        np.random.seed(epoch)
        used = training(seed, 9, by_length=by_length)
        rows_of(used)
        used.set_epoch(epoch)
        assert rows_of(used) == rows_of(used) == one
        for other_seed, other_epoch in ((seed, epoch + 1), (seed + 1, epoch)):
            other = rows_of(training(other_seed, other_epoch, by_length=by_length))
            assert other != one
            assert sorted(map(sorted, other)) != sorted(map(sorted, one))  # other batches, not only another order


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batches_of_one(world_size: int, by_length: bool) -> None:
    # 2 x 8, 4 x 4 and 1 x 16 rows a step are the same steps.
    alone = rows_of(training(batch_size=16, by_length=by_length))
    shares = [
        rows_of(training(batch_size=16 // world_size, by_length=by_length, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    together = [sorted(row for rows in step for row in rows) for step in zip(*shares, strict=True)]
    assert together == [sorted(rows) for rows in alone]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("limit", [None, 1, 4, 5, 100])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 50])
def test_step_examples_are_those_of_the_whole_step(accumulate: int, limit: int | None, world_size: int) -> None:
    # 103 rows in batches of 8 over one process: 12 of 8 and one of 7, so that the last window is
    # incomplete for 2, 3, 4 and 50, and its last batch too.
    shares = [
        list(training(accumulate=accumulate, limit=limit, rank=rank, world_size=world_size, batch_size=8 // world_size))
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {13}
    used = min(limit or 13, 13)
    for start in range(0, used, accumulate):
        window = range(start, min(start + accumulate, used))
        examples = sum(len(share[i].rows) for share in shares for i in window)
        assert [share[i].step_examples for share in shares for i in window] == [examples] * len(window) * world_size


def test_step_examples_without_accumulation_are_the_batchs_rows() -> None:
    assert [planned.step_examples for planned in training()] == [8] * 12 + [7]


@pytest.mark.parametrize("seed", SEEDS)
def test_grouping_by_length_saves_pads(seed: int) -> None:
    lengths = [int(n) for n in np.random.default_rng(seed).geometric(0.03, 2000)]

    def padded(by_length: bool) -> int:
        batches = rows_of(training(seed, by_length=by_length, lengths=lengths))
        return sum(
            max(lengths[row] for row in rows) * len(rows) - sum(lengths[row] for row in rows) for rows in batches
        )

    assert padded(by_length=True) < 0.25 * padded(by_length=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_grouped_batches_do_not_come_in_order_of_length(seed: int) -> None:
    # 50 batches, among which texts are sorted: without mixing, the shortest would all come first.
    lengths = [int(n) for n in np.random.default_rng(seed).geometric(0.03, 400)]
    batches = rows_of(training(seed, by_length=True, lengths=lengths))
    means = [float(np.mean([lengths[row] for row in rows])) for rows in batches]
    assert np.corrcoef(sorted(means), range(50))[0, 1] > 0.8
    assert abs(np.corrcoef(means, range(50))[0, 1]) < 0.4


# The order of evaluation.


@pytest.mark.parametrize("unpadded", [False, True])
@pytest.mark.parametrize("pad_to", [None, 200])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens", [1, 300, 100_000])
def test_evaluation_has_every_row_once(
    tokens: int, world_size: int, pad_to: int | None, unpadded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", tokens)
    texts = dataset(pad_to=pad_to, unpadded=unpadded)
    ranks = [EvaluationBatches(texts, rank, world_size) for rank in range(world_size)]
    rows = [row for rank in ranks for batch in rows_of(rank) for row in batch]
    assert sorted(rows) == list(range(N_TEXTS))
    assert all(len(rank) == len(rows_of(rank)) for rank in ranks)
    assert all(batch for rank in ranks for batch in rows_of(rank))
    assert all(planned.step_examples is None for planned in ranks[0])
    shares = [sum(map(len, rows_of(rank))) for rank in ranks]
    assert max(shares) - min(shares) <= 1


def test_evaluation_has_every_row_once_with_more_processes_than_rows() -> None:
    ranks = [rows_of(EvaluationBatches(dataset([1, 3]), rank, 4)) for rank in range(4)]
    assert ranks == [[[1]], [[0]], [], []]
    assert [len(EvaluationBatches(dataset([1, 3]), rank, 4)) for rank in range(4)] == [1, 1, 0, 0]


@pytest.mark.parametrize("pad_to", [None, 200])
def test_evaluation_begins_with_the_longest(pad_to: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", 400)
    batches = rows_of(EvaluationBatches(dataset(pad_to=pad_to)))
    longest = sorted(range(N_TEXTS), key=lambda row: -LENGTHS[row])  # stable: equal lengths as in the file
    assert batches[0] == longest[: len(batches[0])]
    # In every batch texts of similar length: the longest of one is no longer than the shortest of another.
    by_length = sorted(batches, key=lambda rows: longest.index(rows[0]))
    assert [row for rows in by_length for row in rows] == longest
    assert batches != by_length


@pytest.mark.parametrize("seed", SEEDS)
def test_a_limited_evaluation_reads_texts_of_all_lengths(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `trainer.limit_val_batches` leaves it: in order of length, its texts would be the longest."""
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", 300)
    lengths = [int(n) for n in np.random.default_rng(seed).geometric(0.03, 4000)]
    batches = rows_of(EvaluationBatches(dataset(lengths)))
    means = [float(np.mean([lengths[row] for row in rows])) for rows in batches]
    assert len(means) > 300
    assert means[0] == max(means)
    assert abs(np.corrcoef(means[1:], range(len(means) - 1))[0, 1]) < 0.2
    third = [row for rows in batches[1 : len(batches) // 3] for row in rows]
    assert np.mean([lengths[row] for row in third]) == pytest.approx(np.mean(lengths), rel=0.2)


def test_the_order_of_evaluation_is_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither draws from numpy's global random state nor follows from it."""
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", 100)
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    first = rows_of(EvaluationBatches(dataset()))
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(2)
    again = EvaluationBatches(dataset())
    assert rows_of(again) == rows_of(again) == first


@pytest.mark.parametrize("pad_to", [None, 13, 300, 400, 500])
def test_evaluation_batches_are_as_large_as_they_may_be(pad_to: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pads included, none takes more tokens than it may, and none but that of the shortest has room for one more."""
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", 400)
    lengths = [min(n, pad_to or n) for n in (*range(1, 160, 3), 400, 399, 450, 200, 200)]
    texts = dataset(lengths, pad_to)
    shapes = [tuple(texts[planned]["input_ids"].shape) for planned in EvaluationBatches(texts)]
    assert all(n * T <= 400 or n == 1 for n, T in shapes)  # a longer text goes alone
    assert sum((n + 1) * T <= 400 for n, T in shapes) <= 1
    assert len(shapes) > 1


def test_evaluation_without_pads_has_only_equal_lengths_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", 20)
    lengths = [3, 5, 3, 4, 5, 3, *[2] * 13]
    texts = dataset(lengths, unpadded=True)
    planned = list(EvaluationBatches(texts))
    assert planned[0].rows == [1, 4]
    assert sorted(p.rows for p in planned[1:]) == [[0, 2, 5], [3], list(range(6, 16)), list(range(16, 19))]
    for rows in planned:
        batch = texts[rows]
        assert set(batch["lengths"].tolist()) == {batch["input_ids"].shape[1]}
    padded = rows_of(EvaluationBatches(dataset(lengths)))
    assert padded[0] == [1, 4, 3, 0]
    assert [2, 5, 6, 7, 8, 9] in padded


# Loaders.


@with_workers
@pytest.mark.parametrize("pad_to", [None, 200])
def test_workers_change_nothing(pad_to: int | None) -> None:
    loaders = [make_loader(dataset(pad_to=pad_to), training(by_length=True, accumulate=3), n) for n in (0, 2)]
    for epoch in range(2):
        plain, parallel = [], []
        for loader, found in zip(loaders, (plain, parallel), strict=True):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            found.extend(loader)
        assert len(plain) == len(parallel) == 13
        for one, other in zip(plain, parallel, strict=True):
            assert one.keys() == other.keys() == {"input_ids", "lengths", "labels", "row_ids", "step_examples"}
            assert one["step_examples"] == other["step_examples"]
            for name in ("input_ids", "lengths", "labels", "row_ids"):
                assert torch.equal(one[name], other[name])


@with_workers
@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_draws_nothing_from_the_global_random_state(num_workers: int) -> None:
    # Dropout draws from it: else the number of workers, and how often one evaluates, would change
    # the training.
    loaders = [
        make_loader(dataset(), training(), num_workers),
        make_loader(dataset(), EvaluationBatches(dataset()), num_workers),
    ]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for loader in loaders:
        for _ in range(2):
            assert Counter(int(row) for batch in loader for row in batch["row_ids"]) == Counter(range(N_TEXTS))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_has_as_many_batches_as_its_sampler() -> None:
    loader = make_loader(dataset(), training(rank=1, world_size=2))
    assert len(loader) == len(list(loader)) == 7
