"""Trainings from the frozen layers' outputs, against trainings that compute them in every step."""

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import pairwise
from frozen_runs import (
    MAX_LENGTH,
    Fitted,
    assert_same,
    counted_features,
    fitted,
    network,
    small_evaluation_batches,
    strong_weights,
    texts,
    uneven_texts,
)
from lightning.pytorch import seed_everything
from small_fits import trainer

from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError
from lit_cls.model import TextClassifier
from lit_cls.model.adapters import LoRA
from lit_cls.training import feature_cache as frozen_callback
from lit_cls.training import feature_files as frozen_files
from lit_cls.training.callbacks import CollectPredictions
from lit_cls.training.feature_cache import CacheFeatures

TOKENIZER = tokenizer_for("gpt2")

POSITIONS = ("first", "last", "flexible", "mean", "mean_flexible")
PADDINGS = ("longest_in_train", "longest_in_batch", "none", 11)
LAYERS = ("last_layer", "last_block", "last_two_blocks", 2)


class Files(NamedTuple):
    texts: str
    weights: str
    others: str
    """Other weights."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    return Files(uneven_texts(folder), strong_weights(folder), strong_weights(folder, seed=1))


@pytest.fixture(autouse=True)
def several_batches() -> Iterator[None]:
    with small_evaluation_batches():
        yield


def run(
    folder: Path, files: Files, model: dict[str, Any], data: dict[str, Any] | None = None, **options: Any
) -> Fitted:
    module = network(**{"weights": files.weights, **model})
    return fitted(folder, module, texts(files.texts, **(data or {})), **options)


@pytest.fixture(scope="module")
def shared_run(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Fitted]:
    """As `run`, once for each set of options; for tests that only read what it gives."""
    made: dict[str, Fitted] = {}

    def shared(model: dict[str, Any], data: dict[str, Any] | None = None, **options: Any) -> Fitted:
        key = repr((model, data, sorted(options.items())))
        if key not in made:
            made[key] = run(tmp_path_factory.mktemp("shared"), files, model, data, **options)
        return made[key]

    return shared


@pytest.fixture
def sizes(shared_run: Callable[..., Fitted]) -> list[int]:
    """Bytes of each split's outputs."""
    return [states.values.nbytes for states in shared_run({}).module.feature_cache.splits.values()]


def test_the_texts_are_not_all_alike(files: Files) -> None:
    """What the comparisons below rest on: empty texts, cut ones, and pads of many numbers in one batch."""
    data = texts(files.texts)
    lengths = [len(ids) for name in SPLIT_NAMES for ids in data.splits[name].token_ids]
    assert len(set(lengths)) > 10
    assert min(lengths) == 1
    assert max(lengths) > data.cut_to == MAX_LENGTH
    empty = [name for name in SPLIT_NAMES for ids in data.splits[name].token_ids if ids == [TOKENIZER.pad_id]]
    assert "train" in empty
    shuffled = texts(files.texts, padding="longest_in_train").train_dataloader()
    assert sum(len(set(batch["lengths"].tolist())) > 1 for batch in shuffled) >= 7  # of 9
    assert all(len(ids) > 1 or ids == [TOKENIZER.pad_id] for name in SPLIT_NAMES for ids in data.splits[name].token_ids)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert len({batch["input_ids"].shape for batch in loader}) > 1


# Without a Trainer, the same choices are in test_frozen_cache.py.
@pytest.mark.parametrize(
    ("position", "causal", "padding", "layers"), pairwise(POSITIONS, (True, False), PADDINGS, LAYERS)
)
def test_a_training_is_the_same_with_and_without(
    position: str, causal: bool, padding: str | int, layers: str | int, files: Files, tmp_path: Path
) -> None:
    choices = {"token_position": position, "causal": causal, "trainable_layers": layers}
    # One text a batch without pads, so that steps take four of them; by far the most batches.
    options = {"accumulate_grad_batches": 4, "max_epochs": 1} if padding == "none" else {"max_epochs": 2}
    plain, fast = (
        run(tmp_path, files, {**choices, "fast": fast}, {"padding": padding}, **options) for fast in (False, True)
    )
    assert_same(fast, plain)
    # Neither is degenerate: it learns, and texts are told apart by more than the bound.
    assert len(plain.losses) == (34 if padding == "none" else 2 * 9)
    assert np.std(plain.losses) > 0.01
    assert plain.logits["test"].std(dim=0).min() > 0.01
    assert plain.module.feature_cache.splits == {}
    assert plain.told == ["note: the frozen layers are computed in every step: model.fast is false"]
    if position in ("last", "mean") and padding == "longest_in_batch":
        assert fast.told == [
            f"note: the frozen layers are computed in every step: token_position {position} reads pads, of which every "
            "batch has another number"
        ]
        assert fast.module.feature_cache.splits == {}
    else:
        assert list(fast.module.feature_cache.splits) == ["train", "validation", "test"]
        assert [line.split(":")[0] for line in fast.told] == [
            f"frozen layers, {s}" for s in fast.module.feature_cache.splits
        ]


