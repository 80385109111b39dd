"""`lit_cls data check` and `lit_cls data split`, as commands; and what fit makes of the files that split writes."""

import csv
import errno
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import SHARED, closed_pipe

from lit_cls.cli import main
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.options import DataOptions
from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.data.tokenizers import tokenizer_for

TOKENIZER = tokenizer_for("gpt2")

ODD = [
    *(
        'say "hi", then go',
        "two\nlines",
        "dos\r\nlines",
        "old\rmac",
        " leading",
        "trailing ",
        "\ttabs\t",
        "nan",
        "None",
    ),
    *(
        "NA",
        "null",
        "",
        "   ",
        "0012",
        "1e5",
        "<|endoftext|>",
        "'quoted'",
        '"',
        '""',
        "\\n",
        "é🙂 ﷽",
        "\ufeffbom",
        "a;b|c",
    ),
    *("\x0bvertical", "line\u2028separator", "-5", "=1+1", "true", "[0.7,0.1]", "trailing newline\n", "\n"),
]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """40 messages, with an empty one and one that is repeated."""
    rows = [("text", "label"), *((f"message {'abcdefghij'[i % 10] * (i + 1)}", "xy"[i % 2]) for i in range(38))]
    rows += [("", "x"), rows[1]]
    return write(tmp_path / "some.csv", rows)


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return str(path)


def split_line(folder: Path, ending: str = "") -> str:
    return f"[{','.join(str(folder / f'{name}.csv') for name in SPLIT_NAMES)}]{ending}"


# check.


