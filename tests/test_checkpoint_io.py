"""Checkpoint files are written in one step."""

import os
from pathlib import Path

import pytest
import torch
from test_checkpoints import TINY, checkpoint, flip

from lit_cls.model import GPTClassifier
from lit_cls.training.checkpoint_io import AtomicCheckpointIO, copy_checkpoint
from lit_cls.training.checkpoints import BEST, LAST, PREVIOUS, checked_state, read_checkpoint


def test_what_is_written_is_read(tmp_path: Path) -> None:
    net, path = GPTClassifier(TINY), tmp_path / "runs" / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint(checkpoint(net), path)
    state = checked_state(net, io.load_checkpoint(path))
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(state[name], tensor, atol=0, rtol=0)
    io.remove_checkpoint(path)
    io.remove_checkpoint(path)  # gone already: nothing to do
    assert list(path.parent.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint(checkpoint(GPTClassifier(TINY)), path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, TypeError, RuntimeError)):  # half-way: a generator cannot be pickled
        io.save_checkpoint({**checkpoint(GPTClassifier(TINY)), "z": (i for i in range(3))}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_state_before_the_last_is_kept(tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / LAST
    contents = [checkpoint(GPTClassifier(TINY)) for _ in range(3)]
    for content in contents:
        io.save_checkpoint(content, path)
    for name, content in ((LAST, contents[2]), (PREVIOUS, contents[1])):
        kept = read_checkpoint(tmp_path / name)["state_dict"]
        assert torch.equal(kept["net.backbone.tok_emb.weight"], content["state_dict"]["net.backbone.tok_emb.weight"])
    copy_checkpoint(path, tmp_path / BEST)
    assert (tmp_path / BEST).read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted((LAST, PREVIOUS, BEST))


def test_what_the_disk_does_not_hold_is_not_called_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / LAST
    io.save_checkpoint(checkpoint(GPTClassifier(TINY)), path)
    before, fsync = path.read_bytes(), os.fsync

    def damages(handle: int) -> None:
        fsync(handle)
        for partial in tmp_path.glob("*.partial"):
            flip(partial)

    monkeypatch.setattr(os, "fsync", damages)
    with pytest.raises(OSError, match="does not hold what was written to it: the disk is damaged"):
        io.save_checkpoint(checkpoint(GPTClassifier(TINY)), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [LAST]