@pytest.mark.parametrize(("position", "layers"), pairwise(POSITIONS, ["all", "lora", 3], strength=1))
def test_where_nothing_is_frozen_the_training_is_the_same_too(
    position: str, layers: str | int, files: Files, tmp_path: Path
) -> None:
    plain, fast = (
        run(tmp_path, files, {"token_position": position, "trainable_layers": layers, "fast": fast}, max_epochs=1)
        for fast in (False, True)
    )
    # All of a strong network moves further in a step than its last block: rounding is passed on.
    assert_same(fast, plain, atol=1e-3)
    assert plain.told == fast.told == []
    assert fast.module.feature_cache.splits == {}


def test_an_adapter_of_the_head_alone_leaves_the_backbone_frozen(files: Files, tmp_path: Path) -> None:
    adapter = LoRA(2, dropout=0.1, targets=("head",))
    plain, fast = (
        run(tmp_path, files, {"adapter": adapter, "token_position": "first", "fast": fast}) for fast in (False, True)
    )
    assert_same(fast, plain)
    assert list(fast.module.feature_cache.splits) == ["train", "validation", "test"]


@pytest.mark.parametrize("layers", [2, "last_block"])
def test_the_frozen_layers_are_computed_once(layers: str | int, files: Files, tmp_path: Path) -> None:
    with counted_features() as calls:
        found = run(tmp_path, files, {"trainable_layers": layers}, max_epochs=3)
    assert sum(calls) == 48
    assert len(found.losses) == 27
    data = texts(files.texts)
    n_positions = [sum(min(len(ids), MAX_LENGTH) for ids in data.splits[name].token_ids) for name in SPLIT_NAMES]
    for line, name, n in zip(found.told, SPLIT_NAMES, n_positions, strict=True):
        assert line.startswith(f"frozen layers, {name}: {len(data.splits[name].token_ids)} texts, {n} positions, ")
        assert line.endswith(" GB in memory")
    assert all(states.values.shape[1] == 48 for states in found.module.feature_cache.splits.values())


# Notes, where every step computes everything.


@pytest.mark.parametrize(
    ("model", "options", "note"),
    [
        ({"drop_rate": 0.1}, {}, "model.drop_rate 0.1 draws anew in the frozen blocks in every step"),
        ({"fast": False}, {}, "model.fast is false"),
        (
            {"token_position": "last"},
            {},
            "token_position last reads pads, of which every batch has another number",
        ),
        ({}, {"limit_train_batches": 4, "max_epochs": 2}, "fewer texts are trained on than the train split has"),
        ({}, {"fast_dev_run": True}, "fewer texts are trained on than the train split has"),
    ],
    ids=["drop_rate", "fast", "last", "limit", "fast_dev_run"],
)
def test_a_note_tells_why_steps_compute_everything(
    model: dict[str, Any], options: dict[str, Any], note: str, files: Files, tmp_path: Path
) -> None:
    found = run(tmp_path, files, model, **options)
    assert found.told == [f"note: the frozen layers are computed in every step: {note}"]
    assert found.module.feature_cache.splits == {}


def test_dropout_draws_the_same_with_and_without(files: Files, tmp_path: Path) -> None:
    """Nothing is left out with dropout, so that the random numbers are the same bit for bit."""
    plain, fast = (
        run(tmp_path, files, {"drop_rate": 0.2, "trainable_layers": "last_block", "fast": fast})
        for fast in (False, True)
    )
    assert fast.losses == pytest.approx(plain.losses, abs=1e-6)  # the optimizer is another
    assert_same(fast, plain, atol=1e-5)


