"""`make bench`: the published algorithm, tuned Hugging Face, our plain and our fast path, side by side.

Every measurement is a process of its own, so that peak memory is that contender's and nothing is warm
that would not be; contenders alternate, and the whole round is repeated. A contender that takes many
minutes is timed for some steps and its training is extrapolated: they all do the same work.
"""

import argparse
import json
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tasks import SUPPORTED, Task, Timing, load
from lit_cls.data.downloads import SMS_SPAM, fetch
from lit_cls.data.sources import read_sms_spam
from lit_cls.errors import UserError
from lit_cls.experiments.machine import matmul_rate
from lit_cls.io.malloc import keep_freed_memory

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
CONTENDERS = {
    "published": "the published algorithm, float32",
    "plain": "lit_cls, model.fast false",
    "hf": "Hugging Face, tuned",
    "fast": "lit_cls",
    "plain-32": "lit_cls, model.fast false, float32",
    "fast-32": "lit_cls, float32",
}


@dataclass(frozen=True)
class Case:
    """One contender on one row.

    Args:
        row: of the published table.
        contender: a key of `CONTENDERS`.
        max_steps: timed steps; None for the whole training.
        max_predictions: classified texts; None for all.
    """

    row: int
    contender: str
    max_steps: int | None
    max_predictions: int | None


def cases(rows: list[int], quick: bool) -> list[Case]:
    """What is measured, in order. Only row 16 classifies texts: the others would take the same time."""
    chosen = []
    for row in rows:
        frozen = row not in (10, 11)
        n = 3 if quick else 5
        chosen.append(Case(row, "published", n, 32 if row == 16 else 0))
        chosen.append(Case(row, "plain", n, 32 if row == 16 else 0))
        # Batches of row 16 have many lengths, whose kernels are chosen once each.
        hf_steps = 40 * n if row == 16 else 2 * n
        chosen.append(Case(row, "hf", hf_steps, None if row == 16 else 0))
        chosen.append(Case(row, "fast", None if frozen else 2 * n, None if row == 16 else 0))
        if row == 1 and not quick:
            chosen += [Case(row, "plain-32", n, 0), Case(row, "fast-32", None, 0)]
    return chosen


def perform(case: Case, task: Task, data: Path) -> Timing:
    """Runs one case in this process."""
    match case.contender:
        case "published":
            from benchmarks import published

            return published.run(task, case.max_steps, case.max_predictions)
        case "hf":
            from benchmarks import huggingface

            return huggingface.run(task, case.max_steps, case.max_predictions)
    from benchmarks import lit

    path, _, in_float32 = case.contender.partition("-")
    precision = "32-true" if in_float32 else "auto"
    return lit.run(task, case.max_steps, case.max_predictions, data, path == "fast", precision)


def count_operations(case: Case, task: Task, data: Path) -> tuple[float, float]:
    """Floating-point operations of matrix products: what is done once, and in a step on average.

    From two runs, whose difference is steps alone: of one epoch and two where something is computed once,
    which a few steps are not worth, else of one step and a few. torch counts no formula for its fused attention
    on a CPU: where that runs, some 2 % are missing.
    """
    once = case.contender.startswith("fast") and task.trainable_layers in ("last_layer", "last_block")
    totals, steps = [], []
    for n in (1, 2) if once else (1, 21 if case.row == 16 else 3):
        whole_epochs = replace(task, epochs=n) if once else task
        with FlopCounterMode(display=False) as counter:
            timing = perform(Case(case.row, case.contender, None if once else n, 0), whole_epochs, data)
        totals.append(counter.get_total_flops())
        steps.append(timing.steps)
    a_step = (totals[1] - totals[0]) / (steps[1] - steps[0])
    return (totals[0] - steps[0] * a_step if once else 0.0), a_step


def child(case: Case, data: Path, count: bool) -> dict[str, Any]:
    """One measurement, with the memory of the process that made it."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if case.contender != "published":
        keep_freed_memory()  # as the command does; as good for the others
    task = load(case.row, data)
    if count:
        once, a_step = count_operations(case, task, data)
        return {"operations_once": once, "operations_step": a_step}
    timing = perform(case, task, data)
    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tokens = sum(map(len, task.train_ids)) * task.epochs
    return {
        **asdict(timing),
        "losses": [round(loss, 6) for loss in timing.losses],
        "seconds_training": timing.seconds_training,
        "tokens_per_second": tokens / timing.seconds_training,
        "peak_memory": peak,
    }


def run_child(case: Case, data: Path, count: bool = False) -> dict[str, Any]:
    """Starts a process for one measurement and waits for what it prints.

    Raises:
        RuntimeError: it failed; what it said is in the message.
    """
    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.bench", "--data", str(data)]
    words += ["--child", json.dumps({"count": count, **asdict(case)})]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    packages = ("torch", "lightning", "transformers", "peft")
    return {
        "commit": commit or "unknown",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": "make bench " + " ".join(sys.argv[1:]),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "product_rate_bfloat16": matmul_rate(device, "bf16-mixed"),
        "product_rate_float32": matmul_rate(device, "32-true"),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    has_bf16 = ", AVX512-BF16" if "avx512_bf16" in fields.get("flags", "") else ""
    return fields.get("model name", platform.processor()) + has_bf16


def summarize(case: Case, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the repeats, with all training times beside them."""
    names = ("seconds_once", "seconds_training", "tokens_per_second", "seconds_predicting", "peak_memory")
    medians = {name: statistics.median(run[name] for run in runs) for name in names}
    first = runs[0]
    step = statistics.median(run["seconds_steps"] / run["steps"] for run in runs)
    counted = {name: first[name] for name in ("steps", "steps_whole", "n_predicted", "correct")}
    every = [run["seconds_training"] for run in runs]
    measured = {"seconds_step": step, "seconds_training_each": every, "mean_loss": statistics.mean(first["losses"])}
    return {**asdict(case), **medians, **counted, **measured}


