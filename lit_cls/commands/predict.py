"""`lit_cls predict`: labels and probabilities of texts, of a file's rows, or of whatever comes through a pipe."""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, get_args

from lit_cls.commands.checkpoint_options import add_checkpoint_options, open_checkpoint
from lit_cls.commands.parser import CommandParser
from lit_cls.commands.prediction_counts import Tally
from lit_cls.commands.prediction_writer import AnswerFormat, AnswerWriter, format_of
from lit_cls.data.formats import FORMATS, Format
from lit_cls.data.sources import Column
from lit_cls.data.stream import TextStream, Wanted, chunks, given_texts, open_file, open_pipe
from lit_cls.errors import RunError, UserError, quote
from lit_cls.inference import Classifier
from lit_cls.io.atomic import check_output_file, output_file
from lit_cls.io.malloc import keep_freed_memory
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import check_stdout_is_read, discard_stdout, print_error
from lit_cls.training.checkpoints import DATA_KEY
from lit_cls.training.signals import Stopped, StopSignals

Tell = Callable[[str], None]

DESCRIPTION = """\
Labels and probabilities of texts: of those that are given as words, of a file's rows, or of standard input.

  lit_cls predict --ckpt_path best.ckpt "a text" "another"
  lit_cls predict --ckpt_path best.ckpt --data.path reviews.csv --output answers.csv
  cat texts.txt | lit_cls predict --ckpt_path best.ckpt | head
"""
EPILOG = """\
Answers keep the order and the columns of the input; behind these come label, probability, probability_<name>
of each class, and truncated. A column of the input that has one of these names gets input_ before it.
Where the input has labels, the accuracy is told as well. Notes and progress go to standard error.
"""


