"""The memory, the disk and the speed of the machine that a series runs on."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch


@dataclass(frozen=True)
class Machine:
    """What is free for a run, in bytes."""

    device: torch.device
    memory: int
    """On the device."""
    disk: int
    """Where the runs land."""
    host_memory: int = 0
    """On the host; without a GPU, `memory` is that."""


def free_resources(device: torch.device, folder: Path) -> Machine:
    """Asks the device and the disk; the folder need not exist yet."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()  # of a container
    except OSError:
        limit = ""
    host = psutil.virtual_memory().available
    if limit.isdecimal():
        host = min(host, int(limit))
    memory = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return Machine(device, memory, shutil.disk_usage(existing).free, host)


def matmul_rate(device: torch.device, precision: str) -> float:
    """Floating-point operations per second of a matrix product, measured."""
    half = {"bf16": torch.bfloat16, "16": torch.float16}
    dtype = next((kind for name, kind in half.items() if precision.startswith(name)), torch.float32)
    on_gpu = device.type == "cuda"
    M, K, N = (8192, 8192, 8192) if on_gpu else (1024, 768, 3072)
    n = 10 if on_gpu else 1  # products between two readings of the clock
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
