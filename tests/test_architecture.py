"""The packages of lit_cls and the direction of their imports."""

import ast
from pathlib import Path

import lit_cls

PACKAGE = Path(lit_cls.__file__).parent

# One row per package: what it may import, from the bottom to the top.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "io": {"errors"},
    "evaluation": {"errors", "io"},
    "data": {"errors", "io"},
    "model": {"errors", "io"},
    "training": {"errors", "io", "data", "model"},
    "inference": {"errors", "io", "data", "model", "training"},
    "report": {"errors", "io", "data", "model", "evaluation", "training"},
    "exports": {"errors", "io", "data", "model", "training", "inference"},
    "explain": {"errors", "io", "data", "model", "report", "inference"},
    "runs": {"errors", "io", "data", "model", "evaluation", "training", "report"},
    "experiments": {"errors", "io", "data", "model", "evaluation", "training", "report", "runs"},
    "commands": {
        *("errors", "io", "data", "model", "evaluation", "training", "inference", "report", "exports", "explain"),
        *("runs", "experiments"),
    },
    "cli": {"errors", "io", "commands"},
    "__init__": {"inference"},
    "__main__": {"cli"},
}


def _package(file: Path) -> str:
    relative = file.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def _imports(file: Path) -> set[str]:
    """Packages of lit_cls that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide what is imported"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and str(node.value).startswith("lit_cls."):
            names = [str(node.value)]  # the name of a module that is imported when it is needed
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[0] == "lit_cls" and len(words) > 1:
                found.add(words[1])
    return found


def test_imports_run_one_way() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        package = _package(file)
        for imported in _imports(file) - {package, "__version__"}:
            if imported not in ALLOWED[package]:
                wrong.append(f"{file.relative_to(PACKAGE)} imports lit_cls.{imported}")
    assert not wrong, wrong


def test_model_is_pure_torch() -> None:
    for file in (PACKAGE / "model").rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert "lightning" not in source.lower().replace("lightning-ai/", ""), f"{file.name} knows of Lightning"
