"""What a person sees while it runs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from small_fits import data, module, trainer

from lit_cls.io.terminal import stdout_console
from lit_cls.model import GPTClassifier, GPTConfig
from lit_cls.model.adapters import LoRA
from lit_cls.training.callbacks import EpochLog, ProgressBar
from lit_cls.training.tables import data_table, parameter_table


def shown(thing: Any) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(thing, markup=False, highlight=False)
    return capture.get()


def test_parameter_table_counts_what_trains() -> None:
    config = GPTConfig(vocab_size=100, context_length=10, emb_dim=8, n_heads=2, n_layers=4)
    lines = shown(parameter_table(GPTClassifier(config, trainable_layers="last_block"))).splitlines()
    rows = {cells[1].strip(): cells[2:5] for line in lines if len(cells := line.split("│")) > 4}
    assert [cell.strip() for cell in rows["embeddings"]] == ["880", "0", "0.00%"]
    assert [cell.strip() for cell in rows["blocks 0–2"]] == ["2,616", "0", "0.00%"]
    assert [cell.strip() for cell in rows["block 3"]] == ["872", "872", "100.00%"]
    assert [cell.strip() for cell in rows["head"]] == ["18", "18", "100.00%"]
    assert [cell.strip() for cell in rows["all"]] == ["4,402", "906", "20.58%"]


def test_adapters_are_a_group_of_their_own() -> None:
    config = GPTConfig(vocab_size=100, context_length=10, emb_dim=8, n_heads=2, n_layers=2)
    net = GPTClassifier(config, adapter=LoRA(2, targets=("query", "head")))
    text = shown(parameter_table(net))
    assert re.search(r"LoRA adapters\s*│\s*84 │\s*84 │ 100.00%", text)
    assert re.search(r"blocks 0–1\s*│\s*1,744 │\s*0 │", text)


def test_data_table_names_labels_lengths_and_cut_texts(reviews: str) -> None:
    text = shown(data_table(data(reviews, max_length=10).summary))
    assert "110 rows" in text
    for column in ("no", "yes", "median tokens", "longest", "truncated at 10"):
        assert column in text
    train = next(line for line in text.splitlines() if "train" in line)
    assert [cell.strip() for cell in train.split("│")][2] == "76"
    assert int([cell.strip() for cell in train.split("│")][7]) > 0


def test_a_log_has_one_plain_line_per_epoch(tmp_path: Path, reviews: str) -> None:
    lines: list[Any] = []
    log = EpochLog(lines.append)
    trainer(tmp_path, max_epochs=3, callbacks=[log]).fit(module(), datamodule=data(reviews))
    texts = [line for line in lines if isinstance(line, str)]
    assert len(texts) == 3
    number = r"\d+\.\d+"
    for epoch, line in enumerate(texts, start=1):
        figures = rf"train_loss {number}  val_loss {number}  val_acc {number}  {number} s  {number} texts/s"
        pattern = rf"epoch {epoch}/3  {figures}"
        assert re.fullmatch(pattern, line)
    assert log.texts_trained == 3 * 76
    assert log.seconds_training > 0


def test_long_epochs_print_lines_in_between(
    tmp_path: Path,
    reviews: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[Any] = []
    clock = iter(range(0, 100_000, 60))  # every look at the clock is a minute later
    monkeypatch.setattr("lit_cls.training.callbacks.time.perf_counter", lambda: float(next(clock)))
    log = EpochLog(lines.append)
    trainer(tmp_path, callbacks=[log]).fit(module(), datamodule=data(reviews, batch_size=2))
    on_the_way = [line for line in lines if isinstance(line, str) and "batch" in line]
    assert len(on_the_way) == 12  # of 38 batches, every third, the last left to the line of the epoch
    assert re.match(r"epoch 1  batch 3/38  train_loss_step \d\.\d{4}  \d+", on_the_way[0])


@pytest.mark.parametrize(("device", "looks_at"), [("cpu", range(45)), ("cuda", (0, 20, 40))])
def test_the_bar_looks_at_the_loss_seldom_where_a_look_waits_for_the_step(
    device: str, looks_at: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter(range(1000))
    monkeypatch.setattr(RichProgressBar, "get_metrics", lambda *_: {"v_num": 3, "train_loss_step": float(next(losses))})
    runner, bar = trainer(tmp_path), ProgressBar()
    runner.strategy._root_device = torch.device(device)  # a GPU need not be there to be asked about
    shown = [bar.get_metrics(runner, module()) for _ in range(45)]
    assert shown == [{"train_loss_step": float(sum(i >= at for at in looks_at) - 1)} for i in range(45)]


def test_a_pipe_is_wide_enough_for_the_tables() -> None:
    console = stdout_console()
    assert console.is_terminal or console.width == 120
