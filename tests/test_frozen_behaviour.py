"""What the code of commit edfeaf0 computed, bit by bit: answers of its checkpoints, and runs (see tests/frozen).

Where floating point works as on the machine that made the data, everything is compared exactly, elsewhere within
1e-4.
"""

import csv
import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from frozen.stored import (
    COMMANDS,
    FILES,
    HERE,
    OF_FILE,
    SPLITS,
    WEIGHTS,
    continued_words,
    fingerprint,
    fit_words,
    stored_checkpoint,
    unpack,
)

import lit_cls
from lit_cls.cli import main

TOLERANCE = 1e-4
BFLOAT16 = 0.05
"""Two roundings to 8 bits apart; met only where bfloat16 is computed otherwise, or not at all."""
ANSWERS: dict[str, Any] = json.loads((HERE / "answers.json").read_text(encoding="utf-8"))
CHECKPOINTS = tuple(COMMANDS["checkpoints"])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums are split among threads: with another number of them, other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def is_exact() -> bool:
    return fingerprint() == ANSWERS["machine"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(WEIGHTS, tmp_path_factory.mktemp("weights") / "weights.safetensors")


def loaded(name: str, folder: Path, weights: Path, precision: str | None = None) -> Any:
    file = weights if name in OF_FILE else None
    return lit_cls.load(stored_checkpoint(name, folder), weights=file, precision=precision)


def assert_same_logits(got: torch.Tensor, name: str) -> None:
    expected = torch.tensor(ANSWERS["checkpoints"][name]["logits"])
    tolerance = 0.0 if is_exact() else TOLERANCE
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


def assert_same_table(got: bytes, expected: bytes) -> None:
    """The same csv, but for rounding of numbers that are no integers; a label may change where two are as likely."""
    rows, expected_rows = (list(csv.reader(io.StringIO(content.decode()))) for content in (got, expected))
    assert rows[0] == expected_rows[0]
    assert len(rows) == len(expected_rows)
    columns = rows[0]
    probable = [at for at, column in enumerate(columns) if column.startswith("probability_")]
    for row, expected_row in zip(rows[1:], expected_rows[1:], strict=True):
        first, second = sorted((float(expected_row[at]) for at in probable), reverse=True)[:2] if probable else (1, 0)
        for column, cell, expected_cell in zip(columns, row, expected_row, strict=True):
            if column.startswith(("probability_", "train_", "val_", "test_")) and cell and expected_cell:
                assert float(cell) == pytest.approx(float(expected_cell), abs=TOLERANCE, rel=TOLERANCE), column
            elif column != "predicted" or first - second > 2 * TOLERANCE:
                assert cell == expected_cell, column


def assert_same_file(got: Path, expected: Path) -> None:
    if is_exact():
        assert got.read_bytes() == expected.read_bytes()
    else:
        assert_same_table(got.read_bytes(), expected.read_bytes())


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_of_a_checkpoint(name: str, tmp_path: Path, weights: Path) -> None:
    assert_same_logits(loaded(name, tmp_path, weights, "32-true").logits(ANSWERS["texts"]), name)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_predictions_of_a_checkpoint(name: str, tmp_path: Path, weights: Path) -> None:
    classifier = loaded(name, tmp_path, weights)
    expected = ANSWERS["checkpoints"][name]
    tolerance = BFLOAT16 if expected["precision"] == "bf16-mixed" else TOLERANCE
    if is_exact():
        assert classifier.precision == expected["precision"]
        tolerance = 0.0
    predictions = classifier.predict(ANSWERS["texts"])
    assert len(predictions) == len(expected["predictions"])
    for got, stored in zip(predictions, expected["predictions"], strict=True):
        assert list(got.probabilities) == list(stored["probabilities"])  # the order too
        assert got.probabilities == pytest.approx(stored["probabilities"], abs=tolerance, rel=0)
        assert got.truncated == stored["truncated"]
        assert is_exact_or_near(got, stored, tolerance)


def is_exact_or_near(got: Any, stored: dict[str, Any], tolerance: float) -> bool:
    """Whether the label is the same; elsewhere than on the same machine a probability may cross a threshold."""
    changed = {got.label, stored["label"]}
    return len(changed) == 1 or (tolerance > 0 and min(stored["probabilities"][name] for name in changed) > 0.2)


def run_of(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    assert main(words) == 0
    return folder / "run" / "version_0"


@pytest.mark.parametrize("name", COMMANDS["fits"])
def test_a_fit(name: str, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(fit_words("fits", name, tmp_path, weights), tmp_path, monkeypatch)
    for file in FILES:
        assert_same_file(run / file, HERE / "fits" / name / file)


@pytest.mark.parametrize("name", COMMANDS["continued"])
def test_a_fit_that_continues(name: str, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = stored_checkpoint(name, tmp_path)
    run = run_of(continued_words(name, checkpoint, tmp_path, weights), tmp_path, monkeypatch)
    assert_same_file(run / "metrics.csv", HERE / "continued" / f"{name}.metrics.csv")


def test_everything_stored_is_compared() -> None:
    stored = {path.relative_to(HERE).as_posix() for path in HERE.rglob("*") if path.suffix in (".csv", ".xz")}
    fits = {f"fits/{name}/{file}" for name in COMMANDS["fits"] for file in FILES}
    continued = {
        f"{part}/{name}.metrics.csv" for part in ("checkpoints", "continued") for name in COMMANDS["continued"]
    }
    checkpoints = {f"checkpoints/{name}.ckpt.xz" for name in CHECKPOINTS}
    assert stored == {"texts.csv", "weights.safetensors.xz"} | fits | continued | checkpoints
    assert set(ANSWERS["checkpoints"]) == set(CHECKPOINTS)
    assert len(FILES) == 1 + len(SPLITS)


def test_a_changed_weight_is_noticed(tmp_path: Path, weights: Path) -> None:
    path = stored_checkpoint("last_block", tmp_path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["net.trf_blocks.1.att.W_value.weight"][3, 5] += 0.1
    torch.save(content, path.with_name("changed.ckpt"))
    logits = lit_cls.load(path.with_name("changed.ckpt"), precision="32-true").logits(ANSWERS["texts"])
    with pytest.raises(AssertionError, match="not (equal|close)"):
        assert_same_logits(logits, "last_block")


def test_tables_within_the_tolerance() -> None:
    expected = b"source_row,text,label,predicted,probability_a,probability_b\n7,so,a,a,0.60000,0.40000\n"
    assert_same_table(expected.replace(b"0.60000", b"0.60005"), expected)
    for wrong in ((b"0.60000", b"0.60100"), (b"so", b"as"), (b"a,a", b"a,b"), (b"7,", b"8,"), (b"7,so", b"7,s,o")):
        with pytest.raises((AssertionError, ValueError)):
            assert_same_table(expected.replace(*wrong), expected)
    tied = expected.replace(b"0.60000,0.40000", b"0.50001,0.49999")
    assert_same_table(tied.replace(b"a,a", b"a,b"), tied)
