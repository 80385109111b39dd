"""Reading weights: every layout that exists, and every way a file can be wrong."""

import hashlib
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_gpt import CONFIG, hugging_face_gpt2, some_ids
from torch import Tensor
from transformers import GPT2LMHeadModel

from lit_cls.errors import UserError
from lit_cls.model import GPTClassifier, GPTConfig, GPTModel, LoRAConfig
from lit_cls.model import weights as weights_module
from lit_cls.model.classifier import TrainableLayers
from lit_cls.model.weights import SIZES, fetch_pretrained, file_sha256, load_weights, reading_once


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    return hugging_face_gpt2(CONFIG)


def logits_of(path: Path) -> tuple[Tensor, list[str]]:
    with torch.device("meta"):
        model = GPTModel(CONFIG)
    notes = load_weights(model, path)
    with torch.no_grad():
        return model.eval()(some_ids()), notes


def published_names(theirs: GPT2LMHeadModel, folder: Path) -> dict[str, Tensor]:
    """The same network in the published code's naming, with a full, untied output layer."""
    theirs.save_pretrained(folder)
    model = GPTModel(CONFIG)
    load_weights(model, folder)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("layout", ["file", "folder", "sharded folder", "index", "no prefix", "with masks", "bfloat16"])
def test_hugging_face_layouts(theirs: GPT2LMHeadModel, tmp_path: Path, layout: str) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="20KB" if layout in ("sharded folder", "index") else "1GB")
    path, tolerance = tmp_path, 2e-5
    if layout in ("file", "no prefix", "with masks", "bfloat16"):
        path = tmp_path / "model.safetensors"
        tensors = load_file(path)
        if layout == "no prefix":
            tensors = {name.removeprefix("transformer."): t for name, t in tensors.items()}
        if layout == "with masks":
            for i in range(CONFIG.n_layers):
                tensors[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, 40, 40).tril()
                tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
        if layout == "bfloat16":
            tensors, tolerance = {name: t.bfloat16() for name, t in tensors.items()}, 0.2
        save_file(tensors, path)
    if layout in ("sharded folder", "index"):
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        path = tmp_path / "model.safetensors.index.json" if layout == "index" else tmp_path
    logits, notes = logits_of(path)
    with torch.no_grad():
        torch.testing.assert_close(logits, theirs(some_ids()).logits, atol=tolerance, rtol=tolerance)
    assert any("tied to the token embedding" in note for note in notes)
    assert any("8 stored causal masks" in note for note in notes) is (layout == "with masks")


@pytest.mark.parametrize("kind", [".safetensors", ".pth", ".ckpt"])
def test_published_naming(theirs: GPT2LMHeadModel, tmp_path: Path, kind: str) -> None:
    tensors = published_names(theirs, tmp_path)
    tensors["out_head.weight"] = tensors["out_head.weight"] * 2  # untied: no longer the embedding
    path = tmp_path / f"model{kind}"
    if kind == ".safetensors":
        save_file({name: t.clone() for name, t in tensors.items()}, path)
    elif kind == ".pth":
        masks = {f"trf_blocks.{i}.att.mask": torch.ones(40, 40).triu(1) for i in range(CONFIG.n_layers)}
        torch.save(tensors | masks, path)
    else:
        torch.save({"state_dict": {f"net.{name}": t for name, t in tensors.items()}, "epoch": 3}, path)
    logits, notes = logits_of(path)
    with torch.no_grad():
        torch.testing.assert_close(logits, 2 * theirs(some_ids()).logits, atol=4e-5, rtol=1e-5)
    assert not any("tied" in note for note in notes)
    assert any("4 stored causal masks" in note for note in notes) is (kind == ".pth")


def test_a_classifier_leaves_a_language_models_output_layer_out(theirs: GPT2LMHeadModel, tmp_path: Path) -> None:
    save_file(published_names(theirs, tmp_path), tmp_path / "lm.safetensors")
    net = GPTClassifier(CONFIG, num_classes=3)
    head = net.out_head.weight.clone()
    notes = net.load_weights(tmp_path / "lm.safetensors")
    assert any("output layer" in note and "new head" in note for note in notes)
    torch.testing.assert_close(net.out_head.weight, head, atol=0, rtol=0)
    torch.testing.assert_close(net.tok_emb.weight, theirs.transformer.wte.weight)