# Files.


def cached(folder: Path, files: Files, model: dict[str, Any] | None = None, **options: Any) -> tuple[Fitted, int]:
    """A training with a folder for the outputs; and how many texts the frozen layers read."""
    with counted_features() as calls:
        found = run(folder, files, {"cache_dir": str(folder / "cache"), **(model or {})}, **options)
    return found, sum(calls)


def names(folder: Path, suffix: str = ".features") -> set[str]:
    return {path.name for path in (folder / "cache").glob(f"*{suffix}")}


@pytest.fixture(scope="module")
def first_cache(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `cache` a training without further options has filled."""
    folder = tmp_path_factory.mktemp("first")
    with small_evaluation_batches():
        cached(folder, files)
    return folder


@pytest.fixture
def filled_cache(first_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(first_cache / "cache", tmp_path / "cache")


def test_a_second_run_computes_nothing(shared_run: Callable[..., Fitted], files: Files, tmp_path: Path) -> None:
    plain = shared_run({"fast": False})
    first, computed = cached(tmp_path, files)
    assert computed == 48
    assert len(names(tmp_path)) == len(names(tmp_path, ".json")) == 3
    assert not names(tmp_path, ".partial")
    assert all(line.endswith(f"GB in {tmp_path / 'cache'}") for line in first.told)
    before = {path: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    second, computed = cached(tmp_path, files)
    assert computed == 0
    assert all(line.endswith(f"GB found in {tmp_path / 'cache'}") for line in second.told)
    assert len(second.told) == 3
    assert second.losses == first.losses
    for split in SPLIT_NAMES:
        assert torch.equal(second.logits[split], first.logits[split])
    assert_same(second, plain)
    assert {path: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == before


@pytest.mark.usefixtures("filled_cache")
def test_what_a_run_tells_of_time_is_that_of_the_one_that_computed(files: Files, tmp_path: Path) -> None:
    for path in (tmp_path / "cache").glob("*.json"):
        note = json.loads(path.read_text())
        note["seconds"] = 61.5
        path.write_text(json.dumps(note))
    module = network(files.weights, cache_dir=str(tmp_path / "cache"))
    trainer(tmp_path, callbacks=[CacheFeatures(lambda line: None, tmp_path)]).fit(module, datamodule=texts(files.texts))
    assert module.feature_cache.seconds == {"train": 61.5, "validation": 61.5}


@pytest.mark.usefixtures("filled_cache")
@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        ({"weights": "other"}, {}, {}),
        ({}, {"split_seed": 5}, {}),
        ({}, {"max_length": 8}, {}),
        ({}, {"truncation": "tail"}, {}),
        ({}, {"padding": "longest_in_train"}, {}),
        ({"trainable_layers": "last_two_blocks"}, {}, {}),
        ({"trainable_layers": "last_layer"}, {}, {}),
        ({}, {}, {"precision": "bf16-mixed"}),
        ({}, {}, {"precision": "bf16-true"}),
        ({"causal": False}, {}, {}),
    ],
    ids=["weights", "texts", "cut", "end", "padding", "layers", "head", "precision", "dtype", "causal"],
)
def test_another_run_does_not_find_the_file(
    model: dict[str, Any], data: dict[str, Any], options: dict[str, Any], files: Files, tmp_path: Path
) -> None:
    before = names(tmp_path)
    assert len(before) == 3
    other = files._replace(weights=files.others) if "weights" in model else files
    model = {name: value for name, value in model.items() if name != "weights"}
    found, computed = cached(tmp_path, other, model, data=data, max_epochs=1, **options)
    assert computed == 48
    assert len(names(tmp_path) - before) == 3
    if options.get("precision", "32-true") == "32-true":
        assert_same(found, run(tmp_path, other, {**model, "fast": False}, data, max_epochs=1, **options))


@pytest.mark.parametrize(
    ("first", "second", "computed"),
    [
        # The wider choice holds the narrower one, and not the other way round.
        (("mean", "longest_in_train", True), ("flexible", "longest_in_train", True), 0),
        (("mean", "longest_in_train", True), ("first", "longest_in_train", True), 0),
        (("last", 11, True), ("mean_flexible", 11, True), 0),
        (("flexible", "longest_in_batch", True), ("first", "longest_in_batch", True), 0),
        (("flexible", "longest_in_batch", True), ("mean_flexible", "longest_in_batch", True), 0),
        (("mean", "none", True), ("first", "none", True), 0),
        (("last", "none", True), ("flexible", "longest_in_batch", True), 0),
        (("flexible", "longest_in_train", True), ("last", "longest_in_train", True), 48),
        (("first", "longest_in_batch", True), ("flexible", "longest_in_batch", True), 48),
        # Without the causal mask what stands to the right counts: pads as well, for mean and last.
        (("mean", "longest_in_train", False), ("flexible", "longest_in_train", False), 48),
        (("last", 11, False), ("first", 11, False), 48),
        # And a head alone reads one vector, each position its own.
        (("mean", "longest_in_train", True), ("flexible", "longest_in_train", "head"), 48),
    ],
    ids=str,
)
def test_a_file_with_more_positions_serves_a_run_that_needs_fewer(
    first: tuple[Any, ...],
    second: tuple[Any, ...],
    computed: int,
    shared_run: Callable[..., Fitted],
    files: Files,
    tmp_path: Path,
) -> None:
    def choices(case: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
        position, padding, mask = case
        layers = "last_layer" if mask == "head" else "last_block"
        return {"token_position": position, "causal": bool(mask), "trainable_layers": layers}, {"padding": padding}

    for case, expected in ((first, 48), (second, computed)):
        model, data = choices(case)
        found, n = cached(tmp_path, files, model, data=data, max_epochs=1)
        assert n == expected, case
    assert_same(found, shared_run({**model, "fast": False}, data, max_epochs=1))


@pytest.mark.parametrize("damage", ["short", "long", "empty"])
def test_a_file_of_the_wrong_size_is_computed_anew(damage: str, files: Files, tmp_path: Path) -> None:
    first, _ = cached(tmp_path, files)
    content = {path: path.read_bytes() for path in (tmp_path / "cache").glob("*.features")}
    broken = max(content, key=lambda path: len(content[path]))  # that of the train split
    broken.write_bytes({"short": content[broken][:-4], "long": content[broken] + bytes(4), "empty": b""}[damage])
    second, computed = cached(tmp_path, files)
    assert computed == len(texts(files.texts).splits["train"].token_ids)
    assert second.losses == first.losses
    assert {path: path.read_bytes() for path in content} == content


def test_half_a_file_of_a_killed_run_is_cleared(files: Files, tmp_path: Path) -> None:
    first, _ = cached(tmp_path, files)
    content = {path: path.read_bytes() for path in (tmp_path / "cache").glob("*.features")}
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for i, path in enumerate(content):
        partial = path.with_name(f".frozen-{platform.node()}-{ended.pid}-{i}.partial")
        path.rename(partial).write_bytes(b"\xff" * 4 * len(content[path]))
    second, computed = cached(tmp_path, files)
    assert computed == 48
    assert second.losses == first.losses
    assert {path: path.read_bytes() for path in content} == content
    assert not names(tmp_path, ".partial")


def test_two_runs_may_compute_the_same_at_once(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the two processes of one run on two devices do, or two runs of a sweep."""
    model = {"cache_dir": str(tmp_path / "cache")}
    plain_compute, found = frozen_callback.compute, []
    second = Thread(target=lambda: found.append(run(tmp_path, files, model)), daemon=True)

    def compute(*arguments: Any) -> Iterator[int]:
        if second.ident is None:  # the first run is about to fill its file
            second.start()
            second.join(timeout=1)  # the second may also wait for it
        yield from plain_compute(*arguments)

    monkeypatch.setattr(frozen_callback, "compute", compute)
    first = run(tmp_path, files, model)
    second.join(timeout=30)
    assert found[0].losses == first.losses
    again, computed = cached(tmp_path, files)
    assert computed == 0
    assert again.losses == first.losses
    assert not names(tmp_path, ".partial")


def test_too_little_disk_is_told_with_both_numbers(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: plain._replace(free=2_000))
    n = sum(min(len(ids), MAX_LENGTH) for ids in texts(files.texts).splits["train"].token_ids)
    assert n * 48 * 4 > 2_000
    for model, folder in (({"cache_dir": str(tmp_path / "cache")}, "cache"), ({"cache_gb": 0.0}, "scratch")):
        with pytest.raises(
            UserError, match=rf"layers take 0.0 GB, {tmp_path / folder} has 0.0 GB free: make room"
        ) as e:
            run(tmp_path, files, model)
        assert "pass --model.fast false, which computes them in every step" in str(e.value)
        assert not any(path.stat().st_size for path in (tmp_path / folder).iterdir())


@pytest.mark.parametrize("kept_in", ["cache", "scratch"])
@pytest.mark.parametrize("short_of", [1, 0])
def test_room_for_all_splits_is_looked_for_before_the_first(
    short_of: int, kept_in: str, sizes: list[int], files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [sum(sizes) - short_of]
    plain = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: plain._replace(free=room[0]))
    monkeypatch.setattr(frozen_files, "GB", 1000)
    model = {"cache_dir": str(tmp_path / "cache")} if kept_in == "cache" else {"cache_gb": 0.0}
    if not short_of:
        assert all(" GB " in line for line in run(tmp_path, files, model).told)
        room = [0]  # what is found in the folder needs none
        if kept_in == "cache":
            assert all("found in" in line for line in run(tmp_path, files, model).told)
        return
    told = rf"layers take {sum(sizes) / 1000:.1f} GB, {tmp_path / kept_in} has {room[0] / 1000:.1f} GB free: make room"
    with counted_features() as calls, pytest.raises(UserError, match=told):
        run(tmp_path, files, model)
    assert not calls
    # A split that is not evaluated, or of which a part is, needs no room.
    found = run(tmp_path, files, model, limit_test_batches=1)
    assert list(found.module.feature_cache.splits) == ["train", "validation"]


def test_splits_in_memory_need_no_room_on_disk(
    sizes: list[int], files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sizes[1] < sizes[2] < sizes[0]
    plain, free = shutil.disk_usage(tmp_path), [sizes[2]]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: plain._replace(free=free[0]))
    model = {"cache_gb": (sizes[0] + sizes[1]) / 1e9}
    found = run(tmp_path, files, model)
    assert ["on disk" in line for line in found.told] == [False, False, True]
    free = [sizes[2] - 1]
    with pytest.raises(UserError, match="the outputs of the frozen layers take"):
        run(tmp_path, files, model)


@pytest.mark.parametrize("kept_in", ["cache", "scratch"])
@pytest.mark.parametrize("failure", ["full", "broken"])
def test_a_disk_that_fills_up_during_the_training_does_not_end_it(
    failure: str,
    kept_in: str,
    sizes: list[int],
    shared_run: Callable[..., Fitted],
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain_run = shared_run({"fast": False})
    plain, n_looks = shutil.disk_usage(tmp_path), []
    plain_new_file = frozen_files.new_file

    def usage(path: Path) -> Any:
        n_looks.append(path)
        # The first look is for all splits, the second for the train split.
        return plain._replace(free=sum(sizes) if len(n_looks) < 3 else 10)

    def new_file(*arguments: Any) -> Any:
        if made:
            raise OSError(5, "Input/output error")
        made.append(True)
        return plain_new_file(*arguments)

    made: list[bool] = []
    if failure == "full":
        monkeypatch.setattr(shutil, "disk_usage", usage)
    else:
        monkeypatch.setattr(frozen_files, "new_file", new_file)
    model = {"cache_dir": str(tmp_path / "cache")} if kept_in == "cache" else {"cache_gb": 0.0}
    found = run(tmp_path, files, model)
    assert list(found.module.feature_cache.splits) == ["train"]
    assert len(found.told) == 3  # once, not in every epoch
    for line, split in zip(found.told[1:], ("validation", "test"), strict=True):
        why = "the outputs of the frozen layers take 0.0 GB, .* has 0.0 GB free" if failure == "full" else ".*output"
        assert re.match(rf"note: the frozen layers of the {split} split are computed in every step: {why}", line)
    assert_same(found, plain_run)


# Memory.


@pytest.mark.parametrize("layers", ["last_layer", "last_block"])
def test_beyond_the_budget_values_are_mapped_and_nothing_stays(
    layers: str, shared_run: Callable[..., Fitted], files: Files, tmp_path: Path
) -> None:
    in_memory = shared_run({"trainable_layers": layers})
    mapped = run(tmp_path, files, {"trainable_layers": layers, "cache_gb": 0.0})
    assert mapped.losses == in_memory.losses
    for split in SPLIT_NAMES:
        assert torch.equal(mapped.logits[split], in_memory.logits[split])
    assert all(line.endswith("GB on disk (model.cache_gb is 0)") for line in mapped.told)
    assert len(mapped.told) == 3
    assert list((tmp_path / "scratch").iterdir()) == []
    unlinked = [line for line in Path("/proc/self/maps").read_text().splitlines() if ".frozen-" in line]
    assert all(line.endswith("(deleted)") for line in unlinked)
    assert len(unlinked) >= 3


def test_the_budget_is_that_of_all_splits_together(
    sizes: list[int], shared_run: Callable[..., Fitted], files: Files, tmp_path: Path
) -> None:
    """Each in its turn is in memory as long as there is room."""
    found = run(tmp_path, files, {"cache_gb": (sizes[0] + sizes[2] + 1) / 1e9})
    assert sizes[1] < sizes[2] < sizes[0]
    assert [line.split(" GB ")[1].split(" (")[0] for line in found.told] == ["in memory", "in memory", "on disk"]
    assert_same(found, shared_run({}), atol=0)


def test_the_budget_is_free_again_when_a_checkpoint_has_other_weights(
    sizes: list[int], files: Files, tmp_path: Path
) -> None:
    random = {"weights": "random", "cache_gb": sum(sizes) / 1e9}
    seed_everything(1, verbose=False)
    other, runner = network(**random), trainer(tmp_path)
    runner.fit(other, datamodule=texts(files.texts))
    runner.save_checkpoint(tmp_path / "other.ckpt")
    trained = run(tmp_path, files, random)
    for verb in (trained.runner.validate, trained.runner.test):
        where = {"datamodule": trained.runner.datamodule, "ckpt_path": str(tmp_path / "other.ckpt")}
        verb(trained.module, verbose=False, **where)
    assert len(trained.told) == 5
    assert all(line.endswith("in memory") for line in trained.told)


@pytest.mark.parametrize("layers", ["last_layer", "last_block"])
def test_values_on_a_device_are_picked_there(
    layers: str,
    shared_run: Callable[..., Fitted],
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU a batch carries places alone; here the processor is taken for one."""
    in_memory = shared_run({"trainable_layers": layers})
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda self: False), raising=False)
    seen: list[bool] = []
    plain = TextClassifier.from_features
    monkeypatch.setattr(TextClassifier, "from_features", lambda *arguments: seen.append(True) or plain(*arguments))
    picked = run(tmp_path, files, {"trainable_layers": layers})
    assert seen
    assert_same(picked, in_memory, atol=0)


# Going on, and what must not be mixed up.


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("cache_dir", [False, True])
def test_a_resumed_training_equals_the_uninterrupted_one(
    cache_dir: bool, precision: str, files: Files, tmp_path: Path
) -> None:
    model = {"cache_dir": str(tmp_path / "cache")} if cache_dir else {}
    whole = run(tmp_path, files, model, max_epochs=3, precision=precision)
    first = run(tmp_path, files, model, max_epochs=1, precision=precision)
    first.runner.save_checkpoint(tmp_path / "middle.ckpt")
    rest = run(tmp_path, files, model, max_epochs=3, precision=precision, ckpt=str(tmp_path / "middle.ckpt"))
    assert first.losses + rest.losses == whole.losses
    for name, tensor in whole.module.net.state_dict().items():
        torch.testing.assert_close(rest.module.net.state_dict()[name], tensor, atol=0, rtol=0, msg=name)
    for split in SPLIT_NAMES:
        assert torch.equal(rest.logits[split], whole.logits[split])


def test_random_weights_are_resumed_from_the_checkpoints_own(files: Files, tmp_path: Path) -> None:
    """The frozen layers of a network that came from no file are in the checkpoint: the cache follows these."""
    cache = {"cache_dir": str(tmp_path / "cache"), "weights": "random"}
    first = run(tmp_path, files, cache, max_epochs=1)
    first.runner.save_checkpoint(tmp_path / "middle.ckpt")
    whole = run(tmp_path, files, {"weights": "random"}, max_epochs=2)
    seed_everything(99, verbose=False)
    module = network(**cache)
    module.take_labels(("a", "b"))
    module.trainer = trainer(tmp_path)
    module.configure_model()  # other random weights than the checkpoint's
    with counted_features() as calls:
        rest = fitted(tmp_path, module, texts(files.texts), str(tmp_path / "middle.ckpt"), max_epochs=2)
    assert not calls
    assert rest.losses == whole.losses[9:]


def test_a_second_training_of_one_callback_begins_anew(files: Files, tmp_path: Path) -> None:
    told: list[str] = []
    frozen = CacheFeatures(told.append, tmp_path)
    found = []
    for weights in (files.weights, files.others):
        module = network(weights)
        trainer(tmp_path, callbacks=[frozen]).fit(module, datamodule=texts(files.texts))
        found.append(module.feature_cache.splits["train"].values)
    assert len(told) == 4
    assert not torch.allclose(found[0], found[1], atol=0.1)


@pytest.mark.parametrize("batches", [1, 0.5])
def test_a_split_of_which_a_part_is_read_is_not_computed_as_a_whole(
    batches: float, files: Files, tmp_path: Path
) -> None:
    with counted_features() as calls:
        found = run(tmp_path, files, {}, limit_val_batches=batches, limit_test_batches=batches)
    assert list(found.module.feature_cache.splits) == ["train"]
    assert sum(calls) < 48 + 15


@pytest.mark.parametrize("cache_dir", [False, True])
def test_the_weights_of_a_checkpoint_after_a_training_are_used(cache_dir: bool, files: Files, tmp_path: Path) -> None:
    """Without a file of weights a checkpoint brings its own frozen layers: neither kept outputs nor files are its."""
    random = {"weights": "random", "token_position": "mean_flexible"}
    seed_everything(1, verbose=False)
    other, collected = network(**random, fast=False), CollectPredictions()
    runner = trainer(tmp_path, callbacks=[collected])
    runner.fit(other, datamodule=texts(files.texts))
    runner.save_checkpoint(tmp_path / "other.ckpt")
    collected.clear()
    runner.test(other, datamodule=texts(files.texts), verbose=False)

    # The module, its Trainer and its data have the outputs of every split for the weights of another seed.
    cache = {"cache_dir": str(tmp_path / "cache")} if cache_dir else {}
    trained = run(tmp_path, files, {**random, **cache})
    assert (trained.logits["test"] - collected.logits).abs().max() > 0.1
    before = {path: path.read_bytes() for path in (tmp_path / "cache").glob("*")}
    [ours] = [callback for callback in trained.runner.callbacks if isinstance(callback, CollectPredictions)]
    for _ in range(2):
        where = {"datamodule": trained.runner.datamodule, "ckpt_path": str(tmp_path / "other.ckpt")}
        trained.runner.test(trained.module, verbose=False, **where)
        torch.testing.assert_close(ours.logits, collected.logits, atol=1e-5, rtol=0)
    assert len(names(tmp_path)) == (4 if cache_dir else 0)
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("position", ["first", "mean_flexible"])
@pytest.mark.parametrize("given", ["datamodule", "dataloaders"])
def test_other_texts_after_a_training_are_read_as_they_are(
    given: str, position: str, files: Files, tmp_path: Path
) -> None:
    """The network must not be given the outputs for the texts that it was trained on."""
    trained = run(tmp_path, files, {"token_position": position, "weights": files.weights})
    other = texts(files.texts, split_seed=5, padding="longest_in_train")
    where = {"datamodule": other} if given == "datamodule" else {"dataloaders": other.test_dataloader()}
    never_trained = network(files.weights, token_position=position)
    never_trained.take_labels(trained.module.label_names)
    never_trained.trainer = trainer(tmp_path)
    never_trained.configure_model()
    never_trained.net.load_state_dict(trained.module.net.state_dict())
    expected = trainer(tmp_path).predict(never_trained, **where)
    got = trainer(tmp_path).predict(trained.module, **where)
    torch.testing.assert_close(
        torch.cat([batch["logits"] for batch in got]),
        torch.cat([batch["logits"] for batch in expected]),
        atol=1e-4,
        rtol=0,
    )
