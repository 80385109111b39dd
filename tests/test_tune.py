"""`lit_cls tune`: what it writes, what follows from that everywhere else, what it refuses."""

import contextlib
import csv
import json
import os
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import closed_pipe
from lightning.pytorch import seed_everything
from safetensors.torch import save_file
from small_fits import data, module, save

import lit_cls
from lit_cls.cli import main
from lit_cls.commands.tune import _candidates, _notes, _predictions, _tune
from lit_cls.data.datamodule import ClassificationData
from lit_cls.errors import UserError
from lit_cls.evaluation.tuning import Goal, choose_threshold, fit_temperature, parse_goal
from lit_cls.model.adapters import LoRA
from lit_cls.model.decision import Decision
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import RUN_KEY, decision_of, read_checkpoint

HINTS = {"no": "poor", "yes": "good", "maybe": "fair"}


def noisy(path: Path, counts: dict[str, int], wrong: float = 0.25, seed: int = 1) -> str:
    """Texts of very different lengths whose word hints at the label, and misleads in a share of them."""
    drawn = random.Random(seed)
    rows = []
    for label, n in counts.items():
        others = [word for other, word in HINTS.items() if other in counts and other != label]
        for _ in range(n):
            word = drawn.choice(others) if drawn.random() < wrong else HINTS[label]
            rows.append(f"{' '.join([word, 'film'] * drawn.randint(1, 6))} {drawn.randrange(10**6)},{label}")
    drawn.shuffle(rows)
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return str(path)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    seed_everything(7, verbose=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 220 texts, 40 % of them "yes"; what it is tuned on is neither all right nor all wrong."""
    seed_everything(7, verbose=False)
    folder = tmp_path_factory.mktemp("trained")
    texts = data(noisy(folder / "films.csv", {"no": 132, "yes": 88}), split=(0.5, 0.3, 0.2))
    return save(folder, module(learning_rate=3e-3), texts, max_epochs=3).rename(folder / "best.ckpt")


def three_files(folder: Path, validation: dict[str, int]) -> ClassificationData:
    counts = {"no": 60, "yes": 40, "maybe": 20}
    files = [
        noisy(folder / f"{name}.csv", part, seed=i)
        for i, (name, part) in enumerate({"train": counts, "validation": validation, "test": counts}.items())
    ]
    return ClassificationData(split=tuple(files))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def three_labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClassificationData]:
    """A checkpoint of three labels, and its three files."""
    seed_everything(7, verbose=False)
    texts = three_files(tmp_path_factory.mktemp("files"), {"no": 40, "yes": 30, "maybe": 20})
    return save(tmp_path_factory.mktemp("three"), module(), texts, max_epochs=2), texts


def tune(*words: object) -> None:
    assert main(["tune", *map(str, words)]) == 0


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main(["tune", *map(str, words)]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("lit_cls: error: ")
    assert not list(Path().glob("*.ckpt"))
    return told.err


def counted(predictions: Path, label: str) -> tuple[int, int, int]:
    """Rightly answered with the label, answered with it, of it."""
    with predictions.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    answered = [row for row in rows if row["predicted"] == label]
    return sum(row["label"] == label for row in answered), len(answered), sum(row["label"] == label for row in rows)


def test_tuned_answers_are_those_of_predict_test_and_validate(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained.read_bytes()
    tune("--ckpt_path", trained, "--out", "a.ckpt", "--goal", "recall>=0.95")
    told = capsys.readouterr().out
    assert trained.read_bytes() == before
    decision = decision_of(read_checkpoint("a.ckpt"))
    assert decision.goal == "recall>=0.95 for yes on 66 validation texts"
    assert "note: the goal is about yes, of which the source has fewer texts (88 of 220); --label names another" in told
    assert "on which this was tuned, and on which best.ckpt was chosen: expect less of new texts" in told
    assert f"predictions follow from: {decision.describe(['no', 'yes'])}" in told
    assert 'lit_cls predict --ckpt_path a.ckpt "a text"' in told

    # The same by hand, from the plain checkpoint.
    classifier = lit_cls.load(trained)
    texts = data(str(trained.with_name("films.csv")), split=(0.5, 0.3, 0.2))
    part = texts.splits["validation"]
    logits, labels = classifier.logits(part.rows.texts), np.array(part.label_ids)
    temperature, _ = fit_temperature(logits.numpy(), labels)
    shares = Decision(temperature).probabilities(logits)
    reached = choose_threshold(shares.numpy(), labels, 1, parse_goal("recall>=0.95", ["no", "yes"]))
    assert (decision.temperature, decision.threshold) == (temperature, reached.threshold)
    assert reached.correct / reached.of_label >= 0.95 > 0.9 > (shares.argmax(1).numpy() == 1)[labels == 1].mean()

    for verb, split, stage in (("validate", "validation", "val"), ("test", "test", "test")):
        assert main([verb, "--ckpt_path", "a.ckpt", "--run_name", verb]) == 0
        rule = decision.describe(["no", "yes"])
        assert f"note: predictions follow the checkpoint's tuning: {rule}" in capsys.readouterr().out
        folder = Path("checkpoints", verb, "version_0")
        report = json.loads((folder / "report" / "report.json").read_text())
        assert report["decision"] == {**asdict(decision), "told": decision.describe(["no", "yes"])}
        right, answered, of_label = counted(folder / f"predictions_{split}.csv", "yes")
        if split == "validation":
            assert (right, answered, of_label) == (reached.correct, reached.predicted, reached.of_label)
        answers = lit_cls.load("a.ckpt").predict(texts.splits[split].rows.texts)  # type: ignore[arg-type]
        with (folder / f"predictions_{split}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["predicted"] for row in rows] == [answer.label for answer in answers]
        assert [float(row["probability_yes"]) for row in rows] == pytest.approx(
            [answer.probabilities["yes"] for answer in answers], abs=1e-5
        )
        n_right = sum(row["predicted"] == row["label"] for row in rows)
        assert [entry["correct"] for entry in report["accuracy"]] == [n_right]
        with (folder / "metrics.csv").open(newline="") as stream:
            [metrics] = list(csv.DictReader(stream))
        assert float(metrics[f"{stage}_acc"]) == pytest.approx(n_right / len(rows), abs=1e-4)


def test_a_plain_checkpoint_says_nothing_of_tuning(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--ckpt_path", str(trained), "--run_name", "plain"]) == 0
    assert "tuning" not in capsys.readouterr().out
    report = json.loads(Path("checkpoints/plain/version_0/report/report.json").read_text())
    assert report["decision"] == {**asdict(Decision()), "told": None}


def test_nothing_is_overwritten_and_a_second_tuning_starts_anew(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("run")
    folder.mkdir()
    source = folder / "last.ckpt"
    source.write_bytes(trained.read_bytes())
    tune("--ckpt_path", source)
    assert "on which this was tuned: expect less of new texts" in capsys.readouterr().out  # last.ckpt is not chosen
    tune("--ckpt_path", source, "--goal", "precision>=0.6")
    first, second = (decision_of(read_checkpoint(folder / name)) for name in ("tuned.ckpt", "tuned_1.ckpt"))
    assert first != second
    capsys.readouterr()
    tune("--ckpt_path", folder / "tuned_1.ckpt")
    assert decision_of(read_checkpoint(folder / "tuned_2.ckpt")) == first
    told = capsys.readouterr().out
    assert f"tuned_1.ckpt was tuned before ({second.describe(['no', 'yes'])}): that is ignored" in told
    assert "and on which the checkpoint may have been chosen" in told
    tuned = read_checkpoint(folder / "tuned.ckpt")
    assert not {"optimizer_states", "callbacks", RUN_KEY} & set(tuned)
    assert (folder / "tuned.ckpt").stat().st_size < 0.5 * source.stat().st_size


def test_no_training_resumes_from_it(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune("--ckpt_path", trained, "--out", "a.ckpt")
    capsys.readouterr()
    assert main(["fit", "--ckpt_path", "a.ckpt"]) == 2
    assert "no training can be resumed from it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model_options", "data_options", "weights"),
    [
        ({"trainable_layers": "last_block"}, {}, "file"),
        ({"adapter": LoRA(2)}, {"padding": 20}, "file"),
        ({"token_position": "mean"}, {"padding": "none", "batch_size": 1, "max_length": 6}, "random"),
    ],
)
def test_every_kind_of_checkpoint(tmp_path: Path, model_options: dict, data_options: dict, weights: str) -> None:
    """Figures chosen through `load` hold in Lightning's validation."""
    if weights == "file":
        weights = str(tmp_path / "base.safetensors")
        save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), weights)
    texts = data(noisy(tmp_path / "films.csv", {"no": 70, "yes": 50}), split=(0.4, 0.5, 0.1), **data_options)
    path = save(tmp_path, module(weights=weights, **model_options), texts, limit_train_batches=4)
    tune("--ckpt_path", path, "--goal", "recall>=0.8", "--label", "yes", "--out", "a.ckpt")
    if weights != "random":
        assert "net.backbone.tok_emb.weight" not in read_checkpoint("a.ckpt")["state_dict"]
    assert main(["validate", "--ckpt_path", "a.ckpt", "--trainer.precision", "32-true"]) == 0
    right, answered, of_label = counted(Path("checkpoints/fit/version_0/predictions_validation.csv"), "yes")
    assert right / of_label >= 0.8
    part = texts.splits["validation"]
    classifier = lit_cls.load("a.ckpt")
    shares = classifier.decision.probabilities(classifier.logits(part.rows.texts))
    expected = classifier.decision.labels(shares)
    assert answered == int((expected == 1).sum())


