"""Run folders: new for every run, refused early when they cannot be written."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from small_fits import data, module, trainer

from lit_cls.errors import UserError
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.runs.checks import check_disk
from lit_cls.runs.folder import find_checkpoint, new_run_folder
from lit_cls.runs.provenance import add_resumption, write_provenance


def test_every_run_gets_a_new_folder(tmp_path: Path) -> None:
    first, second = new_run_folder(tmp_path, "a"), new_run_folder(tmp_path, "a")
    assert (first.name, second.name) == ("version_0", "version_1")
    shutil.rmtree(first)  # a gap is not filled: the number says which came later
    (tmp_path / "a" / "version_x").mkdir()
    assert new_run_folder(tmp_path, "a").name == "version_2"
    assert new_run_folder(tmp_path, "b").name == "version_0"


def test_runs_that_start_together_get_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: new_run_folder(tmp_path, "a"), range(64)))
    assert len(set(folders)) == 64


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be saved below .*file/a: .*--trainer.default_root_dir"):
        new_run_folder(tmp_path / "file", "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        new_run_folder(tmp_path, "a")


def test_the_newest_checkpoint_is_found_by_number(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path, "a", "best") is None
    for number in (2, 10, 9):  # 10 comes after 9
        folder = tmp_path / "a" / f"version_{number}"
        folder.mkdir(parents=True)
        (folder / "best.ckpt").touch()
    (tmp_path / "a" / "version_11").mkdir()  # a test run has none
    assert find_checkpoint(tmp_path, "a", "best") == tmp_path / "a" / "version_10" / "best.ckpt"
    assert find_checkpoint(tmp_path, "a", "last") is None
    assert find_checkpoint(tmp_path, "a" * 300, "best") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look anywhere")
def test_a_folder_of_runs_that_is_locked(tmp_path: Path) -> None:
    (tmp_path / "a" / "version_0").mkdir(parents=True)
    (tmp_path / "a" / "version_0" / "best.ckpt").touch()
    for folder in (tmp_path / "a" / "version_0", tmp_path / "a"):
        folder.chmod(0)
        assert find_checkpoint(tmp_path, "a", "best") is None
        folder.chmod(0o700)


def test_too_little_room_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = GPTClassifier(GPTConfig(emb_dim=2**16, n_heads=1, n_layers=2), trainable_layers="all")
    with pytest.raises(UserError, match=r"takes [\d.]+ GB, 3 copies exist at once, and .* has [\d.]+ GB left"):
        check_disk(tmp_path, net, frozen_are_named=False, copies=3)


def test_frozen_weights_that_are_named_take_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        net = GPTClassifier(GPTConfig(), trainable_layers="last_block")
    # 7,090,946 trained numbers of 4 bytes, and AdamW's two for each: 85 MB; all weights would be 498 MB more.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 90_000_000))  # type: ignore[attr-defined]
    check_disk(tmp_path, net, frozen_are_named=True, copies=1)
    with pytest.raises(UserError, match=r"takes 0.09 GB, 2 copies"):
        check_disk(tmp_path, net, frozen_are_named=True, copies=2)
    with pytest.raises(UserError, match=r"takes 0.55 GB"):
        check_disk(tmp_path, net, frozen_are_named=False, copies=1)


def test_provenance_names_everything(tmp_path: Path, reviews: str) -> None:
    (tmp_path / "config.yaml").write_text("model: {}\n")
    write_provenance(tmp_path, ["fit"], data(reviews).summary, module(), trainer(tmp_path))
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert content["command"] == ["lit_cls", "fit"]
    assert list(content["split_sha256"]) == ["train", "validation", "test"]
    assert content["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {len(content[f"{name}_sha256"]) for name in ("config", "data")} == {64}
    assert (content["weights"], content["weights_sha256"]) == ("random", None)
    assert content["device"] == "cpu x 1"
    add_resumption(tmp_path, ["resume", "here"], 7)
    [resumed] = json.loads((tmp_path / "provenance.json").read_text())["resumed"]
    assert (resumed["command"], resumed["step"]) == (["lit_cls", "resume", "here"], 7)
