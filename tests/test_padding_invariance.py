"""Padding, tested on networks that do and do not read it."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from small_fits import data, module, save, trainer

from lit_cls.model.backbones.gpt2 import GPTConfig
from lit_cls.model.classifier import GPTClassifier
from lit_cls.model.layers import AttentionMask
from lit_cls.training.pad_invariance import MORE_PADS, PaddingTest, PadTest, compare_paddings

SMALL = GPTConfig(vocab_size=50257, context_length=128, emb_dim=12, n_heads=2, n_layers=2)
TEXTS = [[7 + i + j for j in range(3 + 2 * i)] for i in range(24)]
POSITIONS = ("first", "last", "flexible", "mean", "mean_flexible")


def net(position: str, causal: bool = True, drop_rate: float = 0.0) -> GPTClassifier:
    """Weights large enough for texts to get different answers."""
    torch.manual_seed(1)
    made = GPTClassifier(
        GPTConfig(**{**vars(SMALL), "drop_rate": drop_rate}),
        token_position=position,  # type: ignore[arg-type]
        trainable_layers="all",
        causal=causal,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made


def found(made: GPTClassifier, texts: list[list[int]] = TEXTS, pad_to: int | None = None) -> PadTest:
    test = compare_paddings(made, texts, pad_to, 50256)
    assert isinstance(test, PadTest), test
    return test


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", POSITIONS)
def test_pads_move_what_is_defined_with_them_and_nothing_else(position: str, causal: bool) -> None:
    test = found(net(position, causal))
    assert test.texts == 16
    assert [(step.more_pads, step.texts) for step in test.steps] == [(more, 16) for more in MORE_PADS]
    if position in ("last", "mean"):
        assert test.verdict == "depends"
        assert test.largest_difference > 0.01
    else:
        assert test.verdict == "passed"
        assert test.largest_difference < 1e-5
        assert test.answers_changed == 0


def test_the_figures_are_those_of_the_network_itself() -> None:
    made = net("mean")
    [text] = texts = [[5, 6, 7, 8]]
    test = found(made, texts)
    made.eval()
    with torch.no_grad():
        rows = [torch.tensor([text + [50256] * more]) for more in (0, *MORE_PADS)]
        plain, *padded = (made(row, torch.tensor([4])).softmax(dim=-1)[0] for row in rows)
    expected = [float((plain - other).abs().max()) for other in padded]
    assert [step.largest_difference for step in test.steps] == pytest.approx(expected, abs=1e-6)
    assert test.largest_difference == max(step.largest_difference for step in test.steps)


def test_a_network_that_takes_pads_for_text_fails() -> None:
    """A defect made on purpose: without the causal mask, the pads are not hidden."""
    made = net("flexible", causal=False)
    made._mask = lambda lengths, T: AttentionMask(causal=False, keys=None)  # type: ignore[method-assign]
    test = found(made)
    assert test.verdict == "FAIL"
    assert test.largest_difference > 0.01
    assert test.as_dict()["verdict"] == "FAIL"


def test_a_fixed_length_is_the_start() -> None:
    """Texts padded to 40 in this run get pads beyond these; a length of the whole context leaves no room, and
    the texts' own is taken."""
    made = net("last")
    at_40 = found(made, [TEXTS[0]], pad_to=40)
    made.eval()
    with torch.no_grad():
        rows = [torch.tensor([TEXTS[0] + [50256] * (T - 3)]) for T in (40, 41)]
        plain, padded = (made(row, torch.tensor([3])).softmax(dim=-1) for row in rows)
    assert at_40.steps[0].largest_difference == pytest.approx(float((plain - padded).abs().max()), abs=1e-6)
    assert found(made, [TEXTS[0]], pad_to=128) == found(made, [TEXTS[0]])


def test_texts_leave_room_and_are_not_too_many() -> None:
    made = net("flexible")
    nearly_full = [[1] * 127] * 3
    assert [step.more_pads for step in found(made, nearly_full).steps] == [1]
    full = compare_paddings(made, [[1] * 128], None, 50256)
    assert full == "not run: every text fills the network's 128 positions"
    assert found(made, [[1] * 64] * 100 + [[1] * 128]).texts == 16
    assert found(made, [[1] * 100] * 100).texts == 10  # 1,024 tokens
    assert found(made, [[]]).texts == 1


def test_outputs_that_are_no_numbers() -> None:
    made = net("flexible")
    made.out_head.weight.data.fill_(torch.nan)
    told = compare_paddings(made, TEXTS, None, 50256)
    assert told == "not run: the network's outputs are not finite"


def test_nothing_is_drawn_and_the_mode_stays() -> None:
    made = net("mean_flexible", drop_rate=0.5)
    made.train()
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    assert found(made).verdict == "passed"  # with dropout on, it could not
    assert made.training
    after = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_a_trainers_evaluation_is_followed_by_the_test(tmp_path: Path, reviews: str, precision: str) -> None:
    texts, trained = data(reviews), module()
    path = save(tmp_path, trained, texts, precision=precision)
    test = PaddingTest()
    runner = trainer(tmp_path, precision=precision, callbacks=[test])
    again = module()
    runner.validate(again, datamodule=texts, ckpt_path=str(path), verbose=False)
    runner.test(again, datamodule=texts, ckpt_path=str(path), verbose=False)
    assert set(test.found) == {"validation", "test"}
    for one in test.found.values():
        assert isinstance(one, PadTest)
        assert (one.verdict, one.tolerance) == ("passed", 0.05 if precision == "bf16-mixed" else 1e-3)
        assert one.largest_difference < (0.05 if precision == "bf16-mixed" else 1e-5)


def test_a_training_is_left_alone(tmp_path: Path, reviews: str) -> None:
    test = PaddingTest()
    trainer(tmp_path, callbacks=[test]).fit(module(), datamodule=data(reviews))
    assert test.found == {}
    assert test.place is None
