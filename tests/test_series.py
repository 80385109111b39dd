"""A series of fits: planned, run, stopped and resumed."""

import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from lit_cls.commands.train import TrainCommand
from lit_cls.errors import UserError
from lit_cls.experiments import series as series_module
from lit_cls.experiments.costs import Cost, Estimate
from lit_cls.experiments.machine import Machine
from lit_cls.experiments.series import Series
from lit_cls.experiments.series_runs import RunRequest, SeriesRun, duration
from lit_cls.model import weight_files
from lit_cls.model.settings import ModelSettings
from lit_cls.training.module import ClassifierModule

NANO = ("--model.size=gpt2-nano", "--model.weights=random", "--trainer.max_epochs=1", "--data.balance=none")
BREAKS = 0.987
"""The learning rate of a run that breaks."""
FROM_FILE = {"all": "trainable_layers=all", "1": "trainable_layers=1", "lora": "adapter=LoRA"}
"""Runs from a weights file, and the option of the model that each has."""


def make(out: Path, requests: list[RunRequest]) -> Series:
    console = Console(file=io.StringIO(), width=150)
    return Series(out, ("first", "second"), requests, console, "lit_cls sweep", TrainCommand)


def printed(series: Series) -> str:
    assert isinstance(series.console.file, io.StringIO)
    return series.console.file.getvalue()


def request(reviews: str, name: str, *options: str) -> RunRequest:
    return RunRequest((name, "x"), name, (f"--data.path={reviews}", *NANO, *options))


def planned(out: Path, requests: list[RunRequest]) -> Series:
    series = make(out, requests)
    series.plan()
    return series


def run(out: Path, requests: list[RunRequest]) -> Series:
    series = planned(out, requests)
    series.run()
    return series


def states(series: Series) -> list[str]:
    return [run.state for run in series.runs]


def predictions(run: SeriesRun) -> str:
    assert run.result is not None
    return (run.result.folder / "predictions_test.csv").read_text()


def write_weights(file: Path) -> None:
    net = ModelSettings(size="gpt2-nano", weights="random").build(2)
    save_file({n: p.detach() for n, p in net.named_parameters() if not n.startswith("out_head")}, file)


@dataclass
class Finished:
    """A series that has run, and what was seen of it meanwhile."""

    series: Series
    requests: dict[str, RunRequest]
    weights: Path
    progress: list[list[str]]
    """States after each run."""
    deterministic: list[bool]
    """torch's switch after each run."""
    read: list[str]
    """Tensors of the weights file, each time that one was read."""

    def copy(self, folder: Path) -> Path:
        """The folder of the series, to be changed."""
        return Path(shutil.copytree(self.series.out, folder / "out"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shared_reviews: str) -> Iterator[Finished]:
    """Runs with and without a weights file, one of which breaks."""
    folder = tmp_path_factory.mktemp("series")
    weights = folder / "weights.safetensors"
    write_weights(weights)
    options = {
        "one": ("--trainer.deterministic=true",),
        "breaks": (f"--model.learning_rate={BREAKS}",),
        "seed": ("--seed_everything=6", "--trainer.deterministic=false"),
        **{name: (f"--model.weights={weights}", f"--model.{option}") for name, option in FROM_FILE.items()},
    }
    requests = {name: request(shared_reviews, name, *chosen) for name, chosen in options.items()}
    made = Finished(make(folder / "out", list(requests.values())), requests, weights, [], [], [])

    def note(runs: Any) -> None:
        made.progress.append([run.state for run in runs])
        made.deterministic.append(torch.are_deterministic_algorithms_enabled())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassifierModule, "training_step", _breaking(ClassifierModule.training_step))
        patch.setattr(weight_files, "_open_safetensors", _counting(weight_files._open_safetensors, made.read))
        made.series.plan()
        made.read.clear()
        made.series.run(on_change=note)
    yield made
    torch.use_deterministic_algorithms(False)


def _breaking(step: Any) -> Any:
    def breaks(self: ClassifierModule, *args: Any) -> Tensor:
        if self.options.learning_rate == BREAKS:
            raise RuntimeError("nothing works")
        found: Tensor = step(self, *args)
        return found

    return breaks


def _counting(original: Any, read: list[str]) -> Any:
    def counting(file: Path) -> Any:
        for name, stored in original(file):

            def read_one(name: str = name, stored: weight_files.StoredTensor = stored) -> Tensor:
                read.append(name)
                return stored.read()

            yield name, weight_files.StoredTensor(stored.shape, read_one)

    return counting


