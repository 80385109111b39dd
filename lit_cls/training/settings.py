"""The options of `model.*` that are about training, not about the network."""

import os
import shutil
import sys
from dataclasses import dataclass

from lit_cls.errors import UserError
from lit_cls.training.loss import ClassWeights, check_loss


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Args:
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
        gradient_checkpointing: recompute the insides of a block in the backward pass instead of
            keeping them: less memory, more time.
        compile: compile the blocks with torch.compile, on a GPU with CUDA graphs; needs a C++ compiler,
            and about a minute before the first step. On two cores it gained less than that minute.
    """

    learning_rate: float = 5e-5
    weight_decay: float = 0.1
    ignore_index: int = -100
    class_weights: ClassWeights | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    fast: bool = True
    cache_gb: float = 4.0
    cache_dir: str | None = None
    gradient_checkpointing: bool = False
    compile: bool = False

    def check(self, drop_rate: float) -> None:
        """Checks what can be checked without data, given the network's dropout; raises UserError."""
        check_loss(self.class_weights, self.label_smoothing, self.focal_gamma)
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # the one torch takes
        if self.compile and shutil.which(compiler) is None:
            raise UserError(
                f"model.compile needs a C++ compiler, and there is no {compiler}: install it, or name one in the "
                "environment variable CXX"
            )
        if self.cache_gb < 0:
            raise UserError(f"model.cache_gb {self.cache_gb:g} is less than 0")
        if self.cache_dir is not None and drop_rate:
            raise UserError(
                f"model.cache_dir keeps outputs of frozen layers, but model.drop_rate {drop_rate:g} draws anew in them "
                "in every step: leave one of the two out"
            )
        if self.cache_dir is not None and not self.fast:
            raise UserError("model.cache_dir keeps outputs that model.fast false never uses: leave one of the two out")
        for name, value in (("learning_rate", self.learning_rate), ("weight_decay", self.weight_decay)):
            if not 0 <= value <= 1:
                raise UserError(f"model.{name} {value} is not in [0, 1]")

    def check_labels(self, label_names: tuple[str, ...]) -> None:
        """Refuses an `ignore_index` that is one of the class ids."""
        if 0 <= self.ignore_index < len(label_names):
            raise UserError(
                f"model.ignore_index {self.ignore_index} is the class {label_names[self.ignore_index]!r}: its texts "
                "would count for nothing. Give a number that is no class, or leave it out"
            )
