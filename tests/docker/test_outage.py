"""A daemon that is stopped, frozen or killed: typed errors within the deadline, and work again when it is back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Generator
from typing import Any

import pytest
from pydantic_ai.workspaces import WorkspaceUnavailableError

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, EngineUnavailableError
from tests.docker.own_daemon import OwnDaemon, own_daemon

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def daemon(docker_api: Any, busybox: str) -> Generator[OwnDaemon]:
    with own_daemon() as daemon:
        daemon.load(docker_api, busybox)
        yield daemon


@pytest.fixture
def restored(daemon: OwnDaemon) -> Generator[OwnDaemon]:
    """The daemon, running again after the test whatever the test did to it."""
    yield daemon
    try:
        DockerEngine(daemon.url, timeout=5).api()
    except EngineUnavailableError:
        daemon.start()


def sandbox(daemon: OwnDaemon, busybox: str, **options: Any) -> DockerSandbox:
    return DockerSandbox(image=busybox, engine=DockerEngine(daemon.url, timeout=3, **options), idle_timeout=60)


@pytest.mark.parametrize("transport", ["socket", "exec"])
async def test_a_stopped_daemon_fails_every_call_in_time_and_works_again(
    restored: OwnDaemon, busybox: str, transport: str
) -> None:
    used = sandbox(restored, busybox, transport=transport)
    fresh = sandbox(restored, busybox, transport=transport)
    await used.run(["true"])
    running = asyncio.create_task(used.run(["sleep", "600"]))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(restored.stop)
    with pytest.raises((EngineUnavailableError, WorkspaceUnavailableError)):
        async with asyncio.timeout(10):
            await running
    for operation in (
        used.run(["true"]),
        used.read_bytes("/f"),
        used.usage(),
        fresh.run(["true"]),
        fresh.working_dir(),
    ):
        with pytest.raises(EngineUnavailableError, match="start it"):
            async with asyncio.timeout(10):
                await operation
    await asyncio.to_thread(restored.start)
    assert (await fresh.run(["echo", "back"])).stdout == "back\n"
    # A daemon that stops ends its containers: this one is gone, and not replaced behind its owner's back.
    with pytest.raises(WorkspaceUnavailableError):
        await used.run(["true"])
    await fresh.aclose()
    await used.aclose()


async def test_a_frozen_daemon_runs_into_the_deadline_and_does_not_disturb_what_runs(
    restored: OwnDaemon, busybox: str
) -> None:
    used, fresh = sandbox(restored, busybox), sandbox(restored, busybox)
    await used.run(["true"])
    restored.send(signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(EngineUnavailableError):
            await fresh.run(["true"])
        assert time.monotonic() - start < 60
        assert (await used.run(["echo", "undisturbed"])).stdout == "undisturbed\n"
    finally:
        restored.send(signal.SIGCONT)
    assert (await fresh.run(["echo", "thawed"])).stdout == "thawed\n"
    await fresh.aclose()
    await used.aclose()


async def test_a_killed_daemon_does_not_disturb_what_runs(restored: OwnDaemon, busybox: str) -> None:
    used = sandbox(restored, busybox)
    await used.write_text("/workspace/f", "kept")
    await asyncio.to_thread(restored.stop, signal.SIGKILL)
    assert (await used.run(["cat", "/workspace/f"])).stdout == "kept"
    with pytest.raises(EngineUnavailableError):
        await used.aclose()
