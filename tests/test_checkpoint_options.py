"""Which checkpoint a command is about."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from small_fits import data, module, save

from lit_cls.commands.checkpoint_options import (
    TrainedCheckpoint,
    add_checkpoint_options,
    add_data_option,
    open_checkpoint,
)
from lit_cls.commands.parser import CommandParser
from lit_cls.errors import UserError
from lit_cls.model.decision import Decision
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import DECISION_KEY, read_checkpoint

TOLD = "texts that it was trained on may be in it"


def trained(words: list[str], told: list[str] | None = None) -> TrainedCheckpoint:
    parser = CommandParser("explain", "")
    add_checkpoint_options(parser)
    add_data_option(parser)
    return open_checkpoint("explain", parser.parse_args(words), words, [].append if told is None else told.append)


@pytest.fixture
def saved(tmp_path: Path, reviews: str) -> Path:
    return save(tmp_path, module(), data(reviews))


def test_a_path_and_names_come_to_the_same_file(tmp_path: Path, saved: Path) -> None:
    folder = tmp_path / "runs" / "film" / "version_2"
    folder.mkdir(parents=True)
    best = saved.rename(folder / "best.ckpt")
    config = tmp_path / "film.yaml"
    config.write_text(
        f"trainer:\n  default_root_dir: {tmp_path / 'runs'}\n  precision: 32-true\ndata: {{path: x.csv}}\n"
    )
    by_path, by_config = trained(["--ckpt_path", str(best)]), trained(["--config", str(config), "--ckpt_path", "best"])
    by_name = trained(
        ["--run_name", "film", "--trainer.default_root_dir", str(folder.parent.parent), "--ckpt_path=best"]
    )
    assert by_path.path == by_config.path == by_name.path == best
    assert (by_path.precision, by_config.precision) == (None, "32-true")
    assert by_config.classifier().predict(["good film"])[0].label in ("no", "yes")


def test_the_splits_are_those_it_was_trained_on(tmp_path: Path, reviews: str, saved: Path) -> None:
    told: list[str] = []
    found = trained(["--ckpt_path", str(saved)])
    part = found.validation_split(told.append)
    assert part.rows.texts == data(reviews).splits["validation"].rows.texts
    assert not told
    moved = Path(reviews).rename(tmp_path / "moved.csv")
    with pytest.raises(UserError, match="there is no file"):
        found.validation_split(told.append)
    found = trained(["--ckpt_path", str(saved), "--data.path", str(moved)])
    assert found.validation_split(told.append).sha256 == part.sha256
    moved.write_text(moved.read_text() + "a new one,yes\n")
    found.validation_split(told.append)
    assert told == [f"note: the validation split is not the one that {saved} was trained with: {TOLD}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "lit_cls fit --data.path FILE"),
        (["--config", "{root}/none.yaml"], "there is no file"),
        (["--config", "{root}/bad.yaml"], "cannot be read as a configuration"),
        (["--config", "{root}/list.yaml"], "it has no options"),
        (["--ckpt_path", "best", "--config={root}/film.yaml"], "lit_cls fit --config={root}/film.yaml"),
        (["--ckpt_path", "best", "-c", "{root}/film.yaml"], "lit_cls fit -c {root}/film.yaml"),
        (["--ckpt_path", "none.ckpt"], "there is no checkpoint none.ckpt"),
        (["--trainer.accelerator", "quantum"], "invalid choice: 'quantum'.*lit_cls explain --help"),
    ],
)
def test_what_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "film.yaml").write_text(f"trainer: {{default_root_dir: {tmp_path}}}\n")
    with pytest.raises(UserError, match=message.format(root=tmp_path)):
        trained([word.format(root=tmp_path) for word in words] + ["--run_name", "none"])


def test_a_device_that_is_not_there(saved: Path) -> None:
    with pytest.raises(UserError, match="this machine has none"):
        trained(["--ckpt_path", str(saved), "--trainer.accelerator", "cuda"])


def test_the_decision_travels_with_the_checkpoint(tmp_path: Path, saved: Path) -> None:
    checkpoint = dict(read_checkpoint(saved))
    decision = Decision(2.0, 0, 0.999, "a test")
    AtomicCheckpointIO().save_checkpoint({**checkpoint, DECISION_KEY: asdict(decision)}, tmp_path / "tuned.ckpt")
    plain, tuned = (trained(["--ckpt_path", str(path)]).classifier() for path in (saved, tmp_path / "tuned.ckpt"))
    assert tuned.decision == decision
    before, after = plain.predict(["good film 3"])[0], tuned.predict(["good film 3"])[0]
    odds = [torch.tensor(list(p.probabilities.values())).logit()[0].item() for p in (before, after)]
    assert odds[1] == pytest.approx(odds[0] / 2, abs=1e-4)
    assert after.label == "yes"


@pytest.mark.parametrize(
    "change", [{"temperature": 0.0}, {"threshold": float("nan")}, {"label": 2}, {"label": "spam"}, {"goal": 3}]
)
def test_a_decision_that_is_none(tmp_path: Path, saved: Path, change: dict[str, object]) -> None:
    content = {**read_checkpoint(saved), DECISION_KEY: {**asdict(Decision(1.0, 1, 0.5, "")), **change}}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "changed.ckpt")
    with pytest.raises(UserError, match="damaged: lit_cls_decision"):
        read_checkpoint(tmp_path / "changed.ckpt")


def test_neither_lightning_nor_transformers_is_waited_for() -> None:
    code = "import sys, lit_cls.commands.checkpoint_options\n"
    code += "assert not {'lightning', 'transformers', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
