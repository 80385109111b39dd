"""`lit_cls predict`: labels and probabilities of texts, of a file's rows, or of whatever comes through a pipe."""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO, get_args

from lit_cls.commands.checkpoint_options import add_checkpoint_options, open_checkpoint
from lit_cls.commands.parser import CommandParser, user_path
from lit_cls.commands.prediction_counts import PredictionCounts
from lit_cls.commands.prediction_writer import OutputFormat, PredictionWriter, output_format, output_stream
from lit_cls.data.formats import FORMATS, SUPPORTED, Column, ColumnChoice, Format, format_of
from lit_cls.data.lines import check_file
from lit_cls.data.reader import TextTable, open_file, open_pipe, table_of_texts
from lit_cls.errors import UserError, quote
from lit_cls.inference import Classifier
from lit_cls.io.atomic import check_output_file
from lit_cls.io.malloc import keep_freed_memory
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import check_stdout_is_read, print_error
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


def predict(words: Sequence[str]) -> None:
    """Runs `lit_cls predict` with these arguments."""
    args = _parse(words)
    output = None if args.output in (None, "-") else user_path(args.output)
    form: OutputFormat | None = args.output_format
    if output is not None:
        form = output_format(output, form)
        check_output_file(output, "--output")
    trained = open_checkpoint("predict", args, words, print_error)
    choice = _column_choice(args, trained.checkpoint[DATA_KEY]["settings"])
    rows, notes = _open(args, choice, output is None)
    for note in notes:
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
        with StopSignals(), output_stream(output) as sink:
            counts = _predict_rows(classifier, rows, n_rows, sink, form, flush=output is None)
    except Stopped as stopped:
        print_error(f"lit_cls: stopped by {stopped.received.name}" + (f": {output} is not whole" if output else ""))
        raise
    text_notes = [] if form == "lines" else counts.text_notes(classifier.cut_to, classifier.truncation)
    for line in [*text_notes, *counts.label_notes(rows.label_column)]:
        print_error(line)
    if output is not None:
        print_error(f"{counts.n:,} predictions are in {output}")


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("predict", DESCRIPTION, EPILOG)
    parser.usage = "lit_cls predict --ckpt_path PATH [options] [TEXT … | -]"
    add_checkpoint_options(parser)
    add = parser.add_argument_group("the texts").add_argument
    path_help = "rows to classify: .csv, .tsv, .txt (tabs), .jsonl, .parquet; - is standard input"
    add("--data.path", metavar="FILE", dest="path", help=path_help)
    text_help = "the texts' column, by name or number (default: as trained, else text)"
    add("--data.text_column", metavar="NAME", dest="text_column", help=text_help)
    label_help = "the labels' column, if any (default: as trained, else label)"
    add("--data.label_column", metavar="NAME", dest="label_column", help=label_help)
    header_help = "whether the first line names the columns"
    add("--data.header", choices=("true", "false"), dest="header", help=header_help)
    format_help = "text is one a line; auto uses a file's name, and the first line of standard input"
    add("--input_format", choices=("auto", *FORMATS), default="auto", help=format_help)
    add = parser.add_argument_group("the predictions").add_argument
    add("--output", metavar="FILE", help="a new .csv or .jsonl file (default: standard output)")
    form_help = "default: JSON lines for JSON lines, CSV for all else; for texts given as words, lines to read"
    add("--output_format", choices=[form for form in get_args(OutputFormat) if form != "lines"], help=form_help)
    at = list(words).index("--") if "--" in words else len(words)
    for word in words[:at]:
        if word[:2] in ("-c", "-h") and word[2:3] not in ("", "="):  # argparse would take the rest for a value
            raise UserError(_no_option(word))
    args, others = parser.parse_known_args(list(words[:at]))
    args.texts = [*(_text_or_refused(word, parser) for word in others), *words[at + 1 :]]
    if args.texts == ["-"] and at == len(words):
        if args.path not in (None, "-"):
            raise UserError(f"- is standard input, and --data.path is {args.path}: give one of them")
        args.texts, args.path = [], "-"
    elif "-" in words[:at] and "-" in args.texts:
        raise UserError("- is standard input, and stands alone: give texts, or -")
    if args.texts and args.path is not None:
        text = quote(args.texts[0])
        raise UserError(f"{text} is a text to classify, and --data.path is {args.path}: give one of them")
    given = f"--input_format {args.input_format}" if args.input_format != "auto" else _column_option(args)
    if args.texts and given:
        raise UserError(f"{given} is for files and pipes: leave it out with texts as words")
    return args


def _column_option(args: argparse.Namespace) -> str | None:
    """The first option about columns that was given, with its value."""
    given = {"text_column": args.text_column, "label_column": args.label_column, "header": args.header}
    return next((f"--data.{name} {value}" for name, value in given.items() if value is not None), None)


def _text_or_refused(word: str, parser: CommandParser) -> str:
    name = word.split("=", maxsplit=1)[0]
    if word == "-" or not word.startswith("-") or " " in name:
        return word
    known = [option for action in parser._actions for option in action.option_strings]
    group = name.split(".", maxsplit=1)[0]
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
    trained_header = bool(stored.get("header", True))

    def names(role: str, asked: str | None) -> tuple[Column, ...]:
        if asked is not None:
            return (asked,)
        column = str(stored.get(f"{role}_column", role))
        # Numbers of columns without names mean none of the columns that have names.
        return (role,) if args.header == "true" and not trained_header else tuple(dict.fromkeys((column, role)))

    return ColumnChoice(
        text=names("text", args.text_column),
        label=names("label", args.label_column),
        header=trained_header if args.header is None else args.header == "true",
        text_named=args.text_column is not None,
        label_named=args.label_column is not None,
    )


def _open(args: argparse.Namespace, choice: ColumnChoice, to_stdout: bool) -> tuple[TextTable, list[str]]:
    """The rows to predict, and notes about them."""
    format: Format | None = None if args.input_format == "auto" else args.input_format
    notes: list[str] = []
    if args.texts:
        [*_, last] = args.texts
        if len(args.texts) == 1 and len(last) < 1000 and os.path.isfile(last):
            notes.append(f"{last} is classified as a text; --data.path {last} classifies the rows of that file")
        table = table_of_texts(args.texts)
    elif args.path not in (None, "-"):
        file = user_path(args.path)
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
        if descriptor is None or (args.path is None and os.isatty(descriptor)):
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
    rows = table.select(choice)
    if not choice.text_named and table.format != "text" and rows.text_column.strip() not in choice.text:
        notes.append(f"the texts come from column {quote(rows.text_column)}, by its number as in training")
    if table.format in ("csv", "tsv") and not choice.header and args.header is None:
        notes.append("the first line is read as a row, as in training; --data.header true reads it as names of columns")
    return rows, notes


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
        for chunk in rows.chunks():
            predictions = classifier.predict([row.text or "" for row in chunk], after_batch)
            for row, prediction in zip(chunk, predictions, strict=True):
                writer.write(row.fields, prediction.label, prediction.probabilities, prediction.truncated)
                counts.add(row.text, row.label, prediction.label, prediction.truncated)
            if flush:
                sink.flush()
    return counts
