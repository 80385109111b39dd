"""Putting weights into a model: every layout that exists, what does not fit, and what is shared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_gpt import CONFIG, hugging_face_gpt2, some_ids
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from lit_cls.errors import UserError
from lit_cls.model import GPTClassifier, GPTConfig, GPTModel
from lit_cls.model.adapters import Adapter, LoRA
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.backbones.base import BackboneSpec
from lit_cls.model.backbones.gpt2 import FAMILY, hub_name, to_hub_names
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.selection import TrainableLayers
from lit_cls.model.settings import ModelSettings
from lit_cls.model.weight_files import file_sha256
from lit_cls.model.weights import WeightsCache, load_weights


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named network of the shape of `CONFIG`, for `ModelSettings`."""
    monkeypatch.setitem(BACKBONES, "tiny", BackboneSpec(FAMILY, CONFIG))


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    return hugging_face_gpt2(CONFIG)


def classifier(
    path: Path,
    trainable_layers: TrainableLayers = "last_layer",
    cache: WeightsCache | None = None,
    adapter: Adapter | None = None,
) -> TextClassifier:
    """As a run makes it: without memory until the file's tensors take their places."""
    settings = ModelSettings("tiny", str(path), trainable_layers=trainable_layers, adapter=adapter)  # type: ignore[arg-type]
    return settings.load(2, path, cache)[0]


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
    torch.testing.assert_close(net.backbone.tok_emb.weight, theirs.transformer.wte.weight)


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
    net = GPTClassifier(CONFIG, adapter=LoRA(2))
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    save_file(GPTClassifier(CONFIG).state_dict(), tmp_path / "plain.safetensors")
    net.load_weights(tmp_path / "plain.safetensors")
    empty = classifier(tmp_path / "plain.safetensors", adapter=LoRA(2))
    for model in (net, empty):
        assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
        assert not any(p.is_meta for p in model.parameters())
        assert all(p.isfinite().all() for p in model.parameters())
    block = empty.backbone.trf_blocks[0].att.W_query
    assert block.lora_A.std() > 0.01
    assert not block.lora_B.any()


def test_training_never_writes_into_the_weights_file(tmp_path: Path) -> None:
    """Tensors stay mapped to the file: what an optimizer writes must stay private."""
    path = tmp_path / "plain.safetensors"
    save_file(GPTClassifier(CONFIG, trainable_layers="all").state_dict(), path)
    before = file_sha256(path)
    net = classifier(path, "all")
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
    save_file(GPTClassifier(BACKBONES["gpt2-nano"].config).state_dict(), tmp_path / "nano.safetensors")
    with torch.device("meta"):
        small = GPTClassifier(BACKBONES["gpt2-small"].config)
    with pytest.raises(UserError, match=r"looks like gpt2-nano: pass --model.size gpt2-nano"):
        small.load_weights(tmp_path / "nano.safetensors")


def test_half_of_an_adapter_is_missing_not_new(tmp_path: Path) -> None:
    net = GPTClassifier(CONFIG, adapter=LoRA(2))
    tensors = {name: t for name, t in net.state_dict().items() if "trf_blocks.0.att.W_query.lora_A" not in name}
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=r"missing \(1\): trf_blocks.0.att.W_query.lora_A"):
        net.load_weights(tmp_path / "half.safetensors")


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


def holds(net: TextClassifier, value: float) -> bool:
    return all(bool((parameter == value).all()) for parameter in net.parameters())


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
def test_a_cached_file_is_read_once(tmp_path: Path, kind: str) -> None:
    """Other numbers, put into the file in secret, are not seen; without the cache they are."""
    path, cache = tmp_path / f"model{kind}", WeightsCache()
    write_numbers(path, 1.0, changed_at=10**18)
    assert holds(classifier(path, cache=cache), 1.0)
    write_numbers(path, 2.0, changed_at=10**18)
    for layers in ("last_layer", "last_block", "all"):
        assert holds(classifier(path, layers, cache), 1.0)
    assert holds(classifier(path), 2.0)
    write_numbers(path, 3.0, changed_at=10**18)
    assert holds(classifier(path), 3.0)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path, cache = tmp_path / "model.safetensors", WeightsCache()
    write_numbers(path, 1.0, changed_at=10**18)
    assert holds(classifier(path, cache=cache), 1.0)
    write_numbers(path, 2.0, changed_at=10**18 + 1)
    assert holds(classifier(path, cache=cache), 2.0)


def test_a_cache_keeps_one_file(tmp_path: Path) -> None:
    one, other, cache = tmp_path / "one.safetensors", tmp_path / "other.safetensors", WeightsCache()
    write_numbers(one, 1.0, changed_at=10**18)
    write_numbers(other, 5.0, changed_at=10**18)
    assert holds(classifier(one, cache=cache), 1.0)
    assert holds(classifier(other, cache=cache), 5.0)
    write_numbers(one, 2.0, changed_at=10**18)
    write_numbers(other, 6.0, changed_at=10**18)
    assert holds(classifier(other, cache=cache), 5.0)
    assert holds(classifier(one, cache=cache), 2.0)  # read again: the other had replaced it
    assert holds(classifier(other, cache=cache), 6.0)


