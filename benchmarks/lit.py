"""The same task by lit_cls: the very classes behind `lit_cls fit`, without the run folder and its reports."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from benchmarks.tasks import WARM_UP_STEPS, Task, Timing, answers
from lit_cls.data.batches import EvaluationBatches, TextDataset, make_loader
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.model import LoRA
from lit_cls.model.classifier import TextClassifier
from lit_cls.training.callbacks import EpochLog
from lit_cls.training.feature_cache import CacheFeatures
from lit_cls.training.module import ClassifierModule
from lit_cls.training.trainer import ClassifierTrainer


class Stopwatch(Callback):
    """Keeps the loss of each step, and the time at which each was done; starts from the task's weights."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state
        self.losses: list[Tensor] = []
        self.times: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights in place that every contender has."""
        assert isinstance(pl_module, ClassifierModule)
        assert pl_module.net is not None
        ours = {name if name.startswith("out_head.") else f"backbone.{name}": t for name, t in self.state.items()}
        pl_module.net.load_state_dict(ours, strict=False)  # adapters are new

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The time before the first step."""
        if not self.times:
            self.times.append(time.perf_counter())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step is done."""
        self.losses.append(trainer.callback_metrics["train_loss_step"].detach().clone())
        if len(self.losses) in (WARM_UP_STEPS, trainer.max_steps) and torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def run(
    task: Task,
    max_steps: int | None,
    max_predictions: int | None,
    data: Path,
    fast: bool = True,
    precision: str = "auto",
) -> Timing:
    """Trains, then classifies; see `benchmarks.published.run`.

    Args:
        task: texts, weights and settings.
        max_steps: optimizer steps to time, after two that are not; None times the whole training.
        max_predictions: texts to classify; None for all of them.
        data: the file that the task was read from.
        fast: false takes the plain path.
        precision: the Trainer's.
    """
    seed_everything(task.seed, verbose=False)
    module = build(task, fast)
    texts = ClassificationData(
        path=str(data), split="ch06", padding="longest_in_train", batch_size=task.batch_size, num_workers=0
    )
    watch, features = Stopwatch(task.state), CacheFeatures(lambda line: None, Path("."))
    trainer = make_trainer(task, max_steps, precision, [EpochLog(lambda line: None), features, watch])
    trainer.fit(module, datamodule=texts)
    skipped = 0 if max_steps is None else WARM_UP_STEPS
    assert module.net is not None
    # Lightning has moved it to the CPU.
    net, pad_to = module.net.to(trainer.strategy.root_device), None if fast else task.pad_to
    seconds_predicting, n_predicted, correct = answers(
        task, lambda chosen: predict(net, chosen, trainer, pad_to), max_predictions
    )
    return Timing(
        seconds_once=module.feature_cache.seconds.get("train", 0.0),
        seconds_steps=watch.times[-1] - watch.times[skipped],
        steps=len(watch.losses) - skipped,
        steps_whole=-(-len(task.train_ids) // task.batch_size) * task.epochs,
        seconds_predicting=seconds_predicting,
        n_predicted=n_predicted,
        correct=correct,
        losses=[float(loss) for loss in watch.losses[skipped:]],
    )


def build(task: Task, fast: bool) -> ClassifierModule:
    """The module with the row's choices; its weights come with `Stopwatch`."""
    is_lora = task.trainable_layers == "lora"
    size = {768: "gpt2-small", 48: "gpt2-nano"}[task.emb_dim]
    return ClassifierModule(
        size=size,
        weights="random",
        token_position=task.token_position,
        trainable_layers=None if is_lora else task.trainable_layers,
        adapter=LoRA(rank=16, alpha=16, scaling="alpha", targets=("all_linear", "head")) if is_lora else None,
        learning_rate=task.learning_rate,
        weight_decay=task.weight_decay,
        fast=fast,
    )


def make_trainer(task: Task, max_steps: int | None, precision: str, callbacks: list[Callback]) -> ClassifierTrainer:
    """One device, nothing written, no evaluation."""
    return ClassifierTrainer(
        precision=precision,  # type: ignore[arg-type]
        max_epochs=task.epochs if max_steps is None else -1,
        max_steps=-1 if max_steps is None else max_steps + WARM_UP_STEPS,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        devices=1,
    )


@torch.inference_mode()
def predict(net: TextClassifier, texts: list[list[int]], trainer: Trainer, pad_to: int | None) -> Tensor:
    """Class ids, (n,), in the order given, as `lit_cls.Classifier` finds them."""
    net.eval()
    dataset = TextDataset(texts, None, pad_to, pad_id=tokenizer_for("gpt2").pad_id)
    found = torch.empty(len(texts), dtype=torch.int64)
    with trainer.precision_plugin.forward_context():
        for batch in make_loader(dataset, EvaluationBatches(dataset)):
            ids = net.trim(batch["input_ids"], batch["lengths"])
            device = trainer.strategy.root_device
            found[batch["row_ids"]] = net(ids.to(device), batch["lengths"].to(device)).argmax(dim=1).cpu()
    return found
