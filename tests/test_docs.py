"""Every command in the README and the pages runs; every page of a command is what the command says of itself.

Blocks tagged `sh` are run, in their order, in a folder where `make quickstart` has been run and two small files lie.
What needs hours, a GPU or a download is in blocks tagged `console`: their options are parsed.
"""

import contextlib
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

from lit_cls.cli import COMMANDS, main
from lit_cls.data import demo

PAGES = [REPOSITORY / "README.md", REPOSITORY / "checkpoints" / "README.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]
# Pretrained weights are a download; these come to the same commands at a size for trying out.
TINY = ["--model.size", "gpt2-nano", "--model.weights", "random", "--trainer.max_epochs", "1"]


def blocks(page: Path, *tags: str) -> list[str]:
    """The commands of all blocks with these tags, each on one line; a block of Python is one command."""
    commands = []
    text = page.read_text(encoding="utf-8")
    for tag, block in re.findall(rf"^```({'|'.join(tags)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        commands += (
            [shlex.join(["python", "-c", block])] if tag == "python" else [line for line in lines if line.strip()]
        )
    return commands


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quickstart has been run, beside two files of a reader's own."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    lit_cls = [sys.executable, "-m", "lit_cls", "fit", "--config", "configs/quickstart.yaml"]
    subprocess.run(lit_cls, cwd=folder, capture_output=True, check=True)
    texts, labels = demo.generate(7)
    rows = list(zip(texts, labels, strict=True))
    write(folder / "messages.csv", ("text", "label"), rows[:120])
    names = {"ham": "positive", "spam": "negative"}
    write(folder / "reviews.csv", ("review", "sentiment"), [(text, names[label]) for text, label in rows[200:260]])
    return folder


def write(path: Path, header: tuple[str, str], rows: list[tuple[str, str]]) -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: str(page.relative_to(REPOSITORY))
)
def test_every_command_runs(page: Path, quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(quickstart, folder)
    monkeypatch.chdir(folder)
    for command in blocks(page, "sh", "python"):
        run(command)


def run(command: str) -> None:
    """A command as a reader types it; in a shell of its own when it is more than lit_cls and its words."""
    words = shlex.split(command)
    if words[0] in ("make", "pip", "source", "git"):
        return  # the Makefile and the install have tests of their own
    if words[0] == "lit_cls" and not set(command) & set("|<>$;&"):
        words = words[1:]
        if words[0] in ("fit", "sweep") and "quickstart" not in command:
            words += TINY
        if words[0] == "reproduce":
            if not SHARED.is_dir():
                return  # the SMS Spam Collection is a download
            words += ["--data.path", str(SHARED / "data" / "SMSSpamCollection")]
        assert main(words) == 0, command
        return
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stderr)


def test_commands_that_need_more_are_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [command for page in PAGES for command in blocks(page, "console")]
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
    told = capsys.readouterr().out
    assert generate.options_in(generate.help_block(page)) == generate.options_in(told), "run `make docs`"
    assert page.split("```text")[0] == generate.page(command, told).split("```text")[0], "run `make docs`"


def test_every_command_has_a_page() -> None:
    assert {command.split()[0] for command in generate.EXAMPLES} == set(COMMANDS)
    assert {path.name for path in generate.FOLDER.iterdir()} == {generate.page_name(name) for name in generate.EXAMPLES}


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"
