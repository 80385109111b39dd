"""The example that lies beside an ONNX graph, run as its user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from altered import TEXTS, altered, exportable

import lit_cls
from lit_cls.data.batches import truncate
from lit_cls.exports.classify import Classifier
from lit_cls.exports.onnx import write_onnx


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`mean` without a fixed length: the one choice whose texts cannot share a batch."""
    folder = tmp_path_factory.mktemp("classify")
    rows = "".join(f"{'good' if i % 2 else 'poor'} film {i},{'yes' if i % 2 else 'no'}\n" for i in range(40))
    (folder / "reviews.csv").write_text("text,label\n" + rows)
    path = altered(folder, str(folder / "reviews.csv"), {"token_position": "mean"}, {"max_length": 60})
    source, net, answers = exportable(path, folder / "out")
    (folder / "out").mkdir()
    write_onnx(source, net, answers, folder / "out", print)
    return path, folder / "out"


def test_it_runs_by_itself(exported: tuple[Path, Path], tmp_path: Path) -> None:
    path, out = exported
    texts = [" ".join(text.split()) for text in TEXTS[:4]]
    # Isolated: neither this folder nor the package's is on the path.
    run = [sys.executable, "-I", str(out / "classify.py"), *texts]
    done = subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True, encoding="utf-8")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    for [label, shares, shown], prediction, text in zip(lines, lit_cls.load(path).predict(texts), texts, strict=True):
        assert (label, shown) == (prediction.label, text)
        assert shares.split()[::2] == ["no", "yes"]
        assert [float(share) for share in shares.split()[1::2]] == pytest.approx(
            list(prediction.probabilities.values()), abs=1e-4
        )


def test_neighbours_do_not_matter_and_nothing_is_nothing(exported: tuple[Path, Path]) -> None:
    classifier = Classifier(exported[1])
    together, labels = classifier.classify(TEXTS)
    for text, row, label in zip(TEXTS, together, labels, strict=True):
        alone, [its] = classifier.classify([text])
        assert (its, alone[0].tolist()) == (label, row.tolist())
    nothing, none = classifier.classify([])
    assert (nothing.shape, len(none)) == ((0, 2), 0)


@pytest.mark.parametrize("keep", ["head", "tail", "head_tail"])
def test_texts_are_cut_as_in_training(keep: str, exported: tuple[Path, Path]) -> None:
    classifier = Classifier(exported[1])
    for most in (1, 2, 7):
        classifier.reading = {"cut_to": most, "truncation": keep}
        for length in (1, 2, 6, 7, 8, 20):
            assert classifier.cut(list(range(length))) == truncate(list(range(length)), most, keep)  # type: ignore[arg-type]
