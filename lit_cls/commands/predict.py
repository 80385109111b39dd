"""`lit_cls predict`: labels and probabilities of texts, of a file's rows, or of whatever comes through a pipe."""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, get_args

from lit_cls.commands.checkpoint_options import add_checkpoint_options, open_checkpoint
from lit_cls.commands.parser import CommandParser
from lit_cls.commands.prediction_counts import PredictionCounts
from lit_cls.commands.prediction_writer import OutputFormat, PredictionWriter, output_format
from lit_cls.data.columns import Column, ColumnChoice
from lit_cls.data.formats import FORMATS, SUPPORTED, Format, format_of
from lit_cls.data.lines import check_file
from lit_cls.data.reader import TextRow, TextTable, open_file, open_pipe, table_of_texts
from lit_cls.errors import RunError, UserError, quote
from lit_cls.inference import Classifier
from lit_cls.io.atomic import check_output_file, output_file
from lit_cls.io.malloc import keep_freed_memory
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import check_stdout_is_read, discard_stdout, print_error
from lit_cls.training.checkpoints import DATA_KEY
from lit_cls.training.signals import Stopped, StopSignals

DESCRIPTION = """\
Labels and probabilities of texts: of those that are given as words, of a file's rows, or of standard input.

  lit_cls predict --ckpt_path best.ckpt "a text" "another"
  lit_cls predict --ckpt_path best.ckpt --data.path reviews.csv --output predictions.csv
  cat texts.txt | lit_cls predict --ckpt_path best.ckpt | head
"""
EPILOG = """\
Predictions keep the order and the columns of the input, followed by label, probability, probability_<name> of each
class, and truncated. A column of the input that has one of these names gets input_ before it.
Where the input has labels, the accuracy is printed as well. Notes and progress go to standard error.
"""
_FIRST_ROWS, _MOST_ROWS = 16, 1024  # of a chunk
_MOST_CHARACTERS = 1 << 20


