"""A text classifier: backbone, pooling and head, with a selection of what trains and perhaps an adapter.

Shapes: B batch, T tokens, C emb_dim, K classes.
"""

from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from lit_cls.errors import UserError
from lit_cls.model import selection
from lit_cls.model.adapters import Adapter
from lit_cls.model.backbones.base import Backbone, run_blocks
from lit_cls.model.backbones.gpt2 import GPT2, GPTConfig
from lit_cls.model.head import Positions, TokenPosition, count_positions, pool, read_position, real_positions
from lit_cls.model.layers import AttentionMask
from lit_cls.model.selection import TrainableLayers
from lit_cls.model.weights import WeightsCache, load_weights


class TextClassifier(nn.Module):
    """A backbone with a new head over one position, or over the mean of positions.

    The head, then the adapter's parameters are drawn when the classifier is built: weights of the backbone
    should be in place by then. Parameters are named `backbone.…` and `out_head.…`.

    Args:
        backbone: the network.
        num_classes: K, at least 2.
        token_position: what the head reads, as described in `lit_cls.model.settings.ModelSettings`.
        trainable_layers: likewise; by default `last_block`, with an adapter `last_layer`.
        causal: whether a position sees only what is before it. Without the mask, pads are seen by
            `last` and `mean` alone: these two are defined with pads included.
        adapter: a parameter-efficient fine-tuning method, trained beside the selected layers.

    Raises:
        UserError: a value outside its range, or two that contradict each other.
    """

    backbone: Backbone

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 2,
        token_position: TokenPosition = "flexible",
        trainable_layers: TrainableLayers | None = None,
        causal: bool = True,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f"num_classes {num_classes} is less than 2: there is nothing to tell apart")
        if token_position not in get_args(TokenPosition):
            raise UserError(f"token_position {token_position!r} is not one of {', '.join(get_args(TokenPosition))}")
        self.trainable_layers = selection.resolve_trainable_layers(trainable_layers, adapter)
        selection.check_trainable_layers(self.trainable_layers, backbone.config.n_layers)
        self.backbone = backbone
        self.config = backbone.config
        self.token_position = token_position
        self.causal = causal
        self.adapter = adapter
        self.fast = True
        """Whether work is left out that the logits do not depend on; they are the same but for rounding."""
        self.recompute = False
        """Gradient checkpointing: recompute the insides of blocks in the backward pass."""
        self.out_head: nn.Linear = nn.Linear(self.config.emb_dim, num_classes)
        selection.select_trained(backbone, self.trainable_layers)
        before = {name for name, _ in self.named_parameters()}
        if adapter is not None:
            adapter.check(self.config)
            adapter.attach(self)
        self.adapter_names = frozenset(name for name, _ in self.named_parameters()) - before
        """Names of the parameters that the adapter added."""

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Class logits.

        Args:
            input_ids: (B, T) int64, right-padded.
            lengths: (B,) int64, the number of real tokens of each row; positions and masks come
                from it, never from comparing ids.

        Returns:
            (B, K) logits.
        """
        return self.forward_embedded(self.embeddings(input_ids), lengths)

    def forward_embedded(self, x: Tensor, lengths: Tensor) -> Tensor:
        """`forward` from token embeddings on, which need be no token's: (B, T, C) and (B,) to (B, K) logits."""
        x = self.backbone.add_positions(x)
        return self.out_head(self._run_and_read(self.blocks, x, lengths))

    @property
    def embeddings(self) -> nn.Embedding:
        """The token embeddings; features have their device and dtype."""
        return self.backbone.tok_emb

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        return self.backbone.trf_blocks

    @property
    def first_trained_block(self) -> int:
        """Index of the first block whose output changes in training; the number of blocks where none does."""
        return selection.first_trained_block(self.backbone)

    @property
    def head_alone(self) -> bool:
        """Whether nothing of the backbone trains."""
        # Quick to ask, and enough wherever blocks are selected.
        return not selection.trains(self.backbone.final_norm) and not selection.trains(self.backbone)

    def features(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """The output of the frozen layers, below the first one that trains: (B, T) to (B, T, C).

        Embeddings and blocks; where the head alone trains, the final norm and the pooling too, (B, 1, C).
        """
        x = self.backbone.add_positions(self.embeddings(input_ids))
        if self.head_alone:
            return self._run_and_read(self.blocks, x, lengths)[:, None]
        blocks = self.blocks[: self.first_trained_block]
        return self._run(blocks, x, self._mask(lengths, x.shape[1]))

    def from_features(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Class logits from `features`: (B, T, C) to (B, K)."""
        if self.head_alone:
            return self.out_head(x[:, 0])
        return self.out_head(self._run_and_read(self.blocks[self.first_trained_block :], x, lengths))

    @property
    def needs(self) -> Positions:
        """The positions that the logits depend on."""
        if self._reads_pads:
            return "all"
        return "first" if self.token_position == "first" and self.causal else "text"

    def trim(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Leaves out the columns that no row's logits depend on: (B, T) to (B, T or fewer).

        For tensors in CPU memory: on a GPU, counting the columns would wait for the device. With dropout
        all are kept: fewer would draw other random numbers.
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
        """Reads a file of weights into the network; see `lit_cls.model.weights.load_weights`.

        Parameters that the file does not have (head, adapter) stay as they are; returns notes on what was left out.
        """
        return load_weights(self, path, cache)

    @property
    def _reads_pads(self) -> bool:
        return self.token_position in ("last", "mean")

    @property
    def _draws(self) -> bool:
        return self.config.drop_rate > 0 or (self.adapter is not None and self.adapter.draws)

    def _run(self, blocks: nn.ModuleList, x: Tensor, mask: AttentionMask) -> Tensor:
        return run_blocks(blocks, x, mask, recompute=self.recompute and self.training)

    def _run_and_read(self, blocks: nn.ModuleList, x: Tensor, lengths: Tensor) -> Tensor:
        """The last blocks, the final norm, and the pooling: (B, T, C) to (B, C).

        Where one position is read, the last block computes that one alone. Without `fast` it
        computes all and picks afterwards.
        """
        T = x.shape[1]
        mask = self._mask(lengths, T)
        at = read_position(self.token_position, lengths, T)
        # With dropout, fewer positions would draw other random numbers.
        if at is None or not self.fast or self._draws or not len(blocks):
            return pool(self.backbone.final_norm, self._run(blocks, x, mask), lengths, at, self._reads_pads)
        x = blocks[-1](self._run(blocks[:-1], x, mask), mask, at)  # (B, 1, C)
        return self.backbone.final_norm(x[:, 0])

    def _mask(self, lengths: Tensor, T: int) -> AttentionMask:
        """Hides the pads where nothing else does: with the causal mask, none is seen from the left."""
        if self.causal or self._reads_pads:
            return AttentionMask(self.causal)
        return AttentionMask(False, real_positions(lengths.clamp(min=1), T)[:, None, None, :])  # (B, 1, 1, T)


class GPTClassifier(TextClassifier):
    """A `TextClassifier` over a GPT-2 with random weights; `load_weights` reads a file into it."""

    def __init__(
        self,
        config: GPTConfig,
        num_classes: int = 2,
        token_position: TokenPosition = "flexible",
        trainable_layers: TrainableLayers | None = None,
        causal: bool = True,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__(GPT2(config), num_classes, token_position, trainable_layers, causal, adapter)
