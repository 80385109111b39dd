"""`lit_cls data`: `check` reports on labelled texts, `split` writes the split that fit would use."""

import csv
import dataclasses
import json
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, get_args, get_type_hints

import docstring_parser
import yaml

from lit_cls.commands.data_report import Page, plain, print_report
from lit_cls.commands.parser import CommandParser
from lit_cls.data.check import check
from lit_cls.data.formats import SUPPORTED
from lit_cls.data.options import DataOptions, command_line, option_value
from lit_cls.data.split_data import LabelledSplit, read
from lit_cls.data.splits import SPLIT_NAMES
from lit_cls.errors import RunError, UserError, quote
from lit_cls.io.atomic import csv_text, flush, whole_file
from lit_cls.io.progress import Progress

_HELP = """\
usage: lit_cls data check FILE [any option]
       lit_cls data split FILE --out DIR [any option]

Checks and splits labelled texts, without a model.

  check   format, labels, repeated texts, lengths, the split; what fit would refuse
  split   writes the train.csv, validation.csv and test.csv that fit would use

  lit_cls data check --help    every option
"""
_CONTEXT_LENGTH = 1024  # GPT-2's
# The options that decide which row is in which split; the file is given as a word.
_OPTIONS = [
    field for field in dataclasses.fields(DataOptions) if field.compare and field.name not in ("path", "tokenizer")
]


def data(words: list[str]) -> int:
    """Runs `check` or `split` with the words after `lit_cls data`; returns the exit code."""
    match words:
        case [] | ["-h" | "--help" | "help", *_]:
            print(_HELP, end="")
            return 0
        case ["check", *options]:
            return _check(options)
        case ["split", *options]:
            return _split(options)
    raise UserError(f"lit_cls data has the subcommands check and split, not {words[0]!r}: see lit_cls data --help")


def _parser(command: str, description: str) -> CommandParser:
    parser = CommandParser(f"data {command}", description)
    parser.add_argument("file", nargs="?", metavar="FILE", help=SUPPORTED)
    parser.add_argument("--path", "--data.path", dest="path", metavar="FILE", help="the same, as fit spells it")
    group = parser.add_argument_group("how it is read and split: fit's options, with or without data. before the name")
    params = docstring_parser.parse(str(DataOptions.__doc__)).params
    documented = {param.arg_name: param.description for param in params}
    for field in _OPTIONS:
        text = " ".join(str(documented[field.name]).replace("`", "").split())
        default = "" if field.default is None else f" (default: {option_value(field.default)})"
        metavar = "|".join(_choices(field.name)) or field.name.upper()
        names = (f"--{field.name}", f"--data.{field.name}")
        group.add_argument(*names, dest=field.name, metavar=metavar, help=f"{text}{default}")
    return parser


def _choices(name: str) -> tuple[str, ...]:
    """The values of an option that has few."""
    kind = get_type_hints(DataOptions)[name]
    if kind is bool:
        return "true", "false"
    arguments = [value for argument in get_args(kind) for value in (get_args(argument) or [argument])]
    return tuple(value for value in arguments if isinstance(value, str)) if name != "split" else ()


def _check(words: list[str]) -> int:
    parser = _parser("check", "Checks labelled texts as fit would read them; exits with 0 whatever it finds.")
    length_help = f"tokens to truncate texts to (default: {_CONTEXT_LENGTH})"
    parser.add_argument("--max_length", "--data.max_length", metavar="NUMBER", help=length_help)
    parser.add_argument("--json", action="store_true", help="one JSON object, with every row number")
    own = parser.parse_args(words)
    options = _options(own, "check")
    length = None if own.max_length is None else _integer("max_length", own.max_length, "check")
    if length is not None and not 1 <= length <= _CONTEXT_LENGTH:
        raise UserError(f"data.max_length {length} is not between 1 and the model's context length, {_CONTEXT_LENGTH}")
    with Progress(unit="rows") as progress:
        found = check(options, length, progress.report)
    if own.json:
        print(json.dumps(found.as_dict(), indent=2))  # ASCII: whatever the terminal's encoding, nothing is lost
    else:
        print_report(found, Page())
    return 0


