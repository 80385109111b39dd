"""The findings about labelled texts, against figures counted by hand; and the verdict, against fit's own reading."""

import csv
import io
import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fuzzing import a_new_folder, examples
from hypothesis import given
from hypothesis import strategies as st

from lit_cls.data.check import MAX_LENGTHS, PERCENTILES, Check, check, count_tokens
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.findings import Finding
from lit_cls.data.options import DataOptions, command_line, fit_words, option_value
from lit_cls.data.sources import LabelledTexts
from lit_cls.data.split_data import read
from lit_cls.data.splits import SPLIT_NAMES, near_key
from lit_cls.data.tokenizers import tokenizer_for
from lit_cls.errors import UserError

TOKENIZER = tokenizer_for("gpt2")


def quiet(doing: str, done: int, of: int) -> None:
    pass


def checked(path: Path | str, max_length: int | None = None, **options: object) -> Check:
    return check(replace(DataOptions(path=str(path)), **options), max_length, quiet)  # type: ignore[arg-type]


def write(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def finding(found: Check, kind: str) -> Finding:
    return next(finding for finding in found.findings if finding.kind == kind)


def kinds(found: Check) -> set[str]:
    return {finding.kind for finding in found.findings}


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """40 rows: 30 ham, 10 spam; row 5 repeats 1, row 7 repeats 3 but for a digit, row 9 is row 2 with another label."""
    rows = [["word " * (i + 1) + f"{'abcdefgh'[i % 8]}{i}", "spam" if i % 4 == 3 else "ham"] for i in range(40)]
    rows = [
        [f"{'xyz'[i % 3]}{'uvw'[i // 3 % 3]}{'pqrst'[i // 9]} {text}", label] for i, (text, label) in enumerate(rows)
    ]
    rows[4] = rows[0]
    rows[6] = [rows[2][0].upper() + " 7!", "ham"]
    rows[8] = [rows[1][0], "spam"]
    return write(tmp_path / "some.csv", rows)


# Lengths.


def rows_of(texts: list[str]) -> LabelledTexts:
    return LabelledTexts(texts, ["x"] * len(texts), list(range(11, 11 + len(texts))), "")


def test_lengths_by_hand() -> None:
    lengths = count_tokens(rows_of([" a" * n for n in range(1, 101)]), TOKENIZER, 70, quiet)
    assert (lengths.texts, lengths.tokens, lengths.longest, lengths.longest_row) == (100, 5050, 100, 110)
    assert lengths.percentiles == {5: 5, 25: 25, 50: 50, 75: 75, 95: 95, 99: 99}
    cuts = {cut.max_length: (cut.texts, cut.tokens) for cut in lengths.cuts}
    assert cuts == {
        32: (68, 68 * 69 // 2),
        64: (36, 666),
        70: (30, 465),
        **dict.fromkeys((128, 256, 512, 1024), (0, 0)),
    }
    assert lengths.cut_rows == list(range(81, 111))


@examples(30)
@given(st.lists(st.text("abc 1é🙂\n", max_size=60), min_size=1, max_size=30))
def test_lengths_are_those_of_the_tokens(texts: list[str]) -> None:
    lengths = count_tokens(rows_of(texts), TOKENIZER, 1024, quiet)
    counts = sorted(map(len, TOKENIZER.encode(texts)))
    assert lengths.tokens == sum(counts)
    for share in PERCENTILES:  # at least this share of texts has at most so many tokens, and fewer would not do
        most = lengths.percentiles[share]
        assert sum(n <= most for n in counts) * 100 >= share * len(counts)
        assert sum(n < most for n in counts) * 100 < share * len(counts)
    for cut in lengths.cuts:
        assert cut.texts == sum(n > cut.max_length for n in counts)
        assert cut.tokens == sum(len(ids[cut.max_length :]) for ids in TOKENIZER.encode(texts))


def test_chunks_change_nothing() -> None:
    # More than one chunk of a million characters.
    seen: list[tuple[str, int, int]] = []
    texts = ["long " * 60_000 + str(i) for i in range(6)]
    lengths = count_tokens(rows_of(texts), TOKENIZER, 1024, lambda *done: seen.append(done))
    assert lengths.tokens == sum(map(len, TOKENIZER.encode(texts)))
    assert seen == [("tokenising", 4, 6), ("tokenising", 6, 6)]


def test_no_texts_have_no_lengths() -> None:
    lengths = count_tokens(rows_of([]), TOKENIZER, 1024, quiet)
    assert (lengths.texts, lengths.percentiles, lengths.longest) == (0, {}, 0)


def test_texts_that_would_be_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [[" a" * n, "xy"[n % 2]] for n in range(1, 13)])
    assert "cut" not in kinds(checked(path))
    cut = finding(checked(path, max_length=10), "cut")
    assert (cut.rows, cut.refuses) == ([11, 12], False)
    assert cut.message.startswith(
        "2 texts are longer than 10 tokens and would be truncated (row 11, 12; 3.8 % of all tokens)"
    )
    assert [cut.max_length for cut in checked(path, max_length=10).lengths.cuts] == sorted([10, *MAX_LENGTHS])


# LabelledTexts that repeat or contradict each other.


def test_repeated_texts(some: Path) -> None:
    found = checked(some)
    assert finding(found, "duplicates").rows == [5, 9]
    assert finding(found, "near_duplicates").rows == [7]
    assert finding(found, "near_duplicates").message.endswith("row 7 repeats row 3")
    assert finding(found, "duplicates").options == ("--data.group_near_duplicates", "true")


def test_texts_with_two_labels(some: Path) -> None:
    conflicts = finding(checked(some), "conflicts")
    assert conflicts.rows == [2, 9]
    assert conflicts.message.startswith("1 text has more than one label (row 2, 9): row 2 is 'ham', row 9 'spam'.")


def test_empty_texts_do_not_repeat_each_other(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", [[f"text {'abcdefgh'[i]}", "xy"[i % 2]] for i in range(8)] + [["", "x"], ["", "y"]]
    )
    assert kinds(checked(path, empty="keep")) == {"empty"}


def test_imbalance(some: Path) -> None:
    seen = finding(checked(some), "imbalance")
    assert seen.message.startswith("'ham' has 29 texts, 'spam' 11 (2.6 to 1): data.balance undersample leaves 18 out")
    assert seen.options == ("--data.balance", "none", "--model.class_weights", "balanced")
    assert "left out" not in finding(checked(some, balance="none"), "imbalance").message


def test_balanced_labels_are_no_finding(tmp_path: Path) -> None:
    assert (
        kinds(checked(write(tmp_path / "a.csv", [[f"text {'abcdefgh'[i]}", "xy"[i % 2]] for i in range(8)]))) == set()
    )


def test_labels_that_look_like_texts(tmp_path: Path) -> None:
    rows = [[f"text {i}", f"label {i}"] for i in range(1200)]
    found = checked(write(tmp_path / "a.csv", rows))
    assert "1,200 different labels in 1,200 rows are many" in finding(found, "many_labels").message
    assert (found.parts, found.starts) == ([], False)


# The split.


@pytest.mark.parametrize(
    "options", [{}, {"balance": "none"}, {"stratify": False, "split_seed": 4}, {"group_near_duplicates": True}]
)
def test_the_split_is_that_of_fit(some: Path, options: dict[str, object]) -> None:
    found = checked(some, **options)
    parts = read(replace(DataOptions(path=str(some)), **options))  # type: ignore[arg-type]
    assert [part.name for part in found.parts] == [*SPLIT_NAMES, "left out"]
    for part in found.parts[:3]:
        rows = parts.splits[part.name].rows  # type: ignore[index]
        assert part.n == len(rows.texts)
        assert part.labels == {label: rows.labels.count(label) for label in sorted(set(rows.labels))}
    assert found.parts[3].n == len(parts.left_out.texts)
    for overlap in found.overlaps:
        texts, train = parts.splits[overlap.part].rows, parts.splits["train"].rows
        assert overlap.verbatim == sum(text in train.texts for text in texts.texts)
        assert overlap.near == sum(near_key(text) in set(map(near_key, train.texts)) for text in texts.texts)
        of_row = dict(zip(texts.numbers, texts.texts, strict=True)) | dict(zip(train.numbers, train.texts, strict=True))
        assert all(of_row[row] == of_row[other] for row, other in overlap.verbatim_pairs)
        assert all(near_key(of_row[row]) == near_key(of_row[other]) for row, other in overlap.near_pairs)


def test_overlaps_and_their_end(some: Path) -> None:
    # Four seeds, so that some pair is parted; with groups none ever is.
    near = [sum(o.near for o in checked(some, balance="none", split_seed=seed).overlaps) for seed in range(4)]
    assert sum(near) > 0
    for seed in range(4):
        found = checked(some, balance="none", split_seed=seed, group_near_duplicates=True)
        assert [overlap.near for overlap in found.overlaps] == [0, 0]


@pytest.mark.shared
def test_the_published_split(sms_file: Path) -> None:
    found = checked(sms_file, split="ch06")
    assert [(overlap.part, overlap.n, overlap.verbatim, overlap.near) for overlap in found.overlaps] == [
        ("validation", 149, 12, 25),
        ("test", 300, 36, 54),
    ]
    assert found.starts
    seen = finding(found, "test_in_train")
    assert seen.message.startswith(
        "54 of 300 test texts (18.0 %) also occur in the train split, 36 of them word for word"
    )
    assert (seen.options, len(seen.rows)) == ((), 54)  # no option changes the published split
    assert found.commands == [f"lit_cls fit --data.path {sms_file} --data.split ch06"]


def test_a_label_that_no_row_of_train_has(tmp_path: Path) -> None:
    rows = [[f"text {i}", "common"] for i in range(60)] + [[f"other {i}", "rare"] for i in range(3)]
    path = write(tmp_path / "a.csv", rows)
    refused = 0
    few = {"balance": "none", "stratify": False, "split": (0.2, 0.4, 0.4)}
    for seed in range(8):
        found = checked(path, **few, split_seed=seed)
        if not found.starts:
            refused += 1
            assert finding(found, "absent_label").options == ("--data.stratify", "true")
            assert "it cannot be learnt" in finding(found, "absent_label").message
            with pytest.raises(UserError, match=r"labels that occur outside the train split alone"):
                read(replace(DataOptions(path=str(path), split_seed=seed), **few))  # type: ignore[arg-type]
    assert 0 < refused < 8


# What a training would say.


def test_commands(tmp_path: Path) -> None:
    (tmp_path / "my data").write_text("ham\thello\nspam\twin\n" * 9)
    found = checked(tmp_path / "my data")
    assert (found.starts, found.to_mend) == (False, 0)
    path = tmp_path / "my data"
    assert found.commands == [
        f"cp '{path}' '{path}.tsv'",
        f"lit_cls fit --data.path '{path}.tsv' --data.text_column 1 --data.label_column 0 --data.header false",
    ]


def test_a_maximum_length_is_trained_with(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nhello,ham\nwin,spam\n" * 9)
    [command] = checked(tmp_path / "a.csv", 7).commands
    assert command.endswith("a.csv --data.max_length 7")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_command_line_is_printable_and_read_back_by_a_shell() -> None:
    words = ["a b", "it's", "\x1b[31mred", "two\nlines' \\n", "", "é\u2028🙂", ":smile:", "plain"]
    line = command_line(words)
    assert line.isprintable()
    seen = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert seen.decode().split("\0")[:-1] == words


def test_words_of_options() -> None:
    assert fit_words(DataOptions()) == []
    reading = DataOptions(path="a.csv", stratify=False, split=(0.8, 0.1, 0.1), split_seed=7)
    assert fit_words(reading, "b.csv") == [
        *("--data.path", "b.csv", "--data.split", "[0.8,0.1,0.1]", "--data.stratify", "false", "--data.split_seed", "7")
    ]
    assert option_value(("a/b.csv", "it's, here.csv", "c.csv")) == '[a/b.csv,"it\'s, here.csv",c.csv]'


def test_the_defaults_are_those_of_fit() -> None:
    data = ClassificationData(path="a.csv")
    assert data.options == DataOptions(path="a.csv")


def test_json_has_every_row(tmp_path: Path) -> None:
    rows = [[f"text {'ab'[i % 2] * (i + 1)}", "xy"[i % 2]] for i in range(30)] + [["", "x"]] * 12
    found = checked(write(tmp_path / "a.csv", rows))
    content = json.loads(json.dumps(found.as_dict()))
    empty = next(entry for entry in content["findings"] if entry["kind"] == "empty")
    assert empty["rows"] == list(range(31, 43))
    assert (content["starts"], content["to_mend"], content["usable_rows"], content["n_rows"]) == (False, 0, 30, 42)
    assert content["labels"][0] == {"label": "x", "rows": 27, "share": 27 / 42}
    assert [part["n"] for part in content["parts"]] == [part.n for part in found.parts]


_LABELS = (["ham", "spam"], ["a", "b", "c"], ["ham", "Ham", "spam"], ["x"], ["ham", "spam", ""])
_HEADERS = (["text", "label"], ["v1", "v2"], ["label", "text"], None)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes, dict[str, object]]:
    """A name, bytes, and options: mostly well-formed files with a fault here and there."""
    labels = draw(st.sampled_from(_LABELS))
    texts = ["hello there", "win {i} now", "message {i}", "", 'say "{i}"', "{i}"]
    row = st.tuples(st.sampled_from(texts[: draw(st.sampled_from([3, 3, 6]))]), st.sampled_from(labels))
    rows = [[text.format(i=i), label] for i, (text, label) in enumerate(draw(st.lists(row, max_size=40)))]
    if draw(st.integers(0, 9)) == 0:
        rows.append(["one", "two", "three"])
    header = draw(st.sampled_from([_HEADERS[0], *_HEADERS]))
    stream = io.StringIO()
    separator = draw(st.sampled_from([",", ",", ",", "\t"]))
    csv.writer(stream, delimiter=separator).writerows([header, *rows] if header else rows)
    name = "some" + draw(st.sampled_from([".csv", ".csv", ".csv", ".tsv", ""]))
    options = st.fixed_dictionaries(
        {},
        optional={
            "empty": st.sampled_from(["drop", "keep"]),
            "balance": st.just("none"),
            "stratify": st.just(False),
            "group_near_duplicates": st.just(True),
        },
    )
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16"]))
    return name, stream.getvalue().encode(encoding), draw(options)


@examples(150)
@given(files())
def test_the_verdict_is_what_fit_does(file: tuple[str, bytes, dict[str, object]]) -> None:
    name, content, options = file
    with a_new_folder() as folder:
        Path(name).write_bytes(content)
        reading = replace(DataOptions(path=name), **options)  # type: ignore[arg-type]
        try:
            read(reading)
            refusal = None
        except UserError as error:
            refusal = str(error)
        try:
            found = checked(name, **options)
        except UserError:
            assert refusal is not None
            return
        assert found.starts == (refusal is None)
        if found.starts or found.to_mend:
            return
        # The options that were named are enough.
        if len(found.commands) == 2:
            _, there, copy = shlex.split(found.commands[0])
            (folder / there).rename(folder / copy)
        read(replace(found.inspection.options, path=found.inspection.needed_name or name))
