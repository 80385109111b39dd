"""Which words an answer rests on: integrated gradients, and leaving out one word after the other.

Both are about one quantity, the log-odds of a label, log(p / (1 - p)) of the probability that `predict`
gives it: not bounded as a probability is, so that a word still counts where the answer is certain.

Shapes: B batch, T tokens, C emb_dim, K classes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lit_cls.data.batches import Batch, truncate
from lit_cls.data.tokenizers.base import WHITESPACE
from lit_cls.errors import UserError, quote
from lit_cls.inference import Classifier

Progress = Callable[[int, int], None]
"""Told what is done, and of how much."""
TOLERANCE = 0.01
"""Share of the change that the attributions may miss before points are added."""

_FLOOR = 0.001  # log-odds: where text and baseline are nearly the same, 1 % of nothing cannot be reached
_POINTS = 8  # of Gauss and Legendre's sum, in each part of the way
_TOKENS = 1024  # of a forward and backward pass: about 1 GB in GPT-2 small
_WORD = re.compile(rf"[^{WHITESPACE}]+")


@dataclass(frozen=True)
class Word:
    """What stands between white space, and what it adds."""

    text: str
    """With the white space before it; that of a text's last word also with what is behind. Together: the text."""
    score: float | None
    """What it adds to the log-odds; None where nothing of it is read."""


@dataclass(frozen=True)
class Completeness:
    """Whether the attributions are of the right size: they add up to the change from the baseline to the text."""

    baseline: float
    """Log-odds of the label where every token is `<|endoftext|>`."""
    gap: float
    """How far each part of the way misses its own change, added up: the sum of all misses by this or less."""
    steps: int
    """Points on the way at which the gradient was computed."""
    reached: bool
    """Whether the gap is within 1 % of the change, or 0.001; else it would take more points than allowed."""


@dataclass(frozen=True)
class Attribution:
    """What each word of a text adds to the log-odds of a label."""

    label: str
    log_odds: float
    """Of the label, for the text."""
    words: tuple[Word, ...]
    completeness: Completeness | None = None
    """Of integrated gradients."""


def integrated_gradients(
    classifier: Classifier,
    text: str,
    label: str | None = None,
    steps: int = 512,
    progress: Progress | None = None,
) -> Attribution:
    """Integrated gradients on the token embeddings (Sundararajan, Taly & Yan, ICML 2017, section 3).

    The way leads straight from the baseline to the text; positions stay as they are. The baseline is as
    many `<|endoftext|>`: the boundary between GPT-2's training texts, what an empty text is read as, and
    what pads are, to which nothing is attributed then. A vector of zeros is no token that the network
    has ever read. The integral is Gauss and Legendre's sum over eight points in each half of the way. On
    every part, attributions must add up to the change of the log-odds there: parts that miss it most are
    halved, until all of them together are within 1 % of the whole change.

    Args:
        classifier: computing in 32-true (or 64-true).
        text: any string.
        label: whose log-odds; by default the answer's.
        steps: the most points that may be used.
        progress: called after each batch of points, with those that are done and those that are planned.

    Raises:
        UserError: another precision, or no such label.
    """
    _check(classifier, label)
    read = _Read(classifier, text)
    net, decision = classifier.net, classifier.decision
    [batch] = classifier.batches([read.token_ids])
    lengths: Tensor = batch["lengths"]
    with torch.no_grad():
        x = net.backbone.tok_emb(batch["input_ids"])  # (1, T, C)
        baseline = net.backbone.tok_emb(torch.full_like(batch["input_ids"], classifier.tokenizer.pad_id))
        logits = net.forward_embedded(torch.cat([x, baseline]), lengths.expand(2))  # (2, K)
    _check_numbers(logits)
    target = _target(classifier, logits[:1], label)
    at_text, at_baseline = decision.log_odds(logits, target).tolist()

    def outputs(embedded: Tensor) -> Tensor:
        return decision.log_odds(net.forward_embedded(embedded, lengths.expand(len(embedded))), target)

    way = _Way(outputs, x, baseline, (at_baseline, at_text))
    way.follow(_allowed(at_text - at_baseline), steps, progress)
    completeness = Completeness(at_baseline, way.gap, way.steps, way.gap <= _allowed(at_text - at_baseline))
    scores = torch.stack([part.scores for part in way.parts]).sum(dim=0)
    return Attribution(classifier.label_names[target], at_text, read.words_of(scores.tolist()), completeness)


def _allowed(change: float) -> float:
    return max(TOLERANCE * abs(change), _FLOOR)