def test_a_classifier_takes_a_head_of_its_own_shape(tmp_path: Path) -> None:
    trained = GPTClassifier(CONFIG, num_classes=3, trainable_layers="all")
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    same, other = GPTClassifier(CONFIG, num_classes=3), GPTClassifier(CONFIG, num_classes=4)
    assert same.load_weights(tmp_path / "trained.safetensors") == [
        f"the head is that of {tmp_path / 'trained.safetensors'}"
    ]
    torch.testing.assert_close(same.out_head.weight, trained.out_head.weight, atol=0, rtol=0)
    assert "new head" in other.load_weights(tmp_path / "trained.safetensors")[0]


def test_what_trains_stays_so_after_loading(tmp_path: Path) -> None:
    net = GPTClassifier(CONFIG, trainable_layers="lora", lora=LoRAConfig(2))
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    save_file(GPTClassifier(CONFIG).state_dict(), tmp_path / "plain.safetensors")
    with torch.device("meta"):
        empty = GPTClassifier(CONFIG, trainable_layers="lora", lora=LoRAConfig(2))
    for model in (net, empty):
        model.load_weights(tmp_path / "plain.safetensors")
        assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
        assert not any(p.is_meta for p in model.parameters())
        assert all(p.isfinite().all() for p in model.parameters())
    block = empty.trf_blocks[0].att.W_query
    assert block.lora_A.std() > 0.01
    assert not block.lora_B.any()


def test_training_never_writes_into_the_weights_file(tmp_path: Path) -> None:
    """Tensors stay mapped to the file: what an optimizer writes must stay private."""
    path = tmp_path / "plain.safetensors"
    save_file(GPTClassifier(CONFIG, trainable_layers="all").state_dict(), path)
    before = file_sha256(path)
    with torch.device("meta"):
        net = GPTClassifier(CONFIG, trainable_layers="all")
    net.load_weights(path)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    content = path.read_bytes()
    again = tmp_path / "again.safetensors"
    again.write_bytes(content)
    assert file_sha256(again) == before


def test_all_that_does_not_fit_is_reported_at_once(tmp_path: Path) -> None:
    tensors = GPTModel(CONFIG).state_dict()
    for name in [name for name in tensors if name.startswith("trf_blocks.2.")]:
        del tensors[name]
    tensors["pos_emb.weight"] = torch.zeros(8, 24)
    tensors["adapter.weight"] = torch.zeros(1)
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path)
    with pytest.raises(UserError) as caught:
        load_weights(GPTModel(CONFIG), path)
    message = str(caught.value)
    assert str(path) in message
    assert "4 blocks and emb_dim 24" in message
    assert "missing (16): trf_blocks.2.att.W_key.bias" in message
    assert "and 13 more" in message
    assert "unexpected (1): adapter.weight" in message
    assert "misshapen (1): pos_emb.weight is (8, 24), not (40, 24)" in message
    assert "--model.weights random" in message


def test_a_file_of_another_size_is_recognised(tmp_path: Path) -> None:
    save_file(GPTClassifier(SIZES["gpt2-nano"]).state_dict(), tmp_path / "nano.safetensors")
    with torch.device("meta"):
        small = GPTClassifier(SIZES["gpt2-small"])
    with pytest.raises(UserError, match=r"looks like gpt2-nano: pass --model.size gpt2-nano"):
        small.load_weights(tmp_path / "nano.safetensors")


