"""The adapter interface, and the insertion points of a network.

An adapter is a frozen dataclass, one per file: its fields are the options of `model.adapter` and its docstrings
their help. It is attached after the backbone's weights are in place; what it adds is the difference of the
network's parameter names before and after.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import nn

from lit_cls.errors import UserError
from lit_cls.model.backbones.base import Backbone, Role

if TYPE_CHECKING:
    from lit_cls.model.classifier import TextClassifier

Target = Literal["all_linear", "head"] | Role
"""Linear layers by what they do; `all_linear` is each one of the blocks, `head` the classification head."""


class Adapter(ABC):
    """A parameter-efficient fine-tuning method; a class, so that the command line finds its subclasses by name."""

    mergeable: ClassVar[bool]
    """Whether `merge` can put the trained parameters into the backbone's own weights."""

    @property
    @abstractmethod
    def draws(self) -> bool:
        """Whether it draws random numbers (dropout) while training."""

    @abstractmethod
    def check(self, config: Any) -> None:
        """Checks the options against the shape of a network.

        Raises:
            UserError: the option, its value and the rule.
        """

    @abstractmethod
    def attach(self, net: "TextClassifier") -> None:
        """Inserts new parameters into a network whose weights are in place."""

    @abstractmethod
    def merge(self, module: nn.Module) -> None:
        """Puts the trained parameters into the weights and takes the adapter's layers out again, in float32."""


def replace_linear(net: "TextClassifier", targets: Sequence[Target], make: Callable[[nn.Linear], nn.Linear]) -> None:
    """Replaces linear layers by role, in the order of the network's modules.

    The layers that `make` returns keep the names `weight` and `bias`.

    Raises:
        UserError: a role that no layer of the family has.
    """
    wanted = _wanted_paths(net.backbone, targets)
    for block in net.backbone.trf_blocks:
        replace_modules(block, lambda name, _: name in wanted, make)
    if "head" in targets:
        net.out_head = make(net.out_head)


def replace_modules(
    module: nn.Module, is_wanted: Callable[[str, nn.Module], bool], make: Callable[[Any], nn.Module]
) -> None:
    """Replaces sub-modules, found by their path within `module` or by their type."""
    for name, child in list(module.named_modules()):
        if name and is_wanted(name, child):
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, make(child))


def _wanted_paths(backbone: Backbone, targets: Sequence[Target]) -> set[str]:
    roles = backbone.family.roles
    if unknown := set(targets) - {"all_linear", "head", *roles}:
        raise UserError(
            f"model.adapter.targets {', '.join(sorted(unknown))}: the network has no such layer; there are "
            f"all_linear, head, {', '.join(roles)}"
        )
    return {path for role, paths in roles.items() for path in paths if "all_linear" in targets or role in targets}
