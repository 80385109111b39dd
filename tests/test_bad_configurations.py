"""Any value for any option, any --config file: a run, or one message and exit code 2. See fuzzing.py.

The options are those of the parser, so that a new one is tried as soon as it is there. Nothing hangs,
nothing grows without bound: a run has one step, and none starts other processes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import NANO, ONE_STEP, a_new_folder, examples, run
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from lit_cls.commands.train import TrainCommand

FAST = ["--data.max_length", "16", "--trainer.enable_checkpointing", "false"]


def options_of(command: str) -> list[str]:
    """Every option of a command, from its parser."""

    class Asked(TrainCommand):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            parser = self._subcommand_parsers[command]
            self.found = [action.dest for action in parser._actions if "." in action.dest or action.option_strings]
            raise StopIteration(self.found)

    with pytest.raises(StopIteration) as told:
        Asked([command])
    return [name for name in told.value.args[0] if name not in ("help", "config") and not name.endswith(".help")]


OPTIONS = options_of("fit")
ADAPTER = [f"model.adapter.{f}" for f in ("rank", "alpha", "dropout", "scaling", "targets", "train_head", "nothing")]
OLD = ["model.lora", "model.lora.rank"]

# Named classes and words that Lightning knows, with and without what they need.
NAMED: dict[str, list[str]] = {
    "trainer.callbacks": [
        *("EarlyStopping", "Timer", "DeviceStatsMonitor", "LearningRateMonitor", "RichProgressBar", "TQDMProgressBar"),
        *("StochasticWeightAveraging", "BatchSizeFinder", "LearningRateFinder", "ModelCheckpoint", "ModelPruning"),
        *("GradientAccumulationScheduler", "BackboneFinetuning", "WeightAveraging", "ModelSummary", "LambdaCallback"),
        '{"class_path": "EarlyStopping", "init_args": {"monitor": "nothing"}}',
        '{"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss", "mode": "sideways"}}',
        '{"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1}}',
        '{"class_path": "ModelPruning", "init_args": {"pruning_fn": "l1_unstructured"}}',
        '{"class_path": "os.system", "init_args": {"command": "false"}}',
        '[{"class_path": "Timer", "init_args": {"duration": "soon"}}]',
    ],
    "model.adapter": [
        *("LoRA", "lit_cls.model.adapters.LoRA", "lora", "Adapter", "{rank: 4}", "null"),
        '{"class_path": "LoRA", "init_args": {"rank": 0}}',
        '{"class_path": "LoRA", "init_args": {"targets": ["mlp_gate"]}}',
        '{"class_path": "LoRA", "init_args": {"rank": "many"}}',
        '{"class_path": "os.system", "init_args": {"command": "false"}}',
    ],
    "trainer.logger": [
        *("TensorBoardLogger", "CSVLogger", "WandbLogger", "MLFlowLogger", "CometLogger", "true", "false", "[]"),
        '{"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}',
    ],
    "trainer.strategy": [
        *("ddp", "fsdp", "deepspeed", "dp", "single_device", "ddp_spawn", "ddp_find_unused_parameters_true", "xla"),
        *("DDPStrategy", "FSDPStrategy", "ModelParallelStrategy", "SingleDeviceXLAStrategy", "SingleDeviceStrategy"),
    ],
    "trainer.plugins": [
        *("MixedPrecision", "DoublePrecision", "TorchCheckpointIO", "AsyncCheckpointIO", "SLURMEnvironment"),
        *("BitsandbytesPrecision", "TransformerEnginePrecision", "TorchSyncBatchNorm", "LightningEnvironment", "[]"),
        *(
            "HalfPrecision",
            "XLAEnvironment",
            "MPIEnvironment",
            "LSFEnvironment",
            "KubeflowEnvironment",
            "FSDPPrecision",
        ),
    ],
    "trainer.profiler": ["simple", "advanced", "SimpleProfiler", "AdvancedProfiler", "XLAProfiler", "none"],
    "trainer.accelerator": ["cpu", "gpu", "cuda", "mps", "tpu", "hpu", "auto", "CPUAccelerator"],
    "trainer.gradient_clip_algorithm": ["norm", "value", "nothing"],
    "trainer.max_time": ["00:00:00:01", "1:00", '{"seconds": 1}', '{"years": 1}', "99999999999:00:00:00", "-1:0:0:0"],
    "trainer.precision": ["16", "bf16", "64-true", "bf16-true", "transformer-engine", "bf16-mixed", "32", "8"],
    "trainer.devices": ["0", "-1", "2", "auto", "[0]", "[0,0]", "[5]", "1000000", "[]", "cpu", "0,1", "9" * 30],
    "trainer.num_nodes": ["0", "2", "1000"],
    "data.split": [
        "[0.5,0.25,0.25]",
        "[.nan,.nan,.nan]",
        "[1,1,-1]",
        "[a.csv,a.csv,a.csv]",
        "[1e-9,0.5,0.5]",
        "[0,0,0]",
    ],
    "model.size": ["gpt2-nano"],
    "model.weights": ["random", "pretrained", "data.csv", "/dev/zero", "~nobody-of-that-name/a", "."],
    "model.class_weights": [
        *("balanced", "{a: 3, b: 1}", "{a: 3}", "{a: 0}", "{a: .nan}", "{c: 1}", "{0: 1}", "{a: {b: 1}}", "{a: true}"),
        *(
            "{a: 1e300, b: 1e-300}",
            "{null: 1}",
            "{a: null}",
            "{[a]: 1}",
            "data.csv",
            "unbalanced",
            "[1, 2]",
            "{a: '1'}",
        ),
    ],
    "model.cache_dir": ["cache", "data.csv/cache", "~nobody-of-that-name/a"],
    "trainer.default_root_dir": ["a/b", "data.csv", "/dev/null/a", "~nobody-of-that-name/a", "x" * 300, "/proc/a"],
    "ckpt_path": ["last", "best", "data.csv", "/dev/zero", ".", "hpc", "registry"],
    "config": ["data.csv", "/dev/null", ".", "nowhere.yaml"],
    "print_config": ["", "comments", "skip_null", "nothing"],
}
KINDS = [
    *(
        "0",
        "1",
        "-1",
        "2",
        "7",
        "100",
        "1000000000",
        "-1000000000000",
        "9" * 25,
        "0x10",
        "1_0",
        "٣",
        "1.0",
        "0.5",
        "-0.5",
    ),
    *(
        ".nan",
        "nan",
        ".inf",
        "-.inf",
        "inf",
        "1e308",
        "1e-320",
        "true",
        "false",
        "null",
        "None",
        "",
        " ",
        "~",
        "[]",
        "{}",
    ),
    *(
        "[1]",
        "[1,2,3]",
        "[null]",
        "[[[]]]",
        '{"a": 1}',
        '{"class_path": "Timer"}',
        '{"class_path": 5}',
        "word",
        "é🙂",
        "a\0b",
    ),
    *(
        "!!python/object:os.system {}",
        "&a [*a]",
        "*a",
        "%",
        "@",
        "`",
        "- a",
        "a: b",
        "'",
        '"',
        "\n",
        "\ud800",
        "x" * 400,
    ),
    *(
        "all",
        "lora",
        "LoRA",
        "auto",
        "none",
        "last",
        "data.csv",
        "/",
        "..",
        "-",
        "--",
        "2020-01-01",
        "12:30:45",
        "=",
        "<<",
        "${HOME}",
    ),
]


@st.composite
def words(draw: st.DrawFn) -> list[str]:
    """One to three options with values of every kind, mostly one: a second fault would hide behind the first."""
    found = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2, 3]))):
        name = draw(st.sampled_from([*OPTIONS, *ADAPTER, *OLD, *NAMED]))
        value = draw(st.sampled_from([*NAMED.get(name, KINDS), *KINDS]) | st.text(max_size=5) | st.integers().map(str))
        found += [f"--{name}={value}"] if draw(st.booleans()) or value.startswith("-") else [f"--{name}", value]
    return found


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(KINDS)
TREES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ATOMS.filter(lambda v: v == v), inner, max_size=3),
)


@st.composite
def yaml_files(draw: st.DrawFn) -> bytes:
    """The bytes of a --config file: wrong values, wrong nesting, or no YAML at all."""
    name = draw(st.sampled_from([*OPTIONS, *ADAPTER, *OLD]))
    value = draw(TREES)
    group, _, last = name.rpartition(".")
    broken = draw(st.sampled_from(["tree", "tree", "nested", "nested", "bytes", "words", "deep", "odd"]))
    if broken == "tree":
        content = yaml.safe_dump({group: {last: value}} if group else {name: value}, allow_unicode=draw(st.booleans()))
    elif broken == "nested":
        content = yaml.safe_dump(
            draw(st.sampled_from([value, {group: value}, {name: value}, {last: value}, [{name: value}]]))
        )
    elif broken == "words":
        content = f"{name.replace('.', ': {')}: {draw(st.sampled_from(KINDS))}{'}' * name.count('.')}\n"
    elif broken == "deep":
        n = draw(st.sampled_from([10, 300, 1000, 5000]))
        content = f"data: {'[' * n}{']' * n}\n" if draw(st.booleans()) else "{a: " * n
    elif broken == "odd":
        content = draw(st.sampled_from(ODD_YAML))
    else:
        return draw(st.binary(max_size=40))
    return content.encode("utf-8", "surrogatepass")


ODD_YAML = [
    *("seed_everything: null", "data: {batch_size: null}", "model: {learning_rate: null}", "trainer: {devices: null}"),
    *("trainer: {callbacks: Timer}", "trainer: {callbacks: BackboneFinetuning}", "seed_everything: false"),
    *(
        "",
        "---\n",
        "---\na: 1\n---\nb: 2\n",
        "5",
        "text",
        "[]",
        "null",
        "%YAML 9.9\n---\n",
        "\ufeffdata: {}",
        "a: &a [*a]",
    ),
    *("data: {batch_size: 4, batch_size: 5}", "data: {}\ndata: {}", "data:\n\tbatch_size: 4", "data: !!binary aGFt"),
    *("data: !!python/object/apply:os.system ['false']", "data: !!python/name:os.system", "trainer: !!set {a, b}"),
    *(
        "data: &d {batch_size: 4}\nmodel: *d",
        "data: {<<: {batch_size: 4}}",
        "data: {1: 2}",
        "1: 2",
        "? [a]\n: b",
        "~: 1",
    ),
    *(
        "data: {null: 1}",
        "data: {true: 1}",
        "data: {[1]: 1}",
        "trainer: {callbacks: [{class_path: Timer, init_args: 5}]}",
    ),
    *(
        "trainer: {callbacks: [null]}",
        "model: {class_path: lit_cls.training.module.ClassifierModule}",
        "fit: {data: {}}",
    ),
    *("config: a.yaml", "help: true", "print_config: true", "subcommand: test", "data.batch_size: 4", "data: {a.b: 1}"),
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\ndata: [*c,*c,*c,*c,*c,*c]",
]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket, and no other processes: Lightning would start this test run again for each device."""

    def refuse(self: object) -> None:
        raise Launched

    monkeypatch.setenv("LIT_CLS_OFFLINE", "1")
    monkeypatch.setattr(_SubprocessScriptLauncher, "_call_children_scripts", refuse)


