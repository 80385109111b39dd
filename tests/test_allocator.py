"""Freed memory is used again instead of being given back."""

import subprocess
import sys

import pytest

from lit_cls.io.malloc import keep_freed_memory

# How often the kernel had to find a new page for a buffer of 100 MB that is made and freed five times.
FAULTS = """
import resource, sys, torch
from lit_cls.io.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(15):  # the heap grows until the buffer's place is found again
    torch.zeros(25_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.zeros(25_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_buffer_made_again_needs_no_new_pages() -> None:
    counted = {}
    for mode in ("keep", "give back"):
        done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        counted[mode] = int(done.stdout)
    assert counted["keep"] < counted["give back"] / 10


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
