"""Makes the data of this folder: checkpoints, answers and runs of the code as it was, to hold later code against.

The data that is stored was made at commit edfeaf0 with torch 2.13.0+cpu and one thread, by

    PYTHONPATH=. python tests/frozen/make.py

Later code must be compared with that, so this script is kept as a record, not to be run again.
Only the command line, `lit_cls.load`, torch and safetensors are used. All commands are in commands.json.
"""

import csv
import json
import lzma
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from stored import (
    COMMANDS,
    FILES,
    HERE,
    OF_FILE,
    TEXTS,
    WEIGHTS,
    continued_words,
    fingerprint,
    fit_words,
    stored_checkpoint,
    unpack,
    words,
)
from torch import Tensor

import lit_cls

VOCABULARY, CONTEXT = 50257, 1024
POSITIONS = 48  # more than any of the texts has tokens
LZMA = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 2, "pb": 2}]  # for 4-byte numbers
COUNTS = {"complaint": 28, "praise": 40, "question": 34}
PARTS = {
    "complaint": ("the soup was cold", "my train came late", "nobody answered", "the door is broken"),
    "praise": ("the soup was good", "my train came early", "thank you", "the garden is lovely"),
    "question": ("was the soup good", "when is my train", "who answered", "is the door open"),
}
SHARED = ("today", "again", "at the station", "in the café", '"as always"', "on 7 May", "so they say")


def made_texts() -> list[tuple[str, str]]:
    """Labelled texts of a small vocabulary: 1 to 3 pieces, of which some say nothing of the label."""
    draw = random.Random(7)
    rows = []
    for label, n in COUNTS.items():
        for _ in range(n):
            pieces = [draw.choice(PARTS[label])] if draw.random() < 0.85 else []
            pieces += [draw.choice(SHARED) for _ in range(draw.randrange(3) if pieces else 1)]
            draw.shuffle(pieces)
            rows.append((", ".join(pieces), label))
    draw.shuffle(rows)
    return rows


def asked_texts(rows: list[tuple[str, str]]) -> list[str]:
    """The texts that each checkpoint answers: nine of the file, an empty one, a long one, two joined."""
    texts = list(dict.fromkeys(text for text, _ in rows))
    return [*texts[:9], "", ", ".join(texts[:4]), f"{texts[9]}, {texts[10]}"]


def lit(*argv: str) -> None:
    """Runs `python -m lit_cls` with one thread."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "LIT_CLS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-m", "lit_cls", *argv], env=one_thread, check=True, stdout=subprocess.DEVNULL)


def without_unread(tensor: Tensor, token_ids: Tensor) -> Tensor:
    """An embedding, or averages of its gradients, with rows that no text reads set to 0; others as they are."""
    if tensor.dim() != 2 or tensor.shape[0] not in (VOCABULARY, CONTEXT):
        return tensor
    kept = torch.zeros_like(tensor)
    rows = token_ids if tensor.shape[0] == VOCABULARY else torch.arange(POSITIONS)
    kept[rows] = tensor[rows]
    return kept


def coarse(tensor: Tensor) -> Tensor:
    """float32 with 4 of the 23 bits of the mantissa: a quarter of the size once compressed."""
    if tensor.dtype != torch.float32 or tensor.dim() == 0:
        return tensor
    return (tensor.contiguous().view(torch.int32) & ~0x7FFFF).view(torch.float32)


def mapped(value: Any, on_tensor: Any, on_text: Any) -> Any:
    """The same nest of dicts, lists and tuples, with other tensors and strings."""
    if isinstance(value, dict):
        return type(value)((key, mapped(item, on_tensor, on_text)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, on_tensor, on_text) for item in value)
    if isinstance(value, Tensor):
        return on_tensor(value)
    return on_text(value) if isinstance(value, str) else value


def shrink(source: Path, target: Path, token_ids: Tensor, folder: Path, texts: list[str], weights: Path | None) -> None:
    """Saves a checkpoint such that it compresses, first checking that what is set to 0 was not read."""
    content = torch.load(source, weights_only=True)

    def elsewhere(text: str) -> str:
        return text.replace(str(folder), "/frozen")

    zeroed = mapped(content, lambda t: without_unread(t, token_ids), elsewhere)
    target.parent.mkdir(parents=True)
    torch.save(zeroed, target)
    before, after = (
        lit_cls.load(path, weights=weights, precision="32-true").logits(texts) for path in (source, target)
    )
    assert torch.equal(before, after), f"{source}: a row that is read was set to 0"
    # A tensor that several names share stays shared no longer; each is stored for itself.
    torch.save(mapped(zeroed, lambda t: coarse(t).clone(), str), target)


def pack(source: Path, target: Path) -> None:
    """Compresses a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.compress(source.read_bytes(), filters=LZMA))


