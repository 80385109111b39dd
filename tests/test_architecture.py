"""The house: which part may import which."""

import ast
from pathlib import Path

import lit_cls

PACKAGE = Path(lit_cls.__file__).parent

# What each part may import of the others. Arrows run one way:
# cli -> commands; cli -> experiments, resume -> verbs -> runs, inference -> origin -> training, evaluation -> model,
# data; everybody may raise a UserError.
ALLOWED = {
    "errors": set(),
    "allocator": set(),
    "transfer": set(),
    "arguments": {"errors"},
    "model": {"errors", "transfer"},
    "data": {"errors", "transfer"},
    "training": {"errors", "model", "data"},
    "evaluation": {"errors"},
    "inference": {"errors", "model", "data", "training"},
    "trained": {"arguments", "errors", "data", "training", "inference"},
    "options": {"errors"},
    "reporting": {"errors", "data", "model", "training", "evaluation"},
    "runs": {"errors", "model", "data", "training", "evaluation", "origin", "reporting"},
    "presets": set(),
    "class_paths": {"errors"},
    "origin": {"errors", "data", "training"},
    "attribution": {"errors", "data", "model", "inference"},
    "exports": {"errors", "data", "model", "training", "inference"},
    "commands": {
        *("arguments", "errors", "model", "data", "training", "evaluation", "inference", "trained", "attribution"),
        *("allocator", "exports"),
    },
    "verbs": {
        *("errors", "allocator", "class_paths", "model", "data", "training", "inference", "options", "origin"),
        *("presets", "runs", "trained"),
    },
    "resume": {"errors", "class_paths", "training", "verbs"},
    "experiments": {"arguments", "errors", "model", "data", "training", "evaluation", "presets", "verbs"},
    "cli": {"commands", "errors", "verbs", "resume", "experiments"},
    "__init__": {"inference"},
    "__main__": {"cli"},
}


def _part(file: Path) -> str:
    relative = file.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def _imports(file: Path) -> set[str]:
    """Parts of lit_cls that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide where an arrow points"
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


def test_arrows_run_one_way() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        part = _part(file)
        for imported in _imports(file) - {part, "__version__"}:
            if imported not in ALLOWED[part]:
                wrong.append(f"{file.relative_to(PACKAGE)} imports lit_cls.{imported}")
    assert not wrong, wrong


def test_model_is_pure_torch() -> None:
    for file in (PACKAGE / "model").glob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert "lightning" not in source.lower().replace("lightning-ai/", ""), f"{file.name} knows of Lightning"


def test_every_source_file_has_a_test_file() -> None:
    tests = {file.name for file in Path(__file__).parent.glob("test_*.py")}
    missing = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if not file.name.startswith("__") and f"test_{file.name}" not in tests and file.name != "errors.py"
    ]
    assert not missing, missing
