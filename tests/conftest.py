"""Shared places; no fixture hides what a test does."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

# No test may reach a model hub, whatever the machine allows.
os.environ["HF_HUB_OFFLINE"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, what needs the reference files where they are not."""
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs the reference files in {SHARED.name}/ beside the checkout"))


@pytest.fixture(scope="session")
def sms_file() -> Path:
    """The real SMS Spam Collection; for tests marked `shared`."""
    return SHARED / "data" / "SMSSpamCollection"


def pad_rows(rows: list[list[int]], T: int, pad: int = 96) -> tuple[Tensor, Tensor]:
    """Token ids right-padded to T, and their lengths; the pad id is also an ordinary token of the tiny vocabulary."""
    ids = torch.tensor([row + [pad] * (T - len(row)) for row in rows])
    return ids, torch.tensor([len(row) for row in rows])
