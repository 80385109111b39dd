"""One run from Python: what it shows and what it leaves in its folder."""

import csv
import json
from pathlib import Path

import pytest
from lightning.pytorch import seed_everything
from small_fits import data, module, trainer

from lit_cls.runs.run import Keep, Run
from lit_cls.training.checkpoints import read_checkpoint


def fit(tmp_path: Path, reviews: str, keep: Keep | None = "best", **options: object) -> tuple[Run, Path]:
    seed_everything(3, verbose=False)
    run = Run(tmp_path / "runs", "reviews", ["fit"], keep)
    texts = data(reviews, **options)
    run.fit(
        trainer(tmp_path, max_epochs=4, callbacks=run.callbacks(show_bar=False)),
        module(learning_rate=3e-3),
        texts,
    )
    return run, run.folder


def test_best_is_the_lowest_validation_loss_and_it_is_what_is_tested(tmp_path: Path, reviews: str) -> None:
    run, folder = fit(tmp_path, reviews)
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    losses = [float(row["val_loss"]) for row in rows if row["val_loss"]][:4]
    best = read_checkpoint(folder / "best.ckpt")
    assert best["lit_cls_run"]["place"]["epochs"] == 1 + min(range(4), key=losses.__getitem__)
    assert read_checkpoint(folder / "last.ckpt")["lit_cls_run"]["place"] == {"epochs": 4, "batches": 0, "steps": 40}
    # The figures are those of the kept weights, evaluated again from the file alone.
    again = Run(tmp_path / "runs", "again", ["test"])
    again.evaluate(
        trainer(tmp_path, callbacks=again.callbacks(show_bar=False)),
        module(learning_rate=3e-3),
        data(reviews),
        "test",
        folder / "best.ckpt",
    )
    predictions = [(path / "predictions_test.csv").read_text() for path in (folder, again.folder)]
    assert predictions[0] == predictions[1]
    assert run.epoch_log.texts_trained == 4 * 76


def test_source_rows_lead_back_to_the_file(tmp_path: Path, reviews: str) -> None:
    _, folder = fit(tmp_path, reviews, "last")
    lines = Path(reviews).read_text().splitlines()[1:]
    seen = []
    for split in ("train", "validation", "test"):
        with (folder / f"predictions_{split}.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                assert lines[int(row["source_row"]) - 1] == f"{row['text']},{row['label']}"
                seen.append(row["source_row"])
    assert len(seen) == len(set(seen)) == len(lines)


def test_truncated_texts_and_odd_choices_are_printed_and_stored(
    tmp_path: Path, reviews: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed_everything(3, verbose=False)
    run = Run(tmp_path / "runs", "cut", ["fit"])
    odd = module(token_position="last")
    run.fit(
        trainer(tmp_path, callbacks=run.callbacks(show_bar=False)), odd, data(reviews, max_length=6, truncation="tail")
    )
    out = " ".join(capsys.readouterr().out.split())
    assert "texts are longer than 6 tokens: their tail is read (data.truncation, data.max_length)" in out
    assert "token_position last reads pads" in out
    assert "note: no checkpoint was written: the weights in memory are tested" in out
    report = json.loads((run.folder / "report" / "report.json").read_text())
    cut = {part["name"]: part["cut"] for part in report["data"]["splits"]}
    assert f"{sum(cut.values())} texts are longer" in out
    assert all(0 < cut[part["name"]] < part["n"] for part in report["data"]["splits"])


def test_the_majority_baseline_is_the_train_splits(tmp_path: Path) -> None:
    path = tmp_path / "skewed.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{'a' if i % 4 else 'b'}\n" for i in range(80)))
    _, folder = fit(tmp_path, str(path), "last")
    rows = json.loads((folder / "report" / "report.json").read_text())["accuracy"]
    assert [(row["split"], row["majority"]) for row in rows] == [("train", 0.75), ("validation", 0.75), ("test", 0.75)]
