"""Opening files of weights: every way a file can be wrong."""

import json
import os
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_gpt import CONFIG, hugging_face_gpt2
from torch import Tensor

from lit_cls.errors import UserError
from lit_cls.model import GPTModel
from lit_cls.model.weight_files import file_sha256
from lit_cls.model.weights import load_weights


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
@pytest.mark.parametrize("damage", [truncated, lambda _: b"not weights at all", lambda _: b""])
def test_unreadable_files(tmp_path: Path, kind: str, damage) -> None:
    path = tmp_path / f"model{kind}"
    if kind == ".safetensors":
        save_file(GPTModel(CONFIG).state_dict(), path)
    else:
        torch.save(GPTModel(CONFIG).state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"cannot be read \(truncated, damaged, or not a weights file\)"):
        load_weights(GPTModel(CONFIG), path)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "executed"),)

    for name, save in (("new.pth", torch.save), ("old.pth", lambda x, f: f.write_bytes(pickle.dumps(x)))):
        save({"tok_emb.weight": Malicious()}, tmp_path / name)
        with pytest.raises(UserError, match="cannot be read"):
            load_weights(GPTModel(CONFIG), tmp_path / name)
    assert not (tmp_path / "executed").exists()


class Reduced:
    """An object that a pickle makes by calling something."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


class Subclass(Tensor):
    pass


def header(content: object, data: bytes = b"") -> Callable[[Path], object]:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda file: file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def f32(shape: list[int], *offsets: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


def bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(1 << 26))


def save(content: object, zipped: bool = True) -> Callable[[Path], object]:
    return lambda file: torch.save(content, file, _use_new_zipfile_serialization=zipped)


def save_positions(make: Callable[[Tensor], Tensor]) -> Callable[[Path], object]:
    def write(file: Path) -> None:
        state = GPTModel(CONFIG).state_dict()
        torch.save({**state, "pos_emb.weight": make(state["pos_emb.weight"])}, file)

    return write


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "huge_header.safetensors": (lambda f: f.write_bytes(struct.pack("<Q", 2**62) + b"{}"), "cannot be read"),
    "long_header.safetensors": (lambda f: f.write_bytes(struct.pack("<Q", 99_000_000) + b"{"), "cannot be read"),
    "deep.safetensors": (header(b"[" * 100_000), "cannot be read"),
    "overlap.safetensors": (header({"a": f32([2], 0, 8), "b": f32([2], 4, 12)}, bytes(12)), "invalid offset"),
    "beyond.safetensors": (header({"a": f32([2**40], 0, 2**42)}, bytes(12)), "cannot be read"),
    "overflow.safetensors": (header({"a": f32([2**33, 2**33], 0, 16)}, bytes(16)), "cannot be read"),
    "names.safetensors": (header({"a\0\x1b[31m\n../x": f32([2], 0, 8)}, bytes(8)), r"'a\\x00\\x1b\[31m\\n\.\./x'"),
    "old.pth": (
        save({"a": torch.zeros(2)}, zipped=False),
        "it is no zip archive, as torch.save writes since torch 1.6",
    ),
    "bomb.pth": (bomb, "packed as torch.save packs none: it could fill the memory"),
    "system.bin": (save({"a": Reduced(os.system, ("touch executed",))}), r"other than tensors \(posix.system\)"),
    "eval.pt": (save({"a": Reduced(eval, ("__import__('os').mkdir('executed')",))}), "something other than tensors"),
    "old_system.bin": (save(Reduced(os.system, ("touch executed",)), zipped=False), "it is no zip archive"),
    "memory.pth": (save({"a": Reduced(bytearray, (10**15,))}), "it asks for more memory than there is"),
    "rebuild.pth": (save({"a": Reduced(torch._utils._rebuild_tensor_v2, (1, 2, 3))}), "cannot be read"),
    "beyond.pth": (
        save(
            {
                "a": Reduced(
                    torch._utils._rebuild_tensor_v2, (torch.zeros(2)._typed_storage(), 0, (2**30,), (1,), False, {})
                )
            }
        ),
        "cannot be read",
    ),
    "no_tensor.pth": (save({"a": Reduced(torch.Size, ((10**9,),))}), "is not a state dict"),
    "subclass.pth": (save_positions(lambda t: t.as_subclass(Subclass)), "something other than tensors"),
    "stride_0.pth": (
        save_positions(lambda t: torch.zeros(1).expand(10**9, 10**9)),
        r"is \(1000000000, 1000000000\), not",
    ),
    "sparse.pth": (save_positions(Tensor.to_sparse), "pos_emb.weight is sparse"),
    "quantized.pth": (
        save_positions(lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8)),
        "pos_emb.weight is sparse, quantized or nested",
    ),
    "complex.pth": (save_positions(lambda t: t.to(torch.complex64)), "pos_emb.weight is complex64"),
    "integers.pth": (save_positions(Tensor.long), "pos_emb.weight is int64"),
    "meta.pth": (save_positions(lambda t: t.to("meta")), "pos_emb.weight is empty"),
    "nan.pth": (save_positions(lambda t: t * float("nan")), "not finite in pos_emb.weight"),
    "integers.safetensors": (
        lambda f: save_file({**GPTModel(CONFIG).state_dict(), "pos_emb.weight": torch.ones(40, 24).long()}, f),
        "pos_emb.weight is I64",
    ),
    "fifo.pth": (os.mkfifo, "fifo.pth is no regular file"),
    "device.pth": (lambda f: f.symlink_to("/dev/zero"), "device.pth is no regular file"),
    "folder.pth": (Path.mkdir, "the weights folder .*folder.pth has neither"),
    "above.index.json": (
        lambda f: f.write_text('{"weight_map": {"a": "../../etc/passwd"}}'),
        "names shards that are not .*etc/passwd",
    ),
    "root.index.json": (
        lambda f: f.write_text('{"weight_map": {"a": "/etc/passwd"}}'),
        "names shards that are not .*/etc/passwd",
    ),
    "number.index.json": (lambda f: f.write_text('{"weight_map": {"a": 5}}'), "names shards that are not .*: 5"),
    "itself.index.json": (
        lambda f: f.write_text('{"weight_map": {"a": "itself.index.json"}}'),
        "names shards that are not",
    ),
    "null.index.json": (
        lambda f: f.write_text('{"weight_map": {"a": "x\\u0000y.bin"}}'),
        r"names shards that are not .*'x\\x00y.bin'",
    ),
    "list.index.json": (lambda f: f.write_text("[1]"), "is not an index of sharded weights"),
    "lists.index.json": (lambda f: f.write_text('{"weight_map": {"a": [[]]}}'), "is not an index of sharded weights"),
    "deep.index.json": (lambda f: f.write_text("[" * 200_000), "is not an index of sharded weights"),
}


@pytest.mark.filterwarnings("ignore:.*quantize.*", "ignore:TypedStorage")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear message each; nothing is run, nothing waits, no memory is filled."""
    monkeypatch.chdir(tmp_path)
    write, message = HOSTILE[name]
    write(tmp_path / name)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=message) as caught:
        load_weights(GPTModel(CONFIG), tmp_path / name)
    assert "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's own words lead to switching it off
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert not (tmp_path / "executed").exists()


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    model = GPTModel(CONFIG)
    with pytest.raises(UserError, match=r"has neither model.safetensors nor model.safetensors.index.json"):
        load_weights(model, tmp_path)
    with pytest.raises(UserError, match=r"there is no weights file .*nowhere.pth: check --model.weights"):
        load_weights(model, tmp_path / "nowhere.pth")
    index.write_text("{}")
    with pytest.raises(UserError, match=r"is not an index of sharded weights"):
        load_weights(model, tmp_path)
    index.write_text(json.dumps({"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(UserError, match=r"shards that are not beside it: model-00001-of-00002.safetensors"):
        load_weights(model, index)
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"model.h5 is unsupported"):
        load_weights(model, tmp_path / "model.h5")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list.pth is not a state dict"):
        load_weights(model, tmp_path / "list.pth")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(UserError, match=r"empty.safetensors holds no tensors"):
        load_weights(model, tmp_path / "empty.safetensors")


def test_sha256_of_a_sharded_file_is_over_its_shards(tmp_path: Path) -> None:
    hugging_face_gpt2(CONFIG).save_pretrained(tmp_path, max_shard_size="20KB")
    first = file_sha256(tmp_path)
    shard = sorted(tmp_path.glob("*.safetensors"))[-1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(1, 1))
    assert file_sha256(tmp_path) != first
