"""The trained loss: torch's and scikit-learn's figures, closed forms, numerical gradients."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from lit_cls.commands.train import TrainCommand
from lit_cls.errors import UserError
from lit_cls.training.loss import ClassWeights, check_loss, class_weight_list, summed_loss, weight_notes

NAMES = ("ads", "letters", "news")
TRAIN = [0] * 7 + [1] * 2 + [2] * 11


def batch(n: int = 9) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    return 3 * torch.randn(n, 3, generator=random, dtype=torch.float64), torch.arange(n) % 3


def test_by_default_it_is_cross_entropy_bit_for_bit() -> None:
    logits, labels = batch()
    logits = logits.float()
    assert torch.equal(summed_loss(logits, labels), F.cross_entropy(logits, labels, reduction="sum"))
    left_out = F.cross_entropy(logits, labels, reduction="sum", ignore_index=1)
    assert torch.equal(summed_loss(logits, labels, ignore_index=1), left_out)
    assert not torch.equal(left_out, summed_loss(logits, labels))


@pytest.mark.parametrize("weights", [None, [0.5, 4.0, 1.3]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("ignored", [-100, 1])
def test_a_tiny_gamma_is_torchs_weighted_smoothed_cross_entropy(
    weights: list[float] | None, smoothing: float, ignored: int
) -> None:
    """The two ways through the function meet: torch's own at γ = 0, ours just above."""
    logits, labels = batch()
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(logits, labels, given, reduction="sum", label_smoothing=smoothing, ignore_index=ignored)
    for gamma in (0.0, 1e-9):
        found = summed_loss(logits, labels, ignored, given, smoothing, gamma)
        assert found.item() == pytest.approx(expected.item(), rel=1e-7), gamma


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_the_formula(gamma: float) -> None:
    logits, labels = batch()
    weights = [0.5, 4.0, 1.3]
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        p = math.exp(row[label]) / math.fsum(map(math.exp, row))
        expected -= weights[label] * (1 - p) ** gamma * math.log(p)
    found = summed_loss(logits, labels, weights=torch.tensor(weights, dtype=torch.float64), focal_gamma=gamma)
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_focal_loss_with_smoothing_plays_down_each_term() -> None:
    logits, labels = batch(1)
    p = logits.softmax(1)[0].tolist()
    q = [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]
    expected = -sum(a * w * (1 - b) ** 2 * math.log(b) for a, w, b in zip(q, (2, 3, 4), p, strict=True))
    weights = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    found = summed_loss(logits, labels, weights=weights, label_smoothing=0.1, focal_gamma=2.0)
    assert found.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_are_those_of_finite_differences(gamma: float, smoothing: float) -> None:
    logits, labels = batch(4)
    weights = torch.tensor([0.5, 4.0, 1.3], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: summed_loss(z, labels, -100, weights, smoothing, gamma), logits.requires_grad_()
    )


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("far", [20.0, 200.0, 2e4])
def test_certain_texts_have_finite_losses_and_gradients(gamma: float, smoothing: float, far: float) -> None:
    """Where 1 - p rounds to 0, its power has an endless slope: a plain formula gives NaN."""
    logits = torch.tensor([[far, 0.0, 0.0], [0.0, far, 0.0]], requires_grad=True)  # one right, one wrong
    loss = summed_loss(logits, torch.tensor([0, 0]), label_smoothing=smoothing, focal_gamma=gamma)
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1, 0] < -0.5  # what is wrong keeps its pull


