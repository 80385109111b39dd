"""The memory, the disk and the speed of the machine that a series runs on."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from timeit import repeat

import psutil
import torch


@dataclass(frozen=True)
class Machine:
    """What is free for a run, in bytes."""

    memory: int
    """On the device."""
    disk: int
    """Where the runs land."""
    host_memory: int = 0
    """On the host; without a GPU, `memory` is that."""


def free_resources(device: torch.device, folder: Path) -> Machine:
    """Asks the device and the disk; the folder need not exist yet."""
    host = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # there may be no limit of a container
        host = min(host, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    memory = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return Machine(memory, shutil.disk_usage(existing).free, host)


def matmul_rate(device: torch.device, precision: str) -> float:
    """Floating-point operations per second of a matrix product, measured."""
    half = {"bf16": torch.bfloat16, "16": torch.float16}
    dtype = next((kind for name, kind in half.items() if precision.startswith(name)), torch.float32)
    M, K, N, n = (8192, 8192, 8192, 10) if device.type == "cuda" else (256, 768, 3072, 1)
    a, b = torch.randn(M, K, device=device, dtype=dtype), torch.randn(K, N, device=device, dtype=dtype)

    def products() -> None:
        for _ in range(n):  # a GPU computes them one after the other, without a pause
            c = a @ b
        c[0, 0].item()  # waits for it

    # The first of ten times is a warm-up, others may be disturbed.
    return 2 * M * K * N * n / min(repeat(products, number=1, repeat=10))