def predict(words: Sequence[str]) -> int:
    """Runs the command.

    Args:
        words: what was typed after the verb.

    Returns:
        The exit code.

    Raises:
        UserError: a mistake in the options, the files or the rows.
    """
    args = _parse(words)
    output = None if args.output in (None, "-") else Path(os.path.expanduser(args.output))
    form: AnswerFormat | None = args.output_format
    if output is not None:
        form = format_of(output, form)
        check_output_file(output, "--output")
    trained = open_checkpoint("predict", args, words, print_error)
    wanted = _wanted(args, trained.checkpoint[DATA_KEY]["settings"])
    stream = _stream(args, wanted, check_stdout_is_read if output is None else None)
    _check_columns(args, stream)
    for note in stream.notes:
        print_error(f"note: {note}")
    if wanted.text is None and stream.kind != "text" and stream.text_column.strip() not in wanted.usual_texts:
        print_error(f"note: the texts come from column {quote(stream.text_column)}, by its number as in training")
    if stream.kind in ("csv", "tsv") and not wanted.header and getattr(args, "data.header") is None:
        print_error(
            "note: the first line is read as a row, as in training; --data.header true takes it for names of columns"
        )
    classifier = trained.classifier()
    if rule := classifier.decision.describe(classifier.label_names):
        print_error(f"note: {rule}")
    if form is None:
        form = "lines" if args.texts else "jsonl" if stream.kind == "jsonl" else "csv"
    try:
        with StopSignals(), _sink(output) as sink:
            answered = _answer(classifier, stream, sink, form, flush=output is None)
    except Stopped as stopped:
        print_error(f"lit_cls: stopped by {stopped.received.name}" + (f": {output} is not whole" if output else ""))
        raise
    if form != "lines":
        for line in answered.about_texts(classifier.cut_to, classifier.truncation):
            print_error(line)
    for line in answered.about_labels(stream.label_column):
        print_error(line)
    if output is not None:
        print_error(f"{answered.n:,} answers are in {output}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("predict", DESCRIPTION, EPILOG)
    parser.usage = "lit_cls predict --ckpt_path PATH [options] [TEXT … | -]"
    add_checkpoint_options(parser)
    rows = parser.add_argument_group("the texts")
    for option, metavar, told in (
        ("--data.path", "FILE", "rows to classify: .csv, .tsv, .txt (tabs), .jsonl, .parquet; - is standard input"),
        ("--data.text_column", "NAME", "the texts' column, by name or number (default: as trained, else text)"),
        ("--data.label_column", "NAME", "the labels' column, if any (default: as trained, else label)"),
    ):
        rows.add_argument(option, metavar=metavar, help=told)
    rows.add_argument("--data.header", choices=("true", "false"), help="whether the first line names the columns")
    rows.add_argument(
        "--input_format",
        choices=("auto", *FORMATS),
        default="auto",
        help="text is one a line; auto goes by a file's name, and by the first line of standard input",
    )
    answers = parser.add_argument_group("the answers")
    answers.add_argument("--output", metavar="FILE", help="a new .csv or .jsonl file (default: standard output)")
    answers.add_argument(
        "--output_format",
        choices=[form for form in get_args(AnswerFormat) if form != "lines"],
        help="default: JSON lines for JSON lines, CSV for all else; for texts given as words, lines to read",
    )
    return parser


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    at = list(words).index("--") if "--" in words else len(words)
    for word in words[:at]:
        if word[:2] in ("-c", "-h") and word[2:3] not in ("", "="):  # argparse would take the rest for a value
            raise UserError(_no_option(word))
    args, others = parser.parse_known_args(list(words[:at]))
    args.texts = [*(_text_or_refused(word, parser) for word in others), *words[at + 1 :]]
    if args.texts == ["-"] and at == len(words):
        args.texts, given = [], getattr(args, "data.path")
        if given not in (None, "-"):
            raise UserError(f"- is standard input, and --data.path is {given}: give one of them")
        setattr(args, "data.path", "-")
    elif "-" in words[:at] and "-" in args.texts:
        raise UserError("- is standard input, and stands alone: give texts, or -")
    path = getattr(args, "data.path")
    if args.texts and path is not None:
        raise UserError(f"{quote(args.texts[0])} is a text to classify, and --data.path is {path}: give one of them")
    if args.texts and args.input_format != "auto":
        raise UserError(f"--input_format {args.input_format} is of files and pipes: leave it out with texts as words")
    if args.texts and (given := _of_columns(args)):
        raise UserError(f"{given} is of files and pipes: leave it out with texts as words")
    return args


def _of_columns(args: argparse.Namespace) -> str | None:
    """The first option about columns that was given, and its value."""
    names = ("data.text_column", "data.label_column", "data.header")
    return next((f"--{name} {getattr(args, name)}" for name in names if getattr(args, name) is not None), None)


def _check_columns(args: argparse.Namespace, stream: TextStream) -> None:
    if stream.kind == "text" and (given := _of_columns(args)):
        raise UserError(
            f"{given}: the input is read as texts, one a line, which have no columns. Leave it out, or say what the "
            "input is with --input_format csv, tsv or jsonl"
        )


def _text_or_refused(word: str, parser: CommandParser) -> str:
    if word == "-" or not word.startswith("-") or " " in word.split("=", maxsplit=1)[0]:
        return word
    name = word.split("=", maxsplit=1)[0]
    known = [option for action in parser._actions for option in action.option_strings]
    group = name.split(".")[0]
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
        raise UserError(f"there is no option {name}; did you mean {close[0]}?")
    if group in ("--model", "--data", "--seed_everything", "--preset"):
        raise UserError(f"predict reads {name.lstrip('-')} from the checkpoint: leave {name} out")
    if group == "--trainer":
        raise UserError(f"{name} is about training: leave it out; lit_cls predict --help lists the options")
    raise UserError(_no_option(word))


def _no_option(word: str) -> str:
    return (
        f"there is no option {word.split('=', maxsplit=1)[0]}; lit_cls predict --help lists the options. "
        f"If it is a text, put -- before the texts: lit_cls predict … -- {shlex.quote(word)}"
    )


def _wanted(args: argparse.Namespace, trained: dict[str, Any]) -> Wanted:
    """The columns that were asked for; else those that the classifier was trained with, where the file has them."""
    header = getattr(args, "data.header")

    def usual(role: str) -> tuple[Column, ...]:
        column = str(trained.get(f"{role}_column", role))
        # Numbers of columns without names say nothing of columns that have names.
        return (role,) if header == "true" and not trained.get("header", True) else tuple(dict.fromkeys((column, role)))

    return Wanted(
        text=getattr(args, "data.text_column"),
        label=getattr(args, "data.label_column"),
        header=bool(trained.get("header", True)) if header is None else header == "true",
        usual_texts=usual("text"),
        usual_labels=usual("label"),
    )


def _stream(args: argparse.Namespace, wanted: Wanted, while_waiting: Callable[[], None] | None) -> TextStream:
    kind: Format | None = None if args.input_format == "auto" else args.input_format
    path = getattr(args, "data.path")
    if args.texts:
        [*_, last] = args.texts
        if len(args.texts) == 1 and len(last) < 1000 and os.path.isfile(last):
            print_error(f"note: {last} is classified as a text; --data.path {last} classifies the rows of that file")
        return given_texts(args.texts)
    if path not in (None, "-"):
        return open_file(Path(os.path.expanduser(path)), kind, wanted)
    descriptor = None
    with suppress(OSError, ValueError, AttributeError):  # closed, or not a real one
        descriptor = sys.stdin.fileno()
    if descriptor is None or (path is None and os.isatty(descriptor)):
        raise UserError(
            'nothing to classify: give texts, lit_cls predict --ckpt_path PATH "a text" "another"; '
            "a file, --data.path FILE; or texts through standard input, … | lit_cls predict --ckpt_path PATH"
        )
    return open_pipe(descriptor, kind, wanted, while_waiting)


@contextmanager
def _sink(output: Path | None) -> Iterator[BinaryIO]:
    if output is not None:
        with output_file(output, "--output", print_error) as stream:
            yield stream
        return
    standard: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    if standard is None:
        raise UserError("standard output is closed: give a file with --output")
    try:
        sys.stdout.flush()
        yield standard
        standard.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise RunError(f"standard output cannot be written: {error.strerror}") from error


def _answer(classifier: Classifier, stream: TextStream, sink: BinaryIO, form: AnswerFormat, flush: bool) -> Tally:
    """Reads, answers and writes, a chunk after the other."""
    answered, progress = Tally(classifier.label_names), Progress(stream.total, stdout_used=flush)
    writer = AnswerWriter(sink, form, stream.columns, classifier.label_names, print_error)
    keep_freed_memory()  # not before: what loading freed would stay too

    def after_batch(n: int) -> None:
        progress.advance(n)
        if flush:
            check_stdout_is_read()

    with progress:
        for rows in chunks(stream):
            predictions = classifier.predict([row.text or "" for row in rows], after_batch)
            for row, prediction in zip(rows, predictions, strict=True):
                writer.write(row.values, prediction.label, prediction.probabilities, prediction.truncated)
                answered.count(row.text, row.label, prediction.label, prediction.truncated)
            if flush:
                sink.flush()
    return answered
