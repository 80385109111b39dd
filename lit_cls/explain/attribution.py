"""Which words a prediction rests on: integrated gradients, and leaving out one word at a time.

Both attribute the log-odds of a label, log(p / (1 - p)) of the probability that `predict` gives it: unlike a
probability, it is not bounded, so that words still count if the prediction is certain.

Shapes: B batch, T tokens, C emb_dim, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from lit_cls.errors import UserError, quote
from lit_cls.explain.words import TokenizedText, Word
from lit_cls.inference import Classifier

Progress = Callable[[int, int], None]
"""Called with the number of steps done and planned."""
TOLERANCE = 0.01
"""Share of the change of the log-odds that the attributions may miss."""

_MIN_TOLERANCE = 0.001  # log-odds: 1 % of nearly nothing cannot be reached
_POINTS = 8  # of the Gauss-Legendre sum, in each segment of the path
_TOKENS = 1024  # of a forward and backward pass: about 1 GB in GPT-2 small


@dataclass(frozen=True)
class Completeness:
    """How closely the attributions add up to the change from the baseline to the text."""

    baseline: float
    """Log-odds of the label if every token is `<|endoftext|>`."""
    gap: float
    """Sum over path segments of how far each misses its own change: an upper bound of the total error."""
    steps: int
    """Number of points on the path at which the gradient was computed."""
    reached: bool
    """Whether the gap is within 1 % of the change, or 0.001; otherwise it would take more steps than allowed."""


@dataclass(frozen=True)
class Attribution:
    """Contribution of each word of a text to the log-odds of a label."""

    label: str
    log_odds: float
    """Of the label, for the text."""
    words: tuple[Word, ...]
    completeness: Completeness | None = None
    """Of integrated gradients."""


def integrated_gradients(
    classifier: Classifier, text: str, label: str | None = None, steps: int = 512, progress: Progress | None = None
) -> Attribution:
    """Integrated gradients on the token embeddings (Sundararajan, Taly & Yan, ICML 2017, section 3).

    The baseline is the padding token `<|endoftext|>` in every position, as an empty text is read: pads get no
    attribution. The integral along the straight path is a Gauss-Legendre sum over eight points in each of two segments.
    Those whose attributions miss the change of the log-odds most are halved until the sum of all gaps is within 1 % of
    the whole change, or `steps` points are used. `label` defaults to the predicted one. Needs 32-true or 64-true.
    """
    _check(classifier, label)
    tokenized = TokenizedText(classifier, text)
    net, decision = classifier.net, classifier.decision
    [batch] = classifier.batches([tokenized.token_ids])
    lengths: Tensor = batch["lengths"]
    with torch.no_grad():
        x = net.embeddings(batch["input_ids"])  # (1, T, C)
        baseline = net.embeddings(torch.full_like(batch["input_ids"], classifier.tokenizer.pad_id))
        logits = net.forward_embedded(torch.cat([x, baseline]), lengths.expand(2))  # (2, K)
    target = _target(classifier, logits, label)
    at_text, at_baseline = decision.log_odds(logits, target).tolist()

    def outputs(embedded: Tensor) -> Tensor:
        return decision.log_odds(net.forward_embedded(embedded, lengths.expand(len(embedded))), target)

    path = _Path(outputs, x, baseline, (at_baseline, at_text), progress)
    allowed = max(TOLERANCE * abs(at_text - at_baseline), _MIN_TOLERANCE)
    path.integrate(allowed, steps)
    scores = torch.stack([segment.scores for segment in path.segments]).sum(dim=0)
    completeness = Completeness(at_baseline, path.gap, path.steps, path.gap <= allowed)
    words = tokenized.score_words(scores.tolist())
    return Attribution(classifier.label_names[target], at_text, words, completeness)


@dataclass(frozen=True)
class _Segment:
    """Part of the path from the baseline, 0, to the text, 1."""

    start: float
    end: float
    scores: Tensor
    """(T,) float64: the integral."""
    gap: float
    """Distance of their sum from the change of the output."""


@dataclass
class _Path:
    """Integral of `outputs`, (B, T, C) to (B,), along the path from the baseline to x, both (1, T, C).

    The segments are short where the output changes fast. `ends` are the outputs of the baseline and of x.
    """

    outputs: Callable[[Tensor], Tensor]
    x: Tensor
    baseline: Tensor
    ends: tuple[float, float]
    progress: Progress | None = None
    segments: list[_Segment] = field(default_factory=list, init=False)
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._change = self.x - self.baseline
        self._known = {0.0: self.ends[0], 1.0: self.ends[1]}
        self._batch_size = max(1, _TOKENS // self.x.shape[1])

    @property
    def gap(self) -> float:
        """Sum of all segments' gaps."""
        return sum(segment.gap for segment in self.segments)

    def integrate(self, allowed: float, max_steps: int) -> None:
        """Halves the segments with the largest gaps until the sum of gaps is allowed, or the steps are used up."""
        halves = [(0.0, 0.5), (0.5, 1.0)]
        while halves:
            self.segments += self._integrate(halves)
            self.segments.sort(key=lambda segment: segment.gap)
            # The other half is for what the halved ones will still miss.
            n_fine = sum(total <= allowed / 2 for total in accumulate(segment.gap for segment in self.segments))
            n_halved = min(len(self.segments) - n_fine, (max_steps - self.steps) // (2 * _POINTS))
            if self.gap <= allowed or n_halved <= 0:
                return
            worst = [(segment.start, segment.end) for segment in self.segments[-n_halved:]]
            del self.segments[-n_halved:]
            halves = [(a, (a + b) / 2) for a, b in worst] + [((a + b) / 2, b) for a, b in worst]

    def _integrate(self, spans: Sequence[tuple[float, float]]) -> list[_Segment]:
        points, shares = (torch.tensor(values) / 2 for values in np.polynomial.legendre.leggauss(_POINTS))
        edges = sorted({edge for span in spans for edge in span} - self._known.keys())
        for start in range(0, len(edges), self._batch_size):
            batch = edges[start : start + self._batch_size]
            with torch.no_grad():
                self._known.update(zip(batch, self.outputs(self._at(torch.tensor(batch))).tolist(), strict=True))
        starts, ends = (torch.tensor(side).double()[:, None] for side in zip(*spans, strict=True))
        by_point = self._scores(((starts + ends) / 2 + (ends - starts) * points).flatten())
        scores = torch.einsum("p,spt->st", shares, by_point.unflatten(0, (len(spans), _POINTS))) * (ends - starts)
        return [
            _Segment(start, end, of_segment, abs(float(of_segment.sum()) - (self._known[end] - self._known[start])))
            for (start, end), of_segment in zip(spans, scores, strict=True)
        ]

    def _scores(self, points: Tensor) -> Tensor:
        """Change times gradient at points of the path: (N,) to (N, T) float64."""
        found = []
        planned = self.steps + len(points)
        for batch in points.split(self._batch_size):
            x = self._at(batch).requires_grad_()
            [gradient] = torch.autograd.grad(self.outputs(x).sum(), x)
            found.append((self._change * gradient).sum(dim=-1).cpu().double())
            self.steps += len(batch)
            if self.progress is not None:
                self.progress(self.steps, planned)
        return torch.cat(found)

    def _at(self, points: Tensor) -> Tensor:
        """Embeddings at points of the path: (N,) to (N, T, C)."""
        return self.baseline + points.to(self._change)[:, None, None] * self._change


def leave_one_word_out(
    classifier: Classifier, text: str, label: str | None = None, progress: Progress | None = None
) -> Attribution:
    """Decrease of the log-odds when a word is left out, with the white space before it, for each word that is read.

    A score is positive if the word speaks for the label, by default the predicted one. The shorter text is read as
    `predict` reads it: if the text was truncated, tokens that were not read move up.
    """
    _check(classifier, label)
    tokenized = TokenizedText(classifier, text)
    logits = classifier.token_logits([tokenized.token_ids])
    target = _target(classifier, logits, label)
    [log_odds] = classifier.decision.log_odds(logits, target).tolist()
    left_out = sorted({tokenized.word_of_token[token] for token in tokenized.kept})
    done = 0

    def after_batch(n_texts: int) -> None:
        nonlocal done
        done += n_texts
        if progress is not None:
            progress(done, len(left_out))

    shorter = classifier.token_logits(tokenized.without(left_out), after_batch)
    changed = dict(zip(left_out, classifier.decision.log_odds(shorter, target).tolist(), strict=True))
    words = [Word(word, log_odds - changed[i] if i in changed else None) for i, word in enumerate(tokenized.words)]
    return Attribution(classifier.label_names[target], log_odds, tuple(words))


def _check(classifier: Classifier, label: str | None) -> None:
    if classifier.precision not in ("32-true", "64-true"):
        raise UserError(
            f"attributions are not computed in {classifier.precision}, which rounds too much: "
            'load the classifier with precision="32-true"'
        )
    if label is not None and label not in classifier.label_names:
        raise UserError(f"there is no label {quote(label)}: the labels are {', '.join(classifier.label_names)}")


def _target(classifier: Classifier, logits: Tensor, label: str | None) -> int:
    """The class id of the label; by default the one predicted from the first row of (B, K) logits."""
    if not logits.isfinite().all():
        raise UserError("the network's outputs are not numbers: its training has diverged, there is nothing to explain")
    if label is not None:
        return classifier.label_names.index(label)
    return int(classifier.decision.labels(classifier.decision.probabilities(logits[:1])))
