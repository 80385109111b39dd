"""Every private name of another library that lit_cls uses: one list, checked against the installed versions.

A new version of a library may move any of them. Then this test says which one, before a run fails.
"""

import argparse
import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import jsonargparse
import pytest
import torch
import torchmetrics
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loops import fetchers, fit_loop, training_epoch_loop
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.connectors import checkpoint_connector

import lit_cls

PACKAGE = Path(lit_cls.__file__).parent

# Owner, its private names, and what lit_cls does with them.
USED: list[tuple[object, tuple[str, ...], str]] = [
    (LightningCLI, ("_run_subcommand", "_parse_ckpt_path"), "commands/train: nothing runs in the constructor"),
    (LightningCLI, ("_prepare_subcommand_parser", "_subcommand_parsers", "_parser"), "commands/train: own options"),
    (LightningCLI, ("_get",), "commands/train: reads what was instantiated"),
    (argparse.ArgumentParser, ("_actions",), "commands/train_config, predict: the options of a parser"),
    (jsonargparse._typehints.ActionTypeHint, ("_typehint",), "commands/train_config: whether an option may be null"),
    (jsonargparse, ("_common",), "commands/config_safety: the parser's settings are restored"),
    (checkpoint_connector, ("_CheckpointConnector",), "training/restoring: errors of restoring"),
    (checkpoint_connector._CheckpointConnector, ("_restore_modules_and_callbacks",), "training/restoring: overridden"),
    (Trainer, ("_checkpoint_connector",), "training/trainer: replaced"),
    (fetchers, ("_DataFetcher",), "training/loops: a type"),
    (fit_loop, ("_FitLoop",), "training/loops: the base class"),
    (training_epoch_loop, ("_TrainingEpochLoop",), "training/loops: the base class"),
    (_FitLoop, ("_combined_loader", "_data_fetcher"), "training/loops: begins an epoch at a batch"),
    (_TrainingEpochLoop, ("_num_ready_batches_reached", "_should_accumulate"), "training/loops, saving: counts"),
    (_Loop, ("_restarting", "_loaded_from_state_dict", "_resuming_from_checkpoint"), "training/loops: are cleared"),
    (torchmetrics.Metric, ("_defaults", "_update_count"), "training/module: the state of the training loss"),
    (
        torch.ops.mkldnn,
        ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported"),
        "model/packed: the packed product",
    ),
    (torch.UntypedStorage, ("_cdata",), "experiments/step_counts: whether two tensors share memory"),
    (torch._ops.OpOverload, ("_overloadpacket",), "experiments/step_counts: counts operations"),
    (
        torch.ops.aten,
        ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"),
        "experiments/step_counts: counts attention",
    ),
]
# These are looked up with a default, because not every version of torch has them.
OPTIONAL = {"_is_avx512_bf16_supported", "_is_amx_tile_supported"}
NOT_PRIVATE = {"_exit"}  # of os: documented


@pytest.mark.parametrize(("owner", "names", "use"), USED, ids=lambda value: value if isinstance(value, str) else None)
def test_each_one_is_there(owner: object, names: tuple[str, ...], use: str) -> None:
    for name in names:
        there = hasattr(owner, name) or f"self.{name}" in inspect.getsource(owner)  # type: ignore[arg-type]
        assert there, f"{getattr(owner, '__name__', owner)}.{name} is gone from the installed version; used in {use}"


def test_the_list_is_complete() -> None:
    own, used = set[str](), set[str]()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute):
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                (own if of_self and isinstance(node.ctx, ast.Store) else used).add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                used.update(alias.name for alias in node.names)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                used.update(c.value for c in node.args if isinstance(c, ast.Constant) and isinstance(c.value, str))
    private = {name for name in used - own if name.startswith("_") and not name.endswith("__")}
    listed = {name for _, names, _ in USED for name in names}
    assert private - NOT_PRIVATE - OPTIONAL - listed == set(), "add them to USED"
    assert listed - used - own == set(), "no longer used: remove them from USED"


def test_overridden_names_are_listed() -> None:
    listed = {name for _, names, _ in USED for name in names}
    found = set()
    for module in pkgutil.walk_packages([str(PACKAGE)], "lit_cls."):
        if module.name.endswith("__main__"):
            continue
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__ != module.name:
                continue
            foreign = [
                base for base in kind.__mro__ if not base.__module__.startswith("lit_cls") and base is not object
            ]
            methods = {name for name, value in vars(kind).items() if inspect.isfunction(value) and name[:2] != "__"}
            found |= {n for n in methods for base in foreign if n.startswith("_") and n in vars(base)}
    assert found - listed == set(), "a private method of a library is overridden: add it to USED"
