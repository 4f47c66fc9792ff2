from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from pydantic_ai_sandbox.trees import remove_tree


@pytest.fixture
def place(tmp_path: Path) -> Generator[Path]:
    """A directory that is emptied by descriptors afterwards: pytest cannot delete what these tests make."""
    yield tmp_path
    for name in os.listdir(tmp_path):
        remove_tree(tmp_path, name)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Generator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    # Fewer is no leak: something older may have been collected meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= len(before)
