"""GPT-2 with a classification head: which position is read, and what trains.

Shapes: B batch, T tokens, C emb_dim, K classes.
"""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_cls.errors import UserError
from lit_cls.model.adapters.lora import LoRAConfig, LoRALinear, add_lora
from lit_cls.model.backbones.gpt2 import GPTBackbone, GPTConfig
from lit_cls.model.pretrained import fetch_pretrained
from lit_cls.model.weights import SIZES, ModelSize, WeightsCache, load_weights

TokenPosition = Literal["first", "last", "flexible", "mean", "mean_flexible"]
NamedLayers = Literal["last_layer", "last_block", "last_two_blocks", "all", "lora"]
TrainableLayers = NamedLayers | int
Positions = Literal["first", "text", "all"]
"""Of a padded text: the first, those up to its last token, or all."""


@dataclass(frozen=True)
class ModelSettings:
    """The choices that make a network; a checkpoint repeats them."""

    size: ModelSize = "gpt2-small"
    weights: str = "pretrained"
    token_position: TokenPosition = "flexible"
    trainable_layers: TrainableLayers = "last_block"
    causal: bool = True
    lora: LoRAConfig | None = None
    drop_rate: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for a checkpoint; a weights path becomes absolute."""
        plain = asdict(self)
        if self.lora is not None:
            plain["lora"]["targets"] = list(self.lora.targets)
        if self.weights not in ("pretrained", "random"):
            plain["weights"] = str(Path(os.path.expanduser(self.weights)).resolve())
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "ModelSettings":
        """The inverse of `as_dict`."""
        lora = plain["lora"]
        if lora is not None:
            lora = LoRAConfig(**{**lora, "targets": tuple(lora["targets"])})
        return cls(**{**plain, "lora": lora})

    def build(self, num_classes: int) -> "GPTClassifier":
        """A network with new random weights, on the device of the surrounding context."""
        return GPTClassifier(
            replace(SIZES[self.size], drop_rate=self.drop_rate),
            num_classes=num_classes,
            token_position=self.token_position,
            trainable_layers=self.trainable_layers,
            causal=self.causal,
            lora=self.lora,
        )

    def build_empty(self, num_classes: int) -> "GPTClassifier":
        """A network without memory or numbers, whose tensors are all to be replaced."""
        with torch.device("meta"), _NoNumbers():
            return self.build(num_classes)

    def weights_path(self) -> Path | None:
        """The file or folder the weights come from, downloaded if need be; None when random."""
        if self.weights == "random":
            return None
        return fetch_pretrained(self.size) if self.weights == "pretrained" else Path(os.path.expanduser(self.weights))


class _NoNumbers(TorchFunctionMode):
    """Draws no first values: where there is no memory, torch imports its compiler (a second) to draw none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class GPTClassifier(GPTBackbone):
    """GPT-2 with a new head over one position, or over the mean of positions.

    Args:
        config: the shape of the network.
        num_classes: K, at least 2.
        token_position: what the head reads: `first`; `last` (position T-1, pads included);
            `flexible` (the last real token); `mean` (over all T, pads included); `mean_flexible`
            (over real tokens).
        trainable_layers: `last_layer` (the head alone), `last_block` (the last block, the final
            norm and the head), `last_two_blocks`, a number of last blocks, `all`, or `lora`.
        causal: whether a position sees only what is before it. Without the mask, pads are seen by
            `last` and `mean` alone: these two are defined with pads included.
        lora: the adapter's shape; only with `trainable_layers="lora"`.

    Raises:
        UserError: a value outside its range, or two that contradict each other.
    """

    def __init__(
        self,
        config: GPTConfig,
        num_classes: int = 2,
        token_position: TokenPosition = "flexible",
        trainable_layers: TrainableLayers = "last_block",
        causal: bool = True,
        lora: LoRAConfig | None = None,
    ) -> None:
        if num_classes < 2:
            raise UserError(f"num_classes {num_classes} is less than 2: there is nothing to tell apart")
        if token_position not in get_args(TokenPosition):
            raise UserError(f"token_position {token_position!r} is not one of {', '.join(get_args(TokenPosition))}")
        lora = check_trainable_layers(trainable_layers, lora, config.n_layers)
        super().__init__(config)
        self.token_position = token_position
        self.trainable_layers = trainable_layers
        # Blocks that certainly stay as they are, from the first on; none with LoRA, whatever its targets.
        self.n_frozen_blocks = config.n_layers - _n_trained_blocks(trainable_layers, config.n_layers)
        self.causal = causal
        self.fast = True
        """Whether work is left out that the logits do not depend on; they are the same but for rounding."""
        self.lora = lora
        self.out_head = nn.Linear(config.emb_dim, num_classes)
        if lora is not None:
            add_lora(self, lora)
        self._freeze()

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Class logits.

        Args:
            input_ids: (B, T) int64, right-padded.
            lengths: (B,) int64, the number of real tokens of each row; positions and masks come
                from it, never from comparing ids.

        Returns:
            (B, K) logits.
        """
        return self.rest(self.trunk(input_ids, lengths), lengths)

    def trunk(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """What is below the first layer that trains: (B, T) to (B, T, C).

        Embeddings and blocks; with `last_layer` the final norm and the reading too, (B, 1, C).
        Frozen as a whole with `n_frozen_blocks`; the embeddings alone, frozen or not, without.
        """
        return self._lower(self.embed(input_ids), lengths)

    def forward_embedded(self, x: Tensor, lengths: Tensor) -> Tensor:
        """`forward` from token embeddings on, which need be no token's: (B, T, C) and (B,) to (B, K) logits."""
        return self.rest(self._lower(self.add_positions(x), lengths), lengths)

    def _lower(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The trunk behind the embeddings: (B, T, C) to (B, T, C), or (B, 1, C)."""
        blocks = self.trf_blocks[: self.n_frozen_blocks]
        if self._head_alone:
            return self._run_and_read(blocks, x, lengths)[:, None]
        return self.run_blocks(blocks, x, self.causal, self._key_mask(lengths, x.shape[1]))

    def rest(self, x: Tensor, lengths: Tensor) -> Tensor:
        """What is above the trunk, the head included: (B, T, C) to (B, K)."""
        if self._head_alone:
            return self.out_head(x[:, 0])
        return self.out_head(self._run_and_read(self.trf_blocks[self.n_frozen_blocks :], x, lengths))

    @property
    def needs(self) -> Positions:
        """The positions that the logits depend on."""
        if self.token_position in ("last", "mean"):
            return "all"
        return "first" if self.token_position == "first" and self.causal else "text"

    def trim(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Leaves out the columns that no row's logits depend on: (B, T) to (B, T or fewer).

        For tensors in the processor's memory: on a GPU the number of columns would have to be waited for.
        With dropout all are kept: fewer would draw other random numbers.
        """
        if not self.fast or self._draws or not len(input_ids):
            return input_ids
        return input_ids[:, : int(count_positions(self.needs, lengths, input_ids.shape[1]).max())]

    def hold_frozen(self, dtype: torch.dtype) -> None:
        """Keeps the matrices that do not train in the dtype that autocast would round them to in every step.

        Embeddings and norms stay as they are: autocast does not round them.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                for parameter in (module.weight, module.bias):
                    if parameter is not None and not parameter.requires_grad:
                        parameter.data = parameter.data.to(dtype)

    def load_weights(self, path: str | Path, cache: WeightsCache | None = None) -> list[str]:
        """Reads a GPT-2 file into the network; see `lit_cls.model.weights.load_weights`.

        A file's own head is taken when it has this classifier's shape; a language model's output
        layer is not. What the file does not hold (head, adapters) is left as initialised.

        Returns:
            What was left out, in words, to be shown.
        """
        notes = load_weights(self, path, cache)
        self._materialize_new_layers()
        self._freeze()
        return notes

    def _position(self, lengths: Tensor, T: int) -> Tensor | None:
        """(B,) the position that is read; None for a mean."""
        match self.token_position:
            case "first":
                return torch.zeros_like(lengths)
            case "last":
                return torch.full_like(lengths, T - 1)
            case "flexible":
                return lengths.clamp(min=1) - 1
        return None

    @property
    def _head_alone(self) -> bool:
        return self.n_frozen_blocks == self.config.n_layers

    @property
    def _draws(self) -> bool:
        return self.config.drop_rate > 0 or (self.lora is not None and self.lora.dropout > 0)

    def _run_and_read(self, blocks: nn.ModuleList, x: Tensor, lengths: Tensor) -> Tensor:
        """The last blocks, the final norm, and the reading: (B, T, C) to (B, C).

        Where one position is read, the last block computes that one alone. Without `fast` it
        computes all and picks afterwards.
        """
        T = x.shape[1]
        mask = self._key_mask(lengths, T)
        at = self._position(lengths, T)
        # With dropout, fewer positions would draw other random numbers.
        if at is None or not self.fast or self._draws:
            return self._read(self.run_blocks(blocks, x, self.causal, mask), lengths, at)
        x = self.run_blocks(blocks[:-1], x, self.causal, mask)
        x = blocks[-1](x, self.causal, mask, at)  # (B, 1, C)
        return self.final_norm(x[:, 0])

    def _read(self, x: Tensor, lengths: Tensor, at: Tensor | None) -> Tensor:
        """The final norm at what `token_position` reads: (B, T, C) to (B, C).

        The norm works on each position by itself, so that picking the position first gives the
        same numbers for less work.
        """
        if at is not None:
            return self.final_norm(x[torch.arange(x.shape[0], device=x.device), at])
        if self.token_position == "mean":
            return self.final_norm(x).mean(dim=1)
        lengths = lengths.clamp(min=1)
        real = _real_positions(lengths, x.shape[1]).unsqueeze(-1)  # (B, T, 1)
        return (self.final_norm(x) * real).sum(dim=1) / lengths.unsqueeze(-1)

    def _key_mask(self, lengths: Tensor, T: int) -> Tensor | None:
        """Hides the pads where nothing else does: with the causal mask, none is seen from the left."""
        if self.causal or self.token_position in ("last", "mean"):
            return None
        return _real_positions(lengths.clamp(min=1), T)[:, None, None, :]  # (B, 1, 1, T)

    def _freeze(self) -> None:
        for name, parameter in self.named_parameters():
            parameter.requires_grad = self._trains(name)

    def _trains(self, name: str) -> bool:
        if self.trainable_layers == "all":
            return True
        if self.lora is not None:
            is_head = name in ("out_head.weight", "out_head.bias")
            return "lora_" in name or (is_head and self.lora.train_head)
        if name.startswith("out_head."):
            return True
        if name.startswith("final_norm."):
            return self.n_frozen_blocks < self.config.n_layers
        return name.startswith("trf_blocks.") and int(name.split(".")[1]) >= self.n_frozen_blocks

    def _materialize_new_layers(self) -> None:
        """Gives memory and first values to what was built without memory and is in no file."""
        if self.out_head.weight.is_meta:
            self.out_head.weight = nn.Parameter(torch.empty(self.out_head.weight.shape, device="cpu"))
            self.out_head.bias = nn.Parameter(torch.empty(self.out_head.bias.shape, device="cpu"))
            self.out_head.reset_parameters()
        for module in self.modules():
            if isinstance(module, LoRALinear) and module.lora_A.is_meta:
                module.lora_A = nn.Parameter(torch.empty(module.lora_A.shape, device="cpu"))
                module.lora_B = nn.Parameter(torch.empty(module.lora_B.shape, device="cpu"))
                module.reset_lora()


def check_trainable_layers(
    trainable_layers: TrainableLayers, lora: LoRAConfig | None, n_layers: int
) -> LoRAConfig | None:
    """Checks the choice of what trains; returns the adapter's shape, None without LoRA.

    Raises:
        UserError: no such choice, more blocks than there are, LoRA settings without LoRA, or
            impossible ones.
    """
    if isinstance(trainable_layers, int) and not isinstance(trainable_layers, bool):
        if not 1 <= trainable_layers <= n_layers:
            raise UserError(
                f"trainable_layers {trainable_layers} is not between 1 and the model's {n_layers} blocks "
                "(last_layer trains the head alone)"
            )
    elif trainable_layers not in get_args(NamedLayers):
        raise UserError(
            f"trainable_layers {trainable_layers!r} is neither a number of blocks nor one of "
            f"{', '.join(get_args(NamedLayers))}"
        )
    if trainable_layers == "lora":
        lora = lora or LoRAConfig()
        lora.check()
        return lora
    if lora is not None:
        raise UserError(
            f"model.lora is set, but model.trainable_layers is {trainable_layers!r}: "
            "pass --model.trainable_layers lora, or leave model.lora out"
        )
    return None


def _n_trained_blocks(trainable_layers: TrainableLayers, n_layers: int) -> int:
    if isinstance(trainable_layers, int):
        return trainable_layers
    return {"last_layer": 0, "last_block": 1, "last_two_blocks": 2}.get(trainable_layers, n_layers)


def count_positions(positions: Positions, lengths: Tensor, T: int) -> Tensor:
    """(B,) how many positions of each text, from the first on, these are; an empty text has one."""
    match positions:
        case "first":
            return torch.ones_like(lengths)
        case "text":
            return lengths.clamp(min=1)
    return torch.full_like(lengths, T)


def _real_positions(lengths: Tensor, T: int) -> Tensor:
    """(B,) lengths to (B, T) bool, True where a token is not a pad."""
    return torch.arange(T, device=lengths.device) < lengths[:, None]
