"""What counts as the same classifier."""

import pytest
import torch

from lit_cls.errors import RunError
from lit_cls.exports.parity import LIMIT, ODD_TEXTS, Parity, measure

LOGITS = torch.tensor([[1.0, 2.0], [0.5, 0.0], [3.0, 3.1]])


def agrees(parity: Parity) -> bool:
    try:
        parity.require("logits")
    except RunError:
        return False
    return True


def test_the_largest_difference_and_every_flip_count() -> None:
    assert agrees(measure(LOGITS, LOGITS))
    moved = LOGITS.clone()
    moved[1, 0] -= 0.75
    parity = measure(LOGITS, moved)
    assert (parity.n_texts, parity.largest, parity.flips, agrees(parity)) == (3, 0.75, 1, False)
    with pytest.raises(RunError, match=r"^logits: largest difference 7.5e-01, 1 of 3 labels differ; at most 1e-04"):
        parity.require("logits")


def test_the_limit_holds_on_both_sides_of_it() -> None:
    assert measure(LOGITS, LOGITS + 0.9 * LIMIT).require("logits").endswith("0 of 3 labels differ")
    assert not agrees(measure(LOGITS, LOGITS + 1.1 * LIMIT))


def test_labels_may_follow_from_more_than_the_largest_number() -> None:
    same = measure(LOGITS, LOGITS, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    assert (same.largest, same.flips, agrees(same)) == (0.0, 1, False)


def test_what_is_no_number_is_no_parity() -> None:
    broken = LOGITS.clone()
    broken[0, 1] = float("nan")
    assert not agrees(measure(LOGITS, broken))
    assert not agrees(measure(broken, broken))


def test_the_texts_of_ours_hold_what_breaks_exports() -> None:
    assert "" in ODD_TEXTS
    assert any("<|endoftext|>" in text for text in ODD_TEXTS)
    assert max(len(text.split()) for text in ODD_TEXTS) > 1024
