"""The command `lit_cls`: dispatches to a subcommand and returns its exit code.

Nothing heavy is imported before the subcommand is known. Exit codes: 0 done; 1 failed while running; 2 the
user's mistake; 130 stopped by Ctrl-C, 143 by SIGTERM, with the state of a training saved.
"""

import difflib
import io
import sys
from collections.abc import Sequence
from importlib import import_module

from lit_cls import __version__
from lit_cls.errors import RunError, UserError
from lit_cls.io.terminal import discard_stdout, print_error

COMMANDS = {
    "data": "inspect a file of labelled texts; write the split that fit would use",
    "fit": "train a classifier, keep the best checkpoint, test it",
    "resume": "continue a run that was stopped",
    "validate": "accuracy and report of a checkpoint on the validation split",
    "test": "accuracy and report of a checkpoint on the test split",
    "tune": "temperature and threshold of a checkpoint, for a goal, on the validation split",
    "predict": "labels and probabilities of texts, files and pipes, from a checkpoint",
    "explain": "which words a prediction depends on",
    "merge": "adapters merged into the weights, checked",
    "export": "to Hugging Face, ONNX or peft, each checked against the checkpoint",
    "reproduce": "the rows of the published table, compared and recorded",
    "sweep": "a grid of any options, with a table and a plot",
    "verify-resume": "prove that killing and resuming a run changes nothing",
}
HELP = f"""\
usage: lit_cls COMMAND [--config FILE] [--ckpt_path best|last|PATH] [any option]

lit_cls {__version__}: GPT-2 as a text classifier.

commands:
{chr(10).join(f"  {name:<13} {line}" for name, line in COMMANDS.items())}

  lit_cls COMMAND --help       every option of a command
  lit_cls fit --print_config   every value that a run would use; likewise validate and test
  lit_cls --version

examples:
  lit_cls fit --config configs/quickstart.yaml
  lit_cls fit --data.path reviews.csv --data.text_column review --data.label_column sentiment
  lit_cls data check reviews.csv
  lit_cls predict --ckpt_path checkpoints/quickstart/version_0/best.ckpt "a text" "another"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the words after `lit_cls`, by default those of this process; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the encoding of a pipe may lack characters of a text
    code = 0
    try:
        code = _dispatch(words)
        print(end="", flush=True)  # here, where a failure can be reported: at the process's end it is a traceback
    except BrokenPipeError:
        discard_stdout()  # its reader has closed it: no error
    except OSError as error:
        try:
            print(flush=True)
        except OSError:
            discard_stdout()
            print_error(f"lit_cls: error: standard output cannot be written: {error.strerror}")
            return code or 1
        raise  # of something else
    return code


def _dispatch(words: list[str]) -> int:
    """Runs the subcommand and prints its errors; returns the exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"lit_cls {__version__}")
        return 0
    try:
        for word in words:
            if any("\ud800" <= character <= "\udfff" for character in word):  # config.yaml could not contain it
                raise UserError(f"{word!r} is not UTF-8: rename the file")
        command = words[0]
        if command not in COMMANDS:
            raise UserError(_unknown(command))
        # Imported only now, because imports take seconds.
        if command in ("fit", "validate", "test"):
            import_module("lit_cls.commands.train").train(words)
            return 0
        name = command.replace("-", "_")
        return int(getattr(import_module(f"lit_cls.commands.{name}"), name)(words[1:]) or 0)
    except (UserError, RunError) as error:
        print_error(f"lit_cls: error: {error}")
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print_error("lit_cls: stopped")
        return 130
    except SystemExit as end:
        if not end.code:  # after a --help
            print(end="", flush=True)
        raise


def _unknown(word: str) -> str:
    if word.startswith("-"):
        return f"the command comes first: lit_cls {'|'.join(COMMANDS)} … (got {word!r})"
    close = difflib.get_close_matches(word, COMMANDS, n=1)
    meant = f"; did you mean {close[0]}?" if close else "."
    return f"there is no command {word!r}{meant} The commands are {', '.join(COMMANDS)}: see lit_cls --help"
