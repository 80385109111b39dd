"""Freed memory is used again instead of being given back."""

import subprocess
import sys

import pytest

from lit_cls.io.malloc import keep_freed_memory

# How often the kernel had to find a new page for a buffer of 40 MB that is made and freed five times; before and after.
FAULTS = """
import resource, torch
from lit_cls.io.malloc import keep_freed_memory

def faults():
    for _ in range(15):  # the heap grows until the buffer's place is found again
        torch.zeros(10_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
assert keep_freed_memory()
print(given_back, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_buffer_made_again_needs_no_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
