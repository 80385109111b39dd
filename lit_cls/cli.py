"""The command `lit_cls`: which verb was asked for, and what its end means.

Nothing heavy is imported before the verb is known. Exit codes: 0 done; 1 failed while running; 2 the
user's mistake; 130 stopped by Ctrl-C, 143 by SIGTERM, with the state of a training saved.
"""

import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from lit_cls import __version__
from lit_cls.errors import RunError, UserError

VERBS = {
    "data": "look at a file of labelled texts; write the split that fit would use",
    "fit": "train a classifier, keep the best checkpoint, test it",
    "resume": "go on with a run that was stopped, where it was",
    "validate": "accuracy and report of a checkpoint on the validation split",
    "test": "accuracy and report of a checkpoint on the test split",
    "tune": "temperature and threshold of a checkpoint, for a goal, on the validation split",
    "predict": "labels and probabilities of texts, files and pipes, from a checkpoint",
    "explain": "which words an answer rests on",
    "merge": "an adapter merged into the weights, checked",
    "export": "to Hugging Face, ONNX or peft, each checked against this one",
    "reproduce": "the rows of the published table, compared and written down",
    "sweep": "a grid of any options, with a table and a picture",
    "verify-resume": "prove that killing a run and going on with it changes nothing",
}
HELP = f"""\
usage: lit_cls VERB [--config FILE] [--ckpt_path best|last|PATH] [any option]

lit_cls {__version__}: GPT-2 as a text classifier.

verbs:
{chr(10).join(f"  {verb:<13} {line}" for verb, line in VERBS.items())}

  lit_cls VERB --help          every option of a verb
  lit_cls fit --print_config   every value that a run would use; likewise validate and test
  lit_cls --version

examples:
  lit_cls fit --config configs/quickstart.yaml
  lit_cls fit --data.path reviews.csv --data.text_column review --data.label_column sentiment
  lit_cls data check reviews.csv
  lit_cls predict --ckpt_path checkpoints/quickstart/version_0/best.ckpt "a text" "another"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the words after `lit_cls`; by default those of this process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe may not spell every character of a text
    code = 0
    try:
        code = _outcome(words)
        _flush()  # here, where a failure can be told: at the end of the process it would be a traceback
    except BrokenPipeError:
        _say_no_more()  # whoever read standard output has closed it: no error
    except OSError as error:
        if not _is_refused():
            raise  # of something else
        _say_no_more()
        print(f"lit_cls: error: standard output cannot be written: {error.strerror}", file=sys.stderr or io.StringIO())
        code = code or 1
    return code


def _outcome(words: list[str]) -> int:
    """Carries out the words; the exit code, with every mistake told."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"lit_cls {__version__}")
        return 0
    try:
        for word in words:
            if not _is_unicode(word):  # could be written into no config.yaml
                raise UserError(f"{word!r} is not UTF-8: a file with such a name has to be renamed")
        if words[0] not in VERBS:
            raise UserError(_unknown(words[0]))
        return _run(words[0], words[1:])
    except (UserError, RunError) as error:
        _complain(f"lit_cls: error: {error}")
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        _complain("lit_cls: stopped")
        return 130
    except SystemExit as end:
        if not end.code:  # after a --help
            _flush()
        raise


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _is_refused() -> bool:
    """Whether it is standard output that cannot be written."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _say_no_more() -> None:
    """What is still to be written goes nowhere, or Python would try it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(line: str) -> None:
    if sys.stderr is not None:  # closed: print would take standard output instead
        print(line, file=sys.stderr)


def _run(verb: str, words: list[str]) -> int:
    # Imported once it is known that it is needed.
    if verb in ("fit", "validate", "test"):
        from lit_cls.commands.train import train

        train([verb, *words])
        return 0
    name = verb.replace("-", "_")
    command = getattr(import_module(f"lit_cls.commands.{name}"), name)
    return int(command(words) or 0)


def _is_unicode(word: str) -> bool:
    """Whether no byte of it stands for itself alone, as in the name of a file that is not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def _unknown(word: str) -> str:
    if word.startswith("-"):
        return f"the verb comes first: lit_cls {'|'.join(VERBS)} … (got {word!r})"
    close = difflib.get_close_matches(word, VERBS, n=1)
    meant = f"; did you mean {close[0]}?" if close else "."
    return f"there is no verb {word!r}{meant} The verbs are {', '.join(VERBS)}: see lit_cls --help"
