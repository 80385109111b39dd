"""Checkpoint files: written in one step, read without running code, refused when they do not fit."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_cls.errors import UserError
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.adapters import LoRA
from lit_cls.model.settings import ModelSettings
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import (
    BEST,
    DATA_KEY,
    KEY,
    LAST,
    PREVIOUS,
    check_same_network,
    check_same_weights,
    checked_state,
    describe_network,
    is_intact,
    newest_checkpoint,
    read_checkpoint,
    trained_tensors,
)

TINY = GPTConfig(vocab_size=97, context_length=32, emb_dim=16, n_heads=4, n_layers=2)
DATA = {"settings": {}, "label_names": ["ham", "spam"], "cut_to": 32, "pad_to": None, "split_sha256": {}}
SETTINGS = ModelSettings("gpt2-nano", "random")


def checkpoint(net: GPTClassifier, sha256: str | None = None) -> dict[str, Any]:
    state = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    return {KEY: describe_network(SETTINGS, ("ham", "spam"), sha256), DATA_KEY: dict(DATA), "state_dict": state}


def flip(path: Path) -> None:
    """One bit in the middle, which is a tensor's: torch reads past it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_whole_one_is_found(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, print) is None
    io, told = AtomicCheckpointIO(), []
    for _ in range(2):
        io.save_checkpoint(checkpoint(GPTClassifier(TINY)), tmp_path / LAST)
    io.save_checkpoint(checkpoint(GPTClassifier(TINY)), tmp_path / BEST)
    for expected in (LAST, PREVIOUS, BEST):
        told.clear()
        found = newest_checkpoint(tmp_path, told.append)
        assert found is not None
        assert found[0].name == expected
        assert len(told) == (LAST, PREVIOUS, BEST).index(expected)
        flip(tmp_path / expected)
    assert "last.ckpt cannot be read (truncated, damaged, or not one): a checksum is wrong" in told[0]
    with pytest.raises(UserError, match="best.ckpt cannot be read"):
        newest_checkpoint(tmp_path, told.append)


def test_a_malicious_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({**checkpoint(GPTClassifier(TINY)), "callbacks": Malicious()}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=r"bad.ckpt cannot be read"):
        read_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "executed").exists()


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no checkpoint .*none.ckpt: check --ckpt_path"):
        read_checkpoint(tmp_path / "none.ckpt")
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(GPTClassifier(TINY)), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"last.ckpt cannot be read \(truncated, damaged, or not one\)"):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match=r"is not a checkpoint written by lit_cls fit.*belong to --model.weights"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("settings", "labels", "message"),
    [
        (ModelSettings("gpt2-small", "random"), (), "model.size is gpt2-small, the checkpoint's is gpt2-nano"),
        (ModelSettings("gpt2-nano", "random", "mean"), (), "token_position is mean, the checkpoint's is flexible"),
        (ModelSettings("gpt2-nano", "random", causal=False), (), "model.causal is False"),
        (SETTINGS, ("neg", "pos"), "the data's labels are neg, pos, the checkpoint's ham, spam"),
        (ModelSettings("gpt2-nano", "a.pth"), (), "model.weights is a.pth, the checkpoint's is random"),
        (
            ModelSettings("gpt2-nano", "random", adapter=LoRA(4)),
            (),
            "(?s)trainable_layers is last_layer.*model.adapter is {'name': 'LoRA', 'rank': 4",
        ),
    ],
)
def test_another_networks_checkpoint(settings: ModelSettings, labels: tuple, message: str) -> None:
    saved = checkpoint(GPTClassifier(TINY))
    with pytest.raises(UserError, match=message):
        check_same_network(saved, settings, labels)


def test_the_same_network_is_taken() -> None:
    saved = checkpoint(GPTClassifier(TINY))
    check_same_network(saved, SETTINGS, ("ham", "spam"))
    check_same_network(saved, SETTINGS)


def test_frozen_weights_must_be_the_ones_that_are_named() -> None:
    named, whole = checkpoint(GPTClassifier(TINY), "a" * 64), checkpoint(GPTClassifier(TINY))
    check_same_weights(named, "a" * 64)
    check_same_weights(whole, None)
    with pytest.raises(UserError, match="has the sha256 bbb.*, the checkpoint was trained on aaa"):
        check_same_weights(named, "b" * 64)
    with pytest.raises(UserError, match="has the sha256 None, the checkpoint was trained on aaa"):
        check_same_weights(named, None)
    with pytest.raises(UserError, match="model.weights is random, the checkpoint's is"):
        check_same_network(named, SETTINGS)  # a random trunk under trained layers


def test_a_checkpoint_of_another_version(tmp_path: Path) -> None:
    for entry, missing, added in ((KEY, "precision", {}), (DATA_KEY, "pad_to", {}), (KEY, None, {"new_option": 1})):
        other = checkpoint(GPTClassifier(TINY))
        other[KEY]["version"] = "9.9"
        other[entry].pop(missing, None)
        other[KEY]["model"].update(added)
        torch.save(other, tmp_path / "new.ckpt")
        with pytest.raises(
            UserError, match=r"new.ckpt was written by another lit_cls \(9.9\), which this one .* cannot"
        ):
            read_checkpoint(tmp_path / "new.ckpt")


def test_a_checkpoint_that_is_not_whole() -> None:
    net = GPTClassifier(TINY, trainable_layers="last_block")
    whole = checkpoint(net)
    frozen = {"net.backbone.tok_emb.weight", "net.backbone.trf_blocks.0.norm1.scale"}
    without = {name: t for name, t in whole["state_dict"].items() if name not in frozen}
    with pytest.raises(
        UserError, match=r"2 tensors missing \['backbone.tok_emb.weight', 'backbone.trf_blocks.0.norm1.scale'\]"
    ):
        checked_state(net, {**whole, "state_dict": without})
    named = checkpoint(net, "a" * 64)  # the frozen ones are in a named file: they may be missing
    assert set(checked_state(net, {**named, "state_dict": without})) >= trained_tensors(net)
    with pytest.raises(UserError, match=r"0 tensors missing \[\], 1 unexpected \['extra'\]"):
        checked_state(net, {**whole, "state_dict": {**whole["state_dict"], "net.extra": torch.zeros(1)}})


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_is_found_wherever_zipfile_finds_it(compression: int, tmp_path: Path) -> None:
    """Every byte of a small archive in turn; zipfile reads in its own way."""
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in ("data.pkl", "data/0", "ümlaut"):
            archive.writestr(name, name.encode() * 20)
        archive.writestr("none", b"")
    content = path.read_bytes()
    assert is_intact(path)
    found = 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x11]) + content[at + 1 :])
        try:
            with zipfile.ZipFile(path) as archive:
                whole = archive.testzip() is None
        except Exception:
            whole = False
        try:
            ours = is_intact(path)
        except Exception:  # which read_checkpoint tells as damage
            ours = False
        assert ours <= whole, at
        found += not ours
    assert found > 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"PK")
    path.chmod(0)
    with pytest.raises(UserError, match=r"the file .*a.ckpt cannot be read: Permission denied$"):
        read_checkpoint(path)
    tmp_path.chmod(0)
    try:
        with pytest.raises(UserError, match=r"there is no checkpoint .*a.ckpt"):
            read_checkpoint(path)
    finally:
        tmp_path.chmod(0o700)
