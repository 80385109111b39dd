"""The contenders of the side-by-side measurements compute what `lit_cls` computes; weights made here."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import huggingface, published
from benchmarks.tasks import Task, Timing
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.lora import LoRAConfig

CONFIG = GPTConfig(vocab_size=50257, context_length=64, emb_dim=48, n_heads=3, n_layers=3)
PUBLISHED_LORA = LoRAConfig(
    rank=16, alpha=16, scaling="alpha", targets=("W_query", "W_key", "W_value", "out_proj", "ff", "out_head")
)
Position = Literal["last", "flexible"]
Layers = Literal["last_layer", "last_block", "all", "lora"]

both_positions = pytest.mark.parametrize("position", ["last", "flexible"])
all_layers = pytest.mark.parametrize("layers", ["last_layer", "last_block", "all", "lora"])
# peft asks transformers by a name that transformers is giving up.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Every parameter random, far from a fresh network's: biases, norms and attention all count."""
    torch.manual_seed(0)
    network = GPTClassifier(CONFIG)
    return {
        name: torch.randn_like(values) * 0.15 + float(name.endswith(".scale"))
        for name, values in network.state_dict().items()
    }


def some_task(state: dict[str, Tensor], position: Position, layers: Layers) -> Task:
    """83 texts of 1 to 28 tokens, padded to 31: ten whole batches and one of three."""
    rng = random.Random(1)
    ids = [[rng.randrange(50256) for _ in range(rng.randint(1, 28))] for _ in range(83)]
    labels = [rng.randrange(2) for _ in ids]
    return Task(
        row=1,
        token_position=position,
        trainable_layers=layers,
        pad_to=31,
        train_ids=ids,
        train_labels=labels,
        predict_ids=ids[:43],  # neither 8 nor 32 divides it
        predict_labels=labels[:43],
        state=state,
        n_layers=CONFIG.n_layers,
        emb_dim=CONFIG.emb_dim,
        n_heads=CONFIG.n_heads,
        epochs=1,
        learning_rate=1e-3,  # ten steps have to change the losses by more than they are compared to
    )


def our_network(task: Task) -> GPTClassifier:
    network = GPTClassifier(
        CONFIG,
        token_position=task.token_position,
        trainable_layers=task.trainable_layers,
        lora=PUBLISHED_LORA if task.trainable_layers == "lora" else None,
    )
    missing, unexpected = network.load_state_dict(task.state, strict=False)
    assert all("lora_" in name for name in missing)
    assert not unexpected
    return network


def n_trained(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def lengths(ids: Tensor) -> Tensor:
    """No text of the task has the pad's id."""
    return (ids != 50256).sum(dim=1)


def our_logits(network: GPTClassifier, task: Task, texts: list[list[int]]) -> Tensor:
    ids = torch.tensor(published.pad(texts, task))
    with torch.no_grad():
        return network(ids, lengths(ids))


@both_positions
def test_published_logits_are_ours(state: dict[str, Tensor], position: Position) -> None:
    task = some_task(state, position, "all")
    expected = our_logits(our_network(task), task, task.predict_ids)
    with torch.no_grad():
        ids = torch.tensor(published.pad(task.predict_ids, task))
        got = published.class_logits(published.build(task), ids, task)
    assert expected.std(dim=0).min() > 0.1  # the comparison has something to compare
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


@both_positions
def test_huggingface_logits_are_ours_without_the_heads_bias(state: dict[str, Tensor], position: Position) -> None:
    state = {**state, "out_head.bias": torch.zeros(2)}
    task = some_task(state, position, "all")
    expected = our_logits(our_network(task), task, task.predict_ids)
    with torch.no_grad():
        got = huggingface.build(task).eval()(input_ids=huggingface.pad(task.predict_ids, task)).logits
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


@both_positions
@all_layers
def test_ten_published_steps_have_our_losses(state: dict[str, Tensor], position: Position, layers: Layers) -> None:
    task = some_task(state, position, layers)
    network = our_network(task)
    if layers == "lora":
        copy_published_adapters(network, task)
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay)
    untrained, expected = [], []
    start = our_network(task)
    for ids, labels in published.training_batches(task):
        with torch.no_grad():
            untrained.append(F.cross_entropy(start(ids, lengths(ids)), labels).item())
        optimizer.zero_grad()
        loss = F.cross_entropy(network(ids, lengths(ids)), labels)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    timing = published.run(task)
    assert timing.steps == timing.steps_whole == 10
    # Training is what is compared, not only the weights given.
    assert max(abs(a - b) for a, b in zip(expected, untrained, strict=True)) > 5e-3
    assert timing.losses == pytest.approx(expected, abs=1e-4)


def copy_published_adapters(network: GPTClassifier, task: Task) -> None:
    """The start of `published.run`'s A, which is random; B is zero in both."""
    for name, module in published.build(task).named_modules():
        if isinstance(module, published.LinearWithLoRA):
            network.get_parameter(f"{name}.lora_A").data.copy_(module.A.detach().T)


@all_layers
def test_published_trains_our_parameters(state: dict[str, Tensor], layers: Layers) -> None:
    task = some_task(state, "last", layers)
    assert n_trained(published.build(task)) == n_trained(our_network(task))


@pytest.mark.parametrize("layers", ["last_layer", "last_block", "all"])
def test_huggingface_trains_our_parameters_but_the_heads_bias(state: dict[str, Tensor], layers: Layers) -> None:
    task = some_task(state, "last", layers)
    assert n_trained(huggingface.build(task)) == n_trained(our_network(task)) - 2


