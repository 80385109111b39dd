"""The frozen layers' outputs, kept and given back: the same logits as from the tokens."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import pairwise
from frozen_runs import counted_features
from small_fits import training
from torch import Tensor

from lit_cls.data.batches import EvaluationBatches, PlannedBatch, TextDataset, make_loader, pad
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.adapters import LoRA
from lit_cls.model.head import TokenPosition
from lit_cls.training.features import (
    Features,
    Kept,
    also_in,
    compute,
    count_kept,
    kept_positions,
    starts_of,
    why_not,
)

TINY = GPTConfig(vocab_size=97, context_length=32, emb_dim=16, n_heads=4, n_layers=3)
POSITIONS: tuple[TokenPosition, ...] = ("first", "last", "flexible", "mean", "mean_flexible")
LENGTHS = [3, 1, 9, 4, 1, 12, 2, 9, 7, 5, 12]  # ragged, equal ones among them, the first not the longest


def classifier(**choices: Any) -> GPTClassifier:
    """A tiny network that tells positions apart: weights far larger than the initial ones."""
    torch.manual_seed(0)
    net = GPTClassifier(choices.pop("config", TINY), num_classes=3, **choices)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return net.eval()


def dataset(padding: str | int) -> TextDataset:
    """Texts of all lengths; one is the pad token alone, as an empty text is."""
    random = torch.Generator().manual_seed(1)
    ids = [torch.randint(97, (n,), generator=random).tolist() for n in LENGTHS]
    ids[1] = [96]
    return TextDataset(ids, None, padding if isinstance(padding, int) else None, padding == "none", pad_id=96)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EvaluationBatches, "_TOKENS", 30)  # several batches


def states_of(net: GPTClassifier, texts: TextDataset, kept: Kept | None = None) -> Features:
    counts = count_kept(kept or kept_positions(net, texts), texts)
    states = Features(torch.full((int(counts.sum()), 16), torch.nan), starts_of(counts), counts)
    done = list(compute(net, make_loader(texts, EvaluationBatches(texts)), states))
    assert done[-1] == len(texts)
    assert len(done) > 2
    assert states.values.isfinite().all()  # every place is filled
    return states


@pytest.mark.parametrize(
    ("layers", "position", "causal", "padding"),
    pairwise(
        ["last_layer", "last_block", "last_two_blocks", 1, 3, "lora"],
        POSITIONS,
        [True, False],
        ["in_batch", "none", 12, 15],
    ),
)
def test_logits_from_the_outputs_are_those_from_the_tokens(
    layers: str | int, position: TokenPosition, causal: bool, padding: str | int
) -> None:
    """Rows in any order and any company, whatever the pads; gradients too."""
    trains = training(layers, rank=2, targets=("head",))
    net = classifier(token_position=position, causal=causal, **trains)
    texts = dataset(padding)
    if layers == 3:
        assert why_not(net, texts) == "no block is frozen"  # the outputs of the embeddings alone are not worth it
        return
    if padding == "in_batch" and position in ("last", "mean"):
        assert why_not(net, texts) == f"token_position {position} reads pads, of which every batch has another number"
        return
    assert why_not(net, texts) is None
    states = states_of(net, texts)
    batches = [[row] for row in range(len(texts))] if padding == "none" else [[5, 1, 9, 0], [4, 1], [10, 3, 2, 8, 7, 6]]
    seen = []
    for rows in batches:
        batch = texts[PlannedBatch(rows)]
        found = []
        for net.fast in (False, True):
            net.zero_grad()
            if net.fast:
                logits = net.from_features(states.values[states.index(batch["row_ids"])], batch["lengths"])
            else:
                logits = net(batch["input_ids"], batch["lengths"])
            logits.logsumexp(-1).sum().backward()
            found.append([logits.detach(), *(p.grad.clone() for p in net.parameters() if p.requires_grad)])
        for got, expected in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        seen.append(found[0][0])
    # The rows are told apart, so that a row in another's place would show.
    assert torch.cat(seen).std(dim=0).min() > 0.05


def test_places_of_rows() -> None:
    counts = torch.tensor([2, 1, 4])
    states = Features(torch.arange(7.0)[:, None], starts_of(counts), counts)
    assert states.starts.tolist() == [0, 2, 3]
    assert states.index(torch.tensor([2, 0, 1])).tolist() == [[3, 4, 5, 6], [0, 1, 1, 1], [2, 2, 2, 2]]
    assert states.index(torch.tensor([1, 1])).tolist() == [[2], [2]]
    assert len(states.index(torch.tensor([], dtype=torch.int64))) == 0


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("layers", ["last_layer", "last_block", "last_two_blocks"])
def test_a_batch_without_rows_has_gradients_of_zero(layers: str, position: TokenPosition) -> None:
    """A process of a distributed run may get no row of the last batch."""
    net, texts = classifier(token_position=position, trainable_layers=layers), dataset(12)
    states = states_of(net, texts)
    batch = texts[PlannedBatch([])]
    logits = net.from_features(states.values[states.index(batch["row_ids"])], batch["lengths"])
    assert logits.shape == (0, 3)
    logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters() if p.requires_grad)


def test_an_empty_text_has_one_position() -> None:
    """The tokenizer makes one token of it; a length of 0 would be answered too."""
    ids: list[list[int]] = [[], [5, 6]]
    net = classifier(token_position="mean_flexible")
    texts = TextDataset(ids, None, None, pad_id=96)
    assert count_kept("text", texts).tolist() == [1, 2]
    states = Features(torch.empty(3, 16), torch.tensor([0, 1]), torch.tensor([1, 2]))
    list(compute(net, [{**pad(ids, None, 96), "row_ids": torch.tensor([0, 1])}], states))
    with torch.no_grad():
        batch = pad(ids, None, 96)
        expected = net(batch["input_ids"], batch["lengths"])
        got = net.from_features(states.values[states.index(torch.tensor([0, 1]))], batch["lengths"])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


# What is kept.


@pytest.mark.parametrize(
    ("position", "causal", "padding", "kept"),
    [
        ("first", True, 12, "first"),
        ("first", True, "none", "first"),
        ("first", False, 12, "text"),  # without the mask the first position sees what follows
        ("flexible", True, 12, "text"),
        ("mean_flexible", False, "in_batch", "text"),
        ("last", True, 12, "all"),
        ("mean", False, 12, "all"),
        ("last", True, "none", "text"),  # there are no pads
        ("mean", False, "none", "text"),
    ],
)
def test_what_is_kept(position: TokenPosition, causal: bool, padding: str | int, kept: Kept) -> None:
    texts = dataset(padding)
    assert kept_positions(classifier(token_position=position, causal=causal), texts) == kept
    head_alone = classifier(token_position=position, causal=causal, trainable_layers="last_layer")
    assert kept_positions(head_alone, texts) == "read"
    assert count_kept("read", texts).tolist() == [1] * len(LENGTHS)
    expected = {"first": [1] * len(LENGTHS), "text": LENGTHS, "all": [12] * len(LENGTHS)}
    assert count_kept(kept, texts).tolist() == expected[kept]


@pytest.mark.parametrize("padding", ["in_batch", 12])
@pytest.mark.parametrize(("kept", "wider"), [("first", ("text", "all")), ("text", ("all",)), ("all", ()), ("read", ())])
def test_what_is_in_what(kept: Kept, wider: tuple[Kept, ...], padding: str | int) -> None:
    texts = dataset(padding)
    expected = tuple(w for w in wider if padding == 12 or w != "all")  # all of what, without a number of pads
    assert also_in(kept, classifier(), texts) == expected
    assert also_in(kept, classifier(causal=False), texts) == ()


@pytest.mark.parametrize(
    ("position", "wider"), [("first", "text"), ("first", "all"), ("flexible", "all"), ("mean_flexible", "all")]
)
@torch.no_grad()
def test_wider_choices_hold_the_same_numbers(position: TokenPosition, wider: Kept) -> None:
    texts = dataset(15)
    net = classifier(token_position=position)
    kept = kept_positions(net, texts)
    assert wider in also_in(kept, net, texts)
    narrow = states_of(net, texts)
    reader = classifier(token_position="last" if wider == "all" else "flexible")
    all_of_it = states_of(reader, texts, wider)
    served = Features(all_of_it.values, all_of_it.starts, narrow.counts)
    rows = torch.tensor([10, 0, 4, 2])
    torch.testing.assert_close(served.values[served.index(rows)], narrow.values[narrow.index(rows)], atol=1e-5, rtol=0)
    # Without the causal mask they would not: what stands to the right counts.
    blind = [classifier(token_position=p, causal=False) for p in ("last", "flexible")]
    one, two = (states_of(net, texts, kept) for net, kept in zip(blind, ("all", "text"), strict=True))
    first = [states.values[states.starts] for states in (one, two)]
    assert (first[0] - first[1]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"trainable_layers": "all"}, "no block is frozen"),
        ({"trainable_layers": 3}, "no block is frozen"),
        ({"adapter": LoRA(2)}, "no block is frozen"),
        ({"adapter": LoRA(2), "trainable_layers": "last_block"}, "no block is frozen"),
        (
            {"config": replace(TINY, drop_rate=0.25)},
            "model.drop_rate 0.25 draws anew in the frozen blocks in every step",
        ),
    ],
)
def test_why_not(choices: dict[str, Any], reason: str) -> None:
    assert why_not(classifier(**choices), dataset(12)) == reason


def test_computing_leaves_the_network_as_it_was() -> None:
    net = classifier(trainable_layers="last_block").train()
    before = {name: p.clone() for name, p in net.named_parameters()}
    with counted_features() as calls:
        states_of(net, dataset("in_batch"))
    assert sum(calls) == len(LENGTHS)
    assert net.training
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in net.named_parameters())
    net.eval()
    states = states_of(net, dataset("in_batch"))
    assert not net.training
    assert not states.values.requires_grad


def test_outputs_may_be_held_in_less_than_they_are_computed_in() -> None:
    net, texts = classifier(), dataset("in_batch")
    exact = states_of(net, texts)
    rounded: Tensor = torch.empty_like(exact.values, dtype=torch.bfloat16)
    states = Features(rounded, exact.starts, exact.counts)
    list(compute(net, make_loader(texts, EvaluationBatches(texts)), states))
    assert torch.equal(rounded, exact.values.bfloat16())
