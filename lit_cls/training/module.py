"""The LightningModule: loss, metrics, optimizer, and what a checkpoint keeps of the network."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lit_cls.data.splits import SplitName
from lit_cls.io.options import options_from, pick
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.decision import Decision
from lit_cls.model.settings import ModelSettings
from lit_cls.model.weight_files import file_sha256
from lit_cls.model.weights import WeightsCache
from lit_cls.training import checkpoints
from lit_cls.training.feature_cache import FeatureCache
from lit_cls.training.features import Features
from lit_cls.training.loss import MeanLoss, class_weight_list, summed_loss, weight_notes
from lit_cls.training.precision import MIXED
from lit_cls.training.settings import TrainingSettings

_SPLIT_OF_STAGE: dict[str, SplitName] = {
    "train": "train",
    "validate": "validation",
    "sanity_check": "validation",
    "test": "test",
    "predict": "train",
}


@options_from(ModelSettings, TrainingSettings)
class ClassifierModule(LightningModule):
    """A text classifier, as Lightning trains it."""

    net: TextClassifier | None

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.settings = pick(ModelSettings, options)
        self.options = pick(TrainingSettings, options)
        if options:
            raise TypeError(f"ClassifierModule has no options {', '.join(options)}")
        self.settings.check()
        self.options.check(self.settings.drop_rate)
        self._class_weights: Tensor | None = None  # (K,), once the train split is known
        self.decision = Decision()
        """How labels follow from logits: that of the checkpoint which was loaded last."""
        self.label_names: tuple[str, ...] = ()
        self._weights_cache: WeightsCache | None = None
        self.weights_sha256: str | None = None
        self.weights_notes: list[str] = []
        self.net = None
        self.metrics = nn.ModuleDict()
        self.train_loss = MeanLoss()
        self.feature_cache = FeatureCache(self.options)
        # A checkpoint may hold the trained tensors alone: on_load_checkpoint checks what it must hold.
        self.strict_loading = False
        self._checked_gradients = False

    def setup(self, stage: str) -> None:
        """Takes the classes from the data: nothing about them but their weights is an option of the model."""
        if not self.label_names:
            self.take_labels(self.trainer.datamodule.label_names)  # type: ignore[attr-defined]
        if stage == "fit" and self.options.class_weights is not None:
            self.weigh_classes(self.trainer.datamodule.splits["train"].label_ids)  # type: ignore[attr-defined]

    def take_labels(self, label_names: tuple[str, ...]) -> None:
        """Sets the names of the classes, in the order of their ids; a UserError where `ignore_index` is one of them."""
        self.options.check_labels(label_names)
        self.label_names = label_names

    def weigh_classes(self, train_labels: Sequence[int]) -> list[str]:
        """Sets the class weights that training uses, from the class ids of the train split; returns notes on them.

        Raises:
            UserError: `class_weights` names something that is no label.
        """
        if self.options.class_weights is None:
            return []
        weights = class_weight_list(self.options.class_weights, self.label_names, train_labels)
        self._class_weights = torch.tensor(weights, dtype=torch.float32, device=self.device)
        return weight_notes(self.options.class_weights, weights, self.label_names)

    def share_weights(self, cache: WeightsCache) -> None:
        """Has the weights file read through a cache that the networks of several runs share."""
        self._weights_cache = cache

    def configure_model(self) -> None:
        """Builds the network, once, where Lightning wants its memory to be."""
        if self.net is not None:
            return
        path, n_classes = self.settings.weights_path(), len(self.label_names)
        if path is None:
            self.net = self.settings.build(n_classes)
        else:
            self.net, self.weights_notes = self.settings.load(n_classes, path, self._weights_cache)
            self.weights_sha256 = file_sha256(path)
        self.net.fast = self.options.fast
        self.net.recompute = self.options.gradient_checkpointing
        if self.options.compile:
            for block in self.net.blocks:
                # In place: a wrapper would rename every tensor (Lightning-AI/pytorch-lightning#20233).
                block.compile(mode="reduce-overhead" if self.device.type == "cuda" else "default")
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            # Each process holds its share of every tensor (torch's FSDP2), and gathers a block when it computes it.
            for part in (*self.net.blocks, self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])  # type: ignore[index]
        if self.options.fast and self.is_whole and (dtype := MIXED.get(str(self.trainer.precision))):
            self.net.hold_frozen(dtype)
        for stage in ("val", "test"):
            accuracy = MulticlassAccuracy(n_classes, average="micro")
            self.metrics[stage] = nn.ModuleDict({"loss": MeanLoss(), "acc": accuracy})

    def on_train_start(self) -> None:
        """Gives an optimizer whose state came from a checkpoint the options of this run."""
        self.train_loss.set_dtype(torch.float32)
        if self._class_weights is not None:
            self._class_weights = self._class_weights.to(self.device)
        for optimizer in self.trainer.optimizers if not self.trainer.lr_scheduler_configs else ():
            for group in optimizer.param_groups:
                group.update({name: value for name, value in optimizer.defaults.items() if name in group})

    def on_train_epoch_start(self) -> None:
        """Has the epoch's loss logged at its end, also when every batch was trained on by an earlier process."""
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True)

    def on_validation_epoch_start(self) -> None:
        """Sums the loss in float32: in bfloat16 a sum stops growing after some hundred texts."""
        for metrics in self.metrics.values():
            metrics["loss"].set_dtype(torch.float32)  # type: ignore[index]

    on_test_epoch_start = on_validation_epoch_start

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Takes from a batch what no step needs: pads that are not read, or all tokens where the features are known."""
        assert self.net is not None, "configure_model has not run"
        if (features := self._features()) is None:
            return {**batch, "input_ids": self.net.trim(batch["input_ids"], batch["lengths"])}
        places, values = features.index(batch["row_ids"]), features.values
        # What is in CPU memory is picked there, what is on the device by the step.
        kept = {name: value for name, value in batch.items() if name != "input_ids"}
        return {**kept, "features": values[places]} if values.is_cpu else {**kept, "places": places}

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Class logits (B, K), in float32 whatever the precision."""
        assert self.net is not None, "configure_model has not run"
        logits: Tensor = self.net(input_ids, lengths)
        return logits.float()

    def _features(self) -> Features | None:
        """The frozen layers' outputs for the split of this stage, where they are known."""
        split = _SPLIT_OF_STAGE[str(self.trainer.state.stage.value)]  # type: ignore[union-attr]
        return self.feature_cache.get(split, self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def is_whole(self) -> bool:
        """Whether this process holds every tensor of the network, and whole."""
        return type(self.trainer.strategy) in (SingleDeviceStrategy, DDPStrategy)

    def _logits(self, batch: dict[str, Any]) -> Tensor:
        """Class logits (B, K) of a batch, from the features where they are known."""
        assert self.net is not None, "configure_model has not run"
        if "places" in batch and (features := self._features()) is not None:
            batch["features"] = features.values[batch["places"]]  # (B, T, C)
        if "features" in batch:
            return self.net.from_features(batch["features"], batch["lengths"]).float()
        return self(batch["input_ids"], batch["lengths"])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """This batch's share of the mean loss over all examples of its optimizer step.

        Lightning divides by the numbers of accumulated batches and of processes as if all were full. Undone here,
        examples weigh the same in an incomplete step too (Lightning-AI/pytorch-lightning#19987). Class weights do not
        change the divisor, as they do in torch, where it depends on how a step is cut into batches.
        """
        logits, o = self._logits(batch), self.options
        total = summed_loss(
            logits, batch["labels"], o.ignore_index, self._class_weights, o.label_smoothing, o.focal_gamma
        )
        n = max(1, len(batch["labels"]))
        mean = total.detach() / n
        self.log("train_loss_step", mean, on_step=True, on_epoch=False, prog_bar=True, batch_size=n)
        self.train_loss.update(mean.expand(len(batch["labels"])))
        divisors = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return total * (divisors / batch["step_examples"])

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Logits of a batch; `val_loss` and `val_acc` are accumulated over the whole split."""
        return self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Logits of a batch; `test_loss` and `test_acc` are accumulated over the whole split."""
        return self._evaluate("test", batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Logits of a batch and the rows they belong to."""
        return {"row_ids": batch["row_ids"], "logits": self._logits(batch)}

    def _evaluate(self, stage: str, batch: dict[str, Any]) -> dict[str, Tensor]:
        logits, labels, decision = self._logits(batch), batch["labels"], self.decision
        metrics: dict[str, Metric] = self.metrics[stage]  # type: ignore[assignment]
        # Plain cross entropy whatever is trained, so that val_loss compares one choice of loss with another.
        metrics["loss"].update(F.cross_entropy(logits / decision.temperature, labels, reduction="none"))
        metrics["acc"].update(decision.labels(decision.probabilities(logits)), labels)
        for name, metric in metrics.items():
            self.log(f"{stage}_{name}", metric, on_step=False, on_epoch=True, prog_bar=True)
        return {"row_ids": batch["row_ids"], "logits": logits}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over what trains, weight decay on every tensor, as in the published table."""
        trained = [p for p in self.parameters() if p.requires_grad]
        # On a CPU the fused step is several times faster, most of all on the token embedding; on a GPU
        # it needs no temporaries. Under mixed precision it does not allow for clipping.
        fused = True if self.options.fast and self.is_whole and not self.trainer.gradient_clip_val else None
        rate, decay = self.options.learning_rate, self.options.weight_decay
        return torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=fused)

    def on_after_backward(self) -> None:
        """After the first backward pass, everything that trains must have a gradient.

        Raises:
            RuntimeError: which tensors have none: they would stay as they are in silence.
        """
        if self._checked_gradients or not self.is_whole:
            return
        self._checked_gradients = True
        without = [name for name, p in self.named_parameters() if p.requires_grad and p.grad is None]
        if without:
            raise RuntimeError(f"{len(without)} tensors are to train and got no gradient: {', '.join(without[:3])}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the trained tensors alone when the frozen ones came from a file that can be named."""
        assert self.net is not None, "configure_model has not run"
        precision, sha256 = str(self.trainer.precision), self.weights_sha256
        checkpoint[checkpoints.KEY] = checkpoints.describe_network(self.settings, self.label_names, sha256, precision)
        if self.weights_sha256 is not None:
            names, state = checkpoints.trained_tensors(self.net), checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: state[name] for name in state if name.removeprefix("net.") in names}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses another network's checkpoint before anything of it is used; takes over its decision rule."""
        assert self.net is not None, "configure_model has not run"
        checkpoints.check_same_network(checkpoint, self.settings, self.label_names)
        checkpoints.check_same_weights(checkpoint, self.weights_sha256)
        self.decision = checkpoints.decision_of(checkpoint)
        if "state_dict" not in checkpoint:  # a strategy that keeps weights in parts has taken it by now
            return
        state = checkpoints.checked_state(self.net, checkpoint)
        if self.weights_sha256 is None:
            self.feature_cache.forget_other_weights(self.net, state)