@dataclass(frozen=True)
class _Part:
    """Of the way from the baseline, 0, to the text, 1."""

    start: float
    end: float
    scores: Tensor
    """(T,) float64: the integral."""
    gap: float
    """How far their sum is from the change of the output."""


class _Way:
    """The integral along the way, in parts that are short where the output changes fast.

    Args:
        outputs: (B, T, C) embeddings to (B,).
        x: (1, T, C) where the way ends.
        baseline: the same where it begins.
        ends: outputs of the baseline and of x.
    """

    def __init__(
        self, outputs: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, ends: tuple[float, float]
    ) -> None:
        self._outputs = outputs
        self._baseline = baseline
        self._change = x - baseline
        self._known = {0.0: ends[0], 1.0: ends[1]}
        self._at_once = max(1, _TOKENS // x.shape[1])
        self.parts: list[_Part] = []
        self.steps = 0

    @property
    def gap(self) -> float:
        """Of all parts, by size."""
        return sum(part.gap for part in self.parts)

    def follow(self, allowed: float, most: int, progress: Progress | None) -> None:
        """Halves the parts with the largest gaps until all gaps together are allowed, or there are `most` points."""
        halves = [(0.0, 0.5), (0.5, 1.0)]
        while halves:
            self.parts += self._integrate(halves, progress)
            self.parts.sort(key=lambda part: part.gap)
            n_fine, room = 0, allowed / 2  # the other half is for what the halved ones will still miss
            while n_fine < len(self.parts) and self.parts[n_fine].gap <= room:
                room -= self.parts[n_fine].gap
                n_fine += 1
            n_halved = min(len(self.parts) - n_fine, (most - self.steps) // (2 * _POINTS))
            if self.gap <= allowed or n_halved <= 0:
                return
            worst = self.parts[-n_halved:]
            del self.parts[-n_halved:]
            middles = [(part.start + part.end) / 2 for part in worst]
            halves = [(part.start, middle) for part, middle in zip(worst, middles, strict=True)]
            halves += [(middle, part.end) for part, middle in zip(worst, middles, strict=True)]

    def _integrate(self, spans: Sequence[tuple[float, float]], progress: Progress | None) -> list[_Part]:
        points, shares = (torch.tensor(values) / 2 for values in np.polynomial.legendre.leggauss(_POINTS))
        edges = sorted({edge for span in spans for edge in span} - self._known.keys())
        for start in range(0, len(edges), self._at_once):
            few = edges[start : start + self._at_once]
            with torch.no_grad():
                self._known.update(zip(few, self._outputs(self._place(torch.tensor(few))).tolist(), strict=True))
        starts, ends = (torch.tensor(side).double()[:, None] for side in zip(*spans, strict=True))
        by_point = self._scores(((starts + ends) / 2 + (ends - starts) * points).flatten(), progress)
        scores = torch.einsum("p,spt->st", shares, by_point.unflatten(0, (len(spans), _POINTS))) * (ends - starts)
        return [
            _Part(start, end, of_part, abs(float(of_part.sum()) - (self._known[end] - self._known[start])))
            for (start, end), of_part in zip(spans, scores, strict=True)
        ]

    def _scores(self, points: Tensor, progress: Progress | None) -> Tensor:
        """Change times gradient at points of the way: (N,) to (N, T) float64."""
        found = []
        planned = self.steps + len(points)
        for few in points.split(self._at_once):
            x = self._place(few).requires_grad_()
            [gradient] = torch.autograd.grad(self._outputs(x).sum(), x)
            found.append((self._change * gradient).sum(dim=-1).cpu().double())
            self.steps += len(few)
            if progress is not None:
                progress(self.steps, planned)
        return torch.cat(found)

    def _place(self, points: Tensor) -> Tensor:
        """(N,) to (N, T, C)."""
        return self._baseline + points.to(self._change)[:, None, None] * self._change


def leave_one_word_out(
    classifier: Classifier, text: str, label: str | None = None, progress: Progress | None = None
) -> Attribution:
    """How the log-odds change when a word is taken out, with the white space before it, for each that is read.

    A score is the log-odds of the text less those of the text without the word: positive where the word
    speaks for the label. The shorter text is read as `predict` reads it: where the text was cut, what
    was just not read moves up.

    Args:
        classifier: computing in 32-true (or 64-true).
        text: any string.
        label: whose log-odds; by default the answer's.
        progress: called after each batch, with the texts that are done and all of them.

    Raises:
        UserError: another precision, or no such label.
    """
    _check(classifier, label)
    read = _Read(classifier, text)
    [batch] = classifier.batches([read.token_ids])
    with torch.inference_mode():
        logits = classifier.net(batch["input_ids"], batch["lengths"])
    _check_numbers(logits)
    target = _target(classifier, logits, label)
    [log_odds] = classifier.decision.log_odds(logits, target).tolist()
    places = sorted({read.word_of_token[token] for token in read.kept})
    changed = dict(zip(places, _log_odds(classifier, read.without(places), target, progress), strict=True))
    words = [Word(word, log_odds - changed[i] if i in changed else None) for i, word in enumerate(read.words)]
    return Attribution(classifier.label_names[target], log_odds, tuple(words))


def _check_numbers(logits: Tensor) -> None:
    if not logits.isfinite().all():
        raise UserError("the network's outputs are no numbers: its training has diverged. There is nothing to explain")


@torch.inference_mode()
def _log_odds(
    classifier: Classifier, token_ids: Sequence[list[int]], target: int, progress: Progress | None
) -> list[float]:
    """Of each text."""
    found = torch.empty(len(token_ids))
    done = 0
    batches: Iterator[Batch] = classifier.batches(token_ids)
    for batch in batches:
        logits = classifier.net(batch["input_ids"], batch["lengths"])
        found[batch["row_ids"]] = classifier.decision.log_odds(logits, target).cpu()
        done += len(logits)
        if progress is not None:
            progress(done, len(token_ids))
    return found.tolist()


class _Read:
    """A text, its words and tokens, and which of them the classifier reads."""

    def __init__(self, classifier: Classifier, text: str) -> None:
        # Half of a surrogate pair has no UTF-8 form: the tokenizer takes it so.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self._cut = (classifier.cut_to, classifier.truncation)
        self._pad_id = classifier.tokenizer.pad_id
        [self.token_ids] = classifier.tokenizer.encode([text])
        self.words = _split(text)
        # No token of an empty text is of a word.
        self.word_of_token = _words_of_tokens(self.words, classifier.tokenizer.spans(text)) if text else []
        self.kept = truncate(list(range(len(self.word_of_token))), *self._cut)

    def words_of(self, scores: Sequence[float]) -> tuple[Word, ...]:
        """The words with the sums of their tokens' scores; those of pads, or of an empty text, are of no word.

        Args:
            scores: of the tokens that are read; what the network does not look at may be missing at the end.
        """
        sums: dict[int, float] = {self.word_of_token[token]: 0.0 for token in self.kept}
        for token, score in zip(self.kept, scores, strict=False):
            sums[self.word_of_token[token]] += score
        return tuple(Word(word, sums.get(i)) for i, word in enumerate(self.words))

    def without(self, places: Sequence[int]) -> list[list[int]]:
        """Token ids, cut, of the text without one of these words.

        They are those of the shorter text: the tokenizer's pattern takes white space apart from what is
        before it and looks at nothing behind, so that no other token changes.
        """
        starts = np.searchsorted(self.word_of_token, places, side="left").tolist()
        ends = np.searchsorted(self.word_of_token, places, side="right").tolist()
        ids = self.token_ids
        return [
            truncate(ids[:start] + ids[end:] or [self._pad_id], *self._cut)
            for start, end in zip(starts, ends, strict=True)
        ]


def _split(text: str) -> list[str]:
    """The words, each with the white space before it, the last with what is behind; white space alone is one."""
    ends = [word.end() for word in _WORD.finditer(text)][:-1]
    return [text[start:end] for start, end in pairwise([0, *ends, len(text)])] if text else []


def _words_of_tokens(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The word in which each token begins."""
    ends = np.cumsum([len(word) for word in words])
    found: list[int] = np.searchsorted(ends, [start for start, _ in spans], side="right").tolist()
    return found


def _check(classifier: Classifier, label: str | None) -> None:
    if classifier.precision not in ("32-true", "64-true"):
        raise UserError(
            f"attributions are not computed in {classifier.precision}, which rounds too much: "
            'load the classifier with precision="32-true"'
        )
    if label is not None and label not in classifier.label_names:
        raise UserError(f"there is no label {quote(label)}: the labels are {', '.join(classifier.label_names)}")


def _target(classifier: Classifier, logits: Tensor, label: str | None) -> int:
    """The class id of the label, or of the answer to (1, K) logits."""
    if label is not None:
        return classifier.label_names.index(label)
    decision = classifier.decision
    return int(decision.labels(decision.probabilities(logits)))
