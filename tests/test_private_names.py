"""Every private name of Lightning, jsonargparse, torch and torchmetrics that lit_cls uses, by name and place.

They may move in any release, which is why `lightning` has an upper bound in pyproject.toml. A test that fails here
names what has moved and the file that uses it. A new use has to be added to the table.
"""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import lit_cls

PACKAGE = Path(lit_cls.__file__).parent

# Private name: the public object or the module that has it, and the file that uses it.
USED = {
    "_FitLoop": ("lightning.pytorch.loops.fit_loop", "training/trainer.py"),
    "_TrainingEpochLoop": ("lightning.pytorch.loops.training_epoch_loop", "training/trainer.py"),
    "_DataFetcher": ("lightning.pytorch.loops.fetchers", "training/trainer.py"),
    "_combined_loader": ("lightning.pytorch.loops.fit_loop", "training/trainer.py"),
    "_data_fetcher": ("lightning.pytorch.loops.fit_loop", "training/trainer.py"),
    "_num_ready_batches_reached": ("lightning.pytorch.loops.training_epoch_loop", "training/trainer.py"),
    "_should_accumulate": ("lightning.pytorch.loops.training_epoch_loop", "training/trainer.py"),
    "_restarting": ("lightning.pytorch.loops.loop", "training/trainer.py"),
    "_loaded_from_state_dict": ("lightning.pytorch.loops.loop", "training/trainer.py"),
    "_resuming_from_checkpoint": ("lightning.pytorch.loops.loop", "training/trainer.py"),
    "_get": ("lightning.pytorch.cli:LightningCLI", "commands/train.py"),
    "_run_subcommand": ("lightning.pytorch.cli:LightningCLI", "commands/train.py"),
    "_prepare_subcommand_parser": ("lightning.pytorch.cli:LightningCLI", "commands/train.py"),
    "_parse_ckpt_path": ("lightning.pytorch.cli:LightningCLI", "commands/train.py"),
    "_parser": ("lightning.pytorch.cli:LightningCLI", "commands/train.py"),
    "_CheckpointConnector": ("lightning.pytorch.trainer.connectors.checkpoint_connector", "training/trainer.py"),
    "_teardown": ("lightning.pytorch:Trainer", "training/trainer.py"),
    "_checkpoint_connector": ("lightning.pytorch.trainer.trainer", "training/trainer.py"),
    "_restore_modules_and_callbacks": (
        "lightning.pytorch.trainer.connectors.checkpoint_connector:_CheckpointConnector",
        "training/trainer.py",
    ),
    "_subcommand_parsers": ("lightning.pytorch.cli", "commands/train.py"),
    "_actions": ("argparse", "commands/train_config.py"),
    "_typehint": ("jsonargparse._typehints", "commands/train_config.py"),
    "_common": ("jsonargparse", "commands/config_safety.py"),
    "_defaults": ("torchmetrics.metric", "training/module.py"),
    "_update_count": ("torchmetrics.metric", "training/module.py"),
    "_cdata": ("torch:UntypedStorage", "experiments/step_counts.py"),
    "_overloadpacket": ("torch._ops", "experiments/step_counts.py"),
    "_subclasses": ("torch", "experiments/step_counts.py"),
    "_python_dispatch": ("torch.utils", "experiments/step_counts.py"),
    "_scaled_dot_product_flash_attention_for_cpu": ("torch:ops.aten", "experiments/step_counts.py"),
    "_scaled_dot_product_flash_attention_for_cpu_backward": ("torch:ops.aten", "experiments/step_counts.py"),
    "_reorder_linear_weight": ("torch:ops.mkldnn", "model/packed.py"),
    "_linear_pointwise": ("torch:ops.mkldnn", "model/packed.py"),
    "_is_mkldnn_bf16_supported": ("torch:ops.mkldnn", "model/packed.py"),
    "_exit": ("os", "training/signals.py"),
}


@pytest.mark.parametrize("name", sorted(USED))
def test_the_private_name_is_still_there(name: str) -> None:
    """As an attribute, or, where only an instance has it, as a word of the source."""
    home, place = USED[name]
    module_name, _, path = home.partition(":")
    owner = importlib.import_module(module_name)
    for attribute in path.split(".") if path else ():
        owner = getattr(owner, attribute)
    there = hasattr(owner, name) or importable(f"{home}.{name}")
    if not there and not path:
        there = name in inspect.getsource(owner)
    assert there, f"{home} has no {name} any more; lit_cls/{place} uses it"


def importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except (ImportError, ValueError):
        return False
    return True


def test_overridden_private_methods_have_their_signatures() -> None:
    from lightning.pytorch.cli import LightningCLI

    assert list(inspect.signature(LightningCLI._run_subcommand).parameters) == ["self", "subcommand"]
    parameters = list(inspect.signature(LightningCLI._prepare_subcommand_parser).parameters)
    assert parameters == ["self", "klass", "subcommand", "kwargs"]


def test_every_private_name_that_is_used_is_in_the_table() -> None:
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
    ours = {name for tree in trees.values() for name in defined(tree)}
    unknown = {
        f"{file.relative_to(PACKAGE)}: {name}"
        for file, tree in trees.items()
        for name in foreign(tree, ours)
        if name not in USED
    }
    assert not unknown, f"add to the table in {Path(__file__).name}: {sorted(unknown)}"


def test_every_private_method_that_is_overridden_is_in_the_table() -> None:
    found = set()
    for module in pkgutil.walk_packages([str(PACKAGE)], "lit_cls."):
        if module.name.endswith("__main__"):
            continue
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__ == module.name:
                bases = [base for base in kind.__mro__[:-1] if not base.__module__.startswith("lit_cls")]
                methods = {name for name, value in vars(kind).items() if inspect.isfunction(value) and is_private(name)}
                found |= {name for name in methods for base in bases if name in vars(base)}
    assert found <= set(USED), f"add to the table in {Path(__file__).name}: {sorted(found - set(USED))}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree: ast.Module) -> set[str]:
    """Names that a file defines: functions, classes, variables, and attributes that it sets on `self`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names


def foreign(tree: ast.Module, ours: set[str]) -> set[str]:
    """Private names that a file imports from other packages, or reads of objects that are not ours."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("lit_cls"):
            words = [*node.module.split("."), *(alias.name for alias in node.names)]
            found.update(word for word in words if is_private(word))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            inherited = ast.unparse(node.value) == "super()"
            found.update({node.attr} if inherited or node.attr not in ours else ())
    return found