class Launched(Exception):
    """Everything was accepted; the other processes would start now."""


def outcome(words: list[str]) -> int:
    code, _, _ = run(words, harmless=(Launched,))
    return code


def write_data() -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(24))
    Path("data.csv").write_text(f"text,label\n{rows}", encoding="utf-8")


@examples(few=40)
@given(words=words())
def test_any_option_is_carried_out_or_refused(words: list[str], count: Callable[[str], None]) -> None:
    with a_new_folder():
        write_data()
        # What bounds the run stands last, so that it holds, unless it is what is tried.
        bounds = [] if any("max_steps" in word or "max_epochs" in word for word in words) else ONE_STEP
        if any(word.split("=")[0] in ("--trainer.max_steps", "--trainer.max_epochs") for word in words):
            bounds = ["--trainer.max_time", "00:00:00:01"]
        code = outcome(["fit", "--data.path", "data.csv", *NANO, *FAST, *words, *bounds])
        assert code in (0, 2)  # and see `run`, which reads what was said
        count(f"configurations as words, exit code {code}")


@examples(few=25)
@given(content=yaml_files())
def test_any_configuration_file_is_carried_out_or_refused(content: bytes, count: Callable[[str], None]) -> None:
    with a_new_folder():
        write_data()
        Path("any.yaml").write_bytes(content)
        code = outcome(["fit", "--config", "any.yaml", "--data.path", "data.csv", *NANO, *FAST, *ONE_STEP])
        assert code in (0, 2)
        count(f"configurations as files, exit code {code}")


@pytest.mark.parametrize("content", ODD_YAML, ids=ascii)
def test_odd_yaml(content: str) -> None:
    with a_new_folder():
        write_data()
        Path("any.yaml").write_text(content, encoding="utf-8")
        assert outcome(["fit", "--config", "any.yaml", "--data.path", "data.csv", *NANO, *FAST, *ONE_STEP]) in (0, 2)
