"""Every command in the README and the other pages runs; the page of a command equals its help.

Blocks tagged `sh` and `python` run in a copy of one folder with two small data files and three runs: the quickstart,
the README's first `fit`, and one with an adapter. The README's commands run one by one, those of another page in their
order. Commands that need minutes, a GPU or a download are in blocks tagged `console`: their options are parsed.
"""

import contextlib
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, SHARED

sys.path.insert(0, str(REPOSITORY / "docs"))

import generate

import lit_cls
from lit_cls.cli import COMMANDS, main
from lit_cls.data import demo

README = REPOSITORY / "README.md"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    REPOSITORY / "checkpoints" / "README.md",
    *sorted(REPOSITORY.glob("docs/**/*.md")),
]
# Pretrained weights are a download: commands run with a small random network instead, and all for one epoch.
TINY = ["--model.size", "gpt2-nano", "--model.weights", "random"]
TRAINING = ("fit", "sweep", "reproduce", "verify-resume")
ADAPTER = (
    "lit_cls fit --config configs/quickstart.yaml --model.trainable_layers last_layer "
    "--model.adapter LoRA --run_name lora"
)


def to_run(page: Path) -> list[str]:
    """The commands to run here: the installation and the Makefile are run by continuous integration itself."""
    return [command for command in blocks(page, "sh", "python") if command.split()[0] not in ("make", "pip")]


def is_python(command: str) -> bool:
    return command.startswith(("import ", "from "))


def is_plain(command: str) -> bool:
    """Whether a command is lit_cls with options, and nothing that needs a shell."""
    words = list(shlex.shlex(command, posix=True, punctuation_chars="|<>;&"))
    return words[0] == "lit_cls" and not any(set(word) <= set("|<>;&") for word in words)


def blocks(page: Path, *tags: str) -> list[str]:
    """The commands of all blocks with these tags, each on one line; a block of Python is one command."""
    commands = []
    text = page.read_text(encoding="utf-8")
    for tag, block in re.findall(rf"^```({'|'.join(tags)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        commands += [block] if tag == "python" else [line for line in lines if line.strip()]
    return commands


SKIPPED = (-1, "the SMS Spam Collection is a download")
QUICKSTART = "lit_cls fit --config configs/quickstart.yaml"
FIRST_FIT = next(command for command in blocks(README, "sh") if command.startswith("lit_cls fit"))


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has run the quickstart and the README's first command on two small files."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    texts, labels = demo.generate(7)
    rows = list(zip(texts, labels, strict=True))
    names = {"ham": "positive", "spam": "negative"}
    for file, header, content in (
        ("messages.csv", ("text", "label"), rows[:120]),
        ("reviews.csv", ("review", "sentiment"), [(text, names[label]) for text, label in rows[200:260]]),
    ):
        with (folder / file).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header, *content])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (QUICKSTART, FIRST_FIT, ADAPTER):
            assert run(command) == (0, "")
    return folder


@pytest.fixture
def in_readers_folder(reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shutil.copytree(reader, tmp_path / "reader"))


@pytest.mark.usefixtures("in_readers_folder")
@pytest.mark.parametrize("command", to_run(README), ids=lambda command: " ".join(command.split())[:60])
def test_a_command_of_the_readme_runs(command: str) -> None:
    assert run(command) in ((0, ""), SKIPPED)


@pytest.mark.usefixtures("in_readers_folder")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page != README and to_run(page)],
    ids=lambda page: str(page.relative_to(REPOSITORY)),
)
def test_every_command_of_a_page_runs(page: Path) -> None:
    readme = [FIRST_FIT, QUICKSTART, *to_run(README)]
    for command in to_run(page):
        if command not in readme and "--run_name lora" not in command:
            assert run(command) in ((0, ""), SKIPPED), command


def run(command: str) -> tuple[int, str]:
    """Runs a command as a reader types it; in a shell if it is more than lit_cls and its options.

    Returns:
        Its exit code, and what a failing shell printed.
    """
    if is_python(command):
        names: dict[str, object] = {}
        exec(command, names)
        loaded = callable(names.get("classify")) or isinstance(names.get("classifier"), lit_cls.Classifier)
        return (0, "") if loaded else (1, "no classifier was loaded")
    words = shlex.split(command)
    if is_plain(command):
        words = words[1:]
        if words[0] in ("fit", "sweep") and "quickstart" not in command:
            words += TINY
        if words[0] in TRAINING and "max_epochs" not in command:
            words += ["--trainer.max_epochs", "1"]
            # Others read the quickstart's checkpoint; a part of the texts would make no use of a folder for outputs.
            if command != QUICKSTART and "cache_dir" not in command:
                words += ["--trainer.limit_train_batches", "8"]
        if words[0] == "reproduce":
            if not SHARED.is_dir():
                return SKIPPED
            words += ["--data.path", str(SHARED / "data" / "SMSSpamCollection")]
        return main(words), ""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr if done.returncode else ""


def test_commands_that_need_more_are_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [command for page in PAGES for command in blocks(page, "console")]
    commands += [command for page in PAGES for command in blocks(page, "sh") if command.startswith("make ")]
    assert commands
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    makefile = (REPOSITORY / "Makefile").read_text()
    of_fit = generate.options_in((generate.FOLDER / "fit.md").read_text(encoding="utf-8"))
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:.*## ", makefile, re.MULTILINE), command
        elif words[:2] == ["lit_cls", "fit"]:
            with pytest.raises(SystemExit, match="0"):
                main([*words[1:], "--print_config"])
            yaml.safe_load(capsys.readouterr().out)
        else:
            page = (generate.FOLDER / generate.page_name(words[1])).read_text(encoding="utf-8")
            assert generate.options_in(command) <= generate.options_in(page) | of_fit, command


@pytest.mark.parametrize("command", sorted(generate.EXAMPLES))
def test_the_page_of_a_command_is_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Compared by their options: how lines break is another matter in each version of Python."""
    page = (generate.FOLDER / generate.page_name(command)).read_text(encoding="utf-8")
    with contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    help_text = capsys.readouterr().out
    assert generate.options_in(generate.help_block(page)) == generate.options_in(help_text), "run `make docs`"
    assert page.split("```text")[0] == generate.page(command, help_text).split("```text")[0], "run `make docs`"


def test_every_command_has_a_page() -> None:
    assert {command.split()[0] for command in generate.EXAMPLES} == set(COMMANDS)
    assert {path.name for path in generate.FOLDER.iterdir()} == {generate.page_name(name) for name in generate.EXAMPLES}


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"
