"""`lit_cls explain`: what a person sees on a terminal, in a pipe and in the page."""

import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, closed_pipe
from small_fits import data, module, save

import lit_cls
from lit_cls.cli import main
from lit_cls.explain.attribution import integrated_gradients, leave_one_word_out
from lit_cls.model.decision import Decision
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import DECISION_KEY, read_checkpoint

TEXT = "good film\n really <b>poor</b> end"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of its own for a few steps, which reads 12 tokens of a text."""
    folder = tmp_path_factory.mktemp("trained")
    lines = ["text,label", *(f"{'good' if i % 2 else 'poor'} film {i},{'yes' if i % 2 else 'no'}" for i in range(60))]
    (folder / "reviews.csv").write_text("\n".join(lines))
    texts = data(str(folder / "reviews.csv"), padding=12)
    return save(folder, module(), texts, max_epochs=2)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["explain", *map(str, words)]) == code
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return told.out, told.err


def test_in_a_pipe_it_is_a_table_of_the_figures(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said(capsys, "--ckpt_path", trained, TEXT)
    assert err == ""
    assert "\x1b" not in out
    reader = lit_cls.load(trained, precision="32-true")
    gradients, left_out = integrated_gradients(reader, TEXT), leave_one_word_out(reader, TEXT)
    [prediction] = reader.predict([TEXT])
    lines = out.splitlines()
    assert lines[0] == f"{prediction.label}, probability {prediction.probabilities[prediction.label]:.4f}"
    assert lines[1] == f"  explained: the log-odds of {prediction.label}, {gradients.log_odds:+.3f}"
    gap = re.search(r"integrated gradients: sum (\S+): .* gap (\S+), (\S+)%, after (\d+) steps$", lines[2])
    assert gap is not None
    assert float(gap[1]) == pytest.approx(sum(word.score or 0 for word in gradients.words), abs=6e-4)
    assert gradients.completeness is not None
    assert float(gap[2]) == pytest.approx(gradients.completeness.gap, abs=1e-4)
    assert int(gap[4]) == gradients.completeness.steps
    assert lines[4].split("  ")[-1] == "word"
    rows = [line.split(maxsplit=2) for line in lines[5:] if line]
    assert [row[2] for row in rows] == ["good", "film", "really", "<b>poor</b>", "end"]
    for row, *words in zip(rows, gradients.words, left_out.words, strict=True):
        assert [float(cell) for cell in row[:2]] == pytest.approx([word.score for word in words], abs=6e-4)
        assert all(cell[0] in "+-" for cell in row[:2])


@pytest.mark.parametrize("name", ["integrated_gradients", "leave_one_word_out"])
def test_one_method_alone_several_texts_and_a_label(
    name: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(capsys, "good film 1", "--method", name, "--label", "no", "--ckpt_path", trained, "", "--", "-5 poor")
    other = {"integrated_gradients", "leave_one_word_out"} - {name}
    assert name.replace("_", " ") in out
    assert other.pop().replace("_", " ") not in out
    assert [line.split(":")[0] for line in out.splitlines() if " of 3: " in line] == ["1 of 3", "2 of 3", "3 of 3"]
    assert out.count("explained: the log-odds of no, ") == 3
    assert "an empty text: it has no words" in out
    assert re.search(r"\n +[+-]\d+\.\d{3}  -5\n", out)


def test_on_a_terminal_the_words_are_coloured(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = f"{TEXT} more{' more' * 20}"
    monkeypatch.setenv("COLORTERM", "truecolor")
    out, _ = said(capsys, "--ckpt_path", trained, text)
    assert re.search(r"\x1b\[38;2;[\d;]+;48;2;", out)
    assert re.search(r"\x1b\[2mmore( more)+\x1b\[0m", out)
    shown = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert shown.startswith("against the label ")
    assert "for it, not read (truncated at 12 tokens)" in shown
    assert shown.count("good film\n really <b>poor</b> end") == 2
    assert "truncated: 12 tokens of this text are read (head); " in shown
    assert "  word\n" not in shown
    monkeypatch.delenv("COLORTERM")
    monkeypatch.setenv("TERM", "linux")  # 16 colours
    out, _ = said(capsys, "--ckpt_path", trained, text)
    assert set(re.findall(r"\x1b\[(?:1;)?37;(\d+)m", out)) == {"41", "44"}
    monkeypatch.setenv("NO_COLOR", "1")
    out, _ = said(capsys, "--ckpt_path", trained, text)
    assert "\x1b" not in out
    assert re.search(r"not read +not read  more", out)


def test_nothing_in_a_text_commands_the_terminal(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "--ckpt_path", trained, "good\x1b[2J film [red]x[/red] :smile:")
    assert "\x1b" not in out
    assert "good\ufffd[2J" in out
    assert "[red]x[/red]" in out
    assert ":smile:" in out


def test_the_page_is_a_new_file(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said(capsys, "--ckpt_path", trained, TEXT, "poor", "--out", tmp_path / "page.html")
    assert err.splitlines() == [f"the page is in {tmp_path / 'page.html'}"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;poor&lt;/b&gt;" in page
    assert str(trained) in page
    [first] = re.findall(r"<h2>1\. (.*)</h2>", page)
    assert f"1 of 2: {first}\n" in out
    figures = re.findall(r"^ +([+-]\d+\.\d{3}) +([+-]\d+\.\d{3})  ", out, re.MULTILINE)
    assert re.findall(r"<td>([+-].*?)</td><td>(.*?)</td>", page) == figures
    _, err = said(capsys, "--ckpt_path", trained, TEXT, "--out", tmp_path / "page.html", code=2)
    assert "page.html exists already, and nothing is overwritten: give another name" in err
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    _, err = said(capsys, "--ckpt_path", trained, TEXT, "--out", tmp_path / "no" / "page.html", code=2)
    assert "there is no folder" in err
    assert [path.name for path in tmp_path.glob("*.html*")] == ["page.html"]


def test_a_full_disk_leaves_no_part_of_a_page(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    _, err = said(capsys, "--ckpt_path", trained, "good", "--out", tmp_path / "page.html", code=1)
    assert "page.html cannot be written: No space left on device" in err
    assert not list(tmp_path.iterdir())


def test_a_tuned_rule_is_told(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = read_checkpoint(trained)
    content[DECISION_KEY] = asdict(Decision(2.0, 1, 1e-6, "recall of yes"))
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "tuned.ckpt")
    plain_odds, tuned_odds = (
        said(capsys, "--ckpt_path", path, "--label", "yes", TEXT)[0] for path in (trained, tmp_path / "tuned.ckpt")
    )
    assert tuned_odds.startswith("yes, probability ")
    rule = "rule: temperature 2, yes if its probability is at least 1e-06 (tuned: recall of yes); the log-odds use"
    assert rule in tuned_odds
    before, after = (
        float(re.search(r"log-odds of yes, (\S+)", out)[1])  # type: ignore[index]
        for out in (plain_odds, tuned_odds)
    )
    assert after == pytest.approx(before / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], 'nothing to explain: give texts, each in quotes: lit_cls explain --ckpt_path PATH "a text"'),
        (["a text", "--label", "maybe"], "there is no label 'maybe': the labels are no, yes"),
        (["a text", "--trainer.precision", "bf16-mixed"], "bf16-mixed: explain computes in 32-true"),
        (["a text", "--method", "shap"], "invalid choice: 'shap'"),
        (["a text", "--steps", "5"], "unrecognized arguments: --steps"),
    ],
)
def test_mistakes(words: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = said(capsys, "--ckpt_path", trained, *words, code=2)
    assert err.startswith("lit_cls: error: ")
    assert message in err


def test_a_huge_text_is_explained_and_abridged(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = "good film, " + "and so on and on " * 10_000
    out, _ = said(capsys, "--ckpt_path", trained, huge, "--out", tmp_path / "page.html")
    assert "49,991 of 50,002 words are not read" in out
    assert " … 49,951 words … " in out
    assert len(out) < 5_000
    assert (tmp_path / "page.html").stat().st_size < 20_000


def test_the_answer_is_that_of_32_true_wherever_it_was_trained(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_checkpoint(trained)
    content["lit_cls"]["precision"] = "bf16-mixed"
    torch.save(content, tmp_path / "mixed.ckpt")
    out = [said(capsys, "--ckpt_path", path, TEXT)[0] for path in (trained, tmp_path / "mixed.ckpt")]
    assert out[0] == out[1]


def test_the_documented_python_works(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documented = re.search(r"```python\n(.*?)```", (REPOSITORY / "docs" / "explain.md").read_text(), re.DOTALL)
    assert documented is not None
    exec(documented[1].replace("checkpoints/quickstart/version_0/best.ckpt", str(trained)))
    assert capsys.readouterr().out.splitlines()[-1].startswith("' 80012' ")


def test_a_closed_pipe_takes_no_page_away(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closed_pipe():
        assert main(["explain", "--ckpt_path", str(trained), TEXT]) == 0
        words = ["--out", str(tmp_path / "a.html"), TEXT, "another"]
        assert main(["explain", "--ckpt_path", str(trained), *words]) == 0
    assert "<h2>2. " in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert capsys.readouterr().err.endswith(f"the page is in {tmp_path / 'a.html'}\n")
