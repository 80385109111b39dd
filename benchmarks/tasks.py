"""What every contender is given: the same texts, the same weights, the same settings."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from lit_cls.data.datamodule import ClassificationData
from lit_cls.model.backbones import BACKBONES, BackboneName
from lit_cls.model.settings import ModelSettings

WARM_UP_STEPS = 2  # the first steps also fetch memory and choose kernels
SUPPORTED = (1, 3, 10, 11, 16)  # GPT-2 small, position `last` or `flexible`, LoRA of rank 16 and alpha 16
ROWS = Path(__file__).parents[1] / "configs" / "rows"


@dataclass(frozen=True)
class Task:
    """One row of the published table, as plain values.

    Shapes: B batch, T tokens, C emb_dim, K classes.
    """

    row: int
    token_position: Literal["last", "flexible"]
    """`last`: position T-1, pads included. `flexible`: the last real token."""
    trainable_layers: Literal["last_layer", "last_block", "all", "lora"]
    pad_to: int
    """T of every batch, where pads are read (`last`); with `flexible` a contender may pad less."""
    train_ids: list[list[int]]
    """Token ids of each training text, unpadded."""
    train_labels: list[int]
    predict_ids: list[list[int]]
    """Token ids of the texts to classify afterwards."""
    predict_labels: list[int]
    state: dict[str, Tensor]
    """The random weights all contenders start from, float32, in the published naming."""
    n_layers: int
    emb_dim: int
    n_heads: int
    batch_size: int = 8
    epochs: int = 5
    learning_rate: float = 5e-5
    weight_decay: float = 0.1
    seed: int = 123
    pad_id: int = 50256


@dataclass
class Timing:
    """What a contender reports; times in seconds."""

    seconds_once: float
    """Work before the first step that a later epoch does not repeat: caching, compiling."""
    seconds_steps: float
    """All optimizer steps that were run, data loading included, no evaluation."""
    steps: int
    """How many were run: fewer than the whole training when it was cut short."""
    steps_whole: int
    """How many the whole training has."""
    seconds_predicting: float
    n_predicted: int
    correct: int
    """Of those predicted."""
    losses: list[float]
    """Mean loss of each step."""

    @property
    def seconds_training(self) -> float:
        """The whole training: what was run once, and the steps, extrapolated when it was cut short."""
        return self.seconds_once + self.seconds_steps / self.steps * self.steps_whole


def measure(
    task: Task,
    steps: Iterator[Tensor],
    steps_whole: int,
    predict: Callable[[list[list[int]]], Tensor],
    max_steps: int | None,
    max_predictions: int | None,
) -> Timing:
    """Times a contender that prepares nothing before its first step.

    Args:
        task: what is trained and classified.
        steps: each item is one optimizer step, done when it is asked for: its loss, on its device.
        steps_whole: how many of them the whole training has.
        predict: token ids to class ids, (n,), in the order given.
        max_steps: optimizer steps to time, after two that are not; None times the whole training.
        max_predictions: texts to classify; None for all of them.
    """
    if max_steps is not None:
        _timed(steps, WARM_UP_STEPS)
    seconds_steps, losses = _timed(steps, max_steps)
    seconds_predicting, n_predicted, correct = answers(task, predict, max_predictions)
    return Timing(
        seconds_once=0.0,
        seconds_steps=seconds_steps,
        steps=len(losses),
        steps_whole=steps_whole,
        seconds_predicting=seconds_predicting,
        n_predicted=n_predicted,
        correct=correct,
        losses=losses,
    )


def answers(
    task: Task, predict: Callable[[list[list[int]]], Tensor], max_predictions: int | None
) -> tuple[float, int, int]:
    """Seconds, number and correct predictions of classifying all texts, or some of them evenly spaced."""
    n_texts = len(task.predict_ids)
    n_chosen = n_texts if max_predictions is None else min(max_predictions, n_texts)
    if not n_chosen:
        return 0.0, 0, 0
    rows = [i * n_texts // n_chosen for i in range(n_chosen)]
    start = time.perf_counter()
    found = predict([task.predict_ids[row] for row in rows]).tolist()
    seconds = time.perf_counter() - start
    return seconds, n_chosen, sum(a == task.predict_labels[row] for a, row in zip(found, rows, strict=True))


def _timed(steps: Iterator[Tensor], n: int | None) -> tuple[float, list[float]]:
    start = time.perf_counter()
    losses: list[float] = torch.stack(list(islice(steps, n))).tolist()  # also waits for a GPU
    return time.perf_counter() - start, losses


def load(row: int, data: Path, size: BackboneName = "gpt2-small", seed: int = 123) -> Task:
    """A row's task on the published split, from random weights.

    Args:
        row: its number in the table, one of `SUPPORTED`.
        data: the SMS Spam Collection.
        size: of the network.
        seed: of weights and order.
    """
    assert row in SUPPORTED, "the command refuses others"
    texts = ClassificationData(path=str(data), split="ch06", padding="longest_in_train")
    train = texts.part("train")
    others = [texts.part("validation"), texts.part("test")]
    model: dict[str, Any] = yaml.safe_load(next(ROWS.glob(f"{row:02d}_*.yaml")).read_text(encoding="utf-8")).get(
        "model", {}
    )
    assert texts.pad_to is not None, "longest_in_train is a number of tokens"
    torch.manual_seed(seed)
    net = ModelSettings(size=size, weights="random").build(len(texts.label_names))
    return Task(
        row=row,
        token_position=model.get("token_position", "last"),
        trainable_layers="lora" if "adapter" in model else model.get("trainable_layers", "last_block"),
        pad_to=texts.pad_to,
        train_ids=train.token_ids,
        train_labels=train.label_ids,
        predict_ids=[ids[: texts.pad_to] for part in (train, *others) for ids in part.token_ids],
        predict_labels=[label for part in (train, *others) for label in part.label_ids],
        state={name.removeprefix("backbone."): tensor for name, tensor in net.state_dict().items()},
        n_layers=BACKBONES[size].config.n_layers,
        emb_dim=BACKBONES[size].config.emb_dim,
        n_heads=BACKBONES[size].config.n_heads,
        seed=seed,
    )