def read_token_ids(checkpoint: Path, texts: list[str]) -> Tensor:
    """The rows of the token embedding that are read for texts, and the end of text, the pad."""
    plain, seen = F.embedding, [torch.tensor([VOCABULARY - 1])]

    def recording(ids: Tensor, weight: Tensor, *args: Any, **options: Any) -> Tensor:
        if weight.shape[0] == VOCABULARY:
            seen.append(ids.flatten())
        return plain(ids, weight, *args, **options)

    F.embedding = recording
    try:
        lit_cls.load(checkpoint).logits(texts)
    finally:
        F.embedding = plain
    return torch.cat(seen).unique()


def made_weights(checkpoint: Path, target: Path, token_ids: Tensor) -> None:
    """GPT-2 weights in the published naming, far from fresh ones, so that every tensor counts in the logits."""
    noise = torch.Generator().manual_seed(5)
    state = {
        name.removeprefix("net."): t for name, t in torch.load(checkpoint, weights_only=True)["state_dict"].items()
    }
    tensors = {
        name: coarse(without_unread(t + 0.15 * torch.randn(t.shape, generator=noise), token_ids))
        for name, t in state.items()
        if not name.startswith("out_head.")
    }
    save_file(tensors, target)


def answered(path: Path, texts: list[str], weights: Path | None) -> dict[str, Any]:
    """Logits in float32, and the predictions that a user gets."""
    logits = lit_cls.load(path, weights=weights, precision="32-true").logits(texts)
    assert logits.dtype == torch.float32
    classifier = lit_cls.load(path, weights=weights)
    predictions = [
        {"label": p.label, "probabilities": p.probabilities, "truncated": p.truncated}
        for p in classifier.predict(texts)
    ]
    return {"logits": logits.tolist(), "precision": classifier.precision, "predictions": predictions}


def main() -> None:
    """Makes everything anew."""
    torch.set_num_threads(1)
    rows = made_texts()
    with TEXTS.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("text", "label"), *rows])
    texts = asked_texts(rows)
    for part in ("checkpoints", "fits", "continued"):
        shutil.rmtree(HERE / part, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        copy = folder / "texts.csv"
        copy.write_bytes(TEXTS.read_bytes())
        weights = folder / "weights.safetensors"
        token_ids, answers = torch.tensor([]), {}
        for name in COMMANDS["checkpoints"]:
            lit(*fit_words("checkpoints", name, folder / "runs" / name, weights, copy))
            source = folder / "runs" / name / "run" / "version_0" / "last.ckpt"
            small = folder / "small" / name / "last.ckpt"
            if name == "all":
                token_ids = read_token_ids(source, [*texts, *(text for text, _ in rows)])
                made_weights(source, weights, token_ids)
                pack(weights, WEIGHTS)
            file = weights if name in OF_FILE else None
            shrink(source, small, token_ids, folder, texts, file)
            if name == "tuned":
                out = small.with_name("tuned.ckpt")
                lit(*words(COMMANDS["tune"], checkpoint=small, texts=copy, out=out))
                small = out
            pack(small, HERE / "checkpoints" / f"{name}.ckpt.xz")
            if name in COMMANDS["continued"]:
                shutil.copy(source.with_name("metrics.csv"), HERE / "checkpoints" / f"{name}.metrics.csv")
            answers[name] = answered(stored_checkpoint(name, folder / "stored"), texts, file)
        unpack(WEIGHTS, weights)
        for name in COMMANDS["fits"]:
            lit(*fit_words("fits", name, folder / "fits" / name, weights))
            (HERE / "fits" / name).mkdir(parents=True)
            for file_name in FILES:
                shutil.copy(folder / "fits" / name / "run" / "version_0" / file_name, HERE / "fits" / name / file_name)
        for name in COMMANDS["continued"]:
            checkpoint = folder / "stored" / name / "last.ckpt"
            lit(*continued_words(name, checkpoint, folder / "continued", weights))
            (HERE / "continued").mkdir(exist_ok=True)
            run = max((folder / "continued" / "run").iterdir())
            shutil.copy(run / "metrics.csv", HERE / "continued" / f"{name}.metrics.csv")
    content = {"machine": fingerprint(), "texts": texts, "checkpoints": answers}
    (HERE / "answers.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
