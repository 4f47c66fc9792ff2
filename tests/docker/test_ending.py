"""A sandbox ends by itself when nobody uses it, never while somebody does, and with no backend alive."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from pydantic_ai_sandbox import DockerEngine, SessionManager
from pydantic_ai_sandbox.engines.base import UnknownContainerError

pytestmark = pytest.mark.docker

RACES = int(os.environ.get("SANDBOX_RACES", "60"))
"""How often use and end are raced; more where there is time."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("transport", ["auto", "exec"])
async def test_being_used_and_being_ended_exclude_each_other(
    managers: Callable[..., SessionManager], transport: Literal["auto", "exec"]
) -> None:
    engine = DockerEngine(transport=transport)
    manager, reaper = managers(engine=engine), managers()
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    sandbox = await manager.get_or_create("alice")
    ended = 0

    async def reap() -> bool:
        await asyncio.sleep(moments.random() * 0.006)
        found = await reaper._submit(lambda: reaper._population.of("alice"))
        return any([await reaper._evictor.retire(info) for info in found if info.running])

    async def use(number: int) -> None:
        await asyncio.sleep(moments.random() * 0.012)
        result = await sandbox.run(f"echo {number} >> /workspace/ran", shell=True)
        assert (result.exit_code, result.cause) == (0, "exit")

    for number in range(RACES):
        _, reaped = await asyncio.gather(use(number), reap())
        ended += reaped
    # Each command ran, once.
    assert await sandbox.read_bytes("/workspace/ran") == "".join(f"{number}\n" for number in range(RACES)).encode()
    print(f"ended {ended} of {RACES} times")
    assert ended > 0
    await manager.aclose()
    engine.close()


class Watched(DockerEngine):
    """A daemon that notes what still ran when it was told to remove it."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[bool] = []

    def remove(self, id: str) -> None:
        try:
            self.ran.append(self.inspect(id).running)
        except UnknownContainerError:
            self.ran.append(False)
        super().remove(id)


async def test_one_that_makes_room_ends_before_it_is_removed(managers: Callable[..., SessionManager]) -> None:
    # Killed instead, it could not tell whoever is just asking that what they ask is not begun, and may be asked again.
    engine = Watched()
    manager = managers(engine=engine)
    for _ in range(5):
        await manager.get_or_create("alice")
        [info] = await manager._submit(lambda: manager._population.of("alice"))
        assert await manager._evictor.retire(info)
    assert engine.ran == [False] * 5
    engine.close()


async def test_a_running_command_or_job_is_use_and_its_end_begins_the_time(
    managers: Callable[..., SessionManager], docker_api: object
) -> None:
    manager = managers(idle_timeout=2)
    sandbox = await manager.get_or_create("alice")
    job = await sandbox.start_job("sleep 6; echo done", shell=True)
    await asyncio.sleep(5)
    assert (await job.info()).running
    ended = await job.wait(timeout=60)
    assert ended.exit_code == 0
    assert b"done" in (await job.output()).data
    begun = time.monotonic()
    while await manager.list():
        assert time.monotonic() - begun < 30
        await asyncio.sleep(0.05)


LONELY = """
import asyncio, os, signal, sys
from pydantic_ai_sandbox import SessionManager
async def main(root):
    manager = SessionManager(workspace_root=root, idle_timeout=3, warm={"python-minimal": 2})
    async with manager:
        sandboxes = await asyncio.gather(*(manager.get_or_create(f"user{n}") for n in range(4)))
        await sandboxes[0].start_job(["sleep", "5"])
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(sys.argv[1]))
"""


async def test_with_no_backend_alive_everything_ends(managers: Callable[..., SessionManager], tmp_path: Path) -> None:
    manager = managers(idle_timeout=3)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", LONELY, str(tmp_path / "users"))
    await process.wait()
    deadline = time.monotonic() + 60
    # One that was just made and not started has nothing in it that could end it; that is for the next backend's tidying.
    while left := [info for info in await manager._submit(manager._population.all) if info.status != "created"]:
        assert time.monotonic() < deadline, f"orphans are left: {left}"
        await asyncio.sleep(0.2)
