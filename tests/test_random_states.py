"""All random numbers go on where they were, after a way through a file."""

import random
from pathlib import Path

import numpy as np
import torch

from lit_cls.training.saving import random_states, set_random_states


def draw() -> tuple[list[float], list[float], float, float]:
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), float(np.random.randn()), random.gauss(0, 1)


def test_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    draw()  # numpy and Python keep the second of two normal numbers: it belongs to the state
    torch.save(random_states(cpu), tmp_path / "states")
    expected = draw()
    assert draw() != expected
    set_random_states(torch.load(tmp_path / "states", weights_only=True), cpu)
    assert draw() == expected


def test_a_state_of_a_gpu_is_left_out_without_one() -> None:
    states = random_states(torch.device("cpu"))
    assert states["device"] is None
    set_random_states({**states, "device": torch.zeros(16, dtype=torch.uint8)}, torch.device("cpu"))
