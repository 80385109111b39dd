"""`lit_cls data`: `check` looks at labelled texts, `split` writes down the split that fit would use."""

import csv
import io
import json
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import yaml

from lit_cls.commands.data_report import Page, plain, show
from lit_cls.commands.parser import CommandParser
from lit_cls.data.check import check, command_line, spelt
from lit_cls.data.sources import EmptyPolicy, SourceName
from lit_cls.data.split_data import Part, Reading
from lit_cls.data.splits import SPLIT_NAMES, Balance
from lit_cls.errors import RunError, UserError, quote
from lit_cls.io.atomic import flush, whole_file
from lit_cls.io.progress import Progress

_HELP = """\
usage: lit_cls data check FILE [any option]
       lit_cls data split FILE --out DIR [any option]

Looks at labelled texts, without a model.

  check   format, labels, repeated texts, lengths, the split; what a training would refuse
  split   writes the train.csv, validation.csv and test.csv that fit would use

  lit_cls data check --help    every option
"""
_LONGEST = 1024  # GPT-2's context length

# Of `ClassificationData`, by name: what stands for a value, and one line. Those that say which row is in which part.
_OPTIONS = {
    "source": ("NAME", "sms_spam, demo or file (default: file)"),
    "text_column": ("COLUMN", "the texts' column, by name or by number from 0 (default: text)"),
    "label_column": ("COLUMN", "the labels' column, by name or by number from 0 (default: label)"),
    "header": ("true|false", "whether the first line names the columns (default: true)"),
    "empty": ("error|drop|keep", "what is done about empty texts (default: error)"),
    "balance": ("undersample|none", "draw as many texts of each label as the rarest has (default: undersample)"),
    "split": ("SPLIT", "fractions, or ch06: the published split (default: [0.7,0.1,0.2])"),
    "stratify": ("true|false", "give each part the same mix of labels (default: true)"),
    "split_seed": ("NUMBER", "of balancing and splitting (default: 123)"),
    "group_near_duplicates": ("true|false", "keep nearly equal texts in the same part (default: false)"),
}


