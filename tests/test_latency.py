"""How long an answer takes is measured on a real checkpoint, in a program of its own and in this process."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small_fits import data, module, save

from benchmarks import latency
from lit_cls.data.tokenizers import tokenizer_for

TOKENIZER = tokenizer_for("gpt2")


def test_a_program_and_single_texts_are_timed(
    tmp_path: Path, reviews: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, module(), data(reviews), limit_train_batches=1)
    start, ended = subprocess.run, []

    def start_once(*words: Any, **options: Any) -> Any:
        ended.append(ended[0] if ended else start(*words, **options))
        return ended[-1]

    monkeypatch.setattr(subprocess, "run", start_once)
    capsys.readouterr()
    latency.main([str(path), "--precision", "32-true"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("32-true, torch ")
    assert re.fullmatch(r"a program with one answer: \d+\.\d\d, \d+\.\d\d, \d+\.\d\d s", said[1])
    assert [int(line.split()[0]) for line in said[2:]] == [len(ids) for ids in TOKENIZER.encode(latency.TEXTS)]
    assert all(re.fullmatch(r" *\d+ tokens: [\d.]+ ms, median of 50", line) for line in said[2:])
    assert len(ended) == 3
    assert ended[0].stdout.count("Prediction(") == 1


def test_no_checkpoint_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        latency.main(["gone.ckpt"])
    assert "gone.ckpt" in capsys.readouterr().err.splitlines()[-1]
