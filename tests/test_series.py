"""A series of fits: planned, run, stopped and continued."""

import io
import json
import os
from dataclasses import replace
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
from lit_cls.experiments import series as series_file
from lit_cls.experiments.costs import Cost, expected_cost
from lit_cls.experiments.machine import Machine
from lit_cls.experiments.series import Entry, Job, Series, duration
from lit_cls.model.settings import ModelSettings
from lit_cls.training.module import ClassifierModule

NANO = ("--model.size=gpt2-nano", "--model.weights=random", "--trainer.max_epochs=1", "--data.balance=none")
BREAKS = 0.987
"""The learning rate of a run that breaks."""


def make(tmp_path: Path, jobs: list[Job], **options: object) -> Series:
    console = Console(file=io.StringIO(), width=150)
    return Series(tmp_path / "out", ("first", "second"), jobs, console, "lit_cls sweep", TrainCommand, **options)  # type: ignore[arg-type]


def said(series: Series) -> str:
    assert isinstance(series.console.file, io.StringIO)
    return series.console.file.getvalue()


def job(reviews: str, name: str, *options: str) -> Job:
    return Job((name, "x"), name, (f"--data.path={reviews}", *NANO, *options))


def run(series: Series) -> Series:
    series.plan()
    series.run()
    return series


def states(series: Series) -> list[str]:
    return [entry.state for entry in series.entries]


