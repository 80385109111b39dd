"""The choices that make a network, and the network that they make."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from lit_cls.model.adapters import Adapter, adapter_as_dict, adapter_from_dict
from lit_cls.model.backbones import BACKBONES, BackboneName, BackboneSpec
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.head import TokenPosition
from lit_cls.model.pretrained import fetch_pretrained
from lit_cls.model.selection import TrainableLayers, check_trainable_layers, resolve_trainable_layers
from lit_cls.model.weights import WeightsCache, match_weights, put_weights


@dataclass(frozen=True)
class ModelSettings:
    """The options that make a network; a checkpoint repeats them.

    Args:
        size: `gpt2-nano` (for trying out), `gpt2-small`, `gpt2-medium`, `gpt2-large` or `gpt2-xl`.
        weights: `pretrained` (OpenAI's, downloaded once), `random`, or the path of a file.
        token_position: what the head reads: `first`; `last` (the last position, pads included);
            `flexible` (the last real token); `mean` (over all positions, pads included);
            `mean_flexible` (over real tokens).
        trainable_layers: `last_layer` (the head alone), `last_block` (the last block, the final
            norm, the head), `last_two_blocks`, a number of last blocks, or `all`; by default
            `last_block`, with an adapter `last_layer`.
        causal: whether a position sees only what is before it.
        adapter: a parameter-efficient fine-tuning method, by name; `--model.adapter.help NAME` lists its options.
        drop_rate: dropout while training.
    """

    size: BackboneName = "gpt2-small"
    weights: str = "pretrained"
    token_position: TokenPosition = "flexible"
    trainable_layers: TrainableLayers | None = None
    causal: bool = True
    adapter: Adapter | None = None
    drop_rate: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "trainable_layers", resolve_trainable_layers(self.trainable_layers, self.adapter))

    @property
    def spec(self) -> BackboneSpec:
        """The named network."""
        return BACKBONES[self.size]

    @property
    def config(self) -> Any:
        """Its shape, with the dropout that was chosen; raises UserError for an impossible one."""
        return replace(self.spec.config, drop_rate=self.drop_rate)

    def check(self) -> None:
        """Checks what can be checked without building the network; raises UserError."""
        assert self.trainable_layers is not None, "resolved when it was made"
        check_trainable_layers(self.trainable_layers, self.config.n_layers)
        if self.adapter is not None:
            self.adapter.check(self.config)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for a checkpoint; a path of weights becomes absolute."""
        plain = {**asdict(replace(self, adapter=None)), "adapter": adapter_as_dict(self.adapter)}
        if self.weights not in ("pretrained", "random"):
            plain["weights"] = str(Path(os.path.expanduser(self.weights)).resolve())
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "ModelSettings":
        """The inverse of `as_dict`."""
        return cls(**{**plain, "adapter": adapter_from_dict(plain["adapter"])})

    def build(self, num_classes: int) -> TextClassifier:
        """A network with new random weights, on the device of the surrounding context."""
        return self._complete(self.spec.family.backbone(self.config), num_classes)

    def build_empty(self, num_classes: int) -> TextClassifier:
        """A network without memory, whose tensors are all to be replaced."""
        with torch.device("meta"), _NoNumbers():
            return self.build(num_classes)

    def load(self, num_classes: int, path: Path, cache: WeightsCache | None = None) -> tuple[TextClassifier, list[str]]:
        """A network with the weights of a file, in CPU memory; head and adapter are attached to it afterwards.

        Returns:
            The network, and notes on what of the file was left out.

        Raises:
            UserError: the file does not fit; see `lit_cls.model.weights.load_weights`.
        """
        sketch = self.build_empty(num_classes)
        stored, notes = match_weights(sketch, path)
        copied = {name.removeprefix("backbone.") for name, p in sketch.named_parameters() if p.requires_grad}
        with torch.device("meta"), _NoNumbers():
            backbone = self.spec.family.backbone(self.config)
        in_place = {name for name, _ in backbone.named_parameters()}
        put_weights(backbone, path, stored, cache, copied)
        with torch.device("cpu"):
            net = self._complete(backbone, num_classes)
        added = {name: tensor for name, tensor in stored.items() if name not in in_place}
        put_weights(net, path, added, cache, copied)
        return net, notes

    def weights_path(self) -> Path | None:
        """The file or folder the weights come from, downloaded if need be; None when random."""
        if self.weights == "random":
            return None
        return fetch_pretrained(self.size) if self.weights == "pretrained" else Path(os.path.expanduser(self.weights))

    def _complete(self, backbone: Any, num_classes: int) -> TextClassifier:
        return TextClassifier(
            backbone, num_classes, self.token_position, self.trainable_layers, self.causal, self.adapter
        )


class _NoNumbers(TorchFunctionMode):
    """Draws no first values: where there is no memory, torch imports its compiler (a second) to draw none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