def test_cached_tensors_are_shared_by_what_is_frozen(theirs: GPT2LMHeadModel, tmp_path: Path) -> None:
    """Of Hugging Face's layout too, whose tensors are thirds, transposed."""
    theirs.save_pretrained(tmp_path)
    cache = WeightsCache()
    layers: tuple[TrainableLayers, ...] = ("last_block", "last_layer")
    one, other = (dict(classifier(tmp_path, chosen, cache).named_parameters()) for chosen in layers)
    for name, parameter in one.items():
        shared = parameter.data_ptr() == other[name].data_ptr()
        assert shared is not parameter.requires_grad, name
    apart = [dict(classifier(tmp_path).named_parameters()) for _ in range(2)]
    assert len({p.data_ptr() for network in apart for p in network.values()}) == 2 * len(one)


def test_cached_tensors_are_shared_by_the_frozen_weights_below_adapters(tmp_path: Path) -> None:
    path, cache = tmp_path / "model.safetensors", WeightsCache()
    save_file(GPTClassifier(CONFIG).state_dict(), path)
    plain = classifier(path, cache=cache)
    adapted = classifier(path, cache=cache, adapter=LoRA(2))
    adapters = {name: p for name, p in adapted.named_parameters() if ".lora_" in name}
    assert adapters
    for name, parameter in adapted.named_parameters():
        if name not in adapters and not name.startswith("out_head."):
            assert parameter.data_ptr() == plain.get_parameter(name).data_ptr(), name


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
@pytest.mark.parametrize("first", ["last_layer", "last_block", "all"])
def test_cached_tensors_stay_apart_from_trained_ones(tmp_path: Path, kind: str, first: TrainableLayers) -> None:
    """What one network's training writes is in no other, earlier or later, whatever that one trains."""
    path, cache = tmp_path / f"model{kind}", WeightsCache()
    write_numbers(path, 1.0)
    earlier = classifier(path, "last_block", cache)
    trained = classifier(path, first, cache)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    assert not holds(trained, 1.0)
    assert holds(earlier, 1.0)
    for layers in ("last_layer", "last_block", "all"):
        assert holds(classifier(path, layers, cache), 1.0)


MEASURE = """
import sys, torch
from pathlib import Path
import safetensors.torch, safetensors
from lit_cls.model.settings import ModelSettings
def peak_kb():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
torch.zeros(1)
before = peak_kb()
net, _ = ModelSettings(sys.argv[2], sys.argv[1]).load(2, Path(sys.argv[1]))
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
    "size",
    [
        "gpt2-small",
        pytest.param("gpt2-medium", marks=pytest.mark.slow),
        pytest.param("gpt2-xl", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_loading_never_holds_the_weights_twice(tmp_path: Path, size: str) -> None:
    """Peak memory of the load, beyond what the imports took, is at most 1.15 times the file."""
    config = BACKBONES[size].config  # type: ignore[index]
    path = tmp_path / "model.safetensors"
    write_hugging_face_file(path, config)
    told = subprocess.run([sys.executable, "-c", MEASURE, str(path), size], capture_output=True, text=True, check=True)
    ratio = int(told.stdout) / path.stat().st_size
    assert 0.9 < ratio <= 1.15, f"peak memory is {ratio:.3f} x the file"


def test_a_classifier_in_hugging_faces_names_is_read_back_and_is_theirs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = GPTClassifier(CONFIG, num_classes=3).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.3)  # norms and biases are all the same at the start
        ours.out_head.bias.zero_()
    tensors = {
        name.removeprefix("backbone."): p.detach() for name, p in ours.named_parameters() if name != "out_head.bias"
    }
    translated = to_hub_names(tensors)
    theirs = GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=CONFIG.vocab_size,
            n_positions=CONFIG.context_length,
            n_embd=CONFIG.emb_dim,
            n_head=CONFIG.n_heads,
            n_layer=CONFIG.n_layers,
            num_labels=3,
            pad_token_id=CONFIG.vocab_size - 1,
        )
    ).eval()
    theirs.load_state_dict(translated)  # strict: neither more nor fewer, of the same shapes
    ids = torch.randint(0, CONFIG.vocab_size - 1, (4, 9))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids, torch.full((4,), 9)), atol=1e-4, rtol=1e-4)

    save_file({n: t for n, t in translated.items() if n != "score.weight"}, tmp_path / "model.safetensors")
    again = GPTClassifier(CONFIG, num_classes=3)
    again.load_weights(tmp_path)
    for name, tensor in tensors.items():
        if name != "out_head.weight":
            assert torch.equal(again.backbone.get_parameter(name), tensor), name
    assert hub_name("trf_blocks.3.att.W_key.weight") == "transformer.h.3.attn.c_attn.weight"