def test_half_of_an_adapter_is_missing_not_new(tmp_path: Path) -> None:
    net = GPTClassifier(CONFIG, trainable_layers="lora", lora=LoRAConfig(2))
    tensors = {name: t for name, t in net.state_dict().items() if "trf_blocks.0.att.W_query.lora_A" not in name}
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=r"missing \(1\): trf_blocks.0.att.W_query.lora_A"):
        net.load_weights(tmp_path / "half.safetensors")


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
        archive.writestr("bomb/data.pkl", bytes(1 << 30))


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
        "no plain names .*etc/passwd",
    ),
    "root.index.json": (lambda f: f.write_text('{"weight_map": {"a": "/etc/passwd"}}'), "no plain names .*/etc/passwd"),
    "number.index.json": (lambda f: f.write_text('{"weight_map": {"a": 5}}'), "no plain names .*: 5"),
    "itself.index.json": (lambda f: f.write_text('{"weight_map": {"a": "itself.index.json"}}'), "no plain names"),
    "null.index.json": (
        lambda f: f.write_text('{"weight_map": {"a": "x\\u0000y.bin"}}'),
        r"no plain names .*'x\\x00y.bin'",
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
    with pytest.raises(UserError, match=r"model.h5 is of no known kind"):
        load_weights(model, tmp_path / "model.h5")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list.pth is not a state dict"):
        load_weights(model, tmp_path / "list.pth")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(UserError, match=r"empty.safetensors holds no tensors"):
        load_weights(model, tmp_path / "empty.safetensors")


def test_sha256_of_a_sharded_file_is_over_its_shards(theirs: GPT2LMHeadModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    first = file_sha256(tmp_path)
    shard = sorted(tmp_path.glob("*.safetensors"))[-1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(1, 1))
    assert file_sha256(tmp_path) != first


def test_pretrained_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        fetch_pretrained("gpt2-medium")
    message = str(caught.value)
    assert "LIT_CLS_OFFLINE is set" in message
    assert "https://huggingface.co/openai-community/gpt2-medium/resolve/6dcaa7a952f7" in message
    assert "--model.weights PATH" in message
    with pytest.raises(UserError, match=r"no pretrained weights for gpt2-nano: pass --model.weights random"):
        fetch_pretrained("gpt2-nano")


def test_pretrained_weights_come_from_the_cache_and_are_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, theirs: GPT2LMHeadModel
) -> None:
    """The hub's cache in its real layout: a snapshot links to a file named by its sha256."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    repo, revision = weights_module._PRETRAINED["gpt2-small"]
    folder = tmp_path / f"models--{repo.replace('/', '--')}"
    theirs.save_pretrained(tmp_path / "saved")
    content = (tmp_path / "saved" / "model.safetensors").read_bytes()
    blob = folder / "blobs" / file_sha256(tmp_path / "saved" / "model.safetensors")
    link = folder / "snapshots" / revision / "model.safetensors"
    for file in (blob, link):
        file.parent.mkdir(parents=True)
    blob.write_bytes(content)
    link.symlink_to(os.path.relpath(blob, link.parent))
    monkeypatch.setitem(weights_module._SHA256, "gpt2-small", blob.name)
    path = fetch_pretrained("gpt2-small")
    logits, _ = logits_of(path)
    with torch.no_grad():
        torch.testing.assert_close(logits, theirs(some_ids()).logits, atol=2e-5, rtol=1e-5)
    damaged = content[:-4] + b"abcd"
    blob.write_bytes(damaged)
    os.utime(blob, ns=(1, 1))
    aside = blob.with_name(f"model.safetensors.wrong-sha256-{hashlib.sha256(damaged).hexdigest()[:8]}")
    with pytest.raises(
        UserError, match=rf"are damaged: .*{blob.name}. They are kept as {aside} and not used: run again"
    ):
        fetch_pretrained("gpt2-small")
    assert aside.read_bytes() == damaged
    assert not blob.exists()
    with pytest.raises(UserError, match="LIT_CLS_OFFLINE is set"):  # nor is it ever used
        fetch_pretrained("gpt2-small")


HUB = """
import sys
from lit_cls.errors import UserError
from lit_cls.model import weights
weights._SHA256["gpt2-small"] = sys.argv[1]
try:
    print(weights.fetch_pretrained("gpt2-small"))
except UserError as error:
    print(error)
"""


class Hub:
    """The part of the hub that a download needs, on this machine: a head with name and size, and ranges."""

    def __init__(self, content: bytes, name: str) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.cut: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(send=False)

            def do_GET(self) -> None:
                self.answer(send=True)

            def answer(self, send: bool) -> None:
                if "/resolve/" not in self.path:  # the hub's own questions about the repository
                    self.send_error(404)
                    return
                hub.requests.append((self.command, self.headers.get("Range")))
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.send_header("ETag", f'"{name}"')
                self.send_header("X-Repo-Commit", weights_module._PRETRAINED["gpt2-small"][1])
                self.end_headers()
                if send:
                    self.wfile.write(content[start : hub.cut])

            def log_message(self, format: str, *args: object) -> None:
                """Keeps the test's output free of access logs."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def fetch(self, home: Path, published: str) -> str:
        """What `fetch_pretrained` says, in a process whose hub this is."""
        endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        env = {
            **os.environ,
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "no_proxy": "127.0.0.1",
        }
        env = {name: value for name, value in env.items() if name not in ("LIT_CLS_OFFLINE", "HF_HUB_CACHE")}
        told = subprocess.run(
            [sys.executable, "-c", HUB, published], env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert not told.returncode, told.stderr
        return told.stdout.strip()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def test_pretrained_weights_from_the_hub(tmp_path: Path) -> None:
    """Broken off, gone on from, verified, linked into the hub's cache, and used from there."""
    content = os.urandom(100_000)
    name = hashlib.sha256(content).hexdigest()
    hub = Hub(content, name)
    try:
        hub.cut = 30_000
        told = hub.fetch(tmp_path, name)
        assert "could not be downloaded (broke off after 30,000 of 100,000 bytes)" in told
        [partial] = tmp_path.rglob("*.partial")
        assert partial.read_bytes() == content[:30_000]
        hub.cut = None
        path = Path(hub.fetch(tmp_path, name))
        assert path.read_bytes() == content
        assert path.resolve().name == name
        assert ("GET", "bytes=30000-") in hub.requests
        assert not list(tmp_path.rglob("*.partial*"))
        asked = len(hub.requests)
        assert Path(hub.fetch(tmp_path, name)) == path
        assert len(hub.requests) == asked
    finally:
        hub.stop()


def test_wrong_weights_from_the_hub(tmp_path: Path) -> None:
    content, right = os.urandom(1000), "0" * 64
    wrong = hashlib.sha256(content).hexdigest()
    liar, other = Hub(content, right), Hub(content, wrong)
    try:
        told = liar.fetch(tmp_path, right)
        [aside] = tmp_path.rglob("*.wrong-sha256-*")
        assert f"its sha256 is {wrong}, not {right}: not used, kept as {aside}" in told
        assert aside.read_bytes() == content
        told = other.fetch(tmp_path, right)
        assert f"the server offers a file with the sha256 {wrong}, the published one has {right}" in told
    finally:
        liar.stop()
        other.stop()


def classifier(path: Path, trainable_layers: TrainableLayers = "last_layer") -> GPTClassifier:
    """As a run makes it: without memory until the file's tensors take their places."""
    with torch.device("meta"):
        net = GPTClassifier(CONFIG, trainable_layers=trainable_layers)
    net.load_weights(path)
    return net


def write_numbers(path: Path, value: float, changed_at: int | None = None) -> None:
    """A weights file with this number everywhere, in place of the one before and, if wanted, as old."""
    tensors = {name: torch.full_like(p, value) for name, p in GPTClassifier(CONFIG).state_dict().items()}
    new = path.with_name(f"new_{path.name}")
    if path.suffix == ".pth":
        torch.save(tensors, new)
    else:
        save_file(tensors, new)
    if changed_at is not None:
        os.utime(new, ns=(changed_at, changed_at))
    new.replace(path)  # not written into: the one before may still be mapped


def holds(net: GPTClassifier, value: float) -> bool:
    return all(bool((parameter == value).all()) for parameter in net.parameters())


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
def test_reading_once_reads_once(tmp_path: Path, kind: str) -> None:
    """Other numbers, put into the file in secret, are not seen; without `reading_once` they are."""
    path = tmp_path / f"model{kind}"
    write_numbers(path, 1.0, changed_at=10**18)
    with reading_once():
        assert holds(classifier(path), 1.0)
        write_numbers(path, 2.0, changed_at=10**18)
        for layers in ("last_layer", "last_block", "all"):
            assert holds(classifier(path, layers), 1.0)
    assert holds(classifier(path), 2.0)
    write_numbers(path, 3.0, changed_at=10**18)
    assert holds(classifier(path), 3.0)


def test_reading_once_reads_a_changed_file_again(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_numbers(path, 1.0, changed_at=10**18)
    with reading_once():
        assert holds(classifier(path), 1.0)
        write_numbers(path, 2.0, changed_at=10**18 + 1)
        assert holds(classifier(path), 2.0)


def test_reading_once_keeps_one_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    write_numbers(one, 1.0, changed_at=10**18)
    write_numbers(other, 5.0, changed_at=10**18)
    with reading_once():
        assert holds(classifier(one), 1.0)
        assert holds(classifier(other), 5.0)
        write_numbers(one, 2.0, changed_at=10**18)
        write_numbers(other, 6.0, changed_at=10**18)
        assert holds(classifier(other), 5.0)
        assert holds(classifier(one), 2.0)  # read again: the other had taken its place
        assert holds(classifier(other), 6.0)


def test_reading_once_shares_what_is_frozen(theirs: GPT2LMHeadModel, tmp_path: Path) -> None:
    """Of Hugging Face's layout too, whose tensors are parts, transposed."""
    theirs.save_pretrained(tmp_path)
    with reading_once():
        one, other = (dict(classifier(tmp_path, layers).named_parameters()) for layers in ("last_block", "last_layer"))
    for name, parameter in one.items():
        shared = parameter.data_ptr() == other[name].data_ptr()
        assert shared is not parameter.requires_grad, name
    apart = [dict(classifier(tmp_path).named_parameters()) for _ in range(2)]
    assert len({p.data_ptr() for network in apart for p in network.values()}) == 2 * len(one)


def test_reading_once_shares_the_frozen_weights_below_adapters(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(GPTClassifier(CONFIG).state_dict(), path)
    with reading_once():
        plain = classifier(path)
        with torch.device("meta"):
            adapted = GPTClassifier(CONFIG, trainable_layers="lora", lora=LoRAConfig(2))
        adapted.load_weights(path)
    adapters = {name: p for name, p in adapted.named_parameters() if ".lora_" in name}
    assert adapters
    for name, parameter in adapted.named_parameters():
        if name not in adapters and not name.startswith("out_head."):
            assert parameter.data_ptr() == plain.get_parameter(name).data_ptr(), name


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
@pytest.mark.parametrize("first", ["last_layer", "last_block", "all"])
def test_reading_once_keeps_trained_weights_apart(tmp_path: Path, kind: str, first: TrainableLayers) -> None:
    """What one network's training writes is in no other, earlier or later, whatever that one trains."""
    path = tmp_path / f"model{kind}"
    write_numbers(path, 1.0)
    with reading_once():
        earlier = classifier(path, "last_block")
        trained = classifier(path, first)
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.requires_grad:
                    parameter.add_(1.0)
        assert not holds(trained, 1.0)
        assert holds(earlier, 1.0)
        for layers in ("last_layer", "last_block", "all"):
            assert holds(classifier(path, layers), 1.0)


def test_nothing_is_kept_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_numbers(path, 1.0)
    classifier(path)
    assert weights_module._kept is None
    with reading_once():
        classifier(path)
        assert len(weights_module._kept or {}) == 1
    assert weights_module._kept is None
    with pytest.raises(RuntimeError, match="halfway"), reading_once():  # noqa: PT012 - the block is what is tested
        classifier(path)
        raise RuntimeError("halfway")
    assert weights_module._kept is None


MEASURE = """
import sys, torch
from dataclasses import replace
import safetensors.torch, safetensors
from lit_cls.model import GPTClassifier, GPTConfig
def peak_kb():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
torch.zeros(1)
config = GPTConfig(emb_dim=int(sys.argv[2]), n_heads=int(sys.argv[3]), n_layers=int(sys.argv[4]))
before = peak_kb()
with torch.device("meta"):
    net = GPTClassifier(config)
net.load_weights(sys.argv[1])
assert sum(float(p.sum()) for p in net.parameters()) != 0  # every page has been touched
print((peak_kb() - before) * 1024)
"""


def write_hugging_face_file(path: Path, config: GPTConfig) -> None:
    """A GPT-2 file in Hugging Face's naming and layout (linear layers stored in, out), without transformers."""
    C = config.emb_dim
    tensors = {
        "wte.weight": torch.rand(config.vocab_size, C),
        "wpe.weight": torch.rand(1024, C),
        "ln_f.weight": torch.rand(C),
        "ln_f.bias": torch.rand(C),
    }
    shapes = {"attn.c_attn": (C, 3 * C), "attn.c_proj": (C, C), "mlp.c_fc": (C, 4 * C), "mlp.c_proj": (4 * C, C)}
    for i in range(config.n_layers):
        for norm in ("ln_1", "ln_2"):
            tensors |= {f"h.{i}.{norm}.weight": torch.rand(C), f"h.{i}.{norm}.bias": torch.rand(C)}
        for name, shape in shapes.items():
            tensors |= {f"h.{i}.{name}.weight": torch.rand(shape), f"h.{i}.{name}.bias": torch.rand(shape[1])}
    save_file(tensors, path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.parametrize(
    "size", ["gpt2-medium", pytest.param("gpt2-xl", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_loading_never_holds_the_weights_twice(tmp_path: Path, size: str) -> None:
    """Peak memory of the load, beyond what the imports took, is at most 1.15 times the file."""
    config = SIZES[size]  # type: ignore[index]
    path = tmp_path / "model.safetensors"
    write_hugging_face_file(path, config)
    shape = [str(n) for n in (config.emb_dim, config.n_heads, config.n_layers)]
    told = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), *shape], capture_output=True, text=True, check=True
    )
    ratio = int(told.stdout) / path.stat().st_size
    assert 0.9 < ratio <= 1.15, f"peak memory is {ratio:.3f} x the file"
