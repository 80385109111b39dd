"""Small whole trainings, for tests that hold a faster one against the one that computes everything."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from safetensors.torch import save_file
from small_fits import trainer, training
from torch import Tensor

from lit_cls.data.batches import EvaluationBatches
from lit_cls.data.datamodule import ClassificationData
from lit_cls.model import TextClassifier
from lit_cls.model.settings import ModelSettings
from lit_cls.training.callbacks import CollectPredictions
from lit_cls.training.feature_cache import CacheFeatures
from lit_cls.training.module import ClassifierModule

MAX_LENGTH = 16


def uneven_texts(folder: Path) -> str:
    """48 texts of 1 to 20 tokens in no order, three of them empty, some longer than MAX_LENGTH."""
    random = torch.Generator().manual_seed(4)
    words = ["red", "blue", "green", "small", "large", "near", "far", "old", "new", "soft", "loud", "calm"]
    lines = ["text,label"]
    for i in range(48):
        n = int(torch.randint(0, 20, (), generator=random)) if i % 20 else 0
        text = " ".join(words[int(w)] for w in torch.randint(len(words), (n,), generator=random))
        lines.append(f"{'yes' if i % 3 else 'no'} {text}" if n else '""')
        lines[-1] += f",{'b' if i % 2 else 'a'}"
    path = folder / "uneven.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def strong_weights(folder: Path, seed: int = 0) -> str:
    """gpt2-nano with weights far from a fresh network's: positions, biases and norms all count in the logits."""
    torch.manual_seed(seed)
    state = ModelSettings("gpt2-nano", "random").build(2).state_dict()
    state = {name: t + torch.randn_like(t) * 0.15 for name, t in state.items() if not name.startswith("out_head")}
    path = folder / f"strong-{seed}.safetensors"
    save_file(state, path)
    return str(path)


def texts(path: str, **options: Any) -> ClassificationData:
    if options.get("padding") == "none":
        options["batch_size"] = 1
    chosen = {"balance": "none", "empty": "keep", "batch_size": 4, "max_length": MAX_LENGTH, **options}
    if isinstance(chosen.get("padding"), int):
        del chosen["max_length"]
    return ClassificationData(path=path, **chosen)


def network(weights: str, **options: Any) -> ClassifierModule:
    options = {**training(options.pop("trainable_layers", None)), **options}
    return ClassifierModule(**{"size": "gpt2-nano", "weights": weights, "learning_rate": 1e-3, **options})


class StepLosses(Callback):
    """The loss of every training batch, summed over its texts."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train_loss_step"]))


@dataclass(frozen=True)
class Fitted:
    """What came out of a training."""

    module: ClassifierModule
    runner: Trainer
    losses: list[float]
    told: list[str]
    """What the frozen layers' callback printed."""
    logits: dict[str, Tensor]
    """Of every row of the test, validation and train split after training, in their order."""


def fitted(
    folder: Path, module: ClassifierModule, data: ClassificationData, ckpt: str | None = None, **options: Any
) -> Fitted:
    """Trains, then evaluates every split with the Trainer's own verbs, as a run of the command does."""
    told: list[str] = []
    steps, predictions = StepLosses(), CollectPredictions()
    ours = [steps, predictions, CacheFeatures(told.append, scratch=folder / "scratch")]
    runner = trainer(folder, **{"max_epochs": 2, "callbacks": ours, **options})
    seed_everything(11, verbose=False)
    runner.fit(module, datamodule=data, ckpt_path=ckpt)
    logits = {}
    for split, verb in (("test", runner.test), ("validation", runner.validate)):
        predictions.clear()
        verb(module, datamodule=data, verbose=False)  # type: ignore[operator]
        logits[split] = predictions.logits
    predictions.clear()
    runner.predict(module, datamodule=data, return_predictions=False)
    logits["train"] = predictions.logits
    return Fitted(module, runner, steps.losses, told, logits)


def assert_same(got: Fitted, expected: Fitted, atol: float = 1e-4) -> None:
    """The same losses of all steps, logits and predictions."""
    assert got.losses == pytest.approx(expected.losses, abs=atol)
    for split, logits in expected.logits.items():
        torch.testing.assert_close(got.logits[split], logits, atol=atol, rtol=0, msg=split)
        assert torch.equal(got.logits[split].argmax(1), logits.argmax(1)), split


@contextmanager
def counted_features() -> Iterator[list[int]]:
    """How many texts each computation of the frozen layers' outputs had."""
    calls: list[int] = []
    plain = TextClassifier.features

    def counting(self: TextClassifier, input_ids: Tensor, lengths: Tensor) -> Tensor:
        calls.append(len(input_ids))
        return plain(self, input_ids, lengths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextClassifier, "features", counting)
        yield calls


@contextmanager
def small_evaluation_batches() -> Iterator[None]:
    """Several batches of each split, of different sizes: with all texts in one, order would never matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvaluationBatches, "_TOKENS", 40)
        yield
