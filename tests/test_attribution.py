"""Attributions: closed forms where the network is linear, a plain sum and plain edited texts where it is not."""

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lit_cls.data.options import Truncation
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.data.tokenizers.gpt2 import merge_ranks
from lit_cls.errors import UserError
from lit_cls.explain import attribution
from lit_cls.explain.attribution import Attribution, _Path, integrated_gradients, leave_one_word_out
from lit_cls.explain.words import TokenizedText
from lit_cls.inference import Classifier
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.adapters import LoRA
from lit_cls.model.decision import Decision
from lit_cls.model.head import TokenPosition

TOKENIZER = tokenizer_for("gpt2")
BYTES_OF = {i: token for token, i in merge_ranks().items()}

CONFIG = GPTConfig(context_length=64, emb_dim=16, n_heads=4, n_layers=2)
LORA = LoRA(rank=2)
TEXT = "You won a naïve 🙂 prize:\n call  now, don't wait"
TRUNCATIONS: list[Truncation] = ["head", "tail", "head_tail"]


def classifier(
    labels: tuple[str, ...] = ("ham", "spam"),
    pad_to: int | None = None,
    cut_to: int = 64,
    truncation: Truncation = "head",
    decision: Decision | None = None,
    precision: str = "32-true",
    packed: bool = True,
    **choices: Any,
) -> Classifier:
    """A tiny network whose answers depend on every word: weights far larger than the initial ones."""
    torch.manual_seed(0)
    if "adapter" not in choices:
        choices = {"trainable_layers": "all", **choices}
    net = GPTClassifier(CONFIG, num_classes=len(labels), **choices)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)  # lora_B too, which begins with zeros
    settings = {"pad_to": pad_to, "cut_to": cut_to, "settings": {"truncation": truncation}}
    return Classifier(net, labels, settings, torch.device("cpu"), precision, decision or Decision(), packed)


def logit(shares: dict[str, float], label: str) -> float:
    return math.log(shares[label]) - math.log(sum(share for name, share in shares.items() if name != label))


def scores(found: Attribution) -> list[float]:
    return [word.score for word in found.words if word.score is not None]


def plain_integral(reader: Classifier, text: str, label: int, steps: int = 400) -> tuple[list[float], float, float]:
    """Of each token: the midpoint sum, through the plain forward pass with the embeddings exchanged on the way."""
    net = reader.net.double()
    ids = TOKENIZER.encode([text])[0]
    T = max(len(ids), reader._pad_to or 0)
    input_ids = torch.full((steps + 2, T), TOKENIZER.pad_id)
    input_ids[:, : len(ids)] = torch.tensor(ids)
    shares = torch.cat([(torch.arange(steps) + 0.5) / steps, torch.tensor([0.0, 1.0])]).double()
    mixed: list[Tensor] = []

    def exchange(module: nn.Module, inputs: tuple[Tensor], x: Tensor) -> Tensor:
        baseline = module.weight[TOKENIZER.pad_id].detach()  # type: ignore[union-attr, index]
        mixed.append((baseline + shares[:, None, None] * (x.detach() - baseline)).requires_grad_())
        return mixed[0]

    hook = net.backbone.tok_emb.register_forward_hook(exchange)
    shares_of_labels = (net(input_ids, torch.full((steps + 2,), len(ids))) / reader.decision.temperature).softmax(1)
    hook.remove()
    log_odds = torch.logit(shares_of_labels[:, label])
    [gradient] = torch.autograd.grad(log_odds[:steps].sum(), mixed[0])
    net.float()
    change = mixed[0][-1] - mixed[0][-2]
    by_token = (change * gradient[:steps].mean(0)).sum(-1)
    return by_token[: len(ids)].tolist(), log_odds[-2].item(), log_odds[-1].item()


