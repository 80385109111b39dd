"""`lit_cls predict` as it is used: words, files, pipes; in this process, and in processes that are stopped."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest
from forked import Forked
from small_fits import data, module, save

import lit_cls
from lit_cls.cli import main
from lit_cls.model.decision import Decision
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import DECISION_KEY, read_checkpoint

LIT_CLS = str(Path(sys.executable).with_name("lit_cls"))
OURS = ["label", "probability", "probability_no", "probability_yes", "truncated"]
TEXTS = ["good film 1", "", 'poor, "poor"\nfilm', "é🙂 good", "good " * 70]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of reviews, with columns of names of their own; texts are cut at 60 tokens."""
    folder = tmp_path_factory.mktemp("trained")
    lines = [
        "review,sentiment",
        *(f"{'good' if i % 2 else 'poor'} film {i},{'yes' if i % 2 else 'no'}" for i in range(60)),
    ]
    (folder / "reviews.csv").write_text("\n".join(lines))
    columns = {"text_column": "review", "label_column": "sentiment", "max_length": 60}
    return str(save(folder, module(), data(str(folder / "reviews.csv"), **columns)))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Says what standard input holds."""
    with ExitStack() as opened:

        def holds(content: bytes) -> None:
            Path("piped").write_bytes(content)
            monkeypatch.setattr(sys, "stdin", opened.enter_context(open("piped", encoding="utf-8")))

        yield holds


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["predict", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("lit_cls: error: ")
    return printed.err


def reviews_file(path: str = "some.csv") -> list[list[str]]:
    """Rows with columns before, between and behind; and their file."""
    rows = [[str(i), text, f"by {i}", "yes" if i % 2 else "no", "x,y"] for i, text in enumerate(TEXTS)]
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["id", "review", "author", "sentiment", "truncated"], *rows])
    return rows


def test_words_are_classified_in_lines(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "good film", "--ckpt_path", checkpoint, "poor film", "--", "-", "--not an option"]) == 0
    printed = capsys.readouterr()
    texts = ["good film", "poor film", "-", "--not an option"]
    for text, line, prediction in zip(
        texts, printed.out.splitlines(), lit_cls.load(checkpoint).predict(texts), strict=True
    ):
        shares = "  ".join(f"{label} {share:.4f}" for label, share in prediction.probabilities.items())
        assert line == f"{prediction.label}\t{shares}\t{text}"
    assert printed.err == ""
    Path("some.csv").write_text("a")
    assert main(["predict", "--ckpt_path", checkpoint, "some.csv", "--output_format", "jsonl"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["text"] == "some.csv"
    assert "note: some.csv is classified as a text; --data.path some.csv classifies the rows" in printed.err


@pytest.mark.parametrize("end", ["csv", "jsonl"])
def test_a_file_keeps_its_rows_and_columns(end: str, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = reviews_file()
    assert main(["predict", "--ckpt_path", checkpoint, "--data.path", "some.csv", "--output", f"out.{end}"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    text = Path(f"out.{end}").read_text(encoding="utf-8")
    answered = rows_of(text) if end == "csv" else [json.loads(line) for line in text.splitlines()]
    predictions = lit_cls.load(checkpoint).predict(TEXTS)
    for given, answer, prediction in zip(rows, answered, predictions, strict=True):
        assert list(answer) == ["id", "review", "author", "sentiment", "input_truncated", *OURS]
        assert [answer[name] for name in list(answer)[:5]] == given
        assert answer["label"] == prediction.label
        shares = {name: float(answer[f"probability_{name}"]) for name in ("no", "yes")}
        assert shares == pytest.approx(prediction.probabilities, abs=1e-5)
        assert float(answer["probability"]) == max(shares.values())
        assert answer["truncated"] in (prediction.truncated, str(prediction.truncated).lower())
    right = sum(row[3] == prediction.label for row, prediction in zip(rows, predictions, strict=True))
    assert f"accuracy {right / 5:.2%} (95 % interval " in printed.err
    assert "on 5 texts with a label in 'sentiment'" in printed.err
    assert "note: the input's column 'truncated' is 'input_truncated' in the output" in printed.err
    assert "note: 1 empty texts, classified as such: row 2" in printed.err
    assert "note: 1 texts are longer than 60 tokens: their head is read" in printed.err
    assert f"5 predictions are in out.{end}" in printed.err
    assert "exists already" in refused(["--ckpt_path", checkpoint, "--output", f"out.{end}", "a"], capsys)


def test_standard_input_as_texts_and_as_json_lines(
    checkpoint: str, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["good film", "", 'poor, "film"', "é"]
    piped("".join(f"{text}\r\n" for text in texts).encode())
    assert main(["predict", "--ckpt_path", checkpoint]) == 0
    answered = rows_of(capsys.readouterr().out)
    assert [row["text"] for row in answered] == texts
    assert list(answered[0]) == ["text", *OURS]

    rows = [{"id": i, "review": text, "deep": {"a": [i]}} for i, text in enumerate(texts)]
    piped("\n".join(map(json.dumps, rows)).encode())
    assert main(["predict", "--ckpt_path", checkpoint, "-"]) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [{name: line[name] for name in ("id", "review", "deep")} for line in lines] == rows
    assert [line["label"] for line in lines] == [row["label"] for row in answered]
    assert "note: standard input is read as JSON lines" in printed.err

    piped("\n".join(map(json.dumps, rows)).encode())
    assert main(["predict", "--ckpt_path", checkpoint, "--data.path=-", "--output_format=csv"]) == 0
    assert [row["deep"] for row in rows_of(capsys.readouterr().out)] == [f'{{"a": [{i}]}}' for i in range(4)]

    piped(b"0\tgood film\n")
    words = ["--input_format", "tsv", "--data.header", "false", "--data.text_column", "1"]
    assert main(["predict", "--ckpt_path", checkpoint, *words]) == 0
    assert list(rows_of(capsys.readouterr().out)[0]) == ["0", "1", *OURS]


def test_without_rows_there_is_a_header(
    checkpoint: str, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    piped(b"")
    assert main(["predict", "--ckpt_path", checkpoint]) == 0
    printed = capsys.readouterr()
    assert printed.out == ",".join(["text", *OURS]) + "\n"
    assert "note: there were no texts" in printed.err


def test_labels_that_the_classifier_does_not_know(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["yes", "no", "", "maybe", "maybe", *"abcdef"]
    Path("some.csv").write_text("text,label\n" + "".join(f"good film,{label}\n" for label in labels))
    assert main(["predict", "--ckpt_path", checkpoint, "--data.path", "some.csv"]) == 0
    printed = capsys.readouterr().err
    assert "note: 8 rows have a label that the classifier does not know ('maybe', 'a', 'b', 'c', 'd', …)" in printed
    assert "accuracy 50.00% (95 % interval 9.45% – 90.55%) on 2 texts" in printed


def test_a_file_without_a_header_as_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("some.tsv").write_text("".join(f"{'yes' if i % 2 else 'no'}\tfilm {i}\n" for i in range(40)))
    columns = {"text_column": "1", "label_column": "0", "header": False}
    path = save(tmp_path, module(), data("some.tsv", **columns), limit_train_batches=1)
    assert main(["predict", "--ckpt_path", str(path), "--data.path", "some.tsv"]) == 0
    printed = capsys.readouterr()
    assert [row["1"] for row in rows_of(printed.out)] == [f"film {i}" for i in range(40)]
    assert "note: the first line is read as a row, as in training" in printed.err
    assert "on 40 texts with a label in '0'" in printed.err
    Path("some.jsonl").write_text('{"text": "film 1", "label": "yes"}\n')
    assert main(["predict", "--ckpt_path", str(path), "--data.path", "some.jsonl"]) == 0
    assert "on 1 texts with a label in 'label'" in capsys.readouterr().err
    Path("some.csv").write_text("text,label\nfilm 1,yes\n")
    assert main(["predict", "--ckpt_path", str(path), "--data.path", "some.csv", "--data.header", "true"]) == 0
    printed = capsys.readouterr().err
    assert "on 1 texts with a label in 'label'" in printed
    assert "the texts come from" not in printed
    words = ["--data.header", "true", "--data.text_column", "film 0"]
    assert main(["predict", "--ckpt_path", str(path), "--data.path", "some.tsv", *words]) == 0
    assert len(rows_of(capsys.readouterr().out)) == 39


def test_a_column_found_by_its_number_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (f"{i},film {i},{'yes' if i % 2 else 'no'}" for i in range(40))
    Path("some.csv").write_text("\n".join(["id,body,label", *lines]))
    path = save(tmp_path, module(), data("some.csv", text_column="1"), limit_train_batches=1)
    assert main(["predict", "--ckpt_path", str(path), "--data.path", "some.csv"]) == 0
    printed = capsys.readouterr()
    assert "note: the texts come from column 'body', by its number as in training" in printed.err
    assert len(rows_of(printed.out)) == 40


def test_options_about_columns_that_texts_have_not(
    checkpoint: str, piped: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--data.label_column=zz"], ["--data.text_column", "zz"], ["--data.header", "false"]):
        piped(b"good film\n")
        printed = refused(["--ckpt_path", checkpoint, *words], capsys)
        assert "the input is read as texts, one a line, which have no columns. Leave it out" in printed
    piped(b"")
    assert main(["predict", "--ckpt_path", checkpoint, "--data.text_column", "body"]) == 0
    printed = capsys.readouterr()
    assert (printed.out, "note: there were no texts" in printed.err) == ("", True)


def test_with_standard_error_closed_only_predictions_are_written(checkpoint: str) -> None:
    """`print(file=None)` writes to standard output."""
    reviews_file()
    words = f"{LIT_CLS} predict --ckpt_path {checkpoint}"
    line = f"{words} --data.path some.csv 2>&-; {words} --data.path gone.csv 2>&-; echo $?"
    printed = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    *answers, code = printed.stdout.splitlines(keepends=True)
    assert code == "2\n"
    assert [row["id"] for row in rows_of("".join(answers))] == [str(i) for i in range(len(TEXTS))]


def test_a_tuned_decision_is_reported(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = {**read_checkpoint(checkpoint), DECISION_KEY: asdict(Decision(2.0, 1, 1e-6, "a test"))}
    AtomicCheckpointIO().save_checkpoint(content, "tuned.ckpt")
    assert main(["predict", "--ckpt_path", "tuned.ckpt", "poor film"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "note: temperature 2, yes if its probability is at least 1e-06 (tuned: a test)\n"
    assert printed.out.startswith("yes\t")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.fast", "true", "a"], "predict reads model.fast from the checkpoint: leave --model.fast out"),
        (["--data.batch_size=2", "a"], "predict reads data.batch_size from the checkpoint"),
        (["--data.truncation", "tail", "a"], "predict reads data.truncation from the checkpoint"),
        (["--seed_everything", "3", "a"], "predict reads seed_everything from the checkpoint"),
        (["--preset", "published", "a"], "predict reads preset from the checkpoint"),
        (["--trainer.max_epochs", "3", "a"], "--trainer.max_epochs is for training: leave it out"),
        (["--data.text_colum", "b", "a"], "there is no option --data.text_colum; did you mean --data.text_column?"),
        (["--data.text_colum=b c", "a"], "there is no option --data.text_colum; did you mean --data.text_column?"),
        (["--data.text_column", "b", "a c"], "--data.text_column b is for files and pipes: leave it out with texts"),
        (["--data.header", "false", "a c"], "--data.header false is for files and pipes: leave it out with texts"),
        (["--model.weights", "nope", "a"], "contains all of its weights.*leave --model.weights nope out"),
        (["-hello"], "there is no option -hello.*put -- before the texts: lit_cls predict … -- -hello"),
        (["-cool film"], "put -- before the texts: lit_cls predict … -- '-cool film'"),
        (["--ckpt_path", "a" * 300, "a"], "there is no checkpoint a"),
        (["--data.path", "a" * 300], "there is no file a"),
        (["a", "--output", f"{'a' * 246}.csv"], "cannot be created: File name too long"),
        (["-5"], "there is no option -5.*put -- before the texts: lit_cls predict … -- -5"),
        (["a", "-"], "- is standard input, and stands alone"),
        (["-", "--data.path", "b.csv"], "- is standard input, and --data.path is b.csv: give one of them"),
        (["a", "--data.path", "b.csv"], "'a' is a text to classify, and --data.path is b.csv: give one of them"),
        (["a", "--input_format", "csv"], "--input_format csv is for files and pipes"),
        (["a", "--output", "b.txt"], "a name that ends in .csv or .jsonl"),
        (["a", "--output", "no/b.csv"], "there is no folder no"),
        (["a", "--output_format", "xml"], "invalid choice: 'xml'"),
        (["--data.path", "gone.csv"], "there is no file gone.csv: check data.path"),
        ([], "nothing to classify: give texts.*a file, --data.path FILE; or texts through standard input"),
    ],
)
def test_mistakes(
    words: list[str],
    message: str,
    checkpoint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    printed = refused(["--ckpt_path", checkpoint, *words], capsys)
    assert re.search(message, printed), printed
    assert not list(Path().iterdir())


def test_a_terminal_is_not_read(
    checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    master, terminal = os.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert "nothing to classify" in refused(["--ckpt_path", checkpoint], capsys)
    os.close(master)


def test_a_runs_own_configuration_finds_its_checkpoint(
    checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stranger's, no class is imported and nothing is run: they are about training."""
    run = Path("runs/film/version_0")
    run.mkdir(parents=True)
    (run / "best.ckpt").write_bytes(Path(checkpoint).read_bytes())
    Path("sent.py").write_text("import os\nos.mkdir('executed')\n")
    monkeypatch.syspath_prepend(".")
    (run / "config.yaml").write_text(
        "run_name: film\nckpt_path: null\nseed_everything: 1\ndata: {path: reviews.csv, batch_size: 8}\n"
        "trainer: {default_root_dir: runs, precision: 32, callbacks: [{class_path: sent.Anything}]}\n"
    )
    assert main(["predict", "-c", str(run / "config.yaml"), "--ckpt_path", "best", "good film"]) == 0
    assert capsys.readouterr().out.split()[0] in ("no", "yes")
    (run / "config.yaml").write_text("trainer: {accelerator: {class_path: sent.Anything}}\n")
    printed = refused(["--config", str(run / "config.yaml"), "--ckpt_path", "best", "a"], capsys)
    assert "trainer.accelerator is not a word or number" in printed
    for content in ("a: " + "[" * 5000, "a: !!python/object/apply:os.mkdir [executed]"):
        (run / "config.yaml").write_text(content)
        assert "cannot be read" in refused(["--config", str(run / "config.yaml"), "a"], capsys)
    assert not Path("executed").exists()