def predict(words: Sequence[str]) -> int:
    """Runs the command.

    Args:
        words: what was typed after the subcommand.

    Returns:
        The exit code.

    Raises:
        UserError: a mistake in the options, the files or the rows.
    """
    args = _parse(words)
    output = None if args.output in (None, "-") else Path(os.path.expanduser(args.output))
    form: OutputFormat | None = args.output_format
    if output is not None:
        form = output_format(output, form)
        check_output_file(output, "--output")
    trained = open_checkpoint("predict", args, words, print_error)
    choice = _column_choice(args, trained.checkpoint[DATA_KEY]["settings"])
    rows, notes = _open(args, choice, output is None)
    for note in [*notes, *_column_notes(args, choice, rows)]:
        print_error(f"note: {note}")
    n_rows = rows.table.n_rows
    if n_rows is None and rows.table.lines is None:  # a file: what is wrong with it is refused before any work
        n_rows = sum(1 for _ in rows.rows())
    classifier = trained.classifier()
    if rule := classifier.decision.describe(classifier.label_names):
        print_error(f"note: {rule}")
    if form is None:
        form = "lines" if args.texts else "jsonl" if rows.table.format == "jsonl" else "csv"
    try:
        with StopSignals(), _sink(output) as sink:
            counts = _predict_rows(classifier, rows, n_rows, sink, form, flush=output is None)
    except Stopped as stopped:
        print_error(f"lit_cls: stopped by {stopped.received.name}" + (f": {output} is not whole" if output else ""))
        raise
    if form != "lines":
        for line in counts.text_notes(classifier.cut_to, classifier.truncation):
            print_error(line)
    for line in counts.label_notes(rows.label_column):
        print_error(line)
    if output is not None:
        print_error(f"{counts.n:,} predictions are in {output}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("predict", DESCRIPTION, EPILOG)
    parser.usage = "lit_cls predict --ckpt_path PATH [options] [TEXT … | -]"
    add_checkpoint_options(parser)
    rows = parser.add_argument_group("the texts")
    for option, metavar, text in (
        ("--data.path", "FILE", "rows to classify: .csv, .tsv, .txt (tabs), .jsonl, .parquet; - is standard input"),
        ("--data.text_column", "NAME", "the texts' column, by name or number (default: as trained, else text)"),
        ("--data.label_column", "NAME", "the labels' column, if any (default: as trained, else label)"),
    ):
        rows.add_argument(option, metavar=metavar, help=text)
    rows.add_argument("--data.header", choices=("true", "false"), help="whether the first line names the columns")
    rows.add_argument(
        "--input_format",
        choices=("auto", *FORMATS),
        default="auto",
        help="text is one a line; auto uses a file's name, and the first line of standard input",
    )
    output = parser.add_argument_group("the predictions")
    output.add_argument("--output", metavar="FILE", help="a new .csv or .jsonl file (default: standard output)")
    output.add_argument(
        "--output_format",
        choices=[form for form in get_args(OutputFormat) if form != "lines"],
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
        raise UserError(f"--input_format {args.input_format} is for files and pipes: leave it out with texts as words")
    if args.texts and (given := _column_option(args)):
        raise UserError(f"{given} is for files and pipes: leave it out with texts as words")
    return args


def _column_option(args: argparse.Namespace) -> str | None:
    """The first option about columns that was given, with its value."""
    names = ("data.text_column", "data.label_column", "data.header")
    return next((f"--{name} {getattr(args, name)}" for name in names if getattr(args, name) is not None), None)


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
        raise UserError(f"{name} is for training: leave it out; lit_cls predict --help lists the options")
    raise UserError(_no_option(word))


def _no_option(word: str) -> str:
    return (
        f"there is no option {word.split('=', maxsplit=1)[0]}; lit_cls predict --help lists the options. "
        f"If it is a text, put -- before the texts: lit_cls predict … -- {shlex.quote(word)}"
    )


def _column_choice(args: argparse.Namespace, stored: dict[str, Any]) -> ColumnChoice:
    """The columns that were asked for; else those that the classifier was trained with, where the file has them."""
    header, trained_header = getattr(args, "data.header"), bool(stored.get("header", True))

    def names(role: str) -> tuple[Column, ...]:
        asked = getattr(args, f"data.{role}_column")
        if asked is not None:
            return (asked,)
        column = str(stored.get(f"{role}_column", role))
        # Numbers of columns without names mean none of the columns that have names.
        return (role,) if header == "true" and not trained_header else tuple(dict.fromkeys((column, role)))

    return ColumnChoice(
        text=names("text"),
        label=names("label"),
        header=trained_header if header is None else header == "true",
        text_named=getattr(args, "data.text_column") is not None,
        label_named=getattr(args, "data.label_column") is not None,
    )


def _column_notes(args: argparse.Namespace, choice: ColumnChoice, rows: TextTable) -> Iterator[str]:
    table = rows.table
    if not choice.text_named and table.format != "text" and rows.text_column.strip() not in choice.text:
        yield f"the texts come from column {quote(rows.text_column)}, by its number as in training"
    if table.format in ("csv", "tsv") and not choice.header and getattr(args, "data.header") is None:
        yield "the first line is read as a row, as in training; --data.header true reads it as names of columns"


def _open(args: argparse.Namespace, choice: ColumnChoice, to_stdout: bool) -> tuple[TextTable, list[str]]:
    """The rows to predict, and notes about them."""
    format: Format | None = None if args.input_format == "auto" else args.input_format
    path, notes = getattr(args, "data.path"), []
    if args.texts:
        [*_, last] = args.texts
        if len(args.texts) == 1 and len(last) < 1000 and os.path.isfile(last):
            notes.append(f"{last} is classified as a text; --data.path {last} classifies the rows of that file")
        table = table_of_texts(args.texts)
    elif path not in (None, "-"):
        file = Path(os.path.expanduser(path))
        check_file(file)
        format = format or format_of(file)
        if format is None:
            raise UserError(
                f"{file} is of an unsupported format: {SUPPORTED} is needed. Name the format with "
                f"--input_format {'|'.join(FORMATS)}"
            )
        table = open_file(file, format, choice.header, hold=False)
        notes = [finding.message for finding in table.notes]
    else:
        descriptor = None
        with suppress(OSError, ValueError, AttributeError):  # closed, or not a real one
            descriptor = sys.stdin.fileno()
        if descriptor is None or (path is None and os.isatty(descriptor)):
            raise UserError(
                'nothing to classify: give texts, lit_cls predict --ckpt_path PATH "a text" "another"; '
                "a file, --data.path FILE; or texts through standard input, … | lit_cls predict --ckpt_path PATH"
            )
        table, notes = open_pipe(descriptor, format, choice, check_stdout_is_read if to_stdout else None)
    if table.format == "text":
        if given := _column_option(args):
            raise UserError(
                f"{given}: the input is read as texts, one a line, which have no columns. Leave it out, or name the "
                "format of the input with --input_format csv, tsv or jsonl"
            )
        choice = ColumnChoice(label_named=False)
    return table.select(choice), notes


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


def _predict_rows(
    classifier: Classifier, rows: TextTable, n_rows: int | None, sink: BinaryIO, form: OutputFormat, flush: bool
) -> PredictionCounts:
    """Reads, predicts and writes, one chunk after the other."""
    counts, progress = PredictionCounts(classifier.label_names), Progress(n_rows, stdout_used=flush)
    writer = PredictionWriter(sink, form, rows.table.columns, classifier.label_names, print_error)
    keep_freed_memory()  # not before: what loading freed would stay too

    def after_batch(n: int) -> None:
        progress.advance(n)
        if flush:
            check_stdout_is_read()

    with progress:
        for chunk in chunks(rows):
            predictions = classifier.predict([row.text or "" for row in chunk], after_batch)
            for row, prediction in zip(chunk, predictions, strict=True):
                writer.write(row.fields, prediction.label, prediction.probabilities, prediction.truncated)
                counts.add(row.text, row.label, prediction.label, prediction.truncated)
            if flush:
                sink.flush()
    return counts


def chunks(rows: TextTable) -> Iterator[list[TextRow]]:
    """Rows to be predicted together: few at first, and no more than can be read without waiting.

    Which rows of a file share a chunk follows from the file alone, so that predictions repeat to the last digit.
    """
    most, size, chunk, lines = _FIRST_ROWS, 0, list[TextRow](), rows.table.lines
    for row in rows.rows():
        chunk.append(row)
        values = row.fields.values() if isinstance(row.fields, dict) else row.fields
        size += sum(len(value) for value in values if isinstance(value, str))
        if len(chunk) >= most or size >= _MOST_CHARACTERS or not (lines is None or lines.at_hand()):
            yield chunk
            most, size, chunk = min(2 * most, _MOST_ROWS), 0, []
    if chunk:
        yield chunk