CASES: list[dict[str, Any]] = [
    *({"token_position": position, "causal": True} for position in get_args(TokenPosition)),
    *({"token_position": position, "causal": False, "pad_to": 40} for position in get_args(TokenPosition)),
    {"adapter": LORA, "decision": Decision(temperature=2.5)},
    {"trainable_layers": "last_layer", "labels": ("a", "b", "c")},
    {"trainable_layers": 1, "token_position": "mean", "labels": ("a", "b", "c")},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_integrated_gradients_are_the_plain_sum(case: dict[str, Any]) -> None:
    reader = classifier(**case)
    found = integrated_gradients(reader, TEXT, reader.label_names[1])
    by_token, at_baseline, at_text = plain_integral(classifier(**case, packed=False), TEXT, 1)
    by_word, place, sizes = [0.0] * len(found.words), 0, [len(BYTES_OF[i]) for i in TOKENIZER.encode([TEXT])[0]]
    ends = [len("".join(word.text for word in found.words[: i + 1]).encode()) for i in range(len(found.words))]
    for size, score in zip(sizes, by_token, strict=True):
        by_word[next(i for i, end in enumerate(ends) if place < end)] += score
        place += size
    largest = max(map(abs, by_word))
    assert largest > 0.02
    assert scores(found) == pytest.approx(by_word, abs=0.03 * largest)
    assert found.completeness is not None
    assert (found.completeness.baseline, found.log_odds) == pytest.approx((at_baseline, at_text), abs=1e-4)
    assert found.completeness.reached
    change = at_text - at_baseline
    assert sum(scores(found)) == pytest.approx(change, abs=found.completeness.gap + 1e-4)
    assert found.completeness.gap <= max(0.01 * abs(change), 0.001) + 1e-4


def test_of_a_linear_network_they_are_weight_times_difference() -> None:
    reader = classifier(token_position="mean_flexible", decision=Decision(temperature=0.5))
    net = reader.net
    for block in net.backbone.trf_blocks:
        block.forward = lambda x, *masks: x  # type: ignore[method-assign]
    net.backbone.final_norm = nn.Identity()  # type: ignore[assignment]
    found = integrated_gradients(reader, "good film , really", "spam")
    assert found.completeness is not None
    assert found.completeness.steps == 16
    ids = TOKENIZER.encode(["good film , really"])[0]
    with torch.no_grad():
        change = net.backbone.tok_emb.weight[ids] - net.backbone.tok_emb.weight[TOKENIZER.pad_id]
        expected = change @ (net.out_head.weight[1] - net.out_head.weight[0]) / len(ids) / 0.5
    assert scores(found) == pytest.approx(expected.tolist(), abs=1e-5)


def test_where_order_does_not_count_scores_go_with_their_words() -> None:
    reader = classifier(token_position="mean_flexible", causal=False)
    nn.init.zeros_(reader.net.backbone.pos_emb.weight)
    for method in (integrated_gradients, leave_one_word_out):
        there, back = method(reader, " good film here", "spam"), method(reader, " here good film", "spam")
        by_word = {word.text: word.score for word in there.words}
        assert {word.text: word.score for word in back.words} == pytest.approx(by_word, abs=1e-4)
        assert len(set(by_word.values())) == 3


def test_points_are_added_until_the_sums_are_right_or_there_are_too_many() -> None:
    reader = classifier(packed=False)
    with torch.no_grad():
        for parameter in reader.net.backbone.trf_blocks.parameters():
            parameter.mul_(2)  # sharp attention
    told: list[tuple[int, int]] = []
    found = integrated_gradients(reader, TEXT, progress=lambda *done: told.append(done))
    assert found.completeness is not None
    assert found.completeness.reached
    assert found.completeness.steps > 16  # the first round is not enough here
    assert told[-1] == (found.completeness.steps, found.completeness.steps)
    assert (16, 16) in told
    for most, used in ((1, 16), (31, 16), (32, 32)):
        coarse = integrated_gradients(reader, TEXT, steps=most)
        assert coarse.completeness is not None
        assert (coarse.completeness.steps, coarse.completeness.reached) == (used, False)
        change = coarse.log_odds - coarse.completeness.baseline
        assert 0.01 * abs(change) < coarse.completeness.gap
        assert abs(sum(scores(coarse)) - change) <= coarse.completeness.gap + 1e-6


def test_a_sudden_change_on_the_way_is_found() -> None:
    """Closed form: a steep sigmoid of one direction; equal steps would need thousands to see it."""
    x, baseline = torch.tensor([[[1.0, 0.0], [0.5, 2.0]]]), torch.zeros(1, 2, 2)

    def steep(embedded: Tensor) -> Tensor:
        return torch.tanh(2000 * (embedded.sum(dim=(1, 2)) / 3.5 - 0.3141592)) + embedded[:, 0, 0]

    path = _Path(steep, x, baseline, (-1.0, 2.0))
    path.integrate(0.001, 2000)
    assert path.gap <= 0.001
    assert path.steps < 400
    assert sorted(part.end for part in path.segments)[:-1] == sorted(part.start for part in path.segments)[1:]
    total = torch.stack([part.scores for part in path.segments]).sum(0)
    # Each token has its share of the jump of 2; the first, what is added to it besides.
    assert total.tolist() == pytest.approx([2 * 1 / 3.5 + 1, 2 * 2.5 / 3.5], abs=0.002)


def test_steps_in_parts_are_the_steps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = classifier(token_position="mean")
    together = integrated_gradients(reader, TEXT)
    monkeypatch.setattr(attribution, "_TOKENS", 50)
    in_parts = integrated_gradients(reader, TEXT)
    assert scores(in_parts) == pytest.approx(scores(together), abs=1e-5)


@pytest.mark.parametrize("method", [integrated_gradients, leave_one_word_out])
def test_a_network_that_has_diverged_explains_nothing(method: Callable[..., Attribution]) -> None:
    made = classifier()
    made.net.out_head.bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match="the network's outputs are not numbers"):
        method(made, TEXT)


