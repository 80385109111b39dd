"""Tests whether padding changes the predictions of the evaluated network, for the report."""

from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_cls.data.batches import pad, truncate
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.decision import Decision
from lit_cls.training.checkpoints import RUN_KEY
from lit_cls.training.module import ClassifierModule
from lit_cls.training.precision import MIXED

MORE_PADS = (1, 17, 64)
_TEXTS = 16
_TOKENS = 1024  # of all the texts together: an XL network on a CPU has to read them four times


@dataclass(frozen=True)
class Padded:
    """Change of the predictions with more pads."""

    more_pads: int
    texts: int
    largest_difference: float
    """Of a probability."""
    answers_changed: int


@dataclass(frozen=True)
class PadTest:
    """Result: whether predictions depend on the number of pads."""

    texts: int
    reads_pads: bool
    """Whether they may depend on it: `token_position` last and mean are defined with pads."""
    tolerance: float
    """For rounding, in the precision of the run."""
    steps: tuple[Padded, ...]

    @property
    def largest_difference(self) -> float:
        """Of a probability, over all steps."""
        return max(step.largest_difference for step in self.steps)

    @property
    def answers_changed(self) -> int:
        """At the number of pads that changes the most."""
        return max(step.answers_changed for step in self.steps)

    @property
    def verdict(self) -> str:
        """`passed` or `FAIL`; `depends` where predictions are defined to depend on pads."""
        if self.reads_pads:
            return "depends"
        # Rounding may change a prediction that was on the brink.
        return "passed" if self.largest_difference <= self.tolerance else "FAIL"

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        found = {"largest_difference": self.largest_difference, "answers_changed": self.answers_changed}
        return {"verdict": self.verdict, **asdict(self), **found}


class PaddingTest(Callback):
    """Tests the network at the end of `Trainer.test` and `validate`, while it is on its device.

    No random numbers are drawn, and no other process is waited for: the run is the same without it.
    """

    def __init__(self) -> None:
        self.found: dict[SplitName, PadTest | str] = {}
        """Result by split, or why there is none."""
        self.place: dict[str, int] | None = None
        """Epochs, batches and steps after which the evaluated checkpoint was saved; None without one."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes after which step the evaluated checkpoint was saved."""
        if trainer.state.fn != "fit":
            self.place = checkpoint.get(RUN_KEY, {}).get("place")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tests padding on test texts."""
        self._test(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tests padding on validation texts, outside a training."""
        if trainer.state.fn == "validate":
            self._test(trainer, pl_module, "validation")

    def _test(self, trainer: Trainer, pl_module: LightningModule, split: SplitName) -> None:
        module = cast("ClassifierModule", pl_module)
        if not trainer.is_global_zero:
            return
        if not module.is_whole:
            self.found[split] = "not run: no process holds the whole network"
            return
        data = cast("ClassificationData", trainer.datamodule)  # type: ignore[attr-defined]
        assert module.net is not None, "it has just been evaluated"
        texts = [truncate(ids, data.cut_to, data.options.truncation) for ids in data.splits[split].token_ids]
        half = str(trainer.precision) in (*MIXED, "bf16-true", "16-true")
        # Compiled blocks would be compiled again for each number of pads.
        eager = torch.compiler.set_stance("force_eager") if module.options.compile else nullcontext()
        with eager, trainer.precision_plugin.forward_context():
            self.found[split] = compare_paddings(
                module.net, texts, data.pad_to, data.tokenizer.pad_id, half, module.decision
            )


def compare_paddings(
    net: TextClassifier,
    texts: list[list[int]],
    pad_to: int | None,
    pad_id: int,
    half_precision: bool = False,
    decision: Decision | None = None,
) -> PadTest | str:
    """Compares predictions without and with additional pads; returns the reason where that is not possible.

    Args:
        net: the network; called itself, so that nothing takes the pads away before it sees them.
        texts: token ids of each, truncated; up to 16 of them are taken, of all lengths.
        pad_to: what every text is padded to in this run; None where that is not fixed.
        pad_id: the tokenizer's.
        half_precision: whether it computes in 16 bits, which round more.
        decision: how predictions follow from logits.
    """
    decision = decision or Decision()
    context, device = net.config.context_length, next(net.parameters()).device
    fixed = pad_to if pad_to is not None and pad_to < context else None
    chosen = _choose([(fixed or max(1, len(ids)), row) for row, ids in enumerate(texts)], context)
    if not chosen:
        return f"not run: every text fills the network's {context:,} positions"
    widths: dict[int, list[list[int]]] = {}  # texts that share a batch without additional pads
    for width, row in chosen:
        widths.setdefault(width, []).append(texts[row])

    def probabilities(group: list[list[int]], width: int) -> Tensor:
        batch = {name: tensor.to(device) for name, tensor in pad(group, width, pad_id).items()}
        return decision.probabilities(net(batch["input_ids"], batch["lengths"]).float()).double().cpu()

    with torch.no_grad(), ExitStack() as stack:
        stack.callback(net.train, net.training)
        net.eval()  # without dropout
        plain = {width: probabilities(group, width) for width, group in widths.items()}
        if not all(found.isfinite().all() for found in plain.values()):
            return "not run: the network's outputs are not finite"
        steps = []
        for more in MORE_PADS:
            fitting = {width: group for width, group in widths.items() if width + more <= context}
            if compared := [(plain[width], probabilities(group, width + more)) for width, group in fitting.items()]:
                before, padded = (torch.cat(both) for both in zip(*compared, strict=True))
                changed = int((decision.labels(before) != decision.labels(padded)).sum())
                steps.append(Padded(more, len(before), float((before - padded).abs().max()), changed))
    return PadTest(len(chosen), net.needs == "all", 0.05 if half_precision else 1e-3, tuple(steps))


def _choose(texts: list[tuple[int, int]], context: int) -> list[tuple[int, int]]:
    """Widths and rows of some texts of all lengths that leave room for the pads and have few tokens in all."""
    for room in (max(MORE_PADS), min(MORE_PADS)):
        fitting = sorted((width, row) for width, row in texts if width + room <= context)
        if fitting:
            break
    for n in range(min(_TEXTS, len(fitting)), 1, -1):
        chosen = [fitting[i * (len(fitting) - 1) // (n - 1)] for i in range(n)]
        if sum(width for width, _ in chosen) <= _TOKENS:
            return chosen
    return fitting[:1]
