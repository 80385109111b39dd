"""Temperature and threshold: closed forms, and that the rule without tuning is argmax of softmax."""

import math

import pytest
import torch

from lit_cls.model.decision import Decision


def test_without_tuning_it_is_softmax_and_argmax() -> None:
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    decision = Decision()
    torch.testing.assert_close(decision.probabilities(logits), logits.softmax(1))
    assert torch.equal(decision.labels(decision.probabilities(logits)), logits.argmax(1))
    assert decision.describe(["a", "b", "c"]) is None


def test_the_temperature_divides_the_logits() -> None:
    shares = Decision(temperature=2.0).probabilities(torch.tensor([[0.0, 3.0]], dtype=torch.bfloat16))
    assert shares.dtype == torch.float32
    assert shares[0, 1].item() == pytest.approx(1 / (1 + math.exp(-1.5)))


@pytest.mark.parametrize(
    ("shares", "answer"),
    [
        ([0.2, 0.1, 0.7], 2),  # below its threshold class 1 is never the answer
        ([0.1, 0.3, 0.6], 1),  # at the threshold it is, although another is more probable
        ([0.2, 0.29, 0.51], 2),
        ([0.36, 0.299, 0.341], 0),
    ],
)
def test_the_threshold_is_about_one_label(shares: list[float], answer: int) -> None:
    decision = Decision(label=1, threshold=0.3, goal="f1 on 40 texts")
    before = torch.tensor([shares])
    kept = before.clone()
    assert decision.labels(before).tolist() == [answer]
    assert torch.equal(before, kept)


def test_a_high_threshold_leaves_the_most_probable_label_out() -> None:
    assert Decision(label=1, threshold=0.95).labels(torch.tensor([[0.1, 0.9], [0.04, 0.96]])).tolist() == [0, 1]


def test_the_rule_is_told() -> None:
    told = Decision(0.5, 1, 0.9, "precision>=0.99 for spam on 149 validation texts").describe(["ham", "spam"])
    assert told == (
        "temperature 0.5, spam if its probability is at least 0.9 "
        "(tuned: precision>=0.99 for spam on 149 validation texts)"
    )


def test_log_odds_are_those_of_the_probabilities_even_where_these_round_to_1() -> None:
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(2)) * 3
    decision = Decision(temperature=0.7)
    for label in range(3):
        expected = torch.logit((logits.double() / 0.7).softmax(1)[:, label])
        torch.testing.assert_close(decision.log_odds(logits, label).double(), expected, atol=1e-4, rtol=1e-5)
    certain = torch.tensor([[0.0, 40.0]])
    assert Decision().probabilities(certain)[0, 1] == 1
    assert Decision().log_odds(certain, 1).item() == pytest.approx(40)
