"""The contenders of the side-by-side measurements compute what `lit_cls` computes; weights made here."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from conftest import pairwise
from torch import Tensor

from benchmarks import bench, huggingface, lit, published
from benchmarks.bench import Case
from benchmarks.tasks import WARM_UP_STEPS, Task, Timing, load
from lit_cls.data import sources
from lit_cls.data.datamodule import ClassificationData
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.adapters import LoRA

CONFIG = GPTConfig(vocab_size=50257, context_length=64, emb_dim=48, n_heads=3, n_layers=3)
PUBLISHED_LORA = LoRA(rank=16, alpha=16, scaling="alpha", targets=("all_linear", "head"))
Position = Literal["last", "flexible"]
Layers = Literal["last_layer", "last_block", "all", "lora"]

both_positions = pytest.mark.parametrize("position", ["last", "flexible"])
all_layers = pytest.mark.parametrize("layers", ["last_layer", "last_block", "all", "lora"])
positions_and_layers = pytest.mark.parametrize(
    ("position", "layers"),
    pairwise(["last", "flexible"], ["last_layer", "last_block", "all", "lora"], strength=1),
)
# peft asks transformers by a name that transformers is giving up.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Every parameter random, far from a fresh network's: biases, norms and attention all count."""
    torch.manual_seed(0)
    network = GPTClassifier(CONFIG)
    return {
        name.removeprefix("backbone."): torch.randn_like(values) * 0.15 + float(name.endswith(".scale"))
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
    is_lora = task.trainable_layers == "lora"
    network = GPTClassifier(
        CONFIG,
        token_position=task.token_position,
        trainable_layers=None if is_lora else task.trainable_layers,
        adapter=PUBLISHED_LORA if is_lora else None,
    )
    named = {name if name.startswith("out_head.") else f"backbone.{name}": t for name, t in task.state.items()}
    missing, unexpected = network.load_state_dict(named, strict=False)
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


@positions_and_layers
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
            ours = name if name == "out_head" else f"backbone.{name}"
            network.get_parameter(f"{ours}.lora_A").data.copy_(module.A.detach().T)


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


@positions_and_layers
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


# lit_cls's own contender.


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In the format of the SMS Spam Collection: 60 of each label, 84 of which train, of 2 to 13 tokens."""
    rng, lines = random.Random(3), []
    words = {"ham": ("see", "you", "at", "home", "later", "ok"), "spam": ("win", "a", "free", "prize", "call", "now")}
    for i in range(120):
        label = ("ham", "spam")[i % 2]
        # Some words are the other label's: not all is learnt at once.
        chosen = [rng.choice(words[label if rng.random() < 0.7 else "ham"]) for _ in range(rng.randint(1, 12))]
        lines.append(f"{label}\t{' '.join(chosen)} {i}")
    path = tmp_path_factory.mktemp("messages") / "SMSSpamCollection"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        patch.setattr(sources, "SMS_SPAM", replace(sources.SMS_SPAM, sha256=digest))
        yield path


def nano_task(row: int, messages: Path, state: dict[str, Tensor]) -> Task:
    """Of two epochs in ten steps each and one of four texts, whose losses change by more than they are compared to."""
    task = load(row, messages, "gpt2-nano")
    assert len(task.train_ids) == 84
    strong = {name: state.get(name, values) for name, values in task.state.items()}
    strong["pos_emb.weight"] = task.state["pos_emb.weight"] + 0.1  # of another length in `state`
    return replace(task, state=strong, epochs=2, learning_rate=1e-3, weight_decay=0.4)


@pytest.mark.parametrize(("row", "fast"), pairwise([1, 3, 10, 16], [True, False], strength=1))
def test_our_contender_has_the_published_losses(
    row: int, fast: bool, messages: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the texts in the same order: each draws its own."""
    task = nano_task(row, messages, state)
    ours = lit.run(task, None, None, messages, fast, "32-true")

    def in_our_order(task: Task) -> Iterator[tuple[Tensor, Tensor]]:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(task.seed))
        texts = ClassificationData(path=str(messages), split="ch06", padding="longest_in_train", batch_size=8)
        loader = texts.train_dataloader()
        for epoch in range(task.epochs):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            yield from ((batch["input_ids"], batch["labels"]) for batch in loader)

    monkeypatch.setattr(published, "training_batches", in_our_order)
    theirs = published.run(task)
    assert len(theirs.losses) == 22
    assert torch.tensor(theirs.losses).std() > 0.05
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-4)
    assert (ours.n_predicted, ours.correct) == (theirs.n_predicted, theirs.correct)
    assert 0 < ours.correct < ours.n_predicted == 120
    assert (ours.steps, ours.steps_whole) == (22, 22)
    assert (ours.seconds_once > 0) is (fast and row != 10)
    assert ours.seconds_steps > 0


def test_our_contender_cut_short(messages: Path, state: dict[str, Tensor]) -> None:
    """The steps that are not timed are no part of what it tells."""
    task = nano_task(10, messages, state)
    whole = lit.run(task, None, 0, messages, precision="32-true")
    short = lit.run(task, 3, 6, messages, precision="32-true")
    assert short.losses == whole.losses[WARM_UP_STEPS : WARM_UP_STEPS + 3]
    assert (short.steps, short.steps_whole, short.n_predicted, whole.n_predicted) == (3, 22, 6, 0)
    assert 0 < short.seconds_steps < whole.seconds_steps


