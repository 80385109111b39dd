"""Any file: a fitted model, or one message and exit code 2. Files are drawn by hypothesis, see fuzzing.py."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import pairwise
from fuzzing import NANO, ONE_STEP, a_new_folder, check_message, examples, run
from hypothesis import given
from hypothesis import strategies as st

from lit_cls.commands.train import TrainCommand
from lit_cls.data.datamodule import ClassificationData
from lit_cls.errors import UserError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".ndjson", ".xlsx", "")
FIT = ["fit", *NANO, *ONE_STEP, "--data.max_length", "16", "--trainer.enable_checkpointing", "false"]

# What breaks readers: quotes, separators, line ends, marks of encodings, NUL, halves of surrogate
# pairs, right-to-left text, emoji of several code points, markup and escapes of a terminal.
PIECES = [
    *('"', "'", ",", "\t", ";", "\n", "\r", "\r\n", "\0", "\ufeff", "\x1a", "\x1b[31m", "\x85", "\u2028", " ", ""),
    *("\ud800", "\udfff", "👍🏽👨‍👩‍👧", "مرحبا", "\u202eabc", "e\u0301", "ﬁ", "[/b]", "[red]", "{", "}", "\\", "%s"),
    *("<|endoftext|>", "nan", "None", "NA", "null", "0", "-1", "1e999", "text", "label", "spam", "Spam", "ham"),
]
TEXTS = st.one_of(
    st.sampled_from(PIECES), st.lists(st.sampled_from(PIECES), max_size=4).map("".join), st.text(max_size=9)
)
NUMBERS = st.one_of(st.integers(-3, 3), st.integers(), st.floats(), st.booleans())
VALUES = st.one_of(TEXTS, NUMBERS, st.none())
STRANGE = st.one_of(VALUES, st.lists(VALUES, max_size=2), st.dictionaries(TEXTS, VALUES, max_size=2))


@st.composite
def mostly(draw: st.DrawFn, good: Any, other: st.SearchStrategy[Any]) -> Any:
    """Three times of four what is well-formed: a file with two faults shows the first alone."""
    return draw(other) if draw(st.sampled_from([0, 0, 0, 1])) else good


LABELS = mostly(
    ["ham", "spam"],
    st.lists(st.one_of(TEXTS, NUMBERS), min_size=1, max_size=4)
    | st.lists(VALUES, min_size=1, max_size=40),  # one row a class, missing labels
)
ENCODINGS = (
    *["utf-8"] * 6,
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "cp1252",
    "latin-1",
    "cp932",
    "koi8-r",
)
NAMES = mostly(
    ["text", "label"],
    st.just(["text", "text", "label"]) | st.lists(TEXTS, max_size=4) | st.just(["v1", "v2"]),
)


@st.composite
def rows(draw: st.DrawFn) -> list[list[Any]]:
    """Mostly a table that can be learnt from, and sometimes not."""
    labels = draw(LABELS)
    text = draw(st.sampled_from(["plain", "drawn"]))
    n = draw(st.sampled_from([12, 12, 12, 12, 30, 0, 1, 2, 3]))
    table = [[f"text {i}" if text == "plain" else draw(TEXTS), labels[i % len(labels)]] for i in range(n)]
    if table and draw(st.integers(0, 3)) == 2:
        at = draw(st.integers(0, n - 1))
        table[at] = draw(st.lists(VALUES, max_size=4))
    return table


@st.composite
def tables(draw: st.DrawFn, separator: str) -> bytes:
    """The bytes of a .csv, .tsv or .txt."""
    separator = draw(st.sampled_from([*[separator] * 6, ",", "\t", ";"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
    lines = [draw(NAMES), *draw(rows())]
    if draw(st.booleans()):
        stream = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting)
        writer.writerows(["" if value is None else str(value) for value in line] for line in lines)
        text = stream.getvalue()
    else:
        text = end.join(separator.join("" if value is None else str(value) for value in line) for line in lines)
    content = text.encode(draw(st.sampled_from(ENCODINGS)), "replace")
    if draw(st.integers(0, 4)) == 2:
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=5)) + content[at:]
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 9)) == 2 else content


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    """The bytes of a .jsonl."""
    names = [*draw(NAMES), "text", "label"]
    records: list[Any] = [{names[0]: row[0], names[1]: row[-1]} if row else {} for row in draw(rows())]
    if records and draw(st.integers(0, 3)) == 2:
        records[draw(st.integers(0, len(records) - 1))] = draw(STRANGE)
    if records and draw(st.integers(0, 3)) == 2:
        records[0] = {"text": draw(STRANGE), "label": draw(STRANGE)}
    ascii_only = draw(st.booleans())
    end = draw(st.sampled_from(["\n", "\r\n", "\n\n", ",\n"]))
    text = end.join(json.dumps(record, ensure_ascii=ascii_only) for record in records)
    return text.encode(draw(st.sampled_from(ENCODINGS)), "surrogatepass" if ascii_only else "replace")


@st.composite
def parquets(draw: st.DrawFn) -> bytes:
    """The bytes of a .parquet, its columns of any type."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    n = draw(st.sampled_from([0, 1, 12, 30]))
    makers: list[Callable[[], Any]] = [
        *[lambda: pa.array([f"text {i}" for i in range(n)]), lambda: pa.array([i % 2 for i in range(n)])] * 5,
        lambda: pa.array([f"text {i}" for i in range(n)], pa.large_string()),
        lambda: pa.array([i % 2 for i in range(n)]),
        lambda: pa.array([(i % 2) / 2 for i in range(n)]),
        lambda: pa.array([i % 2 == 0 for i in range(n)]),
        lambda: pa.array([float("nan") if i % 5 else 1.0 for i in range(n)]),
        lambda: pa.array([None] * n),
        lambda: pa.array([None if i % 5 else "a" for i in range(n)]),
        lambda: pa.array([b"\xff\xfe" for _ in range(n)]),
        lambda: pa.array([b"\xff\xfe" for _ in range(n)]).cast(pa.string(), safe=False) if n else pa.array([]),
        lambda: pa.array(["ab"[i % 2] for i in range(n)]).dictionary_encode(),
        lambda: pa.array([i * 10**15 + 1 for i in range(n)], pa.timestamp("ns")),
        lambda: pa.array([i * 10**14 for i in range(n)], pa.timestamp("s")),
        lambda: pa.array([i % 2 for i in range(n)], pa.date32()),
        lambda: pa.array([i % 2 for i in range(n)], pa.duration("ns")),
        lambda: pa.array([i % 2 for i in range(n)], pa.time64("ns")),
        lambda: pa.array([i % 2 for i in range(n)]).cast(pa.decimal128(24, 2)),
        lambda: pa.array([[i % 2] for i in range(n)]),
        lambda: pa.array([{"a": i % 2} for i in range(n)]),
        lambda: pa.array([[("a", i % 2)] for i in range(n)], pa.map_(pa.string(), pa.int64())),
        lambda: pa.array(
            draw(st.lists(VALUES.filter(lambda v: isinstance(v, str) and v.isprintable()), min_size=n, max_size=n))
        ),
    ]
    names = [name.encode("utf-8", "replace").decode() for name in draw(NAMES)]
    arrays = [draw(st.sampled_from(makers))() for _ in names]
    stream = io.BytesIO()
    if names:
        pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, names=names), stream)
    content = stream.getvalue()
    if draw(st.integers(0, 4)) == 2 and content:
        at = draw(st.integers(0, len(content) - 1))
        content = content[:at] + draw(st.binary(max_size=3)) + content[at + 1 :]
    return content


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file: its suffix and its bytes, mostly of the same kind."""
    kind = draw(st.sampled_from(["table", "table", "table", "jsonl", "jsonl", "parquet", "parquet", "bytes"]))
    if kind == "table":
        suffix = draw(st.sampled_from([".csv", ".csv", ".tsv", ".txt"]))
        return suffix, draw(tables("," if suffix == ".csv" else "\t"))
    if kind == "jsonl":
        return ".jsonl", draw(json_lines())
    if kind == "parquet":
        return ".parquet", draw(parquets())
    return draw(st.sampled_from(SUFFIXES)), draw(st.binary(max_size=400))


COLUMNS = st.one_of(st.sampled_from(["text", "label", "0", "1", 0, 1, 2, -1, 10**30, "", "v1"]), TEXTS)
OPTIONS = mostly(
    {},
    st.fixed_dictionaries(
        {},
        optional={
            "text_column": COLUMNS,
            "label_column": COLUMNS,
            "header": st.booleans(),
            "empty": st.sampled_from(["error", "drop", "keep"]),
            "balance": st.sampled_from(["undersample", "none"]),
            "stratify": st.booleans(),
        },
    ),
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")


@examples(few=125)
@given(file=files(), options=OPTIONS)
def test_any_file_is_read_or_refused(
    file: tuple[str, bytes], options: dict[str, Any], count: Callable[[str], None]
) -> None:
    suffix, content = file
    with a_new_folder():
        Path(f"data{suffix}").write_bytes(content)
        try:
            ClassificationData(path=f"data{suffix}", **options).setup()
        except UserError as error:
            message = str(error)
        else:
            count("files read, and accepted")
            return
    check_message(f"lit_cls: error: {message}")
    assert f"data{suffix}" in message or "label" in message, message  # the latter when it is about several rows
    count("files read, and refused")


@pytest.mark.plots
@examples(few=10, share=0.05)
@given(file=files(), options=OPTIONS)
def test_any_file_is_fitted_or_refused(
    file: tuple[str, bytes], options: dict[str, Any], count: Callable[[str], None]
) -> None:
    suffix, content = file
    words = [f"--data.{name}={value}" for name, value in options.items()]
    with a_new_folder():
        Path(f"data{suffix}").write_bytes(content)
        code, _, _ = run([*FIT, "--data.path", f"data{suffix}", *words])
        if code == 0:
            json.loads(Path("checkpoints/fit/version_0/report/report.json").read_text(encoding="utf-8"))
        count(f"whole fits of files, exit code {code}")


def learnable(text: str = "text") -> bytes:
    return b"text,label\n" + b"".join(f"{text} {i},{'ab'[i % 2]}\n".encode() for i in range(12))


def odd_paths(folder: Path) -> dict[str, str]:
    """Paths at which there is no file of texts; each with a word of the message."""
    (folder / "folder.csv").mkdir()
    os.mkfifo(folder / "pipe.csv")
    (folder / "broken.csv").symlink_to("nowhere")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "zero.csv").symlink_to("/dev/zero")
    (folder / "null.csv").symlink_to("/dev/null")
    return {
        "folder.csv": "is a folder",
        "pipe.csv": "is a pipe or a device",
        "broken.csv": "there is no file",
        "loop.csv": "there is no file",
        "zero.csv": "is a pipe or a device",
        "null.csv": "is a pipe or a device",
        "/dev/zero": "is a pipe or a device",
        "a\0b.csv": "there is no file",
        "~nobody-of-that-name/a.csv": "there is no file",
        "x" * 300 + ".csv": "there is no file",
        "\udcff.csv": "is not UTF-8",
    }


@pytest.mark.timeout(60)  # what it reads has an end
def test_a_path_without_a_file_of_texts() -> None:
    with a_new_folder() as folder:
        for number, (path, message) in enumerate(odd_paths(folder).items()):
            on_command_line = message == "is not UTF-8"  # a path in Python may be anything
            if not on_command_line:
                with pytest.raises(UserError, match=message) as refusal:
                    ClassificationData(path=path).setup()
                check_message(f"lit_cls: error: {refusal.value}")
            if on_command_line or number % 4 == 0:
                code, _, complaint = run([*FIT, "--data.path", path])
                assert code == 2
                assert message in complaint


@pytest.mark.parametrize("name", ["line\nbreak", "[b]", "a b", "-", "مرحبا", "a:b"], ids=ascii)
def test_a_file_of_an_odd_name_is_read(name: str) -> None:
    with a_new_folder():
        Path(f"{name}.csv").write_bytes(learnable())
        code, _, complaint = run([*FIT, f"--data.path={name}.csv", "--trainer.enable_checkpointing", "true"])
        assert code == 0, complaint
        folder = Path("checkpoints/fit/version_0")
        json.loads((folder / "report/report.json").read_text(encoding="utf-8"))
        again = TrainCommand(["fit", "--config", str(folder / "config.yaml")]).datamodule
        again.setup()
        assert sum(split.n for split in again.summary.splits) == 12


@pytest.mark.parametrize(
    ("character", "kind"), pairwise(["a", '"', "🙂", "\0", "<", " "], [".csv", ".tsv", ".jsonl"], strength=1), ids=ascii
)
def test_a_line_of_a_megabyte(character: str, kind: str) -> None:
    if (character, kind) == ("\0", ".csv") and sys.version_info < (3, 11):
        pytest.skip("Python before 3.11 reads no NUL characters from a .csv")
    text = character * 1_000_000 + "end"
    lines = [(f"text {i}", "ab"[i % 2]) for i in range(12)] + [(text, "a")]
    with a_new_folder():
        with Path(f"data{kind}").open("w", encoding="utf-8", newline="") as stream:
            match kind:
                case ".csv":
                    csv.writer(stream).writerows([("text", "label"), *lines])
                case ".tsv":
                    stream.writelines(f"{one}\t{label}\n" for one, label in [("text", "label"), *lines])
                case ".jsonl":
                    stream.writelines(json.dumps({"text": one, "label": label}) + "\n" for one, label in lines)
        data = ClassificationData(path=f"data{kind}", max_length=16, balance="none")
        longest = max(split.tokens_longest for split in data.summary.splits)
    assert longest > 10_000
    assert sum(split.cut for split in data.summary.splits) == 1


@pytest.mark.slow
@pytest.mark.parametrize("character", ["a", " ", "🙂"], ids=ascii)
def test_a_line_of_ten_megabytes(character: str) -> None:
    with a_new_folder():
        text = character * (10_000_000 // len(character.encode())) + "end"
        Path("data.csv").write_text(f"{learnable().decode()}{text},a\n", encoding="utf-8")
        code, printed, _ = run([*FIT, "--data.path", "data.csv", "--data.balance", "none"])
    assert code == 0
    assert "1 texts are longer than 16 tokens" in printed
