"""Reports of texts and labels that are hard to write down, made without a training: the logits are drawn."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from markdown_it import MarkdownIt

from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.model.decision import Decision
from lit_cls.report.content import write_report
from lit_cls.report.run_info import RunInfo
from lit_cls.report.split_results import SplitResult, evaluate_split
from lit_cls.training.pad_invariance import Padded, PadTest

HARD_LABELS = ("<script>alert(1)</script>", "a|b `c` *d*", "$x$ _y_ [z](https://example.com)")
HARD_TEXTS = (
    "<script>alert('x')</script><img src=https://example.com/x.png onerror=alert(2)> {n}",
    "a | pipe, a `tick`, a *star* and an [a](https://example.com/{n})",
    "two\nlines\r\nand\ta tab {n} \\ backslash &amp; entity",
    "<!-- {n} --> ]]> www.example.com you@example.com ~~struck~~ __bold__",
    "naïve 🙂 世界 \x00\x07 {n} # - 1. $x$",
    "{n} " + "word " * 200,
)


def hard_file(folder: Path, labels: tuple[str, ...] = HARD_LABELS, each: int = 30) -> str:
    """A file of such texts, as many of each label."""
    path = folder / "hard.jsonl"
    rows = [
        {"text": HARD_TEXTS[(i + k) % len(HARD_TEXTS)].replace("{n}", str(i * len(labels) + k)), "label": label}
        for k, label in enumerate(labels)
        for i in range(each)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


def about(**others: Any) -> RunInfo:
    """A run, as far as a report tells of it."""
    network = {
        "weights_notes": ["the file's head was left out"],
        "seconds_training": 12.5,
        "seconds_frozen_layers": {},
        "texts_trained": 640,
        "parameters": {"all": 2_546_498, "trained": 85_010},
        "peak_gpu_memory": None,
    }
    provenance = {
        "command": ["lit_cls", "fit", "--run_name", "a|b"],
        "started": "2026-01-02T03:04:05+00:00",
        "data_sha256": "0" * 64,
        "weights": "random",
        "weights_sha256": None,
        "config_sha256": "1" * 64,
        "versions": {"torch": "2.13.0"},
        "commit": None,
        "device": "cpu x 1",
        "machine": "Linux",
    }
    metrics = [
        {"epoch": "0", "step": "9", "train_loss_step": "0.7"},
        {"epoch": "0", "step": "19", "val_loss": "0.6", "val_acc": "0.7"},
        {"epoch": "0", "step": "19", "train_loss": "0.65"},
        {"epoch": "1", "step": "20", "test_loss": "0.5", "test_acc": "0.8"},
    ]
    steps = tuple(Padded(more, 16, 1.2e-7, 0) for more in (1, 17, 64))
    run = RunInfo(
        name="some_run",
        network=network,
        settings={"model.size": "gpt2-nano", "data.split": [0.7, 0.1, 0.2], "model.adapter": None},
        provenance=provenance,
        tested="best.ckpt, after 20 steps, 1 whole epochs",
        decision=Decision(),
        padding=PadTest(16, False, 1e-3, steps),
        metrics=metrics,
    )
    return replace(run, **others)


def drawn(data: ClassificationData, split: SplitName, limit: int | None = None, seed: int = 0) -> SplitResult:
    """Answers that are right more often than not."""
    rows = torch.arange(len(data.splits[split].label_ids))[:limit]
    logits = torch.randn(len(rows), len(data.label_names), generator=torch.Generator().manual_seed(seed))
    for i, row in enumerate(rows.tolist()):
        logits[i, data.splits[split].label_ids[row]] += 1
    return evaluate_split(split, data, rows, logits, Decision())


def made_report(folder: Path, data: ClassificationData, limit: int | None = None, **others: Any) -> dict[str, Any]:
    """Writes `folder/report/`; returns the content."""
    found = [drawn(data, split, limit) for split in ("test", "validation", "train")]
    return write_report(folder, found, data, about(**others))


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its text, and the cells of its tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def cells(self) -> list[list[list[str]]]:
        """Of each table, each row; white space is one blank, and rows without a word are left out."""
        tables = [[[" ".join(cell.split()) for cell in row] for row in table] for table in self.tables]
        return [[row for row in table if any(row)] for table in tables]


def markdown_page(markdown: str) -> Page:
    """What GitHub makes of a report.md, as far as an independent reader of its tables and links knows."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return Page(reader.render(markdown))
