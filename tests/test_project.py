"""What belongs to the project rather than to a module: versions, requirements, the wheel, continuous integration."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import lit_cls

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    Requirement(line)
    for line in [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
]


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest
    assert citation["version"] == newest[1] == lit_cls.__version__


def test_the_pinned_versions_are_allowed() -> None:
    """For every Python that the markers in constraints.txt tell apart."""
    pinned = [
        Requirement(line)
        for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    for wanted in REQUIREMENTS:
        if wanted.name == "lit_cls":
            continue
        found = [pin for pin in pinned if pin.name.replace("_", "-").lower() == wanted.name.replace("_", "-").lower()]
        assert found, f"constraints.txt has no {wanted.name}"
        for pin in found:
            (version,) = (specifier.version for specifier in pin.specifier)
            assert wanted.specifier.contains(version), f"{pin} is not {wanted}"


@pytest.mark.parametrize("version", ["2.6.1", "2.6.2", "2.6.3", "2.7.0"])
def test_lightning_releases_that_are_refused(version: str) -> None:
    (lightning,) = (wanted for wanted in REQUIREMENTS if wanted.name == "lightning")
    assert not lightning.specifier.contains(version)


def test_ci_runs_on_supported_versions_of_python() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    versions = workflow["jobs"]["pinned"]["strategy"]["matrix"]["python"]
    oldest = workflow["jobs"]["oldest"]["steps"][1]["with"]["python-version"]
    supported = SpecifierSet(PROJECT["requires-python"])
    assert versions == ["3.10", "3.12", "3.13"]
    assert oldest == versions[0] == PROJECT["requires-python"].removeprefix(">=")
    assert all(supported.contains(version) for version in versions)
    commands = {step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step}
    assert commands == {".ci/run", ".ci/oldest"}
    assert all((REPOSITORY / command).stat().st_mode & 0o111 for command in commands)


def test_hooks_run_the_tools_of_make_check() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in makefile


def test_the_wheel_brings_types_presets_and_vocabulary(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"lit_cls/py.typed", "lit_cls/configs/quickstart.yaml", "lit_cls/data/vocabulary/vocab.bpe"} <= names
    templates = {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("lit_cls/*/templates/*")}
    assert len(templates) >= 13
    assert templates <= names
    assert sum(name.startswith("lit_cls/configs/rows/") for name in names) == 19


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:lit_cls|tests|docs|configs)/[a-z0-9_/]+\.(?:py|md|yaml)", text))
    assert named
    assert not {name for name in named if not (REPOSITORY / name).exists()}
