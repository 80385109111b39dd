"""What a run will take of memory, disk and time, before it starts, and what the machine has.

Estimates, from the arithmetic of a transformer and one measured matrix product; the time is
corrected by the runs that have finished (see `series`).
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil
import torch

from lit_cls.data.batches import TextDataset
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SPLIT_NAMES, SplitName
from lit_cls.experiments.fit import Fit
from lit_cls.model.backbones import BACKBONES, BackboneName
from lit_cls.model.classifier import TextClassifier
from lit_cls.model.pretrained import check_pretrained, is_downloaded
from lit_cls.model.selection import parameter_groups
from lit_cls.runs.folder import checkpoint_size
from lit_cls.training.feature_files import GB, feature_key
from lit_cls.training.features import kept_positions

_LIBRARIES = 500_000_000  # bytes of a process that has imported torch and Lightning
_SAVED_PER_TOKEN = 20  # numbers per token and unit of emb_dim that a block keeps for its backward pass
_REACHED = 0.7  # share of the matrix-product rate that blocks reach (rows 1 and 10, two cores)
_SECONDS_PER_STEP = 0.004  # of Lightning and Python, whatever the network
_SECONDS_PER_UPDATE = 1e-9  # of AdamW, for each number that trains
_SECONDS_PER_SCORE = 4e-10  # attention's softmax, which small heads spend more on than on products


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    memory: int
    """Bytes, on the device that trains."""
    disk: int
    """Bytes that it leaves: its checkpoints and predictions."""
    seconds: float
    """Training and evaluation."""
    shared_disk: int = 0
    """Bytes for outputs of frozen layers in `model.cache_dir`, which runs with the same ones share."""
    shared_name: str = ""
    """Of these outputs: another one where anything differs that they follow from."""
    host_memory: int = 0
    """Bytes beside a GPU, to which Lightning moves what was trained when a run ends; 0 without one."""


@dataclass(frozen=True)
class Machine:
    """What there is for a run."""

    device: torch.device
    memory: int
    """Bytes that are free on the device."""
    disk: int
    """Bytes that are free where the runs land."""
    host_memory: int = 0
    """Bytes that are free on the host; where there is no GPU, `memory` is that."""


def machine(device: torch.device, folder: Path) -> Machine:
    """Looks at the device and at the disk; the folder may not be there yet."""
    host = min(psutil.virtual_memory().available, _container_limit())
    memory = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return Machine(device, memory, shutil.disk_usage(existing).free, host)


def expected_cost(run: Fit, rate: float) -> Cost:
    """Estimates a fit.

    Args:
        run: checked, not started; its data is read.
        rate: floating-point operations per second of a matrix product on its device, in its precision.
    """
    settings, data = run.model.settings, run.datamodule
    with torch.device("meta"):
        net = settings.build(len(data.label_names))
    copies = {None: 0, "last": 1, "best": 2}[run.run.keep]
    net.fast = run.model.options.fast
    disk = copies * checkpoint_size(net, frozen_are_named=settings.weights != "random") + 1_000_000
    states, name = _frozen_states(net, run), ""
    shared = states if run.model.options.cache_dir is not None else 0
    if shared:
        name = _name_of_states(net, run)
    else:
        disk += states - _states_in_memory(net, run)
    return Cost(_memory(net, run), disk, _seconds(net, run, rate), shared, name, _host_memory(net, run))


def download_size(size: BackboneName) -> int:
    """Bytes of the pretrained weights, 0 where they are on this machine.

    Raises:
        UserError: there are none of that size.
    """
    check_pretrained(size)
    if is_downloaded(size):
        return 0
    with torch.device("meta"):
        return 4 * sum(p.numel() for p in BACKBONES[size].family.backbone(BACKBONES[size].config).parameters())


def product_rate(device: torch.device, precision: str) -> float:
    """Operations per second of a matrix product, measured: as large as GPT-2 small's, on a GPU larger."""
    half = {"bf16": torch.bfloat16, "16": torch.float16}
    dtype = next((kind for name, kind in half.items() if precision.startswith(name)), torch.float32)
    on_gpu = device.type == "cuda"
    M, K, N = (8192, 8192, 8192) if on_gpu else (1024, 768, 3072)
    n = 10 if on_gpu else 1  # products between two looks at the clock
    a = torch.randn(M, K, device=device, dtype=dtype)
    b = torch.randn(K, N, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):  # the first is a warm-up, others may be disturbed
        started = time.perf_counter()
        for _ in range(n):
            a @ b
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - started) / n)
    return 2 * M * K * N / best


