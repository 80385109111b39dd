"""A trained classifier in a few lines, without a Trainer: `lit_cls.load(path).predict(texts)`."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_cls.data.batches import Batch, EvaluationBatches, TextDataset, truncate
from lit_cls.data.options import Truncation
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.decision import Decision
from lit_cls.model.packed import pack
from lit_cls.model.settings import ModelSettings
from lit_cls.model.weight_files import file_sha256
from lit_cls.training.checkpoints import DATA_KEY, KEY, check_same_weights, checked_state, decision_of, read_checkpoint
from lit_cls.training.precision import MIXED, TRUE, auto_precision, check_precision


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text, and whether that was truncated: was longer than the classifier reads."""

    label: str
    probabilities: dict[str, float]
    """Of every label, in the order of the label names; they add up to 1."""
    truncated: bool


@dataclass(eq=False, repr=False)
class Classifier:
    """A trained network, its weights in place, with its labels, padding and tokenizer.

    `data` is the checkpoint's description of the data (`ClassificationData.state_dict`). `packed` says whether `net`
    may be rearranged for the CPU (`lit_cls.model.packed`): it predicts faster, but its weights can no longer be read.
    """

    net: TextClassifier
    label_names: tuple[str, ...]
    data: InitVar[dict[str, Any]]
    device: torch.device
    precision: str = "32-true"
    decision: Decision = field(default_factory=Decision)
    packed: InitVar[bool] = True

    def __post_init__(self, data: dict[str, Any], packed: bool) -> None:
        self._autocast = MIXED.get(self.precision)
        if self._autocast is not None:
            self.net.requires_grad_(False).hold_frozen(self._autocast)
        self.net = self.net.to(self.device, TRUE.get(self.precision)).eval()
        if packed and self.device.type == "cpu":
            pack(self.net)
        self.tokenizer = tokenizer_for(data.get("tokenizer", "gpt2"))
        self._pad_to: int | None = data["pad_to"]
        self.cut_to: int = data["cut_to"]  # maximum number of tokens of a text; `truncation` says which are kept
        self.truncation: Truncation = data["settings"]["truncation"]
        # If pads are read, the length of other texts would change a prediction: only equal lengths share a batch.
        self._unpadded = self.net.needs == "all" and self._pad_to is None

    def predict(self, texts: Sequence[str], after_batch: Callable[[int], None] | None = None) -> list[Prediction]:
        """Labels and probabilities, in the order of the texts; an empty one is classified as such.

        `after_batch` is called with the number of texts that have just been read, several times in a long list.
        """
        token_ids = self._encode(texts, "predict")
        probabilities = self.decision.probabilities(self.token_logits(token_ids, after_batch))
        labels = self.decision.labels(probabilities).tolist()
        return [
            Prediction(self.label_names[label], dict(zip(self.label_names, row, strict=True)), len(ids) > self.cut_to)
            for label, row, ids in zip(labels, probabilities.tolist(), token_ids, strict=True)
        ]

    def logits(self, texts: Sequence[str], after_batch: Callable[[int], None] | None = None) -> Tensor:
        """Logits: (N, K) float32, on the CPU; arguments as for `predict`."""
        return self.token_logits(self._encode(texts, "logits"), after_batch)

    def token_logits(self, token_ids: Sequence[list[int]], after_batch: Callable[[int], None] | None = None) -> Tensor:
        """Logits of texts given as token ids: (N, K) float32, on the CPU; `after_batch` as for `predict`."""
        # Created outside inference mode: a caller that fits something to them may need gradients.
        logits = torch.empty(len(token_ids), len(self.label_names), dtype=torch.float32)
        with torch.inference_mode():
            for batch in self.batches(token_ids):
                with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
                    batch_logits: Tensor = self.net(batch["input_ids"], batch["lengths"])  # (B, K)
                logits[batch["row_ids"]] = batch_logits.float().cpu()
                if after_batch is not None:
                    after_batch(len(batch_logits))
        return logits

    def batches(self, token_ids: Sequence[list[int]]) -> Iterator[Batch]:
        """Batches of texts: truncated, padded, similar lengths together, on the device; no DataLoader, no threads."""
        truncated = [truncate(ids, self.cut_to, self.truncation) for ids in token_ids]
        dataset = TextDataset(truncated, None, self._pad_to, self._unpadded, pad_id=self.tokenizer.pad_id)
        for planned in EvaluationBatches(dataset):
            batch = dataset[planned]
            input_ids = self.net.trim(batch["input_ids"], batch["lengths"]).to(self.device)
            yield {**batch, "input_ids": input_ids, "lengths": batch["lengths"].to(self.device)}

    def _encode(self, texts: Sequence[str], method: str) -> list[list[int]]:
        if isinstance(texts, str):
            raise UserError(f"{method} takes a list of texts, not one string: {method}([text])")
        return self.tokenizer.encode(texts)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    precision: str | None = None,
) -> Classifier:
    """Loads a checkpoint (`.ckpt`) that `lit_cls fit` wrote; no option of the training is needed.

    Args:
        weights: the file of pretrained weights it was trained from, if that has moved since.
        precision: `32-true`, `bf16-mixed`, `16-mixed`, `bf16-true`, `16-true` or `64-true`. By default bf16-mixed if
            it was trained in that and the device supports it, else 32-true.

    Raises:
        UserError: the checkpoint is not intact, or the frozen weights it names are gone or have changed.
    """
    return classifier_of(Path(path), read_checkpoint(path), torch.device(device), weights, precision)


def classifier_of(
    path: Path,
    checkpoint: dict[str, Any],
    device: torch.device,
    weights: str | Path | None = None,
    precision: str | None = None,
    packed: bool = True,
) -> Classifier:
    """Builds the classifier of a checkpoint that has been read; see `load` and `Classifier`."""
    if precision is not None:
        check_precision(precision)
    described = checkpoint[KEY]
    settings, from_file = ModelSettings.from_dict(described["model"]), described["weights_sha256"] is not None
    if weights is not None:
        if not from_file:
            raise UserError(f"{path} contains all of its weights: leave --model.weights {weights} out")
        settings = replace(settings, weights=str(weights))
    labels = tuple(described["label_names"])
    net = settings.build_empty(len(labels))
    if from_file:
        file = settings.weights_path()
        assert file is not None, "weights with a sha256 come from a file"
        with ThreadPoolExecutor(1) as beside:
            sha256 = beside.submit(file_sha256, file)
            net.load_weights(file)
        check_same_weights(checkpoint, sha256.result())
    state = checked_state(net, checkpoint)
    # Copied: a process that overwrites a mapped file would crash a service that uses it.
    net.load_state_dict({name: t.to(torch.float32, copy=True) for name, t in state.items()}, strict=False, assign=True)
    if precision is None:
        best, _ = auto_precision("cpu" if device.type == "cpu" else "gpu")
        precision = best if described["precision"] == best else "32-true"
    return Classifier(net, labels, checkpoint[DATA_KEY], device, precision, decision_of(checkpoint), packed)
