"""Which of a network's own parameters train, and what follows from that.

`requires_grad` is the one statement of what trains: it is set here, once, and everything else (feature cache,
parameter table, checkpoint contents, costs) is derived from it.
"""

from typing import TYPE_CHECKING, Literal, get_args

from torch import nn

from lit_cls.errors import UserError
from lit_cls.model.backbones.base import Backbone

if TYPE_CHECKING:
    from lit_cls.model.classifier import TextClassifier

NamedLayers = Literal["last_layer", "last_block", "last_two_blocks", "all"]
TrainableLayers = NamedLayers | int
_LAST_BLOCKS = {"last_layer": 0, "last_block": 1, "last_two_blocks": 2}


def resolve_trainable_layers(trainable_layers: TrainableLayers | None, adapter: object | None) -> TrainableLayers:
    """The choice, or its default: `last_block`, and `last_layer` where an adapter is given."""
    if trainable_layers is None:
        return "last_block" if adapter is None else "last_layer"
    return trainable_layers


def check_trainable_layers(trainable_layers: TrainableLayers, n_layers: int) -> None:
    """Checks the choice of what trains.

    Raises:
        UserError: no such choice, or more blocks than there are.
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


def select_trained(backbone: Backbone, trainable_layers: TrainableLayers) -> None:
    """Freezes a backbone but for the last blocks, with the final norm behind them, or nothing of it."""
    blocks = backbone.trf_blocks
    n = n_selected_blocks(trainable_layers, len(blocks))
    backbone.requires_grad_(trainable_layers == "all")
    for module in [*blocks[len(blocks) - n :], backbone.final_norm] if n else []:
        module.requires_grad_(True)


def n_selected_blocks(trainable_layers: TrainableLayers | None, n_layers: int) -> int:
    """Number of last blocks that a resolved choice trains, in a network of `n_layers` blocks."""
    return trainable_layers if isinstance(trainable_layers, int) else _LAST_BLOCKS.get(str(trainable_layers), n_layers)


def trains(module: nn.Module | Backbone) -> bool:
    """Whether any parameter of a module trains."""
    return any(parameter.requires_grad for parameter in module.parameters())


def first_trained_block(backbone: Backbone) -> int:
    """Index of the first block whose output changes in training; the number of blocks where none does.

    It is 0 where anything before the blocks trains.
    """
    blocks = backbone.trf_blocks
    if any(trains(child) for child in backbone.children() if child not in (blocks, backbone.final_norm)):
        return 0
    return next((i for i, block in enumerate(blocks) if trains(block)), len(blocks))


def parameter_groups(net: "TextClassifier") -> dict[str, list[nn.Parameter]]:
    """A classifier's parameters by the part of the network that they belong to, in its order."""
    split, n = first_trained_block(net.backbone), len(net.backbone.trf_blocks)
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        path = name.split(".")
        if name in net.adapter_names:
            group = f"{type(net.adapter).__name__} adapters"
        elif path[0] != "backbone":
            group = "head"
        elif path[1] == "trf_blocks":
            first, last = (0, split) if int(path[2]) < split else (split, n)
            group = f"blocks {first}–{last - 1}" if last - first > 1 else f"block {first}"
        else:
            group = "final norm" if path[1] == "final_norm" else "embeddings"
        groups.setdefault(group, []).append(parameter)
    return groups