def _memory(net: TextClassifier, run: Fit) -> int:
    """Weights, gradients, AdamW's two averages, and what the backward pass needs of the forward pass."""
    everything = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    on_cpu = run.trainer.strategy.root_device.type == "cpu"
    mixed = "mixed" in str(run.trainer.precision)
    from_file = run.model.settings.weights != "random"
    # A mixed-precision copy of what trains; on a processor also the file's own copy of it (`WeightsCache`).
    copies = (0.5 if mixed else 0) + (1 if from_file and on_cpu else 0)
    tokens = run.datamodule.batch_size * _longest(run.datamodule)
    blocks = net.config.n_layers - net.first_trained_block
    kept_blocks = min(1, blocks) if run.model.options.gradient_checkpointing else blocks
    saved = tokens * kept_blocks * _SAVED_PER_TOKEN * net.config.emb_dim * (3 if mixed else 4)
    # Frozen matrices are held in half precision, beside the file's own where that stays open.
    halved = mixed and run.model.options.fast
    held = (2 if halved else 4) + (4 if halved and from_file and on_cpu else 0)
    embeddings = sum(p.numel() for p in parameter_groups(net)["embeddings"] if not p.requires_grad)
    frozen = held * (everything - trained - embeddings) + 4 * embeddings
    # A processor reads what is kept in a folder from the mapped file.
    states = 0 if on_cpu and run.model.options.cache_dir is not None else _states_in_memory(net, run)
    return int(frozen + (16 + 4 * copies) * trained + saved + states + (_LIBRARIES if on_cpu else 0))


def _host_memory(net: TextClassifier, run: Fit) -> int:
    """Beside a GPU: the libraries, the network with gradients and averages when it ends, the file's tensors."""
    if run.trainer.strategy.root_device.type == "cpu":
        return 0
    everything = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    files = 1 if run.model.settings.weights != "random" else 0
    return _LIBRARIES + 4 * everything * (1 + files) + 12 * trained


def _seconds(net: TextClassifier, run: Fit, rate: float) -> float:
    data, epochs, config = run.datamodule, max(1, run.trainer.max_epochs or 1), net.config
    once = net.first_trained_block > 0 and run.model.options.fast and not config.drop_rate
    trained = config.n_layers - net.first_trained_block
    if once and trained and net.token_position not in ("mean", "mean_flexible"):
        trained -= 1  # at one position the last block is next to nothing
    on_cpu = run.trainer.strategy.root_device.type == "cpu"
    seconds = 0.0
    passes: list[tuple[SplitName, int, int]] = [("train", epochs, 3), ("train", 1, 1)]
    for name, n_passes, cost in [*passes, ("validation", epochs + 1, 1), ("test", 1, 1)]:
        lengths = _lengths(net, data, name)
        blocks = n_passes * cost * trained
        if not once:
            blocks += n_passes * net.first_trained_block
        elif (name, cost) != ("train", 1):  # each split once
            blocks += net.first_trained_block
        T = sum(lengths) / len(lengths)
        tokens = sum(lengths) * blocks
        operations = tokens * (24 * config.emb_dim**2 + 4 * T * config.emb_dim)
        scores = tokens * T * config.n_heads
        seconds += operations / (_REACHED * rate) + on_cpu * scores * _SECONDS_PER_SCORE
    steps = epochs * len(_lengths(net, data, "train")) / data.batch_size
    n_trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return seconds + steps * (_SECONDS_PER_STEP + on_cpu * n_trained * _SECONDS_PER_UPDATE)


def _lengths(net: TextClassifier, data: ClassificationData, name: SplitName) -> list[int]:
    """Tokens of each text that are computed."""
    lengths = [min(len(ids), data.cut_to) for ids in data.part(name).token_ids]
    needs = net.needs if net.fast else "all"
    if needs == "first":
        return [1] * len(lengths)
    return [data.pad_to] * len(lengths) if needs == "all" and data.pad_to else lengths


def _frozen_states(net: TextClassifier, run: Fit, *names: SplitName) -> int:
    """Bytes of the frozen layers' outputs for these splits, all of them where none is named."""
    if not net.first_trained_block or not run.model.options.fast or net.config.drop_rate:
        return 0
    lengths = [n for name in names or SPLIT_NAMES for n in _lengths(net, run.datamodule, name)]
    return 4 * net.config.emb_dim * (len(lengths) if net.head_alone else sum(lengths))


def _states_in_memory(net: TextClassifier, run: Fit) -> int:
    """Bytes of those outputs that the budget lets into memory: each split in its turn, as long as it fits."""
    taken = 0
    for name in SPLIT_NAMES:
        size = _frozen_states(net, run, name)
        if taken + size <= run.model.options.cache_gb * GB:
            taken += size
    return taken


def _name_of_states(net: TextClassifier, run: Fit) -> str:
    """The train split's outputs have the name that their file would have; all splits follow from the same options."""
    dataset = cast("TextDataset", run.datamodule.whole_split("train").dataset)
    weights = run.model.settings.weights
    if weights == "random":
        weights += str(run.settings()["seed_everything"])
    key = feature_key(net, dataset.token_ids, dataset.pad_to, weights, str(run.trainer.precision))
    return key.path(Path(), kept_positions(net, dataset)).name


def _longest(data: ClassificationData) -> int:
    longest = max(len(ids) for ids in data.part("train").token_ids)
    return data.pad_to or min(longest, data.cut_to)


def _container_limit() -> int:
    """Bytes that a container may use; no limit, a very large number."""
    try:
        told = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return 1 << 62
    return int(told) if told.isdecimal() else 1 << 62
