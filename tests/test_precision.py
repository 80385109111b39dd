"""`trainer.precision auto`: what each device gets, and what a run tells and keeps of it."""

from pathlib import Path

import pytest
import torch
import yaml

from lit_cls.cli import main
from lit_cls.training.checkpoints import read_checkpoint
from lit_cls.training.precision import auto_precision

NAMES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
NO_BFLOAT16 = ("32-true", "the CPU has no bfloat16 products (AVX512-BF16 or AMX)")
BFLOAT16 = ("bf16-mixed", "the CPU multiplies in bfloat16")


def processor(monkeypatch: pytest.MonkeyPatch, avx: bool, amx: bool) -> None:
    for name, has in zip(NAMES, (avx, amx), strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def gpu(monkeypatch: pytest.MonkeyPatch, bfloat16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Some GPU")
    # Emulated bfloat16 is supported everywhere, and slow.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16 or including_emulation
    )


@pytest.mark.parametrize(
    ("avx", "amx", "expected"),
    [(False, False, NO_BFLOAT16), (True, False, BFLOAT16), (False, True, BFLOAT16), (True, True, BFLOAT16)],
)
@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_a_processor(
    accelerator: str, avx: bool, amx: bool, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, avx, amx)
    assert auto_precision(accelerator) == expected


def test_a_torch_that_cannot_tell_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, True, True)
    for name in NAMES:
        monkeypatch.delattr(torch.cpu, name)
    assert auto_precision("cpu") == NO_BFLOAT16


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "auto"])
def test_a_gpu(accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, False, False)
    gpu(monkeypatch, bfloat16=True)
    assert auto_precision(accelerator) == ("bf16-mixed", "Some GPU multiplies in bfloat16")
    processor(monkeypatch, True, True)
    gpu(monkeypatch, bfloat16=False)
    assert auto_precision(accelerator) == ("32-true", "Some GPU has no bfloat16")
    assert auto_precision("cpu") == BFLOAT16


def test_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, True, True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert auto_precision("auto") == ("32-true", "no other precision has been measured on this GPU")
    assert auto_precision("cpu") == BFLOAT16


# The command.

WORDS = ["--data.source", "demo", "--model.size", "gpt2-nano", "--model.weights", "random", "--trainer.max_epochs", "1"]
WORDS += ["--trainer.accelerator", "cpu", "--trainer.limit_train_batches", "1", "--model.learning_rate", "1e-3"]


@pytest.mark.parametrize(("has", "typed"), [(True, []), (False, ["--trainer.precision", "auto"])])
def test_the_command_resolves_it_and_tells(
    has: bool, typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processor(monkeypatch, has, has)
    words = ["fit", *WORDS, *typed, "--trainer.default_root_dir", str(tmp_path), "--run_name", "one"]
    assert main(words) == 0
    out = capsys.readouterr().out
    precision, why = BFLOAT16 if has else NO_BFLOAT16
    assert [line for line in out.splitlines() if line.startswith("precision ")] == [
        f"precision {precision} (trainer.precision auto): {why}"
    ]
    run = tmp_path / "one" / "version_0"
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == precision
    assert read_checkpoint(run / "last.ckpt")["lit_cls"]["precision"] == precision
    if not has or typed:
        return
    # A checkpoint brings its own, wherever it is evaluated.
    processor(monkeypatch, False, False)
    words = ["--ckpt_path", str(run / "last.ckpt"), "--trainer.default_root_dir", str(tmp_path)]
    assert main(["validate", *words, "--trainer.accelerator", "cpu", "--run_name", "two"]) == 0
    assert "trainer.precision auto" not in capsys.readouterr().out
    again = tmp_path / "two" / "version_0"
    assert yaml.safe_load((again / "config.yaml").read_text())["trainer"]["precision"] == precision
    saved = (run / "predictions_validation.csv").read_text()
    assert (again / "predictions_validation.csv").read_text() == saved


@pytest.mark.parametrize("chosen", ["32-true", pytest.param("bf16-true", marks=pytest.mark.slow)])
def test_an_explicit_value_wins(
    chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processor(monkeypatch, True, True)
    words = ["fit", *WORDS, "--trainer.precision", chosen, "--trainer.default_root_dir", str(tmp_path)]
    assert main(words) == 0
    assert "trainer.precision" not in capsys.readouterr().out
    run = tmp_path / "fit" / "version_0"
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == chosen
    assert read_checkpoint(run / "last.ckpt")["lit_cls"]["precision"] == chosen


def test_a_value_of_a_configuration_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, True, True)
    (tmp_path / "mine.yaml").write_text("trainer:\n  precision: 32-true\n")
    words = ["fit", "--config", str(tmp_path / "mine.yaml"), *WORDS, "--trainer.default_root_dir", str(tmp_path)]
    assert main(words) == 0
    run = tmp_path / "mine" / "version_0"
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "32-true"
