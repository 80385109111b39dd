"""Pictures that can be opened, whatever labels are called; what they show, a person has to look at."""

import re
import warnings
import xml.etree.ElementTree as ET

import pytest
import torch
from test_figures import predictions

from lit_cls.evaluation.figures import Predictions, figures_of
from lit_cls.report.plots import Plot, draw_evaluation, draw_learning, ranked_classes, short

ROWS = [
    {"epoch": "0", "step": "9", "train_loss_step": "0.7"},
    {"epoch": "0", "step": "11", "val_loss": "0.6", "val_acc": "0.5"},
    {"epoch": "0", "step": "11", "train_loss": "0.65"},
    {"epoch": "1", "step": "12", "test_loss": "0.5", "test_acc": "0.8"},
    {"epoch": "1", "step": "12", "val_loss": "9.5", "val_acc": "0.1"},
]


def drawn(given: Predictions) -> dict[str, Plot]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {
            picture.file.removesuffix(".svg"): picture for picture in draw_evaluation(given, figures_of(given), "test")
        }


def words(picture: Plot) -> list[str]:
    root = ET.fromstring(picture.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 4
    return [text.strip() for text in root.itertext() if text.strip()]


@pytest.mark.parametrize("n_classes", [2, 3, 13, 100])
def test_three_pictures_of_an_evaluation(n_classes: int) -> None:
    given = predictions(500, n_classes)
    pictures = drawn(given)
    assert list(pictures) == ["confusion", "reliability", "curves"]
    for picture in pictures.values():
        assert "n = 500" in " ".join(words(picture))
    assert ("label 1" in words(pictures["confusion"])) is (n_classes <= 30)
    curves = " ".join(words(pictures["curves"]))
    assert curves.count(": area ") == (1 if n_classes == 2 else min(6, n_classes))
    assert ("positive: label 0" in curves) is (n_classes == 2)
    assert ("6 of 13 labels" in curves) is (n_classes == 13)
    if n_classes <= 12:
        cells = {str(n) for row in figures_of(given).confusion for n in row}
        assert cells <= set(words(pictures["confusion"]))


def test_labels_may_be_called_anything() -> None:
    names = ("$x$ & <b>", "世界🙂", "nul\x00 bell\x07\nline", "long " * 50)
    given = predictions(200, 4)
    pictures = drawn(Predictions(given.probabilities, given.labels, given.predicted, names))
    told = words(pictures["confusion"])
    assert {"$x$ & <b>", "世界🙂", "nul� bell��line", short("long " * 50)} <= set(told)
    assert len(short("long " * 50)) == 18


def test_the_same_figures_give_the_same_bytes() -> None:
    one, other = drawn(predictions(100, 3)), drawn(predictions(100, 3))
    assert [picture.svg for picture in one.values()] == [picture.svg for picture in other.values()]
    assert not re.search(r"metadata|Matplotlib v", one["curves"].svg)


def test_what_has_no_curve_is_left_out() -> None:
    given = predictions(60, 3)
    of_two = given.where((given.labels != 2).tolist())
    assert ranked_classes(of_two, figures_of(of_two)) == [0, 1]
    of_one = given.where((given.labels == 0).tolist())
    assert list(drawn(of_one)) == ["confusion", "reliability"]
    assert drawn(given.where([False] * 60)) == {}
    broken = Predictions(torch.full((60, 3), torch.nan), given.labels, given.predicted, given.label_names)
    assert list(drawn(broken)) == ["confusion"]


def test_learning_curves_end_with_the_training() -> None:
    """What is logged when the kept weights are evaluated belongs to no step of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [picture] = draw_learning(ROWS)
        assert draw_learning(ROWS[:3]) == [picture]
        assert {"train_loss", "val_loss", "train_loss_step", "optimizer step", "val_acc"} <= set(words(picture))
        assert draw_learning(ROWS[3:]) == []
        assert draw_learning([]) == []
        draw_learning([{"step": "0", "train_loss": "nan"}, {"step": "1", "train_loss": "inf"}])
