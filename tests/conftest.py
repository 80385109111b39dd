"""Shared places; no fixture hides what a test does."""

import os
from pathlib import Path

import pytest

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
