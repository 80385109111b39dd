"""A training that was left and entered again ends as one that was never left: bit by bit."""

import signal
from pathlib import Path

import pytest
from safetensors.torch import save_file
from stopped_runs import CPU, NANO, At, assert_same, fit

from lit_cls.commands.train import TrainCommand
from lit_cls.experiments.verify_resume import compare_runs
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoints import read_checkpoint
from lit_cls.training.signals import Stopped

TERM, DEATH = signal.SIGTERM, None


def words(reviews: str, folder: Path, *options: str) -> list[str]:
    data = ["--data.path", reviews, "--data.balance", "none", "--trainer.max_epochs", "3"]
    return [*data, *NANO, *CPU, "--trainer.default_root_dir", str(folder), *options]


ALL_MOMENTS = [
    ("on_train_batch_end", 3, TERM),
    ("on_train_batch_end", 6, DEATH),
    ("on_validation_batch_end", 1, TERM),
    ("on_train_batch_start", 3, TERM),
    ("on_train_epoch_end", 1, DEATH),
    ("on_test_batch_end", 1, TERM),
    ("on_predict_batch_end", 1, DEATH),
]
ALL_OPTIONS = [
    ["--model.trainable_layers", "last_layer"],
    ["--model.trainable_layers", "last_block"],
    ["--model.trainable_layers", "last_block", "--model.fast", "false"],
    ["--model.trainable_layers", "last_block", "--model.cache_gb", "0"],
    ["--model.trainable_layers", "last_block", "--model.cache_dir", "kept"],
    ["--model.trainable_layers", "last_two_blocks", "--model.drop_rate", "0.1"],
    ["--model.trainable_layers", "1", "--data.num_workers", "2"],
    ["--model.trainable_layers", "all", "--model.drop_rate", "0.1", "--data.num_workers", "2"],
    ["--model.trainable_layers", "all", "--trainer.accumulate_grad_batches", "3"],
    ["--model.trainable_layers", "all", "--trainer.precision", "bf16-mixed", "--keep", "last"],
    ["--model.trainable_layers", "all", "--trainer.val_check_interval", "4", "--model.token_position", "last"],
    ["--model.adapter", "LoRA", "--model.adapter.rank", "2", "--model.adapter.dropout", "0.2"],
    ["--model.adapter", "LoRA", "--model.adapter.rank", "2", "--trainer.accumulate_grad_batches", "4"],
    ["--model.adapter", "LoRA", "--data.padding", "none", "--data.batch_size", "1"],
    ["--trainer.limit_train_batches", "7", "--trainer.check_val_every_n_epoch", "2"],
    ["--trainer.max_epochs", "-1", "--trainer.max_steps", "26", "--trainer.val_check_interval", "0.5"],
    ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "7"],
]
# Each mechanism once: feature cache in memory, on disk and off; dropout, workers, accumulation, adapters, half
# precision, validation within an epoch, limits of steps and batches; each moment at least once.
CHOSEN = [
    (["--model.trainable_layers", "last_block", "--model.cache_dir", "kept"], (0, 5)),
    (["--model.trainable_layers", "last_block", "--model.cache_gb", "0", "--trainer.limit_train_batches", "7"], (1,)),
    (
        [
            *("--model.trainable_layers", "all", "--model.drop_rate", "0.1", "--data.num_workers", "1"),
            *("--trainer.accumulate_grad_batches", "3", "--trainer.val_check_interval", "4"),
        ],
        (2, 3),
    ),
    (
        [
            *("--model.adapter", "LoRA", "--model.adapter.rank", "2", "--model.adapter.dropout", "0.2"),
            *("--trainer.precision", "bf16-mixed", "--keep", "last"),
        ],
        (1, 4),
    ),
    (
        [
            *("--model.trainable_layers", "last_two_blocks", "--model.fast", "false"),
            *("--trainer.max_epochs", "-1", "--trainer.max_steps", "16", "--trainer.val_check_interval", "0.5"),
        ],
        (0, 6),
    ),
]


@pytest.mark.parametrize(("options", "moments"), CHOSEN, ids=lambda value: " ".join(map(str, value)))
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    options: list[str], moments: tuple[int, ...], reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.max_epochs", "2", *options]
    straight = fit(words(reviews, tmp_path / "straight", *options))
    options += ["--save_every_n_steps", "2"]
    stopped = fit(words(reviews, tmp_path / "stopped", *options), *(At(*ALL_MOMENTS[n]) for n in moments))
    assert_same(straight, stopped)