def test_a_run_that_fails_stops_no_other_and_is_the_only_one_run_again(
    tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ClassifierModule.training_step

    def breaks(self: ClassifierModule, *args: Any) -> Tensor:
        if self.learning_rate == BREAKS:
            raise RuntimeError("nothing works")
        return step(self, *args)

    monkeypatch.setattr(ClassifierModule, "training_step", breaks)
    jobs = [
        job(reviews, "one"),
        job(reviews, "breaks", f"--model.learning_rate={BREAKS}"),
        job(reviews, "three", "--model.token_position=last"),
    ]
    seen: list[list[str]] = []
    first = make(tmp_path, jobs, on_change=lambda entries: seen.append([entry.state for entry in entries]))
    run(first)
    assert states(first) == ["finished", "failed", "finished"]
    assert seen == [
        ["finished", "waiting", "waiting"],
        ["finished", "failed", "waiting"],
        ["finished", "failed", "finished"],
    ]
    assert first.entries[1].reason.startswith("RuntimeError: ")
    assert "nothing" in first.entries[1].reason
    log = tmp_path / "out" / "logs" / "breaks.log"
    assert "Traceback" in log.read_text()
    assert "epoch 1/1" in (tmp_path / "out" / "logs" / "one.log").read_text()

    # Baselines and pictures are the series' own.
    report = json.loads((tmp_path / "out/runs/one/version_0/report/report.json").read_text())
    assert (report["baselines"], report["pictures"]) == ([], [])

    again = run(make(tmp_path, jobs))
    assert states(again) == ["finished", "failed", "finished"]
    folders = sorted(str(path.relative_to(tmp_path / "out" / "runs")) for path in tmp_path.glob("out/runs/*/version_*"))
    assert folders == ["breaks/version_0", "breaks/version_1", "one/version_0", "three/version_0"]
    assert again.entries[0].record == first.entries[0].record


def test_a_run_without_a_report_is_run_again_beside_what_is_left_of_it(tmp_path: Path, reviews: str) -> None:
    series = run(make(tmp_path, [job(reviews, "one")]))
    folder = tmp_path / "out" / "runs" / "one" / "version_0"
    (folder / "report" / "report.json").unlink()  # as after a SIGKILL
    again = run(make(tmp_path, [job(reviews, "one")]))
    assert again.entries[0].record is not None
    assert again.entries[0].record.folder.name == "version_1"
    assert again.entries[0].record.counts == series.entries[0].record.counts  # type: ignore[union-attr]


def test_asked_to_it_runs_finished_ones_again_into_new_folders(tmp_path: Path, reviews: str) -> None:
    run(make(tmp_path, [job(reviews, "one")]))
    again = run(make(tmp_path, [replace(job(reviews, "one"), again=True)]))
    assert again.entries[0].record is not None
    assert again.entries[0].record.folder.name == "version_1"
    assert make_and_plan(tmp_path, [job(reviews, "one")]).entries[0].record.folder.name == "version_1"  # type: ignore[union-attr]


def make_and_plan(tmp_path: Path, jobs: list[Job]) -> Series:
    series = make(tmp_path, jobs)
    series.plan()
    return series


def test_a_folder_of_other_settings_or_data_is_refused(tmp_path: Path, reviews: str) -> None:
    run(make(tmp_path, [job(reviews, "one")]))
    with pytest.raises(UserError, match=r"was run with other settings: model.token_position flexible there, mean now"):
        make_and_plan(tmp_path, [job(reviews, "one", "--model.token_position=mean")])
    with pytest.raises(UserError, match=r"model.adapter.rank None there, 4 now; .*Choose another folder with --out"):
        make_and_plan(tmp_path, [job(reviews, "one", "--model.adapter=LoRA", "--model.adapter.rank=4")])
    # The same file elsewhere is the same data; another text in it is not.
    copy = tmp_path / "copy.csv"
    copy.write_text(Path(reviews).read_text())
    assert make_and_plan(tmp_path, [job(str(copy), "one")]).entries[0].state == "finished"
    copy.write_text(Path(reviews).read_text().replace("good", "fine"))
    with pytest.raises(UserError, match="other data"):
        make_and_plan(tmp_path, [job(str(copy), "one")])


def test_a_series_gives_what_single_fits_give(tmp_path: Path, reviews: str) -> None:
    """Whatever ran before in the same process, a run starts from its own seed."""
    jobs = [job(reviews, f"seed{seed}", f"--seed_everything={seed}") for seed in (5, 6, 7)]
    together = run(make(tmp_path, jobs))
    alone = run(make(tmp_path / "alone", jobs[1:2]))
    folders = [series.entries[i].record.folder for series, i in ((together, 1), (alone, 0))]  # type: ignore[union-attr]
    predictions = [(folder / "predictions_test.csv").read_text() for folder in folders]
    assert predictions[0] == predictions[1]
    assert predictions[0] != (together.entries[0].record.folder / "predictions_test.csv").read_text()  # type: ignore[union-attr]


def test_mistakes_are_found_before_anything_runs(tmp_path: Path, reviews: str) -> None:
    with pytest.raises(UserError, match=r"there is no option --model.sise"):
        make_and_plan(tmp_path, [job(reviews, "one"), job(reviews, "two", "--model.sise=3")])
    with pytest.raises(UserError, match="there is no weights file .*gone"):
        make_and_plan(tmp_path, [job(reviews, "one"), job(reviews, "two", "--model.weights=gone.safetensors")])
    with pytest.raises(UserError, match=r"model.ignore_index 1 is the class 'yes'"):
        make_and_plan(tmp_path, [job(reviews, "one", "--model.ignore_index=1")])
    assert not (tmp_path / "out" / "runs").exists()


def test_a_weights_file_is_read_once_for_all_runs(
    tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = ModelSettings(size="gpt2-nano", weights="random").build(2)
    state = {name: tensor.detach() for name, tensor in net.named_parameters() if not name.startswith("out_head")}
    save_file(state, tmp_path / "weights.safetensors")
    from lit_cls.model import weight_files

    opened: list[str] = []
    original = weight_files._open_safetensors

    def counting(file: Path):  # type: ignore[no-untyped-def]
        for name, stored in original(file):

            def read(name: str = name, stored: weight_files.StoredTensor = stored):  # type: ignore[no-untyped-def]
                opened.append(name)
                return stored.read()

            yield name, weight_files.StoredTensor(stored.shape, read)

    monkeypatch.setattr(weight_files, "_open_safetensors", counting)
    options = (f"--model.weights={tmp_path / 'weights.safetensors'}",)
    choices = {"all": "trainable_layers=all", "one": "trainable_layers=1", "adapter": "adapter=LoRA"}
    jobs = [job(reviews, name, *options, f"--model.{choice}") for name, choice in choices.items()]
    series = run(make(tmp_path, jobs))
    assert states(series) == ["finished"] * 3
    assert sorted(opened) == sorted(state)
    # A run of every layer before it has not changed what the next one starts from.
    alone = run(make(tmp_path / "alone", jobs[1:2]))
    assert alone.entries[0].record.counts == series.entries[1].record.counts  # type: ignore[union-attr]


def test_what_the_machine_cannot_hold_is_skipped_and_told(
    tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(reviews, "small"), job(reviews, "large", "--model.size=gpt2-xl", "--model.trainable_layers=all")]
    room = Machine(torch.device("cpu"), memory=2_000_000_000, disk=10**12)
    monkeypatch.setattr(series_file, "free_resources", lambda device, folder: room)
    series = run(make(tmp_path, jobs))
    assert states(series) == ["finished", "skipped"]
    # 1.56 billion parameters: weights, gradients and AdamW's two averages take 16 bytes each.
    assert series.entries[1].cost.memory > 16 * 1_557_000_000
    needed = f"{series.entries[1].cost.memory / 1e9:.1f} GB"
    assert series.entries[1].reason == f"needs about {needed} of memory, 2.0 GB are free"
    assert f"skipped: needs about {needed}" in " ".join(said(series).split())

    room = Machine(torch.device("cpu"), memory=10**12, disk=1000)
    assert states(run(make(tmp_path / "b", jobs[:1]))) == ["skipped"]


def test_models_of_one_size_run_one_after_the_other(tmp_path: Path, reviews: str) -> None:
    jobs = [job(reviews, "large", "--model.size=gpt2-small", "--trainer.limit_train_batches=1"), job(reviews, "nano")]
    order: list[list[str]] = []
    limits = [f"--trainer.limit_{part}_batches=1" for part in ("val", "test", "predict")]
    jobs = [replace(one, options=(*one.options, *limits, "--trainer.enable_checkpointing=false")) for one in jobs]
    run(make(tmp_path, jobs, on_change=lambda entries: order.append([entry.state for entry in entries])))
    assert order == [["waiting", "finished"], ["finished", "finished"]]


def test_a_switch_of_the_process_is_that_of_each_run(tmp_path: Path, reviews: str) -> None:
    """A Trainer sets `deterministic` for the whole process when it is made."""
    jobs = [job(reviews, name, f"--trainer.deterministic={name}") for name in ("true", "false")]
    seen: list[bool] = []
    try:
        run(make(tmp_path, jobs, on_change=lambda _: seen.append(torch.are_deterministic_algorithms_enabled())))
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [True, False]


def test_another_weights_file_of_the_same_name_is_noticed(tmp_path: Path, reviews: str) -> None:
    file = tmp_path / "weights.safetensors"
    options = f"--model.weights={file}"

    def write() -> None:
        net = ModelSettings(size="gpt2-nano", weights="random").build(2)
        save_file({n: p.detach() for n, p in net.named_parameters() if not n.startswith("out_head")}, file)

    write()
    run(make(tmp_path, [job(reviews, "one", options)]))
    assert states(make_and_plan(tmp_path, [job(reviews, "one", options)])) == ["finished"]
    write()
    with pytest.raises(UserError, match="another file .*weights.safetensors"):
        make_and_plan(tmp_path, [job(reviews, "one", options)])


def test_disk_is_counted_over_all_runs(tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(reviews, name) for name in ("one", "two", "three")]
    one = make_and_plan(tmp_path, jobs[:1]).entries[0].cost.disk
    room = Machine(torch.device("cpu"), memory=10**12, disk=2 * one)
    monkeypatch.setattr(series_file, "free_resources", lambda device, folder: room)
    assert states(make_and_plan(tmp_path, jobs)) == ["waiting", "waiting", "skipped"]


CACHE = ("--model.cache_dir=cache", "--model.trainable_layers=last_block", "--data.padding=longest_in_train")


def disk_for_outputs(series: Series) -> list[bool]:
    """Whether each run is expected to leave outputs of frozen layers, which are of the same size for all."""
    alone = [expected_cost(TrainCommand(entry.words), 1e12) for entry in series.entries]
    assert len({cost.shared_disk for cost in alone}) == 1
    beside = [entry.cost.disk - cost.disk for entry, cost in zip(series.entries, alone, strict=True)]
    assert set(beside) <= {0, alone[0].shared_disk}
    return [n > 0 for n in beside]


@pytest.mark.parametrize(
    "option",
    [
        "--model.learning_rate=0.5",
        "--model.token_position=mean_flexible",
        "--data.batch_size=4",
        "--model.cache_gb=1",
    ],
)
def test_runs_with_the_same_frozen_outputs_share_their_disk(option: str, tmp_path: Path, reviews: str) -> None:
    jobs = [job(reviews, "one", *CACHE), job(reviews, "two", *CACHE, option)]
    assert disk_for_outputs(make_and_plan(tmp_path, jobs)) == [True, False]


@pytest.mark.parametrize(
    "option",
    [
        "--seed_everything=5",
        "--model.trainable_layers=last_two_blocks",
        "--model.causal=false",
        "--data.padding=longest_in_batch",
        "--trainer.precision=bf16-true",
    ],
)
def test_runs_with_other_frozen_outputs_of_the_same_size_do_not(option: str, tmp_path: Path, reviews: str) -> None:
    common = (*CACHE, "--trainer.precision=32-true")
    jobs = [job(reviews, "one", *common), job(reviews, "two", *common, option), job(reviews, "again", *common)]
    assert disk_for_outputs(make_and_plan(tmp_path, jobs)) == [True, True, False]


def test_without_the_mask_the_outputs_of_another_position_are_others(tmp_path: Path, reviews: str) -> None:
    # Every text has more tokens than that, so that pads make no difference in size.
    common = (*CACHE[:2], "--model.causal=false", "--data.padding=2")
    positions = ("flexible", "last", "mean_flexible")
    jobs = [job(reviews, position, *common, f"--model.token_position={position}") for position in positions]
    assert disk_for_outputs(make_and_plan(tmp_path, jobs)) == [True, True, True]


def test_a_skipped_run_leaves_nothing_to_share(tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(reviews, "large", *CACHE, "--data.batch_size=100000"), job(reviews, "small", *CACHE)]
    room = Machine(torch.device("cpu"), memory=2_000_000_000, disk=10**12)
    monkeypatch.setattr(series_file, "free_resources", lambda device, folder: room)
    series = make_and_plan(tmp_path, jobs)
    assert states(series) == ["skipped", "waiting"]
    assert disk_for_outputs(series) == [True, True]


def test_weights_that_only_a_skipped_run_would_have_downloaded_count(
    tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(series_file, "_check_weights", lambda planned: None)
    pretrained = ("--model.size=gpt2-small", "--model.weights=pretrained")
    jobs = [
        job(reviews, "large", *pretrained, "--data.batch_size=100000"),
        *(job(reviews, name, *pretrained) for name in ("two", "three")),
    ]
    room = Machine(torch.device("cpu"), memory=20_000_000_000, disk=10**12)
    monkeypatch.setattr(series_file, "free_resources", lambda device, folder: room)
    series = make_and_plan(tmp_path, jobs)
    assert states(series) == ["skipped", "waiting", "waiting"]
    counted = [
        entry.cost.disk - expected_cost(TrainCommand(entry.words), 1e12).disk > 400_000_000 for entry in series.entries
    ]
    assert counted == [True, True, False]


@pytest.mark.parametrize("name", ["a file", "/proc/nothing"])
def test_a_folder_that_cannot_be_written_to(name: str, tmp_path: Path, reviews: str) -> None:
    (tmp_path / "a file").touch()
    series = make(tmp_path, [job(reviews, "one")])
    series.out = tmp_path / name
    with pytest.raises(UserError, match="nothing can be written to .*Give another --out"):
        series.plan()


def test_the_log_has_a_plan_and_a_line_for_each_run(tmp_path: Path, reviews: str) -> None:
    series = run(make(tmp_path, [job(reviews, "one"), job(reviews, "two", "--seed_everything=1")]))
    text = said(series)
    assert "checking 2 runs" in text
    assert "0 of 2 runs finished, about " in text
    for name, entry in zip(("one", "two"), series.entries, strict=True):
        k, n = entry.record.counts["test"]  # type: ignore[union-attr]
        assert f"{name} x ({name}): train" in text
        assert f"test {k}/{n}" in text
    assert "\x1b" not in text


def entry(state: str, expected: float, took: float = 0.0) -> Entry:
    made = Entry(Job(("a",), "a", ()), [], "gpt2-nano", Cost(1, 1, expected), state)  # type: ignore[arg-type]
    made.seconds = took
    return made


def test_the_time_left_learns_from_what_has_finished(tmp_path: Path) -> None:
    series = make(tmp_path, [])
    series.entries = [entry("waiting", 10), entry("waiting", 30), entry("skipped", 100), entry("failed", 100)]
    assert series.seconds_left() == 40
    series.entries.append(entry("finished", 10, took=30))
    assert series.seconds_left() == 120
    series.entries.append(entry("finished", 10))  # finished in an earlier session: its time is not known
    assert series.seconds_left() == 120


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (11100, "3 h 05 min")]
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_damaged_finished_run_is_named(tmp_path: Path, reviews: str) -> None:
    run(make(tmp_path, [job(reviews, "one")]))
    path = tmp_path / "out" / "runs" / "one" / "version_0"
    (path / "predictions_test.csv").unlink()
    with pytest.raises(UserError, match="version_0 cannot be read"):
        make_and_plan(tmp_path, [job(reviews, "one")])
    os.remove(path / "config.yaml")
    with pytest.raises(UserError, match="version_0 cannot be read"):
        make_and_plan(tmp_path, [job(reviews, "one")])


def test_a_saved_configuration_repeats_a_run_of_a_series(tmp_path: Path, reviews: str) -> None:
    series = run(make(tmp_path, [job(reviews, "one")]))
    record = series.entries[0].record
    assert record is not None
    config = record.folder / "config.yaml"
    assert yaml.safe_load(config.read_text())["data"]["path"] == reviews
    again = run(make(tmp_path / "again", [Job(("a", "x"), "again", ("--config", str(config)))]))
    assert again.entries[0].record.counts == record.counts  # type: ignore[union-attr]


def test_a_series_is_for_one_device(tmp_path: Path, reviews: str) -> None:
    with pytest.raises(UserError, match="a series runs on one device, not on 2: leave trainer.devices out"):
        make_and_plan(tmp_path, [job(reviews, "one", "--trainer.devices=2", "--trainer.accelerator=cpu")])
