"""What a run is expected to take."""

from functools import cache
from pathlib import Path

import pytest
import torch

from lit_cls.commands.train import TrainCommand
from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.errors import UserError
from lit_cls.experiments.costs import Cost, Estimate, download_size
from lit_cls.experiments.machine import free_resources, matmul_rate

RATE = 1e11


@cache
def cost(*options: str, device: str = "cpu") -> Cost:
    run = TrainCommand(["fit", "--data.source=demo", "--model.weights=random", "--trainer.accelerator=cpu", *options])
    run.trainer.strategy._root_device = torch.device(device)  # a GPU need not be there to be asked about
    return Estimate(run).cost(RATE)


def test_memory_is_at_least_weights_gradients_and_averages() -> None:
    n = 124_441_346
    everything = cost("--model.trainable_layers=all").memory
    last_block = cost("--model.trainable_layers=last_block").memory
    assert 16 * n < everything < 16 * n + 2e9
    assert 4 * n + 12 * 7_090_946 < last_block < 4 * n + 12 * 7_090_946 + 1e9


def test_more_tokens_blocks_or_epochs_take_more_time() -> None:
    small = cost().seconds
    everything = "--model.trainable_layers=all"
    assert cost(everything).seconds > 1.5 * small
    assert cost(everything, "--trainer.max_epochs=10").seconds > 1.5 * cost(everything).seconds
    assert cost("--model.size=gpt2-medium").seconds > 1.5 * small
    long = "--data.padding=context_length"  # 1,024 tokens instead of 15
    assert cost(long, "--model.token_position=last").seconds > 15 * small
    assert cost(long).seconds < 2 * small  # nothing reads these pads


def test_what_is_frozen_is_computed_once() -> None:
    once = cost("--model.size=gpt2-medium", "--trainer.max_epochs=40")
    plain = cost("--model.size=gpt2-medium", "--trainer.max_epochs=40", "--model.fast=false")
    assert plain.seconds > 2 * once.seconds
    kept = cost("--model.cache_dir=cache").shared_disk
    assert 0 < kept < 4 * 768 * 992 * 23  # texts and their longest
    assert cost().shared_disk == 0


def sizes_of_outputs(*options: str) -> list[int]:
    """Bytes of the frozen layers' outputs of each split, by their own arithmetic: one vector for each token."""
    data = TrainCommand(["fit", "--data.source=demo", "--model.weights=random", *options]).datamodule
    return [4 * 768 * sum(map(len, data.splits[name].token_ids)) for name in SPLIT_NAMES]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_outputs_of_frozen_layers_are_in_memory_within_the_budget_and_on_disk_beyond(device: str) -> None:
    sizes = sizes_of_outputs()
    assert sizes[1] < sizes[2] < sizes[0]
    without = cost("--model.cache_gb=0", device=device)
    for budget, in_memory in ((sum(sizes), sum(sizes)), (sum(sizes) - 1, sizes[0] + sizes[1]), (sizes[2], sizes[1])):
        found = cost(f"--model.cache_gb={(budget + 0.5) / 1e9:.12f}", device=device)
        assert found.memory - without.memory == in_memory
        assert without.disk - found.disk == in_memory
    plain = cost("--model.fast=false", device=device)
    assert without.disk - plain.disk == sum(sizes)


def test_outputs_kept_in_a_folder_are_in_a_gpus_memory_too() -> None:
    """A CPU reads them from the mapped file."""
    folder, total = "--model.cache_dir=cache", sum(sizes_of_outputs())
    for device, in_memory in (("cpu", 0), ("cuda", total)):
        kept = cost(folder, device=device)
        too_large = cost(folder, "--model.cache_gb=0", device=device)
        assert kept.memory - too_large.memory == in_memory
        assert kept.shared_disk == too_large.shared_disk == total
        assert kept.disk == too_large.disk == cost("--model.fast=false").disk


def test_disk_is_that_of_the_checkpoints() -> None:
    best = cost("--model.size=gpt2-nano", "--model.trainable_layers=all").disk
    last = cost("--model.size=gpt2-nano", "--model.trainable_layers=all", "--keep=last").disk
    none = cost("--model.size=gpt2-nano", "--trainer.enable_checkpointing=false").disk
    one = 12 * 2_546_498
    assert best - none == 2 * one
    assert last - none == one


def test_weights_that_must_be_downloaded_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    assert 4 * 124_000_000 < download_size("gpt2-small") < 4 * 125_000_000
    with pytest.raises(UserError, match=r"no pretrained weights for gpt2-nano: .* --weights random"):
        download_size("gpt2-nano")


def test_the_estimate_of_a_nano_run_has_the_right_size() -> None:
    """Within a factor of 20 of a second or two: enough to tell minutes from hours."""
    seconds = cost("--model.size=gpt2-nano").seconds
    assert 0.3 < seconds < 30


def test_the_machine_has_memory_and_disk(tmp_path: Path) -> None:
    free = free_resources(torch.device("cpu"), tmp_path / "not" / "yet")
    assert 100_000_000 < free.memory < 10**14
    assert 1_000_000 < free.disk < 10**16


def test_a_rate_is_measured() -> None:
    assert 1e8 < matmul_rate(torch.device("cpu"), "32-true") < 1e15
    assert matmul_rate(torch.device("cpu"), "bf16-mixed") > 1e8