def test_predictions_do_not_depend_on_how_many_come_at_once(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"{'good ' * (i % 9)}film {i}" for i in range(100)]
    Path("texts.txt").write_text("\n".join(texts))
    assert main(["predict", "--ckpt_path", checkpoint, "--data.path", "texts.txt", "--input_format", "text"]) == 0
    first = capsys.readouterr().out
    assert main(["predict", "--ckpt_path", checkpoint, "--data.path", "texts.txt", "--input_format", "text"]) == 0
    assert capsys.readouterr().out == first
    classifier = lit_cls.load(checkpoint)
    for row, text in zip(rows_of(first), texts, strict=True):
        [alone] = classifier.predict([text])
        assert row["text"] == text
        assert float(row["probability_yes"]) == pytest.approx(alone.probabilities["yes"], abs=1e-5)


# Processes of their own.


def start(*words: str, **options: object) -> "subprocess.Popen[bytes]":
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, "LIT_CLS_OFFLINE": "1"}
    how = {**pipes, **options}
    return subprocess.Popen([LIT_CLS, "predict", *words], env=environment, bufsize=0, **how)  # type: ignore[call-overload,no-any-return]


def test_a_closed_pipe_is_no_error(checkpoint: str) -> None:
    """Neither while there is no end of texts, nor while none comes."""
    line = f'yes "good film" | {LIT_CLS} predict --ckpt_path {checkpoint} 2>log | head -n 3; echo "${{PIPESTATUS[1]}}"'
    printed = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=60)
    header, first, second, code = printed.stdout.splitlines()
    assert header == ",".join(["text", *OURS])
    assert first == second
    assert code == "0"
    assert Path("log").read_text() == "note: standard input is read as texts, one a line\n"
    with start("--ckpt_path", checkpoint) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"good film\n")
        assert process.stdout.readline().startswith(b"text,label,")
        process.stdout.close()
        assert process.wait(timeout=30) == 0