def test_nothing_is_left_behind_in_the_network() -> None:
    reader = classifier()
    before = reader.predict([TEXT])
    integrated_gradients(reader, TEXT)
    assert reader.predict([TEXT]) == before
    assert all(parameter.grad is None for parameter in reader.net.parameters())


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_left_out_words_are_the_predictions_of_shorter_texts(case: dict[str, Any], truncation: Truncation) -> None:
    reader = classifier(**{**case, "cut_to": 12, "truncation": truncation})
    if reader._pad_to:
        reader._pad_to = 12
    told: list[tuple[int, int]] = []
    found = leave_one_word_out(reader, TEXT, progress=lambda *done: told.append(done))
    [prediction] = reader.predict([TEXT])
    assert found.label == prediction.label
    assert found.log_odds == pytest.approx(logit(prediction.probabilities, found.label), abs=1e-4)
    pieces = ["You", " won", " a", " naïve", " 🙂", " prize:", "\n call", "  now,", " don't", " wait"]
    assert [word.text for word in found.words] == pieces
    for i, word in enumerate(found.words):
        [without] = reader.predict(["".join(pieces[:i] + pieces[i + 1 :])])
        change = found.log_odds - logit(without.probabilities, found.label)
        assert word.score is None or word.score == pytest.approx(change, abs=1e-4)
    n_read = sum(word.score is not None for word in found.words)
    assert 3 < n_read < 10
    assert told[-1] == (n_read, n_read)
    gradients = integrated_gradients(reader, TEXT)
    assert [word.score is None for word in gradients.words] == [word.score is None for word in found.words]