def data(words: list[str]) -> int:
    """Runs `check` or `split`.

    Args:
        words: those behind `lit_cls data`.

    Returns:
        The exit code.

    Raises:
        UserError: a mistake in the options or the data.
        RunError: the files cannot be written.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    match words[0]:
        case "check":
            return _check(words[1:])
        case "split":
            return _split(words[1:])
    raise UserError(f"lit_cls data does check or split, not {words[0]!r}: see lit_cls data --help")


def _parser(command: str, description: str) -> CommandParser:
    parser = CommandParser(f"data {command}", description)
    parser.add_argument("file", nargs="?", metavar="FILE", help=".csv, .tsv, .txt (tabs), .jsonl or .parquet")
    parser.add_argument("--path", "--data.path", dest="path", metavar="FILE", help="the same, as fit spells it")
    group = parser.add_argument_group("how it is read and split: fit's options, with or without data. before the name")
    for name, (metavar, told) in _OPTIONS.items():
        group.add_argument(f"--{name}", f"--data.{name}", dest=name, metavar=metavar, help=told)
    return parser


def _check(words: list[str]) -> int:
    parser = _parser("check", "Looks at labelled texts as fit would read them; exits with 0 whatever it finds.")
    parser.add_argument(
        *("--max_length", "--data.max_length"), metavar="NUMBER", help="tokens a text would be cut to (default: 1024)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, with every row number")
    own = parser.parse_args(words)
    reading, max_length = _reading(own, "check"), _max_length(own.max_length)
    with Progress(unit="rows") as progress:
        found = check(reading, max_length, progress.report)
    if own.json:
        print(json.dumps(found.as_dict(), indent=2))  # ASCII: whatever the terminal's encoding, nothing is lost
    else:
        show(found, Page())
    return 0


def _reading(own: Namespace, command: str) -> Reading:
    """The options, each checked as fit would check it."""
    given = {name: getattr(own, name) for name in _OPTIONS if getattr(own, name) is not None}
    kinds: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("header", "stratify", "group_near_duplicates"), ("true", "false")),
        **{"source": get_args(SourceName), "empty": get_args(EmptyPolicy), "balance": get_args(Balance)},
    }
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in kinds and value not in kinds[name]:
            choices = " or ".join([", ".join(kinds[name][:-1]), kinds[name][-1]])
            raise UserError(f"data.{name} must be {choices}, not {value}{_way_out(command)}")
        values[name] = value == "true" if kinds.get(name) == ("true", "false") else value
    if "split_seed" in values:
        values["split_seed"] = _whole("split_seed", values["split_seed"], command)
    if "split" in values:
        values["split"] = _split_of(values["split"], command)
    if own.file is not None and own.path is not None:
        raise UserError(f"two files, {own.file} and --data.path {own.path}: give one{_way_out(command)}")
    reading = replace(Reading(path=own.file if own.path is None else own.path), **values)
    if command == "check" and reading.split_files:
        raise UserError(
            "data.split names three files, and check looks at one: check each of them by itself, lit_cls data check "
            f"FILE{_way_out(command)}"
        )
    return reading


def _split_of(value: str, command: str) -> Any:
    if value == "ch06":
        return value
    try:
        parts = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that there is not
        parts = None
    for kind, made in ((int | float, float), (str, str)):
        if isinstance(parts, list) and len(parts) == 3 and all(isinstance(part, kind) for part in parts):
            return tuple(made(part) for part in parts)
    files = "" if command == "check" else " or three files"
    raise UserError(f"data.split must be ch06 or three fractions{files}, not {quote(value)}{_way_out(command)}")


def _whole(name: str, value: str, command: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"data.{name} must be a whole number, not {value}{_way_out(command)}") from None


def _max_length(value: str | None) -> int | None:
    if value is None:
        return None
    number = _whole("max_length", value, "check")
    if not 1 <= number <= _LONGEST:
        raise UserError(f"data.max_length {number} is not between 1 and the model's context length, {_LONGEST}")
    return number


def _way_out(command: str) -> str:
    return f"\nlit_cls data {command} --help lists every option and its values"


def _split(words: list[str]) -> int:
    parser = _parser("split", "Writes the train.csv, validation.csv and test.csv that fit would use.")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder; none of the three files may be there")
    own = parser.parse_args(words)
    reading = _reading(own, "split")
    out = Path(os.path.expanduser(own.out))
    paths = {name: out / f"{name}.csv" for name in SPLIT_NAMES}
    reading.check()
    _check_free(out, list(paths.values()))
    parts = reading.read()
    _write({paths[name]: _csv(part) for name, part in parts.splits.items()})
    page = Page()  # nothing is told before it is done: whoever reads the output may close it
    page.line(f"{parts.origin}: {parts.n_rows:,} rows, sha256 {parts.sha256}")
    for note in parts.notes:
        page.line(f"note: {note}")
    for name, part in parts.splits.items():
        counts = Counter(part.rows.labels)
        labels = ", ".join(f"{counts[label]:,} {plain(label)}" for label in parts.label_names[:10])
        more = ", …" if len(parts.label_names) > 10 else ""
        page.line(f"{paths[name]}: {len(part.label_ids):,} texts ({labels}{more}), sha256 {part.sha256}")
    page.line("train on these files with:")
    empty = ["--data.empty", "keep"] if reading.empty == "keep" else []
    files = spelt(tuple(str(path) for path in paths.values()))
    page.line(f"  {command_line(['lit_cls', 'fit', '--data.split', files, *empty])}")
    return 0


def _csv(part: Part) -> str:
    written = io.StringIO()
    # Every text quoted: white space at its ends, line breaks of any kind and quotes come back as they are.
    writer = csv.writer(written, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(("text", "label", "source_row"))
    rows = part.rows
    writer.writerows(zip(rows.texts, rows.labels, rows.numbers, strict=True))
    nul = next((n for n, text in zip(rows.numbers, rows.texts, strict=True) if "\0" in text), None)
    if nul is not None and sys.version_info < (3, 11):
        raise UserError(f"the text of row {nul} has a NUL character, which Python before 3.11 reads from no .csv")
    return written.getvalue()


def _check_free(out: Path, paths: Sequence[Path]) -> None:
    try:
        os.lstat(paths[0])
    except FileNotFoundError:
        pass
    except OSError as error:  # a locked folder, a file in the way, a name that is too long
        is_file = os.path.isfile(out)
        raise UserError(
            f"--out {out} is a file: give a folder" if is_file else f"--out {out} cannot be used: {error.strerror}"
        ) from error
    above = next((folder for folder in (out, *out.parents) if os.path.lexists(folder)), out)
    if not os.path.isdir(above):
        raise UserError(f"--out {out}: {above} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: nothing can be written to {above}, give another folder")
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there:
        raise UserError(f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already: give another --out")


def _write(contents: dict[Path, str]) -> None:
    """All the files, each in one step."""
    try:
        with ExitStack() as stack:
            for path, content in contents.items():
                stream = stack.enter_context(whole_file(path))
                stream.write(content.encode("utf-8"))
                flush(stream)
    except OSError as error:
        raise RunError(f"{error.filename or 'the split'} cannot be written: {error.strerror}") from error