def test_a_service_gets_each_prediction_at_once(checkpoint: str) -> None:
    with start("--ckpt_path", checkpoint, stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for i in range(3):
            process.stdin.write(b'{"review": "good film", "id": %d}\n' % i)
            assert json.loads(process.stdout.readline())["id"] == i
        process.stdin.write(b"not JSON\n")
        assert process.stdout.read() == b""
        assert process.wait(timeout=30) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_what_cannot_be_written_is_reported(checkpoint: str) -> None:
    with open("/dev/full", "wb") as full, start("--ckpt_path", checkpoint, "a", stdin=None, stdout=full) as process:
        assert process.stderr is not None
        assert process.stderr.read() == b"lit_cls: error: standard output cannot be written: No space left on device\n"
        assert process.wait(timeout=30) == 1


def test_a_closed_standard_output(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["predict", "--ckpt_path", checkpoint, "a"]) == 2
    assert "standard output is closed: give a file with --output" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_file_is_not_taken_for_a_whole_one(
    number: signal.Signals, code: int, checkpoint: str, tmp_path: Path
) -> None:
    os.mkfifo("texts")
    words = ["--ckpt_path", checkpoint, "--output", "out.csv"]
    run = Forked("predict", *words, cwd=tmp_path, stdin=tmp_path / "texts")
    with open("texts", "wb") as texts:
        texts.write(b"good film\n" * 100)
        texts.flush()
        deadline, polls = time.monotonic() + 60, 0
        while polls < 3 and time.monotonic() < deadline:  # for a moment at the start, it is there for trying
            polls = polls + 1 if Path("out.csv.partial").exists() else 0
            time.sleep(0.1)
        assert run.process.pid is not None
        os.kill(run.process.pid, number)
        done = run.finished()
    assert done.returncode == code
    assert not Path("out.csv").exists()
    assert Path("out.csv.partial").exists()
    assert "Traceback" not in done.stderr
    if number != signal.SIGKILL:
        assert f"lit_cls: stopped by {number.name}: out.csv is not whole" in done.stderr
    assert main(["predict", "--ckpt_path", checkpoint, "--output", "out.csv", "good film"]) == 0
    assert len(rows_of(Path("out.csv").read_text())) == 1
    assert not Path("out.csv.partial").exists()


def test_memory_does_not_grow_with_the_file(checkpoint: str) -> None:
    """Thirty megabytes, of which the network reads little, beside what one text takes."""
    with Path("large.csv").open("w") as stream:
        stream.write("page,text\n")
        stream.writelines(f"{'good film ' * 10_000},good film {i}\n" for i in range(300))
    script = (
        "import resource, sys; from lit_cls.cli import main;"
        "assert main(['predict', '--ckpt_path', sys.argv[1], 'a text']) == 0;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "assert main(['predict', '--ckpt_path', sys.argv[1], '--data.path', 'large.csv', '--output', 'out.csv']) == 0;"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)"
    )
    printed = subprocess.run([sys.executable, "-c", script, checkpoint], capture_output=True, text=True, check=True)
    assert int(printed.stderr.splitlines()[-1]) * 1024 < 20e6
    assert len(rows_of(Path("out.csv").read_text())) == 300


def test_neither_lightning_nor_the_compiler_is_waited_for(checkpoint: str) -> None:
    script = (
        "import sys, lit_cls; lit_cls.load(sys.argv[1]).predict(['a text']); import lit_cls.commands.predict;"
        "assert not {'lightning', 'torchmetrics', 'torch._dynamo', 'jsonargparse', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, checkpoint], check=True)
