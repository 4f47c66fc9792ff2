from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from pydantic_ai_sandbox.sessions.storage import Storage
from tests.sessions.storage.keeping import MAKERS, loops, mounts, needs_loopback, programs, reboot


@pytest.fixture
def root(tmp_path: Path) -> Generator[Path]:
    """A root of users' directories; what is mounted below goes with the test, and so must the loop devices."""
    root = tmp_path / "root"
    root.mkdir(mode=0o711)
    yield root
    give_up = time.monotonic() + 30
    # What a killed worker had started may be about to mount something.
    while programs(root) and time.monotonic() < give_up:
        time.sleep(0.01)
    reboot(root)
    assert mounts(root) == []
    if os.geteuid() == 0:
        # The kernel lets go of a device when its last user has, which may be a process that is just ending.
        while loops(root) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert loops(root) == []


@pytest.fixture(params=[pytest.param(name, marks=needs_loopback if name == "loopback" else ()) for name in MAKERS])
def storage(request: pytest.FixtureRequest, root: Path) -> Storage:
    return MAKERS[request.param](root)
