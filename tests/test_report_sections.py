"""What a report shows: every figure of report.json, and nothing that is not there."""

import json
from pathlib import Path

import pytest
from made_reports import hard_file, made_report, markdown_page

from lit_cls.data.datamodule import ClassificationData
from lit_cls.report.numbers import decimal, percent
from lit_cls.report.pages import render_markdown, visible

MAX_LABELS = 30


def words(content: dict) -> str:
    """All that the page says: a line for each row of a table, and the text."""
    page = markdown_page(render_markdown(content))
    for table in page.tables:
        assert {len(row) for row in table} == {len(table[0])}, table[0]
    return "\n".join([*(" ".join(row) for table in page.cells() for row in table), "".join(page.text)])


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("outline")
    made_report(folder, ClassificationData(path=hard_file(folder), max_length=64))
    read: dict = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    return read


def test_every_figure_is_shown(content: dict) -> None:
    told = words(content)
    figures = [content["figures"], *(part["figures"] for part in content["slices"])]
    figures += [baseline["figures"] for baseline in content["baselines"]]
    assert len(figures) == 1 + 4 + 3
    for one in figures[:5]:
        for name in ("accuracy", "balanced_accuracy", "f1_macro"):
            assert percent(one[name]) in told
        for name in ("mcc", "auroc", "average_precision", "log_loss", "calibration_error"):
            assert decimal(one[name]) in told
        for label in one["labels"]:
            assert all(percent(label[name]) in told for name in ("precision", "recall", "f1"))
    for baseline in figures[5:]:
        assert percent(baseline["accuracy"]) in told


def test_errors_hashes_and_settings_are_shown(content: dict) -> None:
    told = words(content)
    assert 0 < len(content["errors"]) <= 20
    for error in content["errors"]:
        assert " ".join(visible(error["text"]).split()) in told
        assert decimal(error["probability"]) in told
    for part in content["data"]["splits"]:
        assert part["sha256"] in told
    for line in (
        "data.split 0.7 0.1 0.2",
        "model.adapter none",
        "tested best.ckpt",
        "torch 2.13.0",
        "0" * 64,
        "--run_name 'a|b'",
    ):
        assert line in told
    assert "640 texts in 12.5 s" in told
    assert "Note: the file's head was left out." in told


def test_without_texts_there_are_no_figures(tmp_path: Path) -> None:
    content = made_report(tmp_path, ClassificationData(path=hard_file(tmp_path)), limit=0)
    told = words(content)
    assert "No test text was evaluated." in told
    assert "Figures on the test split" not in told
    assert "Model and data" in told


def test_many_labels_are_told_in_part(tmp_path: Path) -> None:
    labels = tuple(f"topic {k}" for k in range(40))
    content = made_report(tmp_path, ClassificationData(path=hard_file(tmp_path, labels, each=10)))
    told = words(content)
    assert f"The {MAX_LABELS} labels with the most texts; 10 more are in report.json." in told
    assert "The most frequent confusions" in told
    assert "topic 3: precision" not in told
    assert len(content["figures"]["confusion"]) == 40
