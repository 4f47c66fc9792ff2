"""The check at the end of a test run sees what was left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import docker
import pytest

from tests import leaks

pytestmark = pytest.mark.alone


def test_a_process_is_seen_even_when_its_parent_is_gone() -> None:
    before = leaks.snapshot()
    parent = subprocess.run(
        ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    pid = parent.stdout.strip()
    try:
        assert [line for line in leaks.leaked(before, grace=0) if line.startswith(f"process {pid}: ")]
    finally:
        os.kill(int(pid), signal.SIGKILL)
    assert leaks.leaked(before, grace=10) == []


def test_a_file_is_seen() -> None:
    before = leaks.snapshot()
    with tempfile.NamedTemporaryFile(prefix="pydantic-ai-sandbox-") as file:
        assert leaks.leaked(before, grace=0) == [f"file {Path(file.name)}"]
    assert leaks.leaked(before, grace=0) == []


@pytest.mark.docker
def test_a_volume_is_seen_but_the_runners_may_stay(docker_api: docker.APIClient) -> None:
    before = leaks.snapshot()
    names = ["pydantic-ai-sandbox-lab", "pydantic-ai-sandbox-runner-lab-amd64"]
    for name in names:
        docker_api.create_volume(name, labels={"pydantic-ai-sandbox.managed": "1"})
    try:
        assert leaks.leaked(before, grace=0) == ["volume pydantic-ai-sandbox-lab"]
    finally:
        for name in names:
            docker_api.remove_volume(name)