@pytest.mark.slow
@pytest.mark.parametrize("options", ALL_OPTIONS, ids=" ".join)
def test_every_option_and_every_moment(
    options: list[str], reviews: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    straight = fit(words(reviews, tmp_path / "straight", *options))
    options = [*options, "--save_every_n_steps", "2"]
    assert_same(straight, fit(words(reviews, tmp_path / "stopped", *options), *(At(*m) for m in ALL_MOMENTS)))


@pytest.mark.parametrize("trained", [["--model.trainable_layers", "last_block"], ["--model.adapter", "LoRA"]])
def test_on_top_of_weights_from_a_file(trained: list[str], reviews: str, tmp_path: Path) -> None:
    """The checkpoint has only what trains: the rest is read again, and must be the same."""
    save_file(ModelSettings("gpt2-nano", "random").build(2).state_dict(), tmp_path / "nano.safetensors")
    options = ["--model.weights", str(tmp_path / "nano.safetensors"), *trained]
    straight = fit(words(reviews, tmp_path / "straight", *options))
    moments = (At("on_train_batch_end", 14, TERM), At("on_validation_epoch_end", 1, DEATH))
    assert_same(straight, fit(words(reviews, tmp_path / "stopped", *options), *moments))


def test_every_step_is_a_place_to_stop(reviews: str, tmp_path: Path) -> None:
    options = ["--trainer.max_epochs", "2", "--trainer.val_check_interval", "0.34", "--model.drop_rate", "0.1"]
    options += ["--trainer.accumulate_grad_batches", "2", "--model.trainable_layers", "all", "--data.batch_size", "13"]
    straight = fit(words(reviews, tmp_path / "straight", *options))
    moments = [At("on_train_batch_end", 1, TERM) for _ in range(6)]  # a whole epoch
    assert_same(straight, fit(words(reviews, tmp_path / "stopped", *options), *moments))


def test_early_stopping_is_not_forgotten(reviews: str, tmp_path: Path) -> None:
    """Stopped early, then killed: the run has ended, and stays ended."""
    config = tmp_path / "early.yaml"
    config.write_text(
        "trainer:\n  max_epochs: 30\n  callbacks:\n  - class_path: lightning.pytorch.callbacks.EarlyStopping\n"
        "    init_args: {monitor: val_loss, patience: 1}\n"
    )
    options = ["--model.learning_rate", "3e-2", "--config", str(config), "--trainer.max_epochs", "30"]
    straight = fit(words(reviews, tmp_path / "straight", *options))
    epochs = (straight / "metrics.csv").read_text().count("\n")
    moments = (At("on_train_epoch_start", 2, TERM), At("on_test_start", 1, DEATH))
    assert_same(straight, fit(words(reviews, tmp_path / "stopped", *options), *moments))
    assert epochs < 300


@pytest.mark.parametrize(
    ("options", "moments"),
    [
        (["--trainer.max_steps", "20"], [("on_validation_batch_end", 2, TERM), ("on_test_start", 1, DEATH)]),
        (["--trainer.max_steps", "13"], [("on_train_batch_end", 13, TERM), ("on_test_start", 1, DEATH)]),
        (["--trainer.max_steps", "13"], [("on_train_epoch_end", 2, DEATH)]),
    ],
)
def test_stopped_where_the_training_ends(
    options: list[str], moments: list[tuple[str, int, signal.Signals | None]], reviews: str, tmp_path: Path
) -> None:
    """What is due after the last step comes all the same: validation, figures of the epoch."""
    options = ["--trainer.max_epochs", "-1", "--save_every_n_steps", "1", *options]
    straight = fit(words(reviews, tmp_path / "straight", *options))
    stopped = fit(words(reviews, tmp_path / "stopped", *options), *(At(*moment) for moment in moments))
    assert_same(straight, stopped)


def test_an_interrupted_validation_comes_again(reviews: str, tmp_path: Path) -> None:
    command = TrainCommand(["fit", *words(reviews, tmp_path)])
    command.trainer.callbacks.insert(0, At("on_validation_batch_end", 1, TERM))  # type: ignore[attr-defined]
    with pytest.raises(Stopped):
        command.start()
    loops = read_checkpoint(command.run.folder / "last.ckpt")["loops"]["fit_loop"]
    assert loops["epoch_loop.state_dict"]["validation_due"]
    assert not (command.run.folder / "best.ckpt").exists()


def test_more_steps_than_at_first(reviews: str, tmp_path: Path) -> None:
    """trainer.max_steps ended in the middle of an epoch: the rest of its texts comes, none twice."""
    options = ["--trainer.max_epochs", "-1", "--keep", "last"]
    straight = fit(words(reviews, tmp_path / "straight", *options, "--trainer.max_steps", "25"))
    first = fit(words(reviews, tmp_path / "first", *options, "--trainer.max_steps", "13"))
    place = read_checkpoint(first / "last.ckpt")["lit_cls_run"]["place"]
    assert place == {"epochs": 1, "batches": 3, "steps": 13}
    more = ["--ckpt_path", str(first / "last.ckpt"), "--trainer.max_steps", "25"]
    command = TrainCommand(["fit", *more, "--trainer.default_root_dir", str(tmp_path / "more")])
    command.start()
    compared = {part.name: part.difference for part in compare_runs(straight, command.run.folder)}
    assert compared["last.ckpt: state_dict"] is None
    assert compared["last.ckpt: optimizer_states"] is None