def test_what_a_balanced_split_hides_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of as many texts of each label 80 % precision, say; of texts as they come, 1 in 10, far less."""
    path = noisy(tmp_path / "films.csv", {"no": 720, "yes": 80})
    texts = ClassificationData(path=path, split=(0.3, 0.5, 0.2))
    tune("--ckpt_path", save(tmp_path, module(), texts, limit_train_batches=4), "--label", "yes", "--out", "a.ckpt")
    told = " ".join(capsys.readouterr().out.split())
    assert "note: the validation split is 50.0% yes, the source 10.0% (data.balance)" in told
    part = texts.splits["validation"]
    answers = np.array([p.label == "yes" for p in lit_cls.load("a.ckpt").predict(part.rows.texts)])
    labels = np.array(part.label_ids) == 1
    right, false = answers[labels].mean(), answers[~labels].mean()
    assert f"about {0.1 * right / (0.1 * right + 0.9 * false):.1%} of the predictions of yes would be correct" in told
    assert "note: the validation split has only 40 texts of yes: each is 2.5 points of recall" in told


def test_a_claim_that_so_few_texts_cannot_support(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune("--ckpt_path", trained, "--goal", "precision>=0.6", "--out", "a.ckpt")
    told = capsys.readouterr().out
    assert "% or more (95 %), they do not show 60.0%; without an error, 6 would be needed" in told
    tune("--ckpt_path", trained, "--goal", "recall>=1", "--out", "b.ckpt")
    assert "they do not show 100.0%; no number of texts could" in capsys.readouterr().out


def test_where_every_prediction_is_correct_the_temperature_stays(tmp_path: Path, reviews: str) -> None:
    parts = data(reviews).split_data
    labels = np.array(parts.splits["validation"].label_ids)
    logits = torch.from_numpy(np.eye(2)[labels] * 3 - 1).float()
    tuning = _tune(logits, labels, [1], parse_goal("precision>=0.99", ["no", "yes"]), ["no", "yes"])
    assert tuning.decision.temperature == 1
    # The middle between the probabilities of logits 3 apart.
    assert tuning.decision.threshold == pytest.approx(0.5, abs=1e-6)
    given = _predictions(tuning.decision, logits, labels, ["no", "yes"])
    notes = _notes(tmp_path / "a.ckpt", Decision(), parts, tuning, given, named=True)
    assert notes[0].startswith("temperature: every prediction is correct, so any lower temperature would fit better")


def test_three_labels(three_labels: tuple[Path, ClassificationData], capsys: pytest.CaptureFixture[str]) -> None:
    path, texts = three_labels
    capsys.readouterr()
    assert main(["tune", "--ckpt_path", str(path), "--out", "a.ckpt"]) == 2
    told = capsys.readouterr().err
    assert "there are 3 labels: name the one that the goal is about, --label maybe or --label no or --label yes" in told

    tune("--ckpt_path", path, "--label", "maybe", "--goal", "f1", "--out", "f1.ckpt")
    assert decision_of(read_checkpoint("f1.ckpt")).label == 0
    # What a wrong "maybe" costs makes it the answer more often; no cheaper rule of one label is overlooked.
    goal = "cost maybe=20,no=1,yes=1"
    tune("--ckpt_path", path, "--goal", goal, "--out", "cost.ckpt")
    decision = decision_of(read_checkpoint("cost.ckpt"))
    part = texts.splits["validation"]
    logits, labels = lit_cls.load(path).logits(part.rows.texts), np.array(part.label_ids)
    shares = Decision(decision.temperature).probabilities(logits)
    prices = np.array([20, 1, 1])
    costs = {}
    for label in range(3):
        for threshold in np.linspace(1e-4, 0.9999, 2001):
            answers = Decision(label=label, threshold=float(threshold)).labels(shares).numpy()
            costs[label, threshold] = prices[labels[answers != labels]].sum()
    plain = prices[labels[shares.argmax(1).numpy() != labels]].sum()
    mine = prices[labels[decision.labels(shares).numpy() != labels]].sum()
    assert mine <= min([plain, *costs.values()])
    assert mine < plain
    assert decision.goal == f"{goal} on 90 validation texts"


def test_three_files_that_have_moved(
    three_labels: tuple[Path, ClassificationData], capsys: pytest.CaptureFixture[str]
) -> None:
    path, texts = three_labels
    tune("--ckpt_path", path, "--label", "yes", "--out", "a.ckpt")
    shutil.copytree(Path(texts.options.split[0]).parent, "new")  # type: ignore[arg-type]
    capsys.readouterr()
    tune("--ckpt_path", path, "--label", "yes", "--out", "b.ckpt", "--data.path", "new")
    files = "[new/train.csv, new/validation.csv, new/test.csv]"
    tune("--ckpt_path", path, "--label", "yes", "--out", "c.ckpt", "--data.path", files)
    assert "is not the one that" not in capsys.readouterr().out
    first, *others = (decision_of(read_checkpoint(f"{name}.ckpt")) for name in "abc")
    assert others == [first, first]
    for file in Path().glob("*.ckpt"):
        file.unlink()
    told = refused(capsys, "--ckpt_path", path, "--label", "yes", "--data.path", "new/train.csv")
    assert "--data.path new/train.csv: it was trained on three files, " in told
    assert "--data.path '[train.csv,validation.csv,test.csv]'" in told


def test_the_checkpoint_is_written_before_anything_is_told_of_it(trained: Path) -> None:
    """Whoever reads what it prints may stop reading."""
    reader, writer = os.pipe()
    os.close(reader)
    with (
        open(writer, "w", buffering=1) as closed,
        contextlib.redirect_stdout(closed),
        contextlib.suppress(SystemExit),
    ):
        main(["tune", "--ckpt_path", str(trained), "--label", "yes", "--out", "a.ckpt"])
    assert decision_of(read_checkpoint("a.ckpt")).goal.startswith("f1 for yes")


def test_costs_that_no_threshold_lowers_leave_it_out(
    three_labels: tuple[Path, ClassificationData], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The only label whose texts cost anything is always predicted."""
    content = dict(read_checkpoint(three_labels[0]))
    state = dict(content["state_dict"])
    state["net.out_head.bias"] = torch.tensor([0.0, 50.0, 0.0])
    AtomicCheckpointIO().save_checkpoint({**content, "state_dict": state}, tmp_path / "one.ckpt")
    tune("--ckpt_path", tmp_path / "one.ckpt", "--goal", "cost maybe=0,yes=0,no=1", "--out", "a.ckpt")
    assert decision_of(read_checkpoint("a.ckpt")).label is None
    assert "no threshold of one label costs less than the most probable label" in capsys.readouterr().out


