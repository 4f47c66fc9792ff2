"""Pausing and resuming at moments at which the daemon is not ready for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from pydantic_ai_sandbox import DockerSandbox

pytestmark = pytest.mark.docker

ROUNDS = 100
"""Of three sandboxes each. Asked once only, the daemon refuses about one in a hundred."""

BUSY = "while :; do head -c 20M /dev/zero > busy; sync busy; done"
"""Waits for the disk most of the time."""


@pytest.mark.slow
async def test_pausing_and_resuming_at_once_always_does_it(
    make_sandbox: Callable[..., DockerSandbox], tmp_path: Path
) -> None:
    sandboxes = [make_sandbox(workspace=tmp_path / str(number)) for number in range(3)]

    async def rounds(sandbox: DockerSandbox) -> None:
        await sandbox.start_job(BUSY, shell=True)
        for _ in range(ROUNDS):
            await sandbox.pause()
            await sandbox.resume()
        assert (await sandbox.run(["echo", "runs"])).stdout == "runs\n"

    async with asyncio.timeout(150):
        await asyncio.gather(*(rounds(sandbox) for sandbox in sandboxes))