@pytest.mark.parametrize(
    ("truncation", "read"), [("head", " a b c d e"), ("tail", " f g h i j"), ("head_tail", " a b c i j")]
)
def test_words_beyond_the_cut_are_not_read(truncation: Truncation, read: str) -> None:
    text = " a b c d e f g h i j"  # one token each
    reader = classifier(cut_to=5, truncation=truncation)
    for method in (integrated_gradients, leave_one_word_out):
        found = method(reader, text)
        assert "".join(word.text for word in found.words if word.score is not None) == read
        assert "".join(word.text for word in found.words) == text


def test_a_word_of_which_a_part_is_read_counts() -> None:
    text = " a antidisestablishmentarianism b"
    assert len(TOKENIZER.encode([text])[0]) > 4
    found = integrated_gradients(classifier(cut_to=2), text)
    assert [word.score is not None for word in found.words] == [True, True, False]


@pytest.mark.parametrize("method", [integrated_gradients, leave_one_word_out])
def test_texts_without_words_and_with_one(method: Any) -> None:
    reader = classifier()
    empty, blank, one = (method(reader, text) for text in ("", " \n ", "word"))
    assert empty.words == ()
    assert [word.text for word in blank.words] == [" \n "]
    # An empty text is the baseline of a text of one token: both methods say the same of it.
    assert one.words[0].score == pytest.approx(one.log_odds - logit_of_empty(reader, one.label), abs=0.02)


def logit_of_empty(reader: Classifier, label: str) -> float:
    return logit(reader.predict([""])[0].probabilities, label)


def test_towards_the_answer_of_the_rule_or_a_label_that_is_named() -> None:
    reader = classifier()
    [prediction] = reader.predict([TEXT])
    other = next(name for name in reader.label_names if name != prediction.label)
    reader.decision = Decision(label=reader.label_names.index(other), threshold=1e-6)
    for method in (integrated_gradients, leave_one_word_out):
        assert method(reader, TEXT).label == other
        turned = method(reader, TEXT, prediction.label)
        assert turned.label == prediction.label
        assert scores(turned) == pytest.approx([-score for score in scores(method(reader, TEXT))], abs=1e-4)
        with pytest.raises(UserError, match="there is no label 'eggs': the labels are ham, spam"):
            method(reader, TEXT, "eggs")


@pytest.mark.parametrize("method", [integrated_gradients, leave_one_word_out])
def test_coarse_precisions_are_refused(method: Any) -> None:
    with pytest.raises(UserError, match="not computed in bf16-true.*32-true"):
        method(classifier(precision="bf16-true"), TEXT)


def test_double_precision_says_the_same() -> None:
    single, double = (integrated_gradients(classifier(precision=name), TEXT) for name in ("32-true", "64-true"))
    assert scores(double) == pytest.approx(scores(single), abs=1e-3)


TEXTS = st.lists(
    st.one_of(
        st.sampled_from([" ", "  ", "\n", "\t", "\r\n", "\u3000", "\x1c", "\x85", "\u200b", "'", "don't", "'ll"]),
        st.sampled_from(
            ["word", "good", "antidisestablishment", "🙂👍🏽", "naïve", "你好", "مرحبا", "\ud800", "12", "!?"]
        ),
        st.text(max_size=4),
    ),
    max_size=12,
).map("".join)


@examples(300)
@given(text=TEXTS)
def test_tokens_lie_in_one_word_each_and_leave_with_it(text: str) -> None:
    reader = READER
    read = TokenizedText(reader, text)
    whole = "".join(read.words)
    assert whole == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    sizes = [len(BYTES_OF[i]) for i in read.token_ids] if text else []
    assert sum(sizes) == len(whole.encode())
    by_word = [0] * len(read.words)
    for word, size in zip(read.word_of_token, sizes, strict=True):
        by_word[word] += size
    assert by_word == [len(word.encode()) for word in read.words]
    shorter = ["".join(read.words[:i] + read.words[i + 1 :]) for i in range(len(read.words))]
    assert read.without(range(len(read.words))) == [ids[: reader.cut_to] for ids in TOKENIZER.encode(shorter)]


READER = classifier(cut_to=20)
