"""Writes docs/commands/: one page per command, from what the command says of itself. Run by `make docs`."""

import os
import re
import subprocess
import sys
from pathlib import Path

from lit_cls.cli import COMMANDS

FOLDER = Path(__file__).parent / "commands"

# What stands below a command's name: commands that a reader can run after `make quickstart`, and where there is more.
EXAMPLES = {
    "fit": (
        """\
lit_cls fit --config configs/quickstart.yaml
lit_cls fit --config configs/quickstart.yaml --model.trainable_layers lora --model.lora.rank 4 --run_name lora""",
        "[The README](../../README.md) goes through the options that matter; "
        "[the report](../report.md) says what a run leaves behind.",
    ),
    "resume": ("lit_cls resume checkpoints/quickstart/version_0", "[Nothing is lost](../resume.md)"),
    "validate": ("lit_cls validate --config configs/quickstart.yaml --ckpt_path best", "[The report](../report.md)"),
    "test": ("lit_cls test --config configs/quickstart.yaml --ckpt_path best", "[The report](../report.md)"),
    "predict": (
        """\
lit_cls predict --config configs/quickstart.yaml --ckpt_path best "a text" "another"
lit_cls predict --config configs/quickstart.yaml --ckpt_path best --data.path messages.csv --output answers.csv""",
        "[Classifying files and pipes](../predict.md)",
    ),
    "data check": ("lit_cls data check reviews.csv", "[Looking at data](../data.md)"),
    "data split": ("lit_cls data split messages.csv --out parts", "[Looking at data](../data.md)"),
    "tune": (
        'lit_cls tune --config configs/quickstart.yaml --ckpt_path best --goal "recall>=0.9" --label spam',
        "[Imbalance and thresholds](../tune.md)",
    ),
    "explain": (
        'lit_cls explain --config configs/quickstart.yaml --ckpt_path best "Claim your gift card today"',
        "[Which words an answer rests on](../explain.md)",
    ),
    "merge": (
        "lit_cls fit --config configs/quickstart.yaml --model.trainable_layers lora --run_name lora\n"
        "lit_cls merge --run_name lora --ckpt_path best",
        "[To other formats](../export.md)",
    ),
    "export": (
        "lit_cls export --config configs/quickstart.yaml --ckpt_path best --format huggingface --out exported",
        "[To other formats](../export.md)",
    ),
    "reproduce": (
        "lit_cls reproduce --rows 16 --weights random --size gpt2-nano --seeds 123 --out checkpoints/trial",
        "[Which choices matter](../../README.md#which-choices-matter), [results](../results/README.md)",
    ),
    "sweep": (
        "lit_cls sweep --config configs/quickstart.yaml --vary model.trainable_layers=last_layer,all",
        "[Which choices matter](../../README.md#which-choices-matter)",
    ),
    "verify-resume": (
        "lit_cls verify-resume --config configs/quickstart.yaml --kills 1",
        "[Nothing is lost](../resume.md)",
    ),
}


def page_name(command: str) -> str:
    """The file of a command's page."""
    return f"{command.replace(' ', '-')}.md"


def options_in(text: str) -> set[str]:
    """The options that a help text or a page names."""
    return set(re.findall(r"(?<![\w-])--[a-z][\w.]*(?:-\w+)*", text))


def help_block(page: str) -> str:
    """What of a page is the command's own help."""
    return page.rsplit("```text\n", maxsplit=1)[-1]


def page(command: str, told: str) -> str:
    """A page.

    Args:
        command: its words behind `lit_cls`.
        told: what it prints with `--help`.
    """
    examples, more = EXAMPLES[command]
    one_line = COMMANDS.get(command) or COMMANDS[command.split(maxsplit=1)[0]]
    return (
        f"# lit_cls {command}\n\n{one_line[0].upper()}{one_line[1:]}.\n\n```sh\n{examples}\n```\n\nMore: {more}\n\n"
        f"`lit_cls {command} --help`:\n\n```text\n{told.strip()}\n```\n"
    )


def main() -> None:
    """Writes every page anew."""
    FOLDER.mkdir(exist_ok=True)
    for command in EXAMPLES:
        told = subprocess.run(
            [sys.executable, "-m", "lit_cls", *command.split(), "--help"],
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        (FOLDER / page_name(command)).write_text(page(command, told.stdout), encoding="utf-8")


if __name__ == "__main__":
    main()
