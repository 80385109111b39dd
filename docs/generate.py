"""Writes docs/commands/: one page per command, with an example and its --help. Run by `make docs`."""

import os
import re
import subprocess
import sys
from pathlib import Path

from lit_cls.cli import COMMANDS

FOLDER = Path(__file__).parent / "commands"

# Commands of minutes: their options are parsed by the tests, others run.
LONG = ("reproduce", "verify-resume")

# The example of each command, to run after `make quickstart`, and the page with more.
EXAMPLES = {
    "fit": (
        """\
lit_cls fit --config configs/quickstart.yaml
lit_cls fit --config configs/quickstart.yaml --model.trainable_layers last_layer --model.adapter LoRA --run_name lora
lit_cls fit --data.path reviews.csv --data.text_column review --data.label_column sentiment --model.adapter LoRA""",
        "[Options](../../README.md#options), [the report](../report.md)",
    ),
    "resume": ("lit_cls resume checkpoints/quickstart/version_0", "[Resuming interrupted runs](../resume.md)"),
    "validate": ("lit_cls validate --config configs/quickstart.yaml --ckpt_path best", "[The report](../report.md)"),
    "test": ("lit_cls test --config configs/quickstart.yaml --ckpt_path best", "[The report](../report.md)"),
    "predict": (
        """\
lit_cls predict --config configs/quickstart.yaml --ckpt_path best "a text" "another"
lit_cls predict --config configs/quickstart.yaml --ckpt_path best --data.path messages.csv --output predictions.csv""",
        "[Classifying files and pipes](../predict.md)",
    ),
    "data check": ("lit_cls data check reviews.csv", "[Data](../data.md)"),
    "data split": ("lit_cls data split messages.csv --out splits", "[Data](../data.md)"),
    "tune": (
        'lit_cls tune --config configs/quickstart.yaml --ckpt_path best --goal "recall>=0.9" --label spam',
        "[Imbalance and thresholds](../tune.md)",
    ),
    "explain": (
        'lit_cls explain --config configs/quickstart.yaml --ckpt_path best "Claim your gift card today"',
        "[Explaining predictions](../explain.md)",
    ),
    "merge": (
        "lit_cls fit --config configs/quickstart.yaml --model.trainable_layers last_layer --model.adapter LoRA "
        "--run_name lora\n"
        "lit_cls merge --run_name lora --ckpt_path best",
        "[Export and merge](../export.md)",
    ),
    "export": (
        "lit_cls export --config configs/quickstart.yaml --ckpt_path best --format huggingface --out exported",
        "[Export and merge](../export.md)",
    ),
    "reproduce": (
        "lit_cls reproduce --rows 16 --weights random --size gpt2-nano --seeds 123 --out checkpoints/trial",
        "[Reproduce and sweep](../reproduce.md), [results](../results/README.md)",
    ),
    "sweep": (
        "lit_cls sweep --config configs/quickstart.yaml --vary model.trainable_layers=last_layer,all",
        "[Reproduce and sweep](../reproduce.md)",
    ),
    "verify-resume": (
        "lit_cls verify-resume --config configs/quickstart.yaml --kills 1",
        "[Resuming interrupted runs](../resume.md)",
    ),
}


def page_name(command: str) -> str:
    """The file name of a command's page."""
    return f"{command.replace(' ', '-')}.md"


def options_in(text: str) -> set[str]:
    """The options that a help text or a page names."""
    return set(re.findall(r"(?<![\w-])--[a-z][\w.]*(?:-\w+)*", text))


def help_block(page: str) -> str:
    """The part of a page that is the command's help."""
    return page.rsplit("```text\n", maxsplit=1)[-1]


def page(command: str, help_text: str) -> str:
    """Returns a page.

    Args:
        command: the subcommand, for example `data check`.
        help_text: what it prints with `--help`.
    """
    examples, more = EXAMPLES[command]
    one_line = COMMANDS.get(command) or COMMANDS[command.split(maxsplit=1)[0]]
    tag = "console" if command in LONG else "sh"
    return (
        f"# lit_cls {command}\n\n{one_line[0].upper()}{one_line[1:]}.\n\n```{tag}\n{examples}\n```\n\nMore: {more}\n\n"
        f"`lit_cls {command} --help`:\n\n```text\n{help_text.strip()}\n```\n"
    )


def main() -> None:
    """Rewrites every page."""
    FOLDER.mkdir(exist_ok=True)
    for command in EXAMPLES:
        shown = subprocess.run(
            [sys.executable, "-m", "lit_cls", *command.split(), "--help"],
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        (FOLDER / page_name(command)).write_text(page(command, shown.stdout), encoding="utf-8")


if __name__ == "__main__":
    main()
