"""`python -m benchmarks.latency CHECKPOINT`: how long a program waits for `lit_cls.load(path).predict`."""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import torch

import lit_cls

TEXTS = (
    "see you at 7",
    "running late, be at the station at 7",
    "Winner! Claim your gift card at prizes.example today",
    "Had your mobile 11 months or more? You are entitled to update to the latest model for free, call now",
)
_ROUNDS = 50
_WARM_UP = 5
_PROGRAM = "import lit_cls, sys; print(lit_cls.load(sys.argv[1], precision=sys.argv[2] or None).predict(sys.argv[3:]))"


def main(words: Sequence[str] | None = None) -> None:
    """Times a whole program with one answer, then each of some texts alone, many times; prints medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    parser.add_argument("checkpoint", help="a .ckpt file of lit_cls fit")
    parser.add_argument("--precision", default="", help="as for lit_cls.load (default: as trained, if that is fast)")
    own = parser.parse_args(words)
    programs = []
    for _ in range(3):
        begun = time.perf_counter()
        program = [sys.executable, "-c", _PROGRAM, own.checkpoint, own.precision, TEXTS[-1]]
        done = subprocess.run(program, check=False, capture_output=True, text=True)
        if done.returncode:
            parser.error(done.stderr.strip().splitlines()[-1])
        programs.append(time.perf_counter() - begun)
    classifier = lit_cls.load(own.checkpoint, precision=own.precision or None)
    print(f"{classifier.precision}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("a program with one answer: " + ", ".join(f"{seconds:.2f}" for seconds in programs) + " s")
    for text in TEXTS:
        found = []
        for _ in range(_WARM_UP + _ROUNDS):
            begun = time.perf_counter()
            classifier.predict([text])
            found.append(time.perf_counter() - begun)
        median = 1e3 * statistics.median(found[_WARM_UP:])
        print(f"{len(classifier.tokenizer.encode([text])[0]):3d} tokens: {median:.1f} ms, median of {_ROUNDS}")


if __name__ == "__main__":
    main()