def test_check_tells_what_deals_with_it(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", file]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == f"{file}: 40 rows"
    at = lines.index("refused  row 39 has no text. Pass --data.empty drop to leave them out, or --data.empty keep to "
                     "classify them as empty")  # fmt: skip
    assert lines[at + 1] == "→ --data.empty drop"
    assert lines[-2:] == [
        "lit_cls fit would refuse this as it is. It starts with:",
        f"lit_cls fit --data.path {file} --data.empty drop",
    ]


def test_check_with_the_options_that_it_named(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", file, "--empty", "drop"]) == 0
    out = capsys.readouterr().out
    assert "lit_cls fit would start as it is:\n" in out
    assert "refused" not in out


@pytest.mark.parametrize("prefix", ["--", "--data."])
def test_options_in_both_spellings(prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.csv", [(f"body {'abcdefghij'[i % 10] * (1 + i)}", "xy"[i % 3 == 0]) for i in range(30)])
    given = {
        **{"text_column": "0", "label_column": "1", "header": "false", "empty": "keep", "balance": "none"},
        **{"split": "[0.6, 0.2, 0.2]", "stratify": "false", "split_seed": "5", "group_near_duplicates": "true"},
        **{"source": "file", "max_length": "3"},
    }
    words = [word for name, value in given.items() for word in (prefix + name, value)]
    assert main(["data", "check", path, "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["starts"]
    assert [part["n"] for part in found["parts"]] == [18, 6, 6, 0]
    assert "cut" in [finding["kind"] for finding in found["findings"]]
    options = {name: value for name, value in given.items() if name not in ("max_length", "split")}
    assert all(f"--data.{name} {value}" in found["commands"][0] for name, value in options.items())


@pytest.mark.parametrize("option", ["--data.path", "--path"])
def test_the_file_as_fit_spells_it(option: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", option, file]) == 0
    output = capsys.readouterr().out
    assert main(["data", "check", file]) == 0
    assert capsys.readouterr().out == output
    assert main(["data", "split", f"{option}={file}", "--empty", "drop", "--out", str(tmp_path / "out")]) == 0


def test_json_loses_nothing_in_any_encoding(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.csv", [("text", "label"), *((f"é🙂 {'abc'[i % 3] * (i + 1)}", "äö"[i % 2]) for i in range(20))]
    )
    words = [sys.executable, "-m", "lit_cls", "data", "check", file, "--json"]
    output = subprocess.run(words, env={**os.environ, "PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE, check=True)
    found = json.loads(output.stdout)
    assert {label["label"] for label in found["labels"]} == {"ä", "ö"}
    assert found["first_rows"][0]["text"] == "é🙂 a"


def test_json_alone_on_standard_output(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", file, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["sha256"] == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert [finding["rows"] for finding in found["findings"] if finding["kind"] == "empty"] == [[39]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--empty", "foo"], "data.empty must be error, drop or keep, not foo\nlit_cls data check --help lists"),
        (["--header", "maybe"], "data.header must be true or false, not maybe\n"),
        (["--balance", "x"], "data.balance must be undersample or none, not x\n"),
        (["--source", "x"], "data.source must be sms_spam, demo or file, not x\n"),
        (["--split", "x"], "data.split must be ch06 or three fractions, not 'x'\n"),
        (["--split", "[1, 2"], "data.split must be ch06 or three fractions, not '[1, 2'\n"),
        (["--split", "[" * 5000], "data.split must be ch06 or three fractions, not '[[[["),
        (["--split", "2001-99-99"], "data.split must be ch06 or three fractions, not '2001-99-99'\n"),
        (
            ["--split", "[a.csv,b.csv,c.csv]"],
            "data.split names three files, and check takes one: check each of them",
        ),
        (["--data.path", "b.csv"], "two files, "),
        (["--split", "[0.5,0.5,0.5]"], "data.split [0.5, 0.5, 0.5]: three positive fractions"),
        (["--split", "ch06", "--source", "demo"], "data.split ch06 is a split of the SMS Spam Collection"),
        (["--split", "ch06", "--group_near_duplicates", "true"], "data.split ch06 defines the split of each row"),
        (["--split_seed", "x"], "data.split_seed must be a whole number, not x\n"),
        (["--split_seed", "-1"], "data.split_seed -1 is less than 0"),
        (["--max_length", "2000"], "data.max_length 2000 is not between 1 and the model's context length, 1024"),
        (["--max_length", "x"], "data.max_length must be a whole number, not x\n"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_options(words: list[str], message: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", file, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lit_cls: error: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "no.csv"], "there is no file no.csv"),
        (["check"], "no data: pass --data.path FILE"),
        (["check", "."], ". is a folder"),
        (["look", "a.csv"], "lit_cls data has the subcommands check and split, not 'look'"),
        (["split", "a.csv"], "the following arguments are required: --out"),
    ],
)
def test_nothing_to_look_at(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert main(["data", "check", str(tmp_path / "pipe.csv")]) == 2
    assert "is a pipe or a device" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], []])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == 0
    assert "check   format, labels" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "split"])
def test_help_names_every_option_that_decides_the_splits(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", command, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for name in {field.name for field in fields(DataOptions) if field.compare} - {"tokenizer"}:
        assert f"--data.{name} " in out


def test_neither_torch_nor_lightning_is_needed(file: str) -> None:
    # What keeps `data check` a matter of seconds.
    code = (
        "import sys; from lit_cls.cli import main; "
        "assert main(sys.argv[1:]) == 0; assert not {'torch', 'lightning', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, "data", "check", file], check=True, stdout=subprocess.DEVNULL)


# split.


def test_the_files_are_what_fit_uses(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out"
    assert main(["data", "split", file, "--out", str(out), "--empty", "drop", "--split_seed", "9"]) == 0
    output = capsys.readouterr().out
    original = ClassificationData(path=file, empty="drop", split_seed=9)
    files = ClassificationData(split=tuple(str(out / f"{name}.csv") for name in SPLIT_NAMES))  # type: ignore[arg-type]
    for name in SPLIT_NAMES:
        part, again = original.splits[name], files.splits[name]
        assert (again.rows.texts, again.rows.labels) == (part.rows.texts, part.rows.labels)
        assert again.sha256 == part.sha256
        assert f"{out / name}.csv: {len(part.label_ids)} texts" in output
        assert f"sha256 {part.sha256}" in output
        with (out / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [int(row["source_row"]) for row in rows] == part.rows.numbers
        assert list(rows[0]) == ["text", "label", "source_row"]
    assert output.endswith(f"  lit_cls fit --data.split '{split_line(out)}'\n")
    assert sorted(path.name for path in out.iterdir()) == ["test.csv", "train.csv", "validation.csv"]


def test_texts_come_back_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.jsonl"
    rows = [{"text": text, "label": f" label, {'xy'[i % 2]}"} for i, text in enumerate(ODD)]
    path.write_text("\n".join(map(json.dumps, rows)))
    words = ["data", "split", str(path), "--out", str(tmp_path / "out"), "--empty", "keep", "--balance", "none"]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith(f"'{split_line(tmp_path / 'out')}' --data.empty keep\n")
    original = ClassificationData(path=str(path), empty="keep", balance="none")
    again = ClassificationData(split=tuple(str(tmp_path / "out" / f"{n}.csv") for n in SPLIT_NAMES), empty="keep")  # type: ignore[arg-type]
    assert sorted(text for name in SPLIT_NAMES for text in again.splits[name].rows.texts) == sorted(ODD)
    for name in SPLIT_NAMES:
        assert again.splits[name].rows.texts == original.splits[name].rows.texts
        assert again.splits[name].sha256 == original.splits[name].sha256
        assert again.splits[name].token_ids == TOKENIZER.encode(original.splits[name].rows.texts)


@pytest.mark.shared
def test_the_published_split(sms_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", str(sms_file), "--split", "ch06", "--out", str(tmp_path)]) == 0
    expected = json.loads((SHARED / "reference" / "ch06_split.json").read_text(encoding="utf-8"))
    output = capsys.readouterr().out
    for name in SPLIT_NAMES:
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        lines = "\n".join(f"{int(row['label'] == 'spam')}\t{row['text']}" for row in rows)
        assert hashlib.sha256(lines.encode()).hexdigest() == expected[name]["sha256"]
        assert f"sha256 {expected[name]['sha256']}" in output


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_nothing_is_overwritten(name: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    assert main(["data", "split", file, "--empty", "drop", "--out", str(out)]) == 2
    assert f"{out / name} is there already: give another --out" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def test_an_out_that_is_a_file(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", file, "--empty", "drop", "--out", file]) == 2
    assert f"--out {file} is a file: give a folder" in capsys.readouterr().err


def test_an_out_that_cannot_be_made(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out, output in (
        (f"{file}/below", "cannot be used: Not a directory"),
        (str(tmp_path / ("n" * 300)), "cannot be used: File name too long"),
    ):
        # Before any work: the file that is to be split is not there either.
        assert main(["data", "split", "no.csv", "--empty", "drop", "--out", out]) == 2
        assert capsys.readouterr().err == f"lit_cls: error: --out {out} {output}\n"


def test_a_disk_that_is_full(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["data", "split", file, "--empty", "drop", "--out", str(tmp_path / "out")]) == 1
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("words", [["check"], ["check", "--json"], ["split", "--out", "parts"]])
def test_a_closed_pipe_is_no_error(
    words: list[str], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closed_pipe():
        assert main(["data", *words, "--path", file, "--empty", "drop"]) == 0
    assert len(list(Path("parts").glob("*.csv"))) == (3 if "parts" in words else 0)


def test_split_refuses_what_fit_refuses(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", file, "--out", str(tmp_path / "out")]) == 2
    assert "row 39 has no text. Pass --data.empty drop" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_that_yaml_would_misread(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The printed command must name the files, whatever the folder is called.
    out = tmp_path / "it's, [mine]: #1"
    assert main(["data", "split", file, "--empty", "drop", "--out", str(out)]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    words = subprocess.run(["sh", "-c", f"set -- {command}; printf '%s\\n' \"$@\""], capture_output=True, text=True)  # noqa: PLW1510
    value = words.stdout.splitlines()[3]
    assert main(["data", "split", "--split", value, "--out", str(tmp_path / "again")]) == 0
    for name in SPLIT_NAMES:
        texts = [(folder / f"{name}.csv").read_text().splitlines() for folder in (out, tmp_path / "again")]
        assert [line.rsplit(",", 1)[0] for line in texts[0]] == [line.rsplit(",", 1)[0] for line in texts[1]]


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="newer Pythons read NUL characters from a .csv")
def test_a_nul_that_no_csv_can_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\n" + "a\tx\nb\ty\n" * 9 + "be\0fore\tx\nc\ty\n")
    assert main(["data", "split", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "the text of row 19 has a NUL character" in capsys.readouterr().err


@pytest.mark.shared
def test_the_sms_collection_as_it_comes(sms_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(sms_file)]) == 0
    assert capsys.readouterr().out.endswith(f"lit_cls fit --data.source sms_spam --data.path {sms_file}\n")
