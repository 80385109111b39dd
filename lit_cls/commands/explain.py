"""`lit_cls explain`: which words a prediction rests on, on the terminal and in an HTML file."""

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.style import Style
from rich.text import Text

from lit_cls.commands.checkpoint_options import add_checkpoint_options, open_checkpoint
from lit_cls.commands.parser import CommandParser, user_path
from lit_cls.errors import RunError, UserError
from lit_cls.explain import html
from lit_cls.explain.attribution import TOLERANCE, Attribution, integrated_gradients, leave_one_word_out
from lit_cls.inference import Classifier
from lit_cls.io.atomic import check_new_file, write_text
from lit_cls.io.progress import Progress
from lit_cls.io.terminal import print_error, stdout_console

_METHODS: dict[str, Callable[..., Attribution]] = {
    "integrated_gradients": integrated_gradients,
    "leave_one_word_out": leave_one_word_out,
}
_DESCRIPTION = """\
Shows which words a trained classifier's prediction rests on.

Each word gets a score, its contribution to the log-odds of the predicted label: by integrated gradients on the token
embeddings, and by leaving out one word at a time. Texts are truncated as predict does. Computes in 32-true."""


def explain(words: list[str]) -> None:
    """Runs `lit_cls explain` with these arguments."""
    parser = CommandParser("explain", _DESCRIPTION, 'a text that begins with a dash follows --: -- "-5 degrees"')
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="the texts, each in quotes")
    choices = (*_METHODS, "both")
    parser.add_argument("--method", choices=choices, default="both", help="attribution method (default: both)")
    parser.add_argument("--label", metavar="NAME", help="label to explain (default: the predicted one)")
    out_help = "also write a page, complete in one new file"
    parser.add_argument("--out", type=user_path, metavar="FILE.html", help=out_help)
    add_checkpoint_options(parser)
    args = parser.parse_intermixed_args(words)
    if not args.texts:
        raise UserError('nothing to explain: give texts, each in quotes: lit_cls explain --ckpt_path PATH "a text"')
    if (out := args.out) is not None:
        check_new_file(out)
    if (precision := getattr(args, "trainer.precision")) not in (None, "auto", "32-true"):
        raise UserError(f"trainer.precision {precision}: explain computes in 32-true")
    trained = open_checkpoint("explain", args, words, print_error)
    classifier = trained.classifier("32-true")
    names = [name for name in _METHODS if args.method in (name, "both")]
    explanations = _explain_all(classifier, args.texts, names, args.label, keep_on=out is not None)
    if out is not None:
        try:
            write_text(out, html.explanation_page(explanations, str(trained.path), classifier.cut_to), overwrite=False)
        except OSError as error:
            raise RunError(f"{out} cannot be written: {error.strerror}") from error
        print_error(f"the page is in {out}")


def _explain_all(
    classifier: Classifier, texts: Sequence[str], names: list[str], label: str | None, keep_on: bool
) -> list[html.Explanation]:
    """Explains and prints each text; `keep_on` even if standard output is closed."""
    console = stdout_console(plain=True)
    coloured = console.color_system is not None and not console.no_color
    if coloured:
        legend = Text("against the label ")
        for shade in range(-html.LEVELS, html.LEVELS + 1):
            legend.append(" ", _style(shade, console.color_system))
        legend.append(" for it, ").append(f"not read (truncated at {classifier.cut_to:,} tokens)", "dim")
        console.print(legend)
    found = []
    for number, text in enumerate(texts, start=1):
        with Progress(unit="steps") as progress:
            found.append(_explain(classifier, text, names, label, progress))
        heading = f"{number} of {len(texts)}: " if len(texts) > 1 else ""
        try:
            _print(console, found[-1], heading, coloured)
        except BrokenPipeError:
            if not keep_on:
                raise
            console.quiet = True
    return found


def _explain(
    classifier: Classifier, text: str, names: list[str], label: str | None, progress: Progress
) -> html.Explanation:
    [prediction] = classifier.predict([text])
    methods = {}
    for name in names:
        title = name.replace("_", " ")
        methods[title] = _METHODS[name](classifier, text, label, progress=partial(progress.report, title))
    first = next(iter(methods.values()))
    notes = [f"explained: the log-odds of {first.label}, {html.signed(first.log_odds)}"]
    if rule := classifier.decision.describe(classifier.label_names):
        notes.append(f"rule: {rule}; the log-odds use this temperature, whatever the threshold")
    if prediction.truncated:
        unread = sum(word.score is None for word in first.words)
        notes.append(
            f"truncated: {classifier.cut_to:,} tokens of this text are read ({classifier.truncation}); "
            f"{unread:,} of {len(first.words):,} words are not read"
        )
    if not first.words:
        notes.append("an empty text: it has no words")
    line = f"{prediction.label}, probability {prediction.probabilities[prediction.label]:.4f}"
    described = {title: (_describe_sum(method), method) for title, method in methods.items()}
    return html.Explanation(line, tuple(notes), described)


def _describe_sum(method: Attribution) -> str:
    if (complete := method.completeness) is None:
        return "decrease of the log-odds when the word is left out"
    change = method.log_odds - complete.baseline
    total = sum(word.score for word in method.words if word.score is not None)
    share = f", {abs(complete.gap / change):.2%}," if change else ""
    description = (
        f"sum {html.signed(total)}: from {html.signed(complete.baseline)} for <|endoftext|> in every position to "
        f"{html.signed(method.log_odds)} for the text; gap {complete.gap:.4f}{share} after {complete.steps} steps"
    )
    if complete.reached:
        return description
    return f"{description}. That is more than {TOLERANCE:.0%} after the most steps allowed: do not rely on these scores"


def _print(console: Console, one: html.Explanation, heading: str, coloured: bool) -> None:
    """To standard output: coloured words, or a table of scores if there are no colours."""
    console.print(f"{heading}{one.prediction}", *(f"  {note}" for note in one.notes), sep="\n")
    for name, (total, attribution) in one.methods.items():
        words = html.displayed_words(attribution.words)
        if coloured and words:
            deepest = html.largest(words)
            console.print(f"  {name}: {total}; deepest colour {deepest:.3f}")
            line = Text()
            for word in words:
                text = word.text.lstrip()
                shade = None if word.score is None else html.shade_of(word.score, deepest)
                style = "dim" if shade is None else _style(shade, console.color_system)
                line.append(word.text[: len(word.text) - len(text)]).append(text, style)
            console.print(line)
        else:
            console.print(f"  {name}: {total}")
    rows = [] if coloured else html.score_rows(one)
    if rows:
        console.print("  ".join(f"{name:>20}" for name in one.methods) + "  word")
    for text, scores in rows:
        console.print("  ".join(f"{score:>20}" for score in scores) + f"  {' '.join(text.split())}")
    console.print()


def _style(shade: int, colour_system: str | None) -> Style:
    if not shade:
        return Style()
    if colour_system not in ("256", "truecolor"):  # with 16 colours the nearest one would be arbitrary
        return Style(color="white", bgcolor="blue" if shade > 0 else "red", bold=abs(shade) > html.LEVELS / 2)
    background, text = html.colours(shade)
    return Style(color=text, bgcolor=background)
