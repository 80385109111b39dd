"""Files of the frozen layers' outputs: found by all that they follow from, never half written."""

import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_cls.errors import UserError
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.training.feature_files import (
    FeatureKey,
    check_folder,
    feature_key,
    find,
    frozen_sha256,
    new_file,
    publish,
)

TINY = GPTConfig(vocab_size=97, context_length=32, emb_dim=16, n_heads=4, n_layers=3)
TEXTS = [[5, 6, 7], [8], [9, 10]]


def key(
    token_ids: list[list[int]] | None = None,
    pad_to: int | None = None,
    sha256: str = "f" * 64,
    precision: str = "32-true",
    config: GPTConfig = TINY,
    **choices: Any,
) -> FeatureKey:
    torch.manual_seed(0)
    return feature_key(GPTClassifier(config, **choices), token_ids or TEXTS, pad_to, sha256, precision)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("weights", {"sha256": "e" * 64}),
        ("shape", {"config": replace(TINY, n_heads=2)}),
        ("frozen_blocks", {"trainable_layers": "last_two_blocks"}),
        ("causal", {"causal": False}),
        ("token_position", {"trainable_layers": "last_layer"}),
        ("texts", {"token_ids": [[5, 6, 7], [8], [9, 11]]}),
        ("texts", {"token_ids": [[8], [5, 6, 7], [9, 10]]}),
        ("texts", {"token_ids": [[5, 6, 7], [8, 9], [10]]}),
        ("texts", {"token_ids": TEXTS[:2]}),
        ("pad_to", {"pad_to": 3}),
        ("precision", {"precision": "bf16-mixed"}),
    ],
)
def test_whatever_the_outputs_follow_from_is_in_the_name(field: str, other: dict[str, Any], tmp_path: Path) -> None:
    one, two = key(), key(**other)
    assert getattr(one, field) != getattr(two, field)
    assert one.path(tmp_path, "text") != two.path(tmp_path, "text")
    assert one == key()
    assert one.path(tmp_path, "text") == key().path(tmp_path, "text")


def test_every_field_and_the_positions_change_the_name(tmp_path: Path) -> None:
    plain = key()
    others = {field.name: replace(plain, **{field.name: "another"}) for field in fields(plain)}
    names = {plain.path(tmp_path, "text"), plain.path(tmp_path, "all")}
    names |= {other.path(tmp_path, "text") for other in others.values()}
    assert len(names) == 2 + len(others)
    assert {path.parent for path in names} == {tmp_path}


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        # With the causal mask, each position's output is its own: what the head reads has no part in it.
        ({"token_position": "first"}, {"token_position": "mean"}, True),
        ({"token_position": "first", "causal": False}, {"token_position": "mean", "causal": False}, False),
        (
            {"token_position": "first", "trainable_layers": "last_layer"},
            {"token_position": "last", "trainable_layers": "last_layer"},
            False,
        ),
        ({"trainable_layers": 1}, {"trainable_layers": "last_block"}, True),
        ({"trainable_layers": 2}, {"trainable_layers": "last_two_blocks"}, True),
        ({"num_classes": 2}, {"num_classes": 5}, True),
    ],
)
def test_what_the_outputs_do_not_follow_from_changes_nothing(one: dict, two: dict, same: bool) -> None:
    assert (key(**one) == key(**two)) is same


def test_weights_that_came_from_no_file_are_told_apart_by_what_is_frozen() -> None:
    def of(net: GPTClassifier) -> str:
        return frozen_sha256(net)

    torch.manual_seed(0)
    net = GPTClassifier(TINY, num_classes=3)
    first = of(net)
    with torch.no_grad():
        net.out_head.weight.add_(1)
        net.backbone.trf_blocks[2].att.W_key.weight.add_(1)
    assert of(net) == first  # these train
    with torch.no_grad():
        net.backbone.trf_blocks[1].ff.layers[2].bias[3] += 1e-6
    assert of(net) != first
    net.hold_frozen(torch.bfloat16)
    assert len(of(net)) == 64


# The files themselves.


def filled(folder: Path, n: int = 6, width: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Path, Tensor]:
    path, values = new_file(folder, n, width, dtype)
    values.copy_(torch.arange(n * width, dtype=dtype).view(n, width))
    return path, values