def test_balanced_is_scikit_learns_rule() -> None:
    found = class_weight_list("balanced", NAMES, TRAIN)
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=TRAIN).tolist())
    assert sum(found[label] for label in TRAIN) / len(TRAIN) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "ratio"),
    [({"ads": 2, "letters": 6, "news": 1}, (2, 6, 1)), ({"letters": 4.0}, (1, 4, 1)), ({"news": 0.1}, (1, 1, 0.1))],
)
def test_weights_by_name_keep_their_ratio_and_weigh_1_on_average(
    given: dict[str, float], ratio: tuple[float, ...]
) -> None:
    found = class_weight_list(given, NAMES, TRAIN)
    assert [weight / found[1] for weight in found] == pytest.approx([part / ratio[1] for part in ratio])
    assert sum(found[label] for label in TRAIN) / len(TRAIN) == pytest.approx(1)


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (("no", "yes"), {True: 3.0, False: 1.0}),
        (("no", "yes"), {"yes": 3.0}),
        (("0", "1"), {1: 3.0, 0: 1.0}),
        (("-1", "1"), {1: 3.0}),
        (("0.5", "1.5"), {1.5: 3.0}),
        (("a", "null"), {None: 3.0}),
        (("a: [", "null"), {None: 3.0}),
    ],
)
def test_what_yaml_makes_of_a_label_still_names_it(names: tuple[str, ...], given: dict[str, float]) -> None:
    assert class_weight_list(given, names, [0, 1]) == pytest.approx([0.5, 1.5])


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (
            NAMES,
            {"ad": 2.0},
            "class_weights: 'ad' is not a label of the data. The labels are 'ads', 'letters', 'news'$",
        ),
        (NAMES, {1: 2.0}, "1 is not a label of the data"),
        (
            ("1", "01"),
            {1: 2.0},
            "1 does not name exactly one label of the data; put names into quotes. The labels are '1', '01'",
        ),
        (("1", "2"), {1: 2.0, "1": 3.0}, "'1' does not name exactly one label of the data"),
        (tuple(map(str, range(12))), {"x": 2.0}, "'8', '9', …$"),
    ],
)
def test_what_is_no_label(names: tuple[str, ...], given: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        class_weight_list(given, names, range(len(names)))


@pytest.mark.parametrize(
    ("weights", "smoothing", "gamma", "message"),
    [
        (None, 1.0, 0.0, r"model.label_smoothing 1.0 is not in \[0, 1\)"),
        (None, -0.1, 0.0, r"model.label_smoothing -0.1 is not in \[0, 1\)"),
        (None, math.nan, 0.0, "model.label_smoothing nan"),
        (None, 0.0, -1.0, "model.focal_gamma -1.0 is not a number of at least 0"),
        (None, 0.0, math.inf, "model.focal_gamma inf is not"),
        ({}, 0.0, 0.0, "model.class_weights names no label: give for example '{spam: 3, ham: 1}'"),
        ({"a": 0.0}, 0.0, 0.0, "model.class_weights: 'a' is 0.0, not between 1e-06 and 1e[+]06"),
        ({"a": 1.0, "b": math.nan}, 0.0, 0.0, "'b' is nan"),
        ({"a": True}, 0.0, 0.0, "is neither balanced nor a number for each label"),
        ("spam", 0.0, 0.0, "model.class_weights 'spam' is neither balanced"),
        ([1.0, 2.0], 0.0, 0.0, "is neither balanced"),
    ],
)
def test_what_is_refused(weights: ClassWeights | None, smoothing: float, gamma: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_loss(weights, smoothing, gamma)


def test_what_is_told() -> None:
    weights = class_weight_list({"letters": 4}, NAMES, TRAIN)
    assert weight_notes({"letters": 4}, weights, NAMES) == [
        "class weights (by name; the texts of the train split weigh 1 on average): ads 0.7692, letters 3.077, "
        "news 0.7692"
    ]
    one, other = weight_notes("balanced", class_weight_list("balanced", ("a", "b"), [0, 1, 1, 0]), ("a", "b"))
    assert one.endswith(": a 1, b 1")
    assert "--data.balance none keeps every text" in other
    assert len(weight_notes("balanced", class_weight_list("balanced", NAMES, TRAIN), NAMES)) == 1
    many = [str(i) for i in range(14)]
    assert weight_notes("balanced", [1.0] * 14, many)[0].endswith("9 1, and 4 more")


def test_weights_survive_config_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that YAML reads as true, false and a number too."""
    monkeypatch.chdir(tmp_path)
    for labels in (("no", "yes"), ("1", "2"), ("a.b", "c: d")):
        rows = "".join(f"text {i},{labels[i % 2]}\n" for i in range(20))
        Path("data.csv").write_text(f"text,label\n{rows}")
        weights = (
            f"{{{labels[0]!r}: 1, {labels[1]!r}: 3}}" if ":" in labels[1] else f"{{{labels[0]}: 1, {labels[1]}: 3}}"
        )
        words = ["--data.path", "data.csv", "--model.size", "gpt2-nano", "--model.weights", "random", "--keep", "last"]
        first = TrainCommand(["fit", *words, "--model.class_weights", weights])
        Path("config.yaml").write_text(yaml.safe_dump(first.settings()))
        again = TrainCommand(["fit", "--config", "config.yaml"])
        for verbs in (first, again):
            verbs.model.take_labels(verbs.datamodule.label_names)
            verbs.model.weigh_classes(verbs.datamodule.splits["train"].label_ids)
            assert verbs.model._class_weights.tolist() == pytest.approx([0.5, 1.5])