def test_huggingface_lora_adapts_every_matrix_of_a_block_by_the_published_scale(state: dict[str, Tensor]) -> None:
    model = huggingface.build(some_task(state, "last", "lora"))
    adapters = {n: m.scaling["default"] for n, m in model.named_modules() if hasattr(m, "lora_A")}
    matrices = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert adapters == {f"base_model.model.transformer.h.{i}.{name}": 16.0 for i in range(3) for name in matrices}
    # (in + out) * rank for c_attn, c_proj, c_fc and c_proj, in units of emb_dim; and the head.
    assert n_trained(model) == 3 * (4 + 2 + 5 + 5) * 48 * 16 + 2 * 48


@both_positions
@all_layers
def test_huggingface_learns_in_bfloat16_as_in_float32(
    state: dict[str, Tensor], position: Position, layers: Layers
) -> None:
    task = some_task(state, position, layers)
    losses = [
        torch.stack(list(huggingface.training_steps(huggingface.build(task), task, autocast=autocast))).tolist()
        for autocast in (True, False)
    ]
    assert len(losses[0]) == 11  # the batch of three included
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)


@pytest.mark.parametrize("contender", [published, huggingface])
@both_positions
def test_predictions_come_in_the_order_given(contender, state: dict[str, Tensor], position: Position) -> None:
    task = some_task(balanced(state, position), position, "all")
    # In bfloat16, close calls would be decided otherwise.
    exact = {"autocast": False} if contender is huggingface else {}
    expected = our_logits(our_network(task), task, task.predict_ids).argmax(dim=1)
    assert expected.sum() == 21
    assert not torch.equal(expected, expected.flip(0))
    got = contender.predict(contender.build(task), task, task.predict_ids, **exact)
    assert got.tolist() == expected.tolist()


def balanced(state: dict[str, Tensor], position: Position) -> dict[str, Tensor]:
    """Without the head's bias, which transformers has not, and with each class the answer to half of the texts.

    The final norm's shift is moved between the two classes until the median text is a draw, and a little further.
    """
    task = some_task({**state, "out_head.bias": torch.zeros(2)}, position, "all")
    ahead = our_logits(our_network(task), task, task.predict_ids).diff(dim=1).median()
    direction = state["out_head.weight"].diff(dim=0)[0]  # (C,)
    shift = state["final_norm.shift"] - (ahead + 1e-3) * direction / direction.dot(direction)
    return {**task.state, "final_norm.shift": shift}


@both_positions
def test_huggingface_sees_every_text_once_an_epoch(state: dict[str, Tensor], position: Position) -> None:
    task = replace(some_task(state, position, "all"), epochs=2)
    batches = list(huggingface.training_batches(task))
    assert len(batches) == 22
    epochs = [as_texts(iter(batches[start : start + 11])) for start in (0, 11)]
    assert epochs[0] != epochs[1]
    in_order = sorted(zip(task.train_ids, task.train_labels, strict=True))
    assert sorted(epochs[0]) == sorted(epochs[1]) == in_order
    n_pads = sum((ids == task.pad_id).sum().item() for ids, _ in batches[:11])
    n_all = sum(task.pad_to - len(ids) for ids in task.train_ids)
    assert n_pads == n_all if position == "last" else n_pads < n_all / 5


def as_texts(batches: Iterator[tuple[Tensor, Tensor]]) -> list[tuple[list[int], int]]:
    return [
        (row[row != 50256].tolist(), label.item())
        for ids, labels in batches
        for row, label in zip(ids, labels, strict=True)
    ]


@pytest.mark.parametrize(("contender", "steps_whole"), [(published, 20), (huggingface, 22)])
def test_a_run_cut_short_says_so(contender, steps_whole: int, state: dict[str, Tensor]) -> None:
    task = replace(some_task(state, "flexible", "last_layer"), epochs=2, predict_labels=[1] * 43)
    timing = contender.run(task, max_steps=3, max_predictions=6)
    assert (timing.steps, timing.steps_whole, len(timing.losses)) == (3, steps_whole, 3)
    assert timing.seconds_training == pytest.approx(timing.seconds_steps / 3 * steps_whole)
    assert timing.seconds_predicting > 0
    assert timing.n_predicted == 6


def test_the_texts_predicted_are_spread_evenly(state: dict[str, Tensor]) -> None:
    task = some_task(state, "last", "all")
    asked: list[list[int]] = []

    def predict(texts: list[list[int]]) -> Tensor:
        asked.extend(texts)
        return torch.zeros(len(texts), dtype=torch.int64)

    timing = published.measure(task, iter([torch.tensor(0.5)] * 9), 9, predict, max_steps=4, max_predictions=5)
    rows = [0, 8, 17, 25, 34]
    assert asked == [task.predict_ids[row] for row in rows]
    assert timing.correct == sum(task.predict_labels[row] == 0 for row in rows)
    assert timing.steps == 4


def test_timing_extrapolates_the_steps_alone() -> None:
    timing = Timing(
        seconds_once=1.0,
        seconds_steps=10.0,
        steps=4,
        steps_whole=40,
        seconds_predicting=3.0,
        n_predicted=1,
        correct=1,
        losses=[],
    )
    assert timing.seconds_training == 101.0