def _options(own: Namespace, command: str) -> DataOptions:
    """The options, each checked as fit would check it."""
    values: dict[str, Any] = {}
    for field in _OPTIONS:
        value, choices = getattr(own, field.name), _choices(field.name)
        if value is None:
            continue
        if choices and value not in choices:
            listed = " or ".join([", ".join(choices[:-1]), choices[-1]])
            raise UserError(f"data.{field.name} must be {listed}, not {value}{_hint(command)}")
        if field.name == "split":
            value = _split_of(value, command)
        elif isinstance(field.default, bool):
            value = value == "true"
        elif isinstance(field.default, int):
            value = _integer(field.name, value, command)
        values[field.name] = value
    if own.file is not None and own.path is not None:
        raise UserError(f"two files, {own.file} and --data.path {own.path}: give one{_hint(command)}")
    options = DataOptions(path=own.file if own.path is None else own.path, **values)
    if command == "check" and options.split_files:
        each = "check each of them by itself, lit_cls data check FILE"
        raise UserError(f"data.split names three files, and check takes one: {each}{_hint(command)}")
    return options


def _split_of(value: str, command: str) -> Any:
    if value == "ch06":
        return value
    try:
        listed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that there is not
        listed = None
    for kind, made in ((int | float, float), (str, str)):
        if isinstance(listed, list) and len(listed) == 3 and all(isinstance(item, kind) for item in listed):
            return tuple(made(item) for item in listed)
    files = "" if command == "check" else " or three files"
    raise UserError(f"data.split must be ch06 or three fractions{files}, not {quote(value)}{_hint(command)}")


def _integer(name: str, value: str, command: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"data.{name} must be a whole number, not {value}{_hint(command)}") from None


def _hint(command: str) -> str:
    return f"\nlit_cls data {command} --help lists every option and its values"


def _split(words: list[str]) -> int:
    parser = _parser("split", "Writes the train.csv, validation.csv and test.csv that fit would use.")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder; none of the three files may exist")
    own = parser.parse_args(words)
    options = _options(own, "split")
    out = Path(os.path.expanduser(own.out))
    paths = {name: out / f"{name}.csv" for name in SPLIT_NAMES}
    options.check()
    _check_new_files(out, list(paths.values()))
    splits = read(options)
    contents = {paths[name]: _csv(split) for name, split in splits.splits.items()}
    try:
        with ExitStack() as stack:  # renamed at its end: all of the files, or none
            for path, content in contents.items():
                stream = stack.enter_context(whole_file(path))
                stream.write(content.encode("utf-8"))
                flush(stream)
    except OSError as error:
        raise RunError(f"{error.filename or 'the split'} cannot be written: {error.strerror}") from error
    page = Page()  # nothing is printed before the files are written: the reader may close the output
    page.line(f"{splits.origin}: {splits.n_rows:,} rows, sha256 {splits.sha256}")
    for note in splits.notes:
        page.line(f"note: {note}")
    for name, split in splits.splits.items():
        counts = Counter(split.rows.labels)
        labels = ", ".join(f"{counts[label]:,} {plain(label)}" for label in splits.label_names[:10])
        more = ", …" if len(splits.label_names) > 10 else ""
        page.line(f"{paths[name]}: {len(split.label_ids):,} texts ({labels}{more}), sha256 {split.sha256}")
    page.line("train on these files with:")
    empty = ["--data.empty", "keep"] if options.empty == "keep" else []
    files = option_value(tuple(str(path) for path in paths.values()))
    page.line(f"  {command_line(['lit_cls', 'fit', '--data.split', files, *empty])}")
    return 0


def _csv(split: LabelledSplit) -> str:
    rows = split.rows
    nul = next((n for n, text in zip(rows.numbers, rows.texts, strict=True) if "\0" in text), None)
    if nul is not None and sys.version_info < (3, 11):
        raise UserError(f"the text of row {nul} has a NUL character, which Python before 3.11 reads from no .csv")
    lines = [("text", "label", "source_row"), *zip(rows.texts, rows.labels, rows.numbers, strict=True)]
    # Every text quoted: white space at its ends, line breaks of any kind and quotes come back as they are.
    return csv_text(lines, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def _check_new_files(out: Path, paths: Sequence[Path]) -> None:
    try:
        with suppress(FileNotFoundError):  # the usual case: neither the file nor, perhaps, its folder is there yet
            os.lstat(paths[0])
    except OSError as error:  # a locked folder, a file in the way, a name that is too long
        reason = "is a file: give a folder" if os.path.isfile(out) else f"cannot be used: {error.strerror}"
        raise UserError(f"--out {out} {reason}") from error
    above = next((folder for folder in (out, *out.parents) if os.path.lexists(folder)), out)
    if not os.path.isdir(above):
        raise UserError(f"--out {out}: {above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: nothing can be written to {above}, give another folder")
    if there := [str(path) for path in paths if os.path.lexists(path)]:
        raise UserError(f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already: give another --out")