def published(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Path, Tensor]:
    partial, values = filled(folder, dtype=dtype)
    publish(partial, folder / "x.features", key(), "text", 61.5)
    return folder / "x.features", values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_is_found(dtype: torch.dtype, tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    assert find(tmp_path / "new" / "x.features", 6, 4, dtype) is None
    target, written = published(tmp_path / "new", dtype)
    found, seconds = find(target, 6, 4, dtype) or (torch.empty(0), 0)
    assert found.dtype == dtype
    assert torch.equal(found, written)
    assert seconds == 61.5
    assert target.stat().st_size == 6 * 4 * dtype.itemsize
    assert {path.name for path in target.parent.iterdir()} == {"x.features", "x.json"}
    note = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert note["positions"] == "text"
    assert {field.name for field in fields(FeatureKey)} < set(note)


def test_a_file_of_another_size_is_not_found(tmp_path: Path) -> None:
    published(tmp_path)
    assert find(tmp_path / "x.features", 6, 4, torch.float32) is not None
    for n, width, dtype in ((5, 4, torch.float32), (6, 5, torch.float32), (6, 4, torch.bfloat16)):
        assert find(tmp_path / "x.features", n, width, dtype) is None
    (tmp_path / "folder.features").mkdir()
    assert find(tmp_path / "folder.features", 0, 4, torch.float32) is None


def test_nothing_written_to_what_was_found_reaches_the_file(tmp_path: Path) -> None:
    published(tmp_path)
    before = (tmp_path / "x.features").read_bytes()
    found, _ = find(tmp_path / "x.features", 6, 4, torch.float32) or (torch.empty(0), 0)
    assert found.shape == (6, 4)
    found.zero_()
    assert (tmp_path / "x.features").read_bytes() == before


@pytest.mark.parametrize("note", [None, "", "{", "[]", "{}", '{"seconds": "soon"}'])
def test_a_file_without_its_note_is_not_found(note: str | None, tmp_path: Path) -> None:
    path, _ = published(tmp_path)
    if note is None:
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text(note, encoding="utf-8")
    assert find(path, 6, 4, torch.float32) is None


def test_two_that_fill_the_same_have_a_file_each(tmp_path: Path) -> None:
    """The later name stays; neither sees half of the other's."""
    one, first = filled(tmp_path)
    two, second = new_file(tmp_path, 6, 4, torch.float32)
    assert one != two
    publish(one, tmp_path / "x.features", key(), "text", 1.0)
    found, _ = find(tmp_path / "x.features", 6, 4, torch.float32) or (torch.empty(0), 0)
    assert torch.equal(found, first)
    second.copy_(first)
    publish(two, tmp_path / "x.features", key(), "text", 2.0)
    assert torch.equal(found, first)
    later, seconds = find(tmp_path / "x.features", 6, 4, torch.float32) or (torch.empty(0), 0)
    assert torch.equal(later, first)
    assert seconds == 2.0


@pytest.mark.parametrize("n", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_any_number_may_publish_the_same_at_the_same_moment(n: int, tmp_path: Path) -> None:
    def one(_: int) -> None:
        publish(filled(tmp_path)[0], tmp_path / "x.features", key(), "text", 1.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(n)))
    assert find(tmp_path / "x.features", 6, 4, torch.float32) is not None
    assert {path.name for path in tmp_path.iterdir()} == {"x.features", "x.json"}


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=rf"model.cache_dir {folder}: nothing can be kept there: "):
            check_folder(folder)


def test_what_killed_runs_left_is_cleared_and_what_others_write_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    mine, _ = filled(tmp_path)
    left = tmp_path / f".frozen-{platform.node()}-{ended.pid}-x.partial"
    elsewhere = tmp_path / f".frozen-other-machine-{ended.pid}-x.partial"
    left.touch()
    longer_name = tmp_path / f".frozen-{platform.node()}-east-{ended.pid}-x.partial"
    elsewhere.touch()
    longer_name.touch()
    check_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, elsewhere.name, longer_name.name}


def disk_with(free: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=free))


def test_too_little_disk_is_told_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_with(2_900_000_000, monkeypatch, tmp_path)
    message = rf"the outputs of the frozen layers take 3.1 GB, {tmp_path} has 2.9 GB free: make room there"
    with pytest.raises(UserError, match=message):
        new_file(tmp_path, 1_000_000, 768, torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_sooner_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another process, or a quota: before anything is mapped, where it would end the process."""

    def full(*arguments: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"the outputs of the frozen layers take 0.0 GB"):
        new_file(tmp_path, 6, 4, torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_with(96, monkeypatch, tmp_path)
    assert filled(tmp_path)[1].shape == (6, 4)
