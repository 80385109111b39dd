"""`lit_cls explain`: which words an answer rests on, on the terminal and in an HTML file."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.text import Text

from lit_cls.commands.checkpoint_options import add_checkpoint_options, trained_of
from lit_cls.commands.parser import CommandParser
from lit_cls.errors import RunError, UserError
from lit_cls.explain.attribution import (
    TOLERANCE,
    Attribution,
    Word,
    integrated_gradients,
    leave_one_word_out,
)
from lit_cls.explain.html import LEVELS, Explained, colours, figure, largest, level, page, shown_words
from lit_cls.inference import Classifier
from lit_cls.io.atomic import check_new_file, write_text
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import print_error, stdout_console

_METHODS: dict[str, Callable[..., Attribution]] = {
    "integrated_gradients": integrated_gradients,
    "leave_one_word_out": leave_one_word_out,
}
_DESCRIPTION = """\
Which words an answer rests on, in a trained classifier.

Each word gets what it adds to the log-odds of the answer: by integrated gradients on the token embeddings, and by
leaving out one word after the other. A text is read, and cut, as predict does. It computes in 32-true."""


def explain(words: list[str]) -> int:
    """Explains the answers to the given texts.

    Args:
        words: the options and the texts.

    Returns:
        The exit code.

    Raises:
        UserError: a mistake in the options, the checkpoint or the file.
    """
    parser = CommandParser("explain", _DESCRIPTION, 'a text that begins with a dash comes behind --: -- "-5 degrees"')
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="the texts, each in quotes")
    choices = (*_METHODS, "both")
    parser.add_argument("--method", choices=choices, default="both", help="how (default: both)")
    parser.add_argument("--label", metavar="NAME", help="what speaks for this label (default: for the answer)")
    parser.add_argument("--out", metavar="FILE.html", help="write a page too: a new file, complete in itself")
    add_checkpoint_options(parser)
    args = parser.parse_intermixed_args(words)
    if not args.texts:
        raise UserError('nothing to explain: give texts, each in quotes: lit_cls explain --ckpt_path PATH "a text"')
    out = None if args.out is None else Path(os.path.expanduser(args.out))
    if out is not None:
        check_new_file(out)
    console = stdout_console(plain=True)
    if args.__dict__["trainer.precision"] not in (None, "auto", "32-true"):
        raise UserError(f"trainer.precision {args.__dict__['trainer.precision']}: explain computes in 32-true")
    trained = trained_of("explain", args, words, print_error)
    classifier = trained.classifier("32-true")
    names = [name for name in _METHODS if args.method in (name, "both")]
    coloured = console.color_system is not None and not console.no_color
    if coloured:
        _print_legend(console, classifier.cut_to)
    found = []
    for number, text in enumerate(args.texts, start=1):
        with Progress(unit="steps") as progress:
            one = _explain(classifier, text, names, args.label, progress)
        heading = f"{number} of {len(args.texts)}: " if len(args.texts) > 1 else ""
        try:
            _print(console, one, heading, coloured)
        except BrokenPipeError:
            if out is None:
                raise
            console.quiet = True  # nobody reads these lines any more; the page is still to be written
        found.append(one)
    if out is not None:
        try:
            write_text(out, page(found, str(trained.path), classifier.cut_to), overwrite=False)
        except OSError as error:
            raise RunError(f"{out} cannot be written: {error.strerror}") from error
        print_error(f"the page is in {out}")
    return 0


def _explain(classifier: Classifier, text: str, names: list[str], label: str | None, progress: Progress) -> Explained:
    [prediction] = classifier.predict([text])
    methods = {}
    for name in names:
        heading = name.replace("_", " ")
        methods[heading] = _METHODS[name](classifier, text, label, progress=partial(progress.report, heading))
    some = next(iter(methods.values()))
    lines = [f"explained: the log-odds of {some.label}, {figure(some.log_odds)}"]
    if rule := classifier.decision.told(classifier.label_names):
        lines.append(f"rule: {rule}; the log-odds are those at this temperature, whatever the threshold")
    if prediction.truncated:
        unread = sum(word.score is None for word in some.words)
        lines.append(
            f"cut: of this text, {classifier.cut_to:,} tokens are read ({classifier.truncation}); "
            f"{unread:,} of {len(some.words):,} words are not read"
        )
    if not some.words:
        lines.append("an empty text: it has no words")
    answer = f"{prediction.label}, probability {prediction.probabilities[prediction.label]:.4f}"
    return Explained(answer, tuple(lines), {name: (_sums(method), method) for name, method in methods.items()})


def _sums(method: Attribution) -> str:
    """What the figures add up to, and how well."""
    if (complete := method.completeness) is None:
        return "what the log-odds lose when the word is taken out"
    change = method.log_odds - complete.baseline
    total = sum(word.score for word in method.words if word.score is not None)
    share = f", {abs(complete.gap / change):.2%}," if change else ""
    told = (
        f"sum {figure(total)}: from {figure(complete.baseline)} for <|endoftext|> in every place to "
        f"{figure(method.log_odds)} for the text; gap {complete.gap:.4f}{share} after {complete.steps} steps"
    )
    if complete.reached:
        return told
    return f"{told}. That is more than {TOLERANCE:.0%}, and there are no more steps: be careful with these figures"


def _print(console: Console, one: Explained, heading: str, coloured: bool) -> None:
    """To standard output: coloured lines, or a table of signed figures where there are no colours."""

    def line(text: Text | str = "") -> None:
        console.print(text, soft_wrap=True)

    line(f"{heading}{one.answer}")
    for told in one.lines:
        line(f"  {told}")
    for name, (sums, attribution) in one.methods.items():
        words = shown_words(attribution.words)
        line(f"  {name}: {sums}" + (f"; deepest colour {largest(words):.3f}" if coloured and words else ""))
        if coloured and words:
            line(_coloured(words, console.color_system))
    shown = [shown_words(attribution.words) for _, attribution in one.methods.values()]
    if not coloured and shown[0]:
        line("  ".join(f"{name:>20}" for name in one.methods) + "  word")
        for alike in zip(*shown, strict=True):
            cells = ("not read" if word.score is None else figure(word.score) for word in alike)
            line("  ".join(f"{cell:>20}" for cell in cells) + f"  {' '.join(alike[0].text.split())}")
    line()


def _coloured(words: Sequence[Word], colour_system: str | None) -> Text:
    deepest = largest(words)
    found = Text()
    for word in words:
        text = word.text.lstrip()
        found.append(word.text[: len(word.text) - len(text)])
        found.append(text, "dim" if word.score is None else _style(level(word.score, deepest), colour_system))
    return found


def _style(shade: int, colour_system: str | None) -> Style:
    if not shade:
        return Style()
    if colour_system not in ("256", "truecolor"):  # the nearest of 16 colours would be any
        return Style(color="white", bgcolor="blue" if shade > 0 else "red", bold=abs(shade) > LEVELS / 2)
    background, text = ("#" + bytes(colour).hex() for colour in colours(shade))
    return Style(color=text, bgcolor=background)


def _print_legend(console: Console, cut_to: int) -> None:
    legend = Text("against the label ")
    for shade in range(-LEVELS, LEVELS + 1):
        legend.append(" ", _style(shade, console.color_system))
    legend.append(" for it, ").append(f"not read (cut at {cut_to:,} tokens)", "dim")
    console.print(legend, soft_wrap=True)