def test_a_run_that_fails_stops_no_other(finished: Finished) -> None:
    series, n = finished.series, len(finished.requests)
    expected = ["finished", "failed", *["finished"] * (n - 2)]
    assert states(series) == expected, [run.reason for run in series.runs]
    assert finished.progress == [expected[:i] + ["waiting"] * (n - i) for i in range(1, n + 1)]
    assert series.runs[1].reason.startswith("RuntimeError: nothing works (")
    assert "Traceback" in (series.out / "logs" / "breaks.log").read_text()
    assert "epoch 1/1" in (series.out / "logs" / "one.log").read_text()
    # Baselines and plots are the series' own.
    report = json.loads((series.out / "runs/one/version_0/report/report.json").read_text())
    assert (report["baselines"], report["pictures"]) == ([], [])


def test_only_runs_that_are_not_finished_run_again(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was killed, one that failed, and one that is asked for."""
    monkeypatch.setattr(ClassifierModule, "training_step", _breaking(ClassifierModule.training_step))
    out = finished.copy(tmp_path)
    (out / "runs/one/version_0/report/report.json").unlink()  # as after a SIGKILL
    requests = list(finished.requests.values())
    requests[2] = replace(requests[2], rerun=True)
    again = run(out, requests)
    torch.use_deterministic_algorithms(False)
    assert states(again) == states(finished.series)
    folders = {str(path.relative_to(out / "runs")) for path in out.glob("runs/*/version_1")}
    assert folders == {"one/version_1", "breaks/version_1", "seed/version_1"}
    assert not list(out.glob("runs/*/version_2"))
    for i in (0, 2):
        result, before = again.runs[i].result, finished.series.runs[i].result
        assert result is not None
        assert before is not None
        assert (result.folder.name, result.counts) == ("version_1", before.counts)
    found = planned(out, [finished.requests["seed"]]).runs[0].result
    assert found is not None
    assert found.folder.name == "version_1"


def test_a_folder_of_other_settings_data_or_weights_is_refused(
    finished: Finished, tmp_path: Path, shared_reviews: str
) -> None:
    out, seed = finished.copy(tmp_path), ("--seed_everything=6", "--trainer.deterministic=false")
    with pytest.raises(UserError, match=r"was run with other settings: model.token_position flexible there, mean now"):
        planned(out, [request(shared_reviews, "seed", *seed, "--model.token_position=mean")])
    with pytest.raises(
        UserError, match=r"model.adapter.init_args.rank None there, 4 now; .*Choose another folder with --out"
    ):
        planned(out, [request(shared_reviews, "seed", *seed, "--model.adapter=LoRA", "--model.adapter.rank=4")])
    # The same file elsewhere is the same data; another text in it is not.
    copy = tmp_path / "copy.csv"
    copy.write_text(Path(shared_reviews).read_text())
    assert states(planned(out, [request(str(copy), "seed", *seed)])) == ["finished"]
    copy.write_text(Path(shared_reviews).read_text().replace("good", "fine"))
    with pytest.raises(UserError, match="other data"):
        planned(out, [request(str(copy), "seed", *seed)])
    # So do other weights in the file of the same name.
    before = finished.weights.read_bytes()
    assert states(planned(out, [finished.requests["all"]])) == ["finished"]
    try:
        write_weights(finished.weights)
        with pytest.raises(UserError, match="another file .*weights.safetensors"):
            planned(out, [finished.requests["all"]])
    finally:
        finished.weights.write_bytes(before)


def test_a_series_gives_what_single_fits_give(finished: Finished, tmp_path: Path) -> None:
    """Whatever ran before in the same process, a run starts from its own seed and from the file's weights."""
    alone = run(tmp_path / "alone", [finished.requests["seed"], finished.requests["1"]])
    together = dict(zip(finished.requests, finished.series.runs, strict=True))
    assert predictions(alone.runs[0]) == predictions(together["seed"]) != predictions(together["one"])
    assert predictions(alone.runs[1]) == predictions(together["1"]) != predictions(together["all"])
    assert together["seed"].result is not None
    # Its saved configuration repeats a run, too.
    config = together["seed"].result.folder / "config.yaml"
    again = run(tmp_path / "again", [RunRequest(("a", "x"), "again", ("--config", str(config)))])
    assert predictions(again.runs[0]) == predictions(together["seed"])
    path = yaml.safe_load(config.read_text())["data"]["path"]
    assert f"--data.path={path}" in finished.requests["seed"].options


def test_a_weights_file_is_read_once_for_all_runs(finished: Finished) -> None:
    net = ModelSettings(size="gpt2-nano", weights="random").build_empty(2)
    assert sorted(finished.read) == sorted(n for n, _ in net.named_parameters() if not n.startswith("out_head"))


def test_a_switch_of_the_process_is_that_of_each_run(finished: Finished) -> None:
    """A Trainer sets `deterministic` for the whole process when it is made."""
    assert (finished.deterministic[0], finished.deterministic[2]) == (True, False)


def test_the_log_has_a_plan_and_a_line_for_each_run(finished: Finished) -> None:
    text, n = printed(finished.series), len(finished.requests)
    assert f"checking {n} runs" in text
    assert f"0 of {n} runs finished, about " in text
    for name, run in zip(finished.requests, finished.series.runs, strict=True):
        if run.result is None:
            assert f"{name} x ({name}): failed: {run.reason}" in text
            continue
        k, total = run.result.counts["test"]
        assert f"{name} x ({name}): train" in text
        assert f"test {k}/{total}" in text
    assert "\x1b" not in text


def test_a_damaged_finished_run_is_named(finished: Finished, tmp_path: Path) -> None:
    out = finished.copy(tmp_path)
    for file in ("predictions_test.csv", "config.yaml"):
        os.remove(out / "runs" / "seed" / "version_0" / file)
        with pytest.raises(UserError, match="version_0 cannot be read"):
            planned(out, [finished.requests["seed"]])


def test_mistakes_are_found_before_anything_runs(tmp_path: Path, reviews: str) -> None:
    out, one = tmp_path / "out", request(reviews, "one")
    for option, message in (
        ("--model.sise=3", "there is no option --model.sise"),
        ("--model.weights=gone.safetensors", "there is no weights file .*gone"),
        ("--model.ignore_index=1", "model.ignore_index 1 is the class 'yes'"),
        ("--trainer.devices=2", "a series runs on one device, not on 2: leave trainer.devices out"),
    ):
        with pytest.raises(UserError, match=message):
            planned(out, [one, request(reviews, "two", "--trainer.accelerator=cpu", option)])
    assert not (out / "runs").exists()


@pytest.mark.parametrize("name", ["a file", "/proc/nothing"])
def test_a_folder_that_cannot_be_written_to(name: str, tmp_path: Path, reviews: str) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(UserError, match="nothing can be written to .*Give another --out"):
        planned(tmp_path / name, [request(reviews, "one")])


def test_models_of_one_size_run_one_after_the_other(
    tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(Series, "_run_one", lambda self, run, cache: order.append(run.request.name))
    sizes = {"small": "gpt2-small", "nano": "gpt2-nano", "small again": "gpt2-small"}
    run(tmp_path, [request(reviews, name, f"--model.size={size}") for name, size in sizes.items()])
    assert order == ["nano", "small", "small again"]


# What the machine has room for.


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the free memory and disk."""

    def of(memory: int = 10**12, disk: int = 10**12) -> None:
        free = Machine(memory, disk)
        monkeypatch.setattr(series_module, "free_resources", lambda device, folder: free)

    return of


def test_runs_that_are_too_large_are_skipped(tmp_path: Path, reviews: str, room: Any) -> None:
    large = request(reviews, "large", "--model.size=gpt2-medium", "--model.trainable_layers=all")
    room(memory=2_000_000_000)
    series = planned(tmp_path, [request(reviews, "small"), large])
    assert states(series) == ["waiting", "skipped"]
    # 355 million parameters: weights, gradients and AdamW's two averages take 16 bytes each.
    assert series.runs[1].cost.memory > 16 * 354_800_000
    needed = f"{series.runs[1].cost.memory / 1e9:.1f} GB"
    assert series.runs[1].reason == f"needs about {needed} of memory, 2.0 GB are free"
    series.console.print(series.table())
    assert f"skipped: needs about {needed}" in " ".join(printed(series).split())
    room(disk=1000)
    assert states(planned(tmp_path, [request(reviews, "small")])) == ["skipped"]


def test_disk_is_counted_over_all_runs(tmp_path: Path, reviews: str, room: Any) -> None:
    requests = [request(reviews, name) for name in ("one", "two", "three")]
    room(disk=2 * planned(tmp_path, requests[:1]).runs[0].cost.disk)
    assert states(planned(tmp_path, requests)) == ["waiting", "waiting", "skipped"]


LARGE = ("--data.batch_size=100000", "--model.token_position=mean_flexible")
"""What the backward pass needs of such a batch is several GB; the frozen layers put out the same."""
CACHE = ("--model.cache_dir=cache", "--model.trainable_layers=last_block", "--data.padding=longest_in_train")


def disk_for_outputs(series: Series) -> list[bool]:
    """Whether each run is expected to leave outputs of frozen layers beside its own files."""
    alone = [Estimate(TrainCommand(run.words)).cost(1e12) for run in series.runs]
    assert all(cost.shared_disk for cost in alone)
    beside = [run.cost.disk - cost.disk for run, cost in zip(series.runs, alone, strict=True)]
    assert all(n in (0, cost.shared_disk) for n, cost in zip(beside, alone, strict=True))
    return [n > 0 for n in beside]


def test_runs_with_the_same_frozen_outputs_share_their_disk(tmp_path: Path, reviews: str) -> None:
    options = (
        *("--model.learning_rate=0.5", "--model.token_position=mean_flexible"),
        *("--data.batch_size=4", "--model.cache_gb=1"),
    )
    requests = [request(reviews, "one", *CACHE), *(request(reviews, option[2:], *CACHE, option) for option in options)]
    assert disk_for_outputs(planned(tmp_path, requests)) == [True, False, False, False, False]


def test_runs_with_other_frozen_outputs_do_not(tmp_path: Path, reviews: str) -> None:
    common = (*CACHE, "--trainer.precision=32-true")
    options = (
        *("--seed_everything=5", "--model.trainable_layers=last_two_blocks", "--model.causal=false"),
        *("--data.padding=longest_in_batch", "--trainer.precision=bf16-true"),
    )
    requests = [request(reviews, option[2:], *common, option) for option in options]
    requests = [request(reviews, "one", *common), *requests, request(reviews, "again", *common)]
    assert disk_for_outputs(planned(tmp_path, requests)) == [True, *[True] * len(options), False]


def test_without_the_mask_the_outputs_of_another_position_are_others(tmp_path: Path, reviews: str) -> None:
    # Every text has more tokens than that, so that pads make no difference in size.
    common = (*CACHE[:2], "--model.causal=false", "--data.padding=2")
    positions = ("flexible", "last", "mean_flexible")
    requests = [request(reviews, position, *common, f"--model.token_position={position}") for position in positions]
    assert disk_for_outputs(planned(tmp_path, requests)) == [True, True, True]


def test_a_skipped_run_leaves_nothing_to_share(tmp_path: Path, reviews: str, room: Any) -> None:
    requests = [request(reviews, "large", *CACHE, *LARGE), request(reviews, "small", *CACHE)]
    room(memory=2_000_000_000)
    series = planned(tmp_path, requests)
    assert states(series) == ["skipped", "waiting"]
    assert disk_for_outputs(series) == [True, True]


def test_weights_that_only_a_skipped_run_would_have_downloaded_count(
    tmp_path: Path, reviews: str, room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(series_module, "_check_weights", lambda planned: None)
    pretrained = ("--model.size=gpt2-small", "--model.weights=pretrained")
    requests = [
        request(reviews, "large", *pretrained, *LARGE),
        *(request(reviews, name, *pretrained) for name in ("two", "three")),
    ]
    room(memory=20_000_000_000)
    series = planned(tmp_path, requests)
    assert states(series) == ["skipped", "waiting", "waiting"]
    counted = [run.cost.disk - Estimate(TrainCommand(run.words)).cost(1e12).disk > 400_000_000 for run in series.runs]
    assert counted == [True, True, False]


# Times.


def series_run(state: str, expected: float, took: float = 0.0) -> SeriesRun:
    made = SeriesRun(RunRequest(("a",), "a", ()), [], "gpt2-nano", Cost(1, 1, expected), state)  # type: ignore[arg-type]
    made.seconds = took
    return made


def test_the_time_left_learns_from_what_has_finished(tmp_path: Path) -> None:
    series = make(tmp_path, [])
    series.runs = [
        series_run("waiting", 10),
        series_run("waiting", 30),
        series_run("skipped", 100),
        series_run("failed", 100),
    ]
    assert series.seconds_left() == 40
    series.runs.append(series_run("finished", 10, took=30))
    assert series.seconds_left() == 120
    series.runs.append(series_run("finished", 10))  # finished by an earlier command: its time is not known
    assert series.seconds_left() == 120


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (11100, "3 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