def table(results: list[dict[str, Any]], where: dict[str, Any]) -> Table:
    """One line per row and contender, with how many times faster `lit_cls` is."""
    title = f"{where['device']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}"
    shown = Table(title=title, title_justify="left")
    for column in ("row", "contender", "step", "training", "lit_cls is faster", "tokens/s", "of products' rate"):
        shown.add_column(column, justify="left" if column == "contender" else "right")
    shown.add_column("prediction", justify="right")
    shown.add_column("peak memory", justify="right")
    ours = {result["row"]: result for result in results if result["contender"] == "fast"}
    for result in results:
        fast = ours[result["row"]]
        shown.add_row(
            str(result["row"]),
            CONTENDERS[result["contender"]],
            f"{1e3 * result['seconds_step']:,.1f} ms",
            f"{result['seconds_training']:,.1f} s" + ("" if result["steps"] >= result["steps_whole"] else " *"),
            f"{result['seconds_training'] / fast['seconds_training']:.2f} ×",
            f"{result['tokens_per_second']:,.0f}",
            f"{100 * result['share_of_rate']:.0f} %" if "share_of_rate" in result else "",
            f"{result['n_predicted'] / result['seconds_predicting']:,.1f}/s" if result["n_predicted"] else "",
            f"{result['peak_memory'] / 1e9:.2f} GB",
        )
    shown.caption = (
        "* some steps were timed, the training is extrapolated. Training includes what is computed once. "
        "Every peak includes 0.5 GB, the task's own copy of the weights. All but the published keep freed memory."
    )
    return shown


def add_rates(results: list[dict[str, Any]], where: dict[str, Any], data: Path) -> None:
    """Adds what share of the machine's rate of matrix products each contender reaches."""
    for result in results:
        case = Case(result["row"], result["contender"], None, None)
        counted = run_child(case, data, count=True)
        whole = counted["operations_once"] + counted["operations_step"] * result["steps_whole"]
        in_float32 = result["contender"] in ("published", "plain-32", "fast-32")
        rate = where["product_rate_float32" if in_float32 else "product_rate_bfloat16"]
        result |= {**counted, "share_of_rate": whole / result["seconds_training"] / rate}


def _choices(parser: argparse.ArgumentParser, option: str, given: str, known: dict[str, T]) -> list[T]:
    """What a list of words stands for."""
    unknown = [word for word in given.split(",") if word not in known]
    if unknown:
        parser.error(f"{option} {given}: there are {', '.join(known)}, not {unknown[0]!r}")
    return [known[word] for word in given.split(",")]


def write(results: list[dict[str, Any]], where: dict[str, Any], path: Path) -> None:
    """The figures, as JSON."""
    path.write_text(json.dumps({"machine": where, "results": results}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measures, prints the table, writes the JSON file."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a local copy of the SMS Spam Collection (default: downloaded once)")
    parser.add_argument("--rows", default="1,3,10,11,16", help="of the published table (default: %(default)s)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which medians are taken (default: 3)")
    parser.add_argument("--quick", action="store_true", help="rows 1 and 16, one round of fewer steps: about 5 minutes")
    parser.add_argument("--out", type=Path, help="default: benchmarks/bench.json, with --quick bench-quick.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    own = parser.parse_args()
    try:
        data = (own.data or fetch(SMS_SPAM)).expanduser().absolute()
        read_sms_spam(str(data), quoted=True)
    except UserError as error:
        parser.error(str(error))
    if own.child:
        given = json.loads(own.child)
        count = given.pop("count")
        print(json.dumps(child(Case(**given), data, count)))
        return
    rows = [1, 16] if own.quick else _choices(parser, "--rows", own.rows, {str(row): row for row in SUPPORTED})
    _choices(parser, "--contenders", own.contenders, {name: name for name in CONTENDERS})
    if own.repeats < 1:
        parser.error(f"--repeats {own.repeats} is less than 1")
    chosen = [case for case in cases(rows, own.quick) if case.contender in (*own.contenders.split(","), "fast")]
    runs: dict[Case, list[dict[str, Any]]] = {case: [] for case in chosen}
    where = machine()
    console = Console(width=None if sys.stdout.isatty() else 160)
    for repeat in range(1 if own.quick else own.repeats):
        for case in chosen:
            runs[case].append(run_child(case, data))
            took = runs[case][-1]["seconds_training"]
            console.print(
                f"round {repeat + 1}, row {case.row}, {CONTENDERS[case.contender]}: {took:,.1f} s", highlight=False
            )
    results = [summarize(case, found) for case, found in runs.items()]
    out = own.out or ROOT / "benchmarks" / ("bench-quick.json" if own.quick else "bench.json")
    write(results, where, out)
    if not own.quick:
        console.print("counting operations", highlight=False)
        add_rates(results, where, data)
        write(results, where, out)
    console.print(table(results, where))
    console.print(f"written to {out}", highlight=False)


if __name__ == "__main__":
    main()
