"""Memory that is freed stays with the process: torch's large buffers come and go in every step.

glibc hands each buffer above 32 MB back to the system at once, and the kernel clears every page of
the next one. For training all layers of GPT-2 small on two cores that was a quarter of the step
(`make bench`; PyTorch's performance tuning guide replaces the allocator for the same reason).
"""

import ctypes
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tells glibc to reuse freed memory; elsewhere, does nothing and returns False."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return sum(mallopt(name, value) for name, value in settings) == len(settings)
