"""What the script that made the data and the test that compares with it share."""

import hashlib
import json
import lzma
import shlex
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).resolve().parent
TEXTS = HERE / "texts.csv"
WEIGHTS = HERE / "weights.safetensors.xz"
COMMANDS: dict[str, Any] = json.loads((HERE / "commands.json").read_text(encoding="utf-8"))
OF_FILE = ("last_block_of_file", "lora_of_file")
"""Checkpoints whose frozen tensors are in the weights file."""
SPLITS = ("train", "validation", "test")
FILES = ("metrics.csv", *(f"predictions_{split}.csv" for split in SPLITS))
"""What is compared of a run."""


def words(command: str, **places: Path) -> list[str]:
    """A command of the table as the words after `lit_cls`, its `{places}` filled in."""
    return [word.format(**places) for word in shlex.split(command)]


def fit_words(kind: str, name: str, folder: Path, weights: Path, texts: Path = TEXTS) -> list[str]:
    """The words of a fit from the start; `kind` is `checkpoints` or `fits`."""
    command = f"{COMMANDS['fit']} {COMMANDS[kind][name]}"
    return words(command, texts=texts, folder=folder, weights=weights)


def continued_words(name: str, checkpoint: Path, folder: Path, weights: Path) -> list[str]:
    """The words of a fit that continues from a stored checkpoint."""
    return words(COMMANDS["continued"][name], texts=TEXTS, checkpoint=checkpoint, folder=folder, weights=weights)


def unpack(packed: Path, target: Path) -> Path:
    """Decompresses a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.decompress(packed.read_bytes()))
    return target


def stored_checkpoint(name: str, folder: Path) -> Path:
    """A stored checkpoint, ready to be read, with its run's metrics.csv beside it where that is kept."""
    metrics = HERE / "checkpoints" / f"{name}.metrics.csv"
    path = unpack(HERE / "checkpoints" / f"{name}.ckpt.xz", folder / name / "last.ckpt")
    if metrics.exists():
        path.with_name("metrics.csv").write_bytes(metrics.read_bytes())
    return path


def fingerprint() -> dict[str, str]:
    """What float bits depend on: where all of it is the same, so are the results, bit by bit.

    Call it with one thread.
    """
    random = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    x, weight, bias = drawn(13, 48), drawn(192, 48), drawn(192)
    queries, keys, values = drawn(2, 3, 13, 16), drawn(2, 3, 13, 16), drawn(2, 3, 13, 16)
    parameter = torch.nn.Parameter(drawn(48, 48))
    parameter.grad = drawn(48, 48)
    torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.1, fused=True).step()
    with torch.no_grad():
        results = [
            F.linear(x, weight, bias),
            F.linear(x[:1], weight, bias),
            F.conv1d(drawn(1, 48, 13), drawn(192, 48, 1), bias),  # oneDNN's product
            F.linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()).float(),
            drawn(13, 512).softmax(-1),
            F.scaled_dot_product_attention(queries, keys, values, is_causal=True),
            F.gelu(drawn(13, 192), approximate="tanh"),
            F.layer_norm(x, (48,)),
            F.cross_entropy(drawn(13, 3), torch.arange(13) % 3),
            parameter.data,
        ]
    digest = hashlib.sha256()
    for result in results:
        digest.update(result.contiguous().numpy().tobytes())
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "results_sha256": digest.hexdigest(),
    }