def test_a_label_without_validation_texts(
    three_labels: tuple[Path, ClassificationData], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = three_labels
    three_files(tmp_path, {"no": 40, "yes": 30})
    tune("--ckpt_path", path, "--label", "yes", "--out", "a.ckpt", "--data.path", tmp_path)
    told = capsys.readouterr().out
    assert "note: the validation split has no text of maybe: no figure is about these" in told
    assert main(["tune", "--ckpt_path", str(path), "--label", "maybe", "--out", "b.ckpt", "--data.path", "."]) == 2
    assert "nothing can be tuned for the label: the split has no text of it" in capsys.readouterr().err
    assert not Path("b.ckpt").exists()


def test_the_test_split_is_not_used(three_labels: tuple[Path, ClassificationData], tmp_path: Path) -> None:
    path, _ = three_labels
    three_files(tmp_path, {"no": 40, "yes": 30, "maybe": 20})
    tune("--ckpt_path", path, "--label", "yes", "--out", "a.ckpt", "--data.path", tmp_path)
    noisy(tmp_path / "test.csv", {"no": 5, "yes": 90, "maybe": 5}, wrong=1.0, seed=9)
    tune("--ckpt_path", path, "--label", "yes", "--out", "b.ckpt", "--data.path", tmp_path)
    assert decision_of(read_checkpoint("a.ckpt")) == decision_of(read_checkpoint("b.ckpt"))


def test_data_that_has_moved(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = dict(read_checkpoint(trained))
    settings = {**content["ClassificationData"], "settings": {**content["ClassificationData"]["settings"]}}
    settings["settings"]["path"] = str(tmp_path / "gone.csv")
    AtomicCheckpointIO().save_checkpoint({**content, "ClassificationData": settings}, tmp_path / "moved" / "best.ckpt")
    assert "there is no file" in refused(capsys, "--ckpt_path", "moved/best.ckpt")
    here = trained.with_name("films.csv")
    tune("--ckpt_path", "moved/best.ckpt", "--data.path", here)
    assert "is not the one that" not in capsys.readouterr().out
    tune("--ckpt_path", trained, "--out", "a.ckpt")
    assert decision_of(read_checkpoint("moved/tuned.ckpt")) == decision_of(read_checkpoint("a.ckpt"))
    Path("a.ckpt").unlink()
    noisy(tmp_path / "other.csv", {"no": 99, "yes": 55})
    tune("--ckpt_path", "moved/best.ckpt", "--data.path", "other.csv")
    assert "note: the validation split is not the one that moved/best.ckpt was trained with" in capsys.readouterr().out
    noisy(tmp_path / "other.csv", {"no": 60, "maybe": 60})
    told = refused(capsys, "--ckpt_path", "moved/best.ckpt", "--data.path", "other.csv")
    assert "the checkpoint knows the labels no, yes; the data has maybe, no" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--goal", "accuracy"], "--goal 'accuracy' is not a goal: give precision>=X"),
        (["--goal", "cost good=3"], "labels of the checkpoint: 'no', 'yes'"),
        (["--label", "Yes"], "--label 'Yes' is not a label of the checkpoint: no, yes"),
        (["--out", "{here}/films.csv"], "films.csv exists already, and nothing is overwritten"),
        (["--out", "last.ckpt"], "last.ckpt is what a training saves"),
        (["--out", f"{'a' * 250}"], "cannot be created: File name too long"),
        (["--out", f"{'a' * 300}/a.ckpt"], "there is no folder a"),
        (["--label", "yes", "--label", "no"], "--label is given 2 times ('yes', 'no'): a goal is about one"),
        (["--out", "nowhere/a.ckpt"], "there is no folder nowhere"),
        (["--ckpt_path", "none.ckpt"], "there is no checkpoint none.ckpt"),
        (["--data.path", "none.csv"], "there is no file"),
        (["--treshold", "0.5"], "unrecognized arguments: --treshold 0.5; lit_cls tune --help"),
    ],
)
def test_what_is_refused(trained: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [word.format(here=trained.parent) for word in words]
    assert message in refused(capsys, "--ckpt_path", trained, *given)


def test_the_rarer_label_is_the_default(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With as many texts of each label there is none."""
    here = noisy(tmp_path / "films.csv", {"no": 50, "yes": 50})
    told = refused(capsys, "--ckpt_path", trained, "--data.path", here)
    assert (
        "the source has 50 texts of each label: name the one that the goal is about, --label no or --label yes" in told
    )
    # With costs, either label gives the same rule.
    tune("--ckpt_path", trained, "--data.path", here, "--goal", "cost yes=5", "--out", "a.ckpt")


def test_labels_of_several_words_are_quoted(tmp_path: Path) -> None:
    lines = [f"film {i},{'not good' if i % 2 else 'good'}" for i in range(40)]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *lines]))
    with pytest.raises(UserError, match="name the one that the goal is about, --label good or --label 'not good'"):
        _candidates(Goal("f1"), data(str(tmp_path / "films.csv")).split_data)


def test_a_goal_that_no_threshold_reaches(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every text has the same probability: yes is all of them or none."""
    content = dict(read_checkpoint(trained))
    state = {
        **content["state_dict"],
        "net.out_head.weight": torch.zeros_like(content["state_dict"]["net.out_head.weight"]),
    }
    (tmp_path / "run").mkdir()
    AtomicCheckpointIO().save_checkpoint({**content, "state_dict": state}, tmp_path / "run" / "a.ckpt")
    told = refused(capsys, "--ckpt_path", "run/a.ckpt", "--goal", "precision>=0.99")
    assert (
        "no threshold reaches precision>=0.99 on the 66 texts: the highest precision is 0.3939, with a recall of"
        in told
    )
    assert not Path("run/tuned.ckpt").exists()


def test_a_network_that_has_failed(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = dict(read_checkpoint(trained))
    state = {**content["state_dict"], "net.out_head.bias": torch.full((2,), torch.nan)}
    (tmp_path / "run").mkdir()
    AtomicCheckpointIO().save_checkpoint({**content, "state_dict": state}, tmp_path / "run" / "a.ckpt")
    assert "are not numbers: its training has diverged" in refused(capsys, "--ckpt_path", "run/a.ckpt")


def test_a_full_disk_is_no_traceback(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert main(["tune", "--ckpt_path", str(trained), "--out", "a.ckpt"]) == 1
    assert "a.ckpt could not be written: No space left on device" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_a_closed_pipe_takes_no_checkpoint_away(trained: Path) -> None:
    with closed_pipe():
        tune("--ckpt_path", trained, "--out", "a.ckpt")
    assert decision_of(read_checkpoint(Path("a.ckpt"))).label is not None
