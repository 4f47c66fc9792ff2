"""One command in a container of its own that nobody has to clean up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.workspaces import WorkspaceTimeoutError

from pydantic_ai_sandbox import ResourceLimits, RuntimeConfig, RuntimeNotFoundError, run_once
from tests.docker.noting import NotingEngine

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session")
def engine() -> NotingEngine:
    return NotingEngine()


@pytest.fixture(autouse=True)
def nothing_left(engine: NotingEngine) -> Generator[None]:
    """Every container that a test made is gone shortly after it."""
    yield
    deadline = time.monotonic() + 30
    while left := engine.containers():
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


async def test_a_runtime_runs_a_command_on_files(engine: NotingEngine, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"\0\xff")
    files = {
        "main.py": "print(open('sub/data.bin', 'rb').read())",
        "sub/data.bin": tmp_path / "data.bin",
        "/tmp/x": b"y",
    }
    result = await run_once("python-minimal", ["python", "main.py"], files=files, engine=engine)
    assert (result.exit_code, result.stdout) == (0, "b'\\x00\\xff'\n")


async def test_any_image_will_do(engine: NotingEngine, busybox: str) -> None:
    result = await run_once(busybox, "cat; echo $A; exit 3", shell=True, stdin=b"in ", env={"A": "b"}, engine=engine)
    assert (result.exit_code, result.stdout) == (3, "in b\n")


async def test_it_is_as_closed_as_a_sandbox(engine: NotingEngine) -> None:
    script = "id -u; ls /sys/class/net; touch /usr/x 2>&1; grep CapEff /proc/self/status"
    result = await run_once("python-minimal", script, shell=True, limits=ResourceLimits(pids=64), engine=engine)
    uid, interface, refusal, capabilities = result.stdout.splitlines()
    assert (uid, interface) == ("10001", "lo")
    assert refusal.endswith("Read-only file system")
    assert int(capabilities.split()[1], 16) == 0


async def test_it_is_removed_after_a_timeout_too(engine: NotingEngine) -> None:
    with pytest.raises(WorkspaceTimeoutError) as caught:
        await run_once("python-minimal", "echo begun; sleep 60", shell=True, timeout=1, engine=engine)
    assert caught.value.stdout == "begun\n"


async def test_it_is_removed_when_its_caller_is_cancelled(engine: NotingEngine) -> None:
    for delay in (0.0, 0.05, 0.2, 1.0):
        task = asyncio.create_task(run_once("python-minimal", ["sleep", "60"], engine=engine))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_fifty_at_once_each_have_their_own(engine: NotingEngine) -> None:
    async def one(number: int) -> str:
        command = "cat mine; ls | wc -l"
        result = await run_once("python-minimal", command, shell=True, files={"mine": f"{number}\n"}, engine=engine)
        return result.stdout

    answers = await asyncio.gather(*(one(number) for number in range(50)))
    assert answers == [f"{number}\n1\n" for number in range(50)]
    deadline = time.monotonic() + 60
    while left := engine.containers():
        assert time.monotonic() < deadline, f"{len(left)} containers are left"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("what", "complaint"), [("no such image", RuntimeNotFoundError), (RuntimeConfig(name="x", git="y"), Exception)]
)
async def test_what_cannot_be_had_is_said(engine: NotingEngine, what: Any, complaint: type[Exception]) -> None:
    with pytest.raises(complaint, match=r"not a name for an image|not the address"):
        await run_once(what, ["true"], engine=engine)


async def test_files_that_cannot_be_read_are_said_before_anything_is_made(engine: NotingEngine, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await run_once("python-minimal", ["true"], files={"a": tmp_path / "missing"}, engine=engine)
