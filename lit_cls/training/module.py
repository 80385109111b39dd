"""The LightningModule: loss, metrics, optimizer, and what a checkpoint keeps of the network."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.model.adapters.lora import LoRAConfig
from lit_cls.model.classifier import (
    GPTClassifier,
    ModelSettings,
    TokenPosition,
    TrainableLayers,
    check_trainable_layers,
)
from lit_cls.model.decision import Decision
from lit_cls.model.weight_files import file_sha256
from lit_cls.model.weights import SIZES, ModelSize, WeightsCache
from lit_cls.training.checkpoints import (
    KEY,
    check_same_network,
    check_same_weights,
    checked_state,
    decision_of,
    describe_network,
    trained_tensors,
)
from lit_cls.training.feature_cache import FrozenStates
from lit_cls.training.loss import ClassWeights, check_loss, class_weight_list, summed_loss, weight_notes
from lit_cls.training.precision import MIXED

_SPLIT_OF_STAGE: dict[str, SplitName] = {
    "train": "train",
    "validate": "validation",
    "sanity_check": "validation",
    "test": "test",
    "predict": "train",
}


class ClassifierModule(LightningModule):
    """GPT-2 with a classification head, as Lightning trains it.

    Args:
        size: `gpt2-nano` (for trying out), `gpt2-small`, `gpt2-medium`, `gpt2-large` or `gpt2-xl`.
        weights: `pretrained` (OpenAI's, downloaded once), `random`, or the path of a file.
        token_position: what the head reads: `first`; `last` (the last position, pads included);
            `flexible` (the last real token); `mean` (over all positions, pads included);
            `mean_flexible` (over real tokens).
        trainable_layers: `last_layer` (the head alone), `last_block` (the last block, the final
            norm, the head), `last_two_blocks`, a number of last blocks, `all`, or `lora`.
        causal: whether a position sees only what is before it.
        lora: the adapter's shape, with `trainable_layers` lora; `--model.lora.help` lists its options.
        drop_rate: dropout while training.
        learning_rate: of AdamW, constant.
        weight_decay: of AdamW, on every trained tensor.
        ignore_index: label that the loss leaves out, as torch's; the id of a class is refused, so
            that it never changes anything (row 18 of the published table).
        class_weights: how much a text counts in training, by its label: `balanced` (all labels the same
            in total), or numbers by name, `{spam: 3, ham: 1}`; labels that are not named weigh 1. Scaled
            so that the texts of the train split weigh 1 on average; val_loss is never weighted.
        label_smoothing: share of the label's probability in the loss that is spread over all labels.
        focal_gamma: play down texts that are certain already, by (1 - p) to this power (focal loss); 0 is
            cross entropy, 2 the usual choice.
        fast: leave out work that the result does not depend on; false computes everything in every
            step, for comparison. The same but for rounding.
        cache_gb: memory for the outputs of frozen layers, computed once; beyond it they are mapped
            from a file.
        cache_dir: folder in which outputs of frozen layers are kept for later runs with the same
            weights, texts, padding, layers and precision.
        gradient_checkpointing: compute a block's insides again in the backward pass instead of
            keeping them: less memory, more time.
        compile: compile the blocks with torch.compile, on a GPU with CUDA graphs; needs a C++ compiler,
            and about a minute before the first step. On two cores it gained less than that minute.
    """

    net: GPTClassifier | None

    def __init__(
        self,
        size: ModelSize = "gpt2-small",
        weights: str = "pretrained",
        token_position: TokenPosition = "flexible",
        trainable_layers: TrainableLayers = "last_block",
        causal: bool = True,
        lora: LoRAConfig | None = None,
        drop_rate: float = 0.0,
        learning_rate: float = 5e-5,
        weight_decay: float = 0.1,
        ignore_index: int = -100,
        class_weights: ClassWeights | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        fast: bool = True,
        cache_gb: float = 4.0,
        cache_dir: str | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        lora = check_trainable_layers(trainable_layers, lora, SIZES[size].n_layers)
        replace(SIZES[size], drop_rate=drop_rate)  # refuses a wrong rate now
        self.settings = ModelSettings(size, weights, token_position, trainable_layers, causal, lora, drop_rate)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ignore_index = ignore_index
        check_loss(class_weights, label_smoothing, focal_gamma)
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self._weights: Tensor | None = None  # (K,), once the train split is known
        self.decision = Decision()
        """How answers follow from logits: that of the checkpoint which was loaded last."""
        self.fast = fast
        self.cache_gb = cache_gb
        self.cache_dir = cache_dir
        self.gradient_checkpointing = gradient_checkpointing
        self.compile_blocks = compile
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # the one torch takes
        if compile and shutil.which(compiler) is None:
            raise UserError(
                f"model.compile needs a C++ compiler, and there is no {compiler}: install it, or name one in the "
                "environment variable CXX"
            )
        if cache_gb < 0:
            raise UserError(f"model.cache_gb {cache_gb:g} is less than 0")
        if cache_dir is not None and drop_rate:
            raise UserError(
                f"model.cache_dir keeps outputs of frozen layers, but model.drop_rate {drop_rate:g} draws anew in them "
                "in every step: leave one of the two out"
            )
        if cache_dir is not None and not fast:
            raise UserError("model.cache_dir keeps outputs that model.fast false never uses: leave one of the two out")
        for name, value, limit in (("learning_rate", learning_rate, 1.0), ("weight_decay", weight_decay, 1.0)):
            if not 0 <= value <= limit:
                raise UserError(f"model.{name} {value} is not in [0, {limit:g}]")
        self.label_names: tuple[str, ...] = ()
        self._weights_cache: WeightsCache | None = None
        self.weights_sha256: str | None = None
        self.weights_notes: list[str] = []
        self.net = None
        self.metrics = nn.ModuleDict()
        self.train_loss: MeanMetric | None = None
        self.frozen: dict[SplitName, FrozenStates] = {}
        """The trunk's outputs of each split that steps may start from."""
        self.frozen_of: object = None
        """The data module whose splits these are."""
        # A checkpoint may hold the trained tensors alone: on_load_checkpoint checks what it must hold.
        self.strict_loading = False
        self._probed = False

    def setup(self, stage: str) -> None:
        """Takes the classes from the data: nothing about them but their weights is an option of the model."""
        if not self.label_names:
            self.take_labels(self.trainer.datamodule.label_names)  # type: ignore[attr-defined]
        if stage == "fit" and self.class_weights is not None:
            self.weigh_classes(self.trainer.datamodule.splits["train"].label_ids)  # type: ignore[attr-defined]

    def take_labels(self, label_names: tuple[str, ...]) -> None:
        """Takes the names of the classes, in the order of their ids.

        Raises:
            UserError: `ignore_index` is one of the ids.
        """
        if 0 <= self.ignore_index < len(label_names):
            raise UserError(
                f"model.ignore_index {self.ignore_index} is the class {label_names[self.ignore_index]!r}: its texts "
                "would count for nothing. Give a number that is no class, or leave it out"
            )
        self.label_names = label_names

    def weigh_classes(self, train_labels: Sequence[int]) -> list[str]:
        """Takes the class weights that training uses, once the labels are known.

        Args:
            train_labels: class ids of the train split.

        Returns:
            What there is to tell about them.

        Raises:
            UserError: `class_weights` names what is no label.
        """
        if self.class_weights is None:
            return []
        weights = class_weight_list(self.class_weights, self.label_names, train_labels)
        self._weights = torch.tensor(weights, dtype=torch.float32, device=self.device)
        return weight_notes(self.class_weights, weights, self.label_names)

    def share_weights(self, cache: WeightsCache) -> None:
        """Has the weights file read through a cache that the networks of several runs share."""
        self._weights_cache = cache

    def configure_model(self) -> None:
        """Builds the network, once, where Lightning wants its memory to be."""
        if self.net is not None:
            return
        path = self.settings.weights_path()
        if path is None:
            self.net = self.settings.build(len(self.label_names))
        else:
            with torch.device("meta"):  # no memory until the file's tensors take their places
                net = self.settings.build(len(self.label_names))
            self.weights_notes = net.load_weights(path, self._weights_cache)
            self.weights_sha256 = file_sha256(path)
            self.net = net
        self.net.fast = self.fast
        self.net.recompute = self.gradient_checkpointing
        if self.compile_blocks:
            for block in self.net.trf_blocks:
                # In place: a wrapper would rename every tensor (Lightning-AI/pytorch-lightning#20233).
                block.compile(mode="reduce-overhead" if self.device.type == "cuda" else "default")
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            _shard(self.net, self.device_mesh["data_parallel"])  # type: ignore[index]
        if self.fast and self.is_whole and (dtype := MIXED.get(str(self.trainer.precision))):
            self.net.hold_frozen(dtype)
        self.metrics = nn.ModuleDict({stage: self._new_metrics() for stage in ("val", "test")})
        self.train_loss = _mean()

    def _new_metrics(self) -> nn.ModuleDict:
        n = len(self.label_names)
        return nn.ModuleDict({"loss": _mean(), "acc": MulticlassAccuracy(n, average="micro")})

    def on_train_start(self) -> None:
        """Gives an optimizer whose state came from a checkpoint the options of this run."""
        self.train_loss.set_dtype(torch.float32)  # type: ignore[union-attr]
        if self._weights is not None:
            self._weights = self._weights.to(self.device)
        for optimizer in self.trainer.optimizers if not self.trainer.lr_scheduler_configs else ():
            for group in optimizer.param_groups:
                group.update({name: value for name, value in optimizer.defaults.items() if name in group})

    def on_train_epoch_start(self) -> None:
        """Has the epoch's loss logged at its end, also when every batch was trained on by an earlier process."""
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True)  # type: ignore[arg-type]

    def on_validation_epoch_start(self) -> None:
        """Sums the loss in float32: in bfloat16 a sum stops growing after some hundred texts."""
        self.metrics["val"]["loss"].set_dtype(torch.float32)  # type: ignore[index]

    def on_test_epoch_start(self) -> None:
        """As for validation."""
        self.metrics["test"]["loss"].set_dtype(torch.float32)  # type: ignore[index]

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Takes from a batch what no step needs: pads that are not read, or all tokens where the trunk is known."""
        assert self.net is not None, "configure_model has not run"
        split = self._split()
        if split in self.frozen and self.trainer.datamodule is self.frozen_of:  # type: ignore[attr-defined]
            places, values = self.frozen[split].index(batch["row_ids"]), self.frozen[split].values
            # What is in the processor's memory is picked there, what is on the device by the step.
            kept = {name: value for name, value in batch.items() if name != "input_ids"}
            return {**kept, "states": values[places]} if values.is_cpu else {**kept, "places": places}
        return {**batch, "input_ids": self.net.trim(batch["input_ids"], batch["lengths"])}

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Class logits (B, K), in float32 whatever the precision."""
        assert self.net is not None, "configure_model has not run"
        logits: Tensor = self.net(input_ids, lengths)
        return logits.float()

    def _split(self) -> SplitName:
        return _SPLIT_OF_STAGE[str(self.trainer.state.stage.value)]  # type: ignore[union-attr]

    @property
    def is_whole(self) -> bool:
        """Whether this process holds every tensor of the network, and whole."""
        return type(self.trainer.strategy) in (SingleDeviceStrategy, DDPStrategy)

    def _logits(self, batch: dict[str, Any]) -> Tensor:
        """Class logits (B, K) of a batch, from the trunk's outputs where they are known."""
        assert self.net is not None, "configure_model has not run"
        if "places" in batch:
            batch["states"] = self.frozen[self._split()].values[batch["places"]]  # (B, T, C)
        if "states" in batch:
            return self.net.rest(batch["states"], batch["lengths"]).float()
        return self(batch["input_ids"], batch["lengths"])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """This batch's share of the mean loss over all examples of its optimizer step.

        Lightning divides by the number of accumulated batches and by the number of processes as if
        all were full. Undone here, every example weighs the same in the last, incomplete step too
        (Lightning-AI/pytorch-lightning#19987). With class weights the mean is still over examples, not
        over their weights as torch's is, which would depend on how a step is cut into batches.
        """
        logits = self._logits(batch)
        total = summed_loss(
            logits, batch["labels"], self.ignore_index, self._weights, self.label_smoothing, self.focal_gamma
        )
        n = max(1, len(batch["labels"]))
        mean = total.detach() / n
        self.log("train_loss_step", mean, on_step=True, on_epoch=False, prog_bar=True, batch_size=n)
        assert self.train_loss is not None, "configure_model has not run"
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
        logits = self._logits(batch)
        labels = batch["labels"]
        metrics: dict[str, Metric] = self.metrics[stage]  # type: ignore[assignment]
        decision = self.decision
        # Plain cross entropy whatever is trained, so that val_loss compares one choice of loss with another.
        metrics["loss"].update(F.cross_entropy(logits / decision.temperature, labels, reduction="none"))
        metrics["acc"].update(decision.labels(decision.probabilities(logits)), labels)
        for name, metric in metrics.items():
            self.log(f"{stage}_{name}", metric, on_step=False, on_epoch=True, prog_bar=True)
        return {"row_ids": batch["row_ids"], "logits": logits}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over what trains, weight decay on every tensor, as in the published table."""
        trained = [p for p in self.parameters() if p.requires_grad]
        # On a processor the fused step is several times faster, most of all on the token embedding; on a GPU
        # it needs no temporaries. Under mixed precision it does not allow for clipping.
        fused = True if self.fast and self.is_whole and not self.trainer.gradient_clip_val else None
        return torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay, fused=fused)

    def on_after_backward(self) -> None:
        """After the first backward pass, everything that trains must have a gradient.

        Raises:
            RuntimeError: which tensors have none: they would stay as they are in silence.
        """
        if self._probed or not self.is_whole:
            return
        self._probed = True
        without = [name for name, p in self.named_parameters() if p.requires_grad and p.grad is None]
        if without:
            raise RuntimeError(f"{len(without)} tensors are to train and got no gradient: {', '.join(without[:3])}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the trained tensors alone when the frozen ones came from a file that can be named."""
        assert self.net is not None, "configure_model has not run"
        checkpoint[KEY] = describe_network(
            self.settings, self.label_names, self.weights_sha256, str(self.trainer.precision)
        )
        if self.weights_sha256 is not None:
            names = trained_tensors(self.net)
            checkpoint["state_dict"] = {
                name: tensor for name, tensor in checkpoint["state_dict"].items() if name.removeprefix("net.") in names
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses another network's checkpoint before anything of it is used; takes over how it is to answer."""
        assert self.net is not None, "configure_model has not run"
        check_same_network(checkpoint, self.settings, self.label_names)
        check_same_weights(checkpoint, self.weights_sha256)
        self.decision = decision_of(checkpoint)
        if "state_dict" not in checkpoint:  # a strategy that keeps weights in parts has taken it by now
            return
        state = checked_state(self.net, checkpoint)
        if (
            self.frozen
            and self.weights_sha256 is None
            and not all(
                torch.equal(p.detach().cpu(), state[name].to(p.dtype))
                for name, p in self.net.named_parameters()
                if not p.requires_grad
            )
        ):
            self.frozen.clear()  # of other random weights

    def train_loss_state(self) -> dict[str, Tensor]:
        """The sums that the epoch's train_loss is made of, so far."""
        assert self.train_loss is not None, "configure_model has not run"
        return {name: getattr(self.train_loss, name).detach().cpu() for name in self.train_loss._defaults}

    def set_train_loss_state(self, states: list[dict[str, Tensor]]) -> None:
        """Goes on from the sums of as many processes as were this one's."""
        assert self.train_loss is not None, "configure_model has not run"
        for name in self.train_loss._defaults:
            value: Tensor = getattr(self.train_loss, name)
            value.copy_(sum((state[name].to(value) for state in states), torch.zeros_like(value)))
        self.train_loss._update_count = 1  # or it would warn that there is nothing to compute from


def _shard(net: GPTClassifier, mesh: DeviceMesh) -> None:
    """Has each process hold its share of every tensor (torch's FSDP2), and gather a block when it computes it."""
    for block in net.trf_blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)


def _mean() -> MeanMetric:
    # The other strategies leave out what is not a number. With this one torchmetrics 1.9 takes every weight for 1:
    # values are given as often as they count.
    return MeanMetric(nan_strategy="disable")