def test_our_contender_adapts_what_the_published_one_does(messages: Path) -> None:
    task = load(11, messages, "gpt2-nano")
    module = lit.build(task, fast=True)
    module.take_labels(("ham", "spam"))
    net = module.settings.build(2)
    assert n_trained(net) == n_trained(published.build(task))
    assert module.settings.adapter == PUBLISHED_LORA


# What is measured, and what is made of it.


@pytest.mark.parametrize("quick", [False, True])
def test_every_row_is_measured_for_every_contender(quick: bool) -> None:
    rows = [1, 3, 10, 11, 16]
    chosen = bench.cases(rows, quick)
    assert [case.row for case in chosen] == sorted(case.row for case in chosen)
    for row in rows:
        contenders = [case.contender for case in chosen if case.row == row]
        in_float32 = ["plain-32", "fast-32"] if row == 1 and not quick else []
        assert contenders == ["published", "plain", "hf", "fast", *in_float32]
        assert set(contenders) <= set(bench.CONTENDERS)
    for case in chosen:
        # What computes something once is trained to the end: a few steps would not be worth it.
        whole = case.contender.startswith("fast") and case.row in (1, 3, 16)
        assert (case.max_steps is None) is whole
        classifies = {"published": 32, "plain": 32}.get(case.contender) if case.row == 16 else 0
        assert case.max_predictions == classifies
    steps = {(case.row, case.contender): case.max_steps for case in chosen}
    n = 3 if quick else 5
    assert (steps[1, "published"], steps[1, "plain"], steps[1, "hf"]) == (n, n, 2 * n)
    assert (steps[10, "fast"], steps[16, "hf"]) == (2 * n, 40 * n)


def test_a_case_is_given_to_its_contender(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> None:
    asked: list[Any] = []
    for contender in (published, huggingface, lit):
        monkeypatch.setattr(contender, "run", lambda task, *rest, name=contender.__name__: asked.append((name, *rest)))
    task, data = some_task(state, "last", "all"), Path("data")
    for name in bench.CONTENDERS:
        bench.perform(Case(1, name, 3, 4), task, data)
    assert dict(zip(bench.CONTENDERS, asked, strict=True)) == {
        "published": ("benchmarks.published", 3, 4),
        "hf": ("benchmarks.huggingface", 3, 4),
        "plain": ("benchmarks.lit", 3, 4, data, False, "auto"),
        "fast": ("benchmarks.lit", 3, 4, data, True, "auto"),
        "plain-32": ("benchmarks.lit", 3, 4, data, False, "32-true"),
        "fast-32": ("benchmarks.lit", 3, 4, data, True, "32-true"),
    }


def test_a_summary_is_of_medians() -> None:
    def timed(scale: float, peak_memory: int) -> dict[str, Any]:
        timing = Timing(scale, 10 * scale, 5, 50, 2 * scale, 4, 3, [0.5, 0.7])
        training = timing.seconds_training
        more = {"seconds_training": training, "tokens_per_second": 1000 / training, "peak_memory": peak_memory}
        return {**asdict(timing), **more}

    case = Case(16, "fast", 5, 4)
    found = bench.summarize(case, [timed(3.0, 70), timed(1.0, 90), timed(1.5, 20)])
    assert found == {
        **{"row": 16, "contender": "fast", "max_steps": 5, "max_predictions": 4},
        **{"seconds_once": 1.5, "seconds_training": 151.5, "tokens_per_second": 1000 / 151.5},
        **{"seconds_predicting": 3.0, "peak_memory": 70, "seconds_step": 3.0},
        **{"steps": 5, "steps_whole": 50, "n_predicted": 4, "correct": 3},
        "seconds_training_each": [303.0, 101.0, 151.5],
        "mean_loss": 0.6,
    }


@pytest.mark.parametrize(
    ("row", "contender", "layers", "counts_once"),
    [
        (1, "fast", "last_block", True),
        (1, "fast-32", "last_block", True),
        (3, "fast", "last_layer", True),
        (10, "fast", "all", False),
        (11, "fast", "lora", False),
        (1, "plain", "last_block", False),
        (16, "hf", "last_block", False),
    ],
)
def test_operations_are_counted_once_and_for_each_step(
    row: int,
    contender: str,
    layers: Layers,
    counts_once: bool,
    state: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a contender whose matrix products are known: (5, 7) by (7, 11) once, (2, 3) by (3, 13) in each step."""

    def perform(case: Case, task: Task, data: Path) -> Timing:
        assert case.max_predictions == 0
        torch.randn(5, 7) @ torch.randn(7, 11)
        steps = 9 * task.epochs if case.max_steps is None else case.max_steps
        for _ in range(steps):
            torch.randn(2, 3) @ torch.randn(3, 13)
        return Timing(0.0, 1.0, steps, steps, 0.0, 0, 0, [])

    monkeypatch.setattr(bench, "perform", perform)
    once, a_step = bench.count_operations(Case(row, contender, 99, 99), some_task(state, "last", layers), Path("data"))
    assert a_step == 2 * 2 * 3 * 13
    assert once == (2 * 5 * 7 * 11 if counts_once else 0)
