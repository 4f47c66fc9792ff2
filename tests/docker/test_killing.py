"""What ends a command, ends all of it and nothing else; and why it ended is told by the kernel's word, not by its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from pydantic_ai.workspaces import WorkspaceOutputLimitError, WorkspaceTimeoutError

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, ResourceExhaustedError, ResourceLimits

pytestmark = pytest.mark.docker

FREEZER = Path("/sys/fs/cgroup/freezer")

MARK = "shape-4711"
"""In the command line of everything that belongs to the tree that must be gone."""

FOREGROUND = {
    "plain": f"exec sleep 4711.1 # {MARK}",
    "ignores TERM": f"trap '' TERM INT HUP; while :; do sleep 4711.1; done # {MARK}",
    "background child": f"sleep 4711.1 & wait # {MARK}",
    "quiet background": f"sleep 4711.1 >/dev/null 2>&1 </dev/null & sleep 4711.1 # {MARK}",
    "holds stdout": f"(trap '' TERM; sleep 4711.1) & sleep 4711.1 # {MARK}",
    "kills its parent": f"sh -c 'sh -c \"kill -9 \\$PPID; exec sleep 4711.1\" & wait'; sleep 4711.1 # {MARK}",
    "endless spawner": f"while :; do (sleep 4711.1 &) ; sleep 0.01; done # {MARK}",
    # The bomb is a shell's of its own, because one that cannot fork ends; the first one lives until its timeout.
    "fork bomb": f"b() {{ b | b & }}; (b); while :; do :; done # {MARK}",
}
"""Shapes whose processes all stay in the command's session."""

DETACHED = {
    "setsid": "setsid sleep 4711.1 & sleep 4711.1",
    "double fork, setsid, clean environment": "(env -i setsid sh -c 'sleep 4711.1 & exit') & sleep 4711.1",
}
"""Shapes that move a process into a session of its own, which a workspace must leave alone."""


def host_processes(sandbox: DockerSandbox) -> list[str]:
    """The sandbox's processes as the host sees them, the runner left out."""
    assert sandbox.ref is not None
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if sandbox.ref.id not in (process / "cgroup").read_text():
                continue
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if state != "Z" and not command.startswith("/.sandbox/bin/runner"):
                found.append(command.strip())
    return found


async def settle(sandbox: DockerSandbox, expected: Callable[[list[str]], bool]) -> list[str]:
    """The processes once they are as expected, or what they are after a while."""
    give_up = time.monotonic() + 20
    while not expected(found := host_processes(sandbox)) and time.monotonic() < give_up:
        await asyncio.sleep(0.05)
    return found


@pytest.mark.parametrize("script", FOREGROUND.values(), ids=FOREGROUND.keys())
async def test_a_timeout_takes_the_whole_foreground_tree_and_nobody_else(sandbox: DockerSandbox, script: str) -> None:
    await sandbox.run(["true"])
    neighbour = asyncio.create_task(sandbox.run("sleep 4; echo unharmed", shell=True))
    await asyncio.sleep(0.2)
    start = time.monotonic()
    with pytest.raises(WorkspaceTimeoutError, match="timed out after 1 s"):
        await sandbox.run(script, shell=True, timeout=1)
    assert time.monotonic() - start < 30
    left = await settle(sandbox, lambda found: not any("4711" in command or MARK in command for command in found))
    assert not [command for command in left if "4711" in command or MARK in command]
    assert (await neighbour).stdout == "unharmed\n"
    assert (await sandbox.run(["echo", "alive"], timeout=10)).stdout == "alive\n"


@pytest.mark.parametrize("script", DETACHED.values(), ids=DETACHED.keys())
async def test_a_timeout_leaves_what_detached_itself_alone_and_does_not_wait_for_it(
    sandbox: DockerSandbox, script: str
) -> None:
    await sandbox.run(["true"])
    start = time.monotonic()
    with pytest.raises(WorkspaceTimeoutError):
        await sandbox.run(script, shell=True, timeout=1)
    assert time.monotonic() - start < 30
    left = await settle(sandbox, lambda found: found == ["sleep 4711.1"])
    assert left == ["sleep 4711.1"]
    assert await sandbox.kill_all() == 1
    assert not await settle(sandbox, lambda found: not found)


async def test_cancelling_the_task_stops_the_command_within_a_second(sandbox: DockerSandbox) -> None:
    await sandbox.run(["true"])
    best = math.inf
    for _ in range(3):
        task = asyncio.create_task(sandbox.run("sleep 4711.1 & sleep 4711.1", shell=True))
        assert len(await settle(sandbox, lambda found: len(found) >= 2)) >= 2
        task.cancel()
        start = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await settle(sandbox, lambda found: not found)
        best = min(best, time.monotonic() - start)
    assert best < 1


async def test_output_before_a_timeout_is_kept(sandbox: DockerSandbox) -> None:
    with pytest.raises(WorkspaceTimeoutError) as caught:
        await sandbox.run("echo out; echo err >&2; sleep 4711.1", shell=True, timeout=0.5)
    assert (caught.value.stdout, caught.value.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("code", [124, 137, 143, 255])
async def test_an_exit_code_alone_is_never_taken_for_a_timeout_or_a_kill(sandbox: DockerSandbox, code: int) -> None:
    result = await sandbox.run(f"exit {code}", shell=True, timeout=20)
    assert (result.exit_code, result.cause, result.limit) == (code, "exit", None)


async def test_a_signal_is_named(sandbox: DockerSandbox) -> None:
    result = await sandbox.run("kill -SEGV $$", shell=True)
    assert (result.exit_code, result.cause, result.signal) == (139, "signal", "SIGSEGV")


async def test_running_out_of_memory_is_told_with_the_limit_and_spares_the_runner(
    make_sandbox: Callable[..., DockerSandbox],
) -> None:
    sandbox = make_sandbox(limits=ResourceLimits(memory="128MiB", workspace="16MiB", tmp="16MiB"))  # pyright: ignore[reportArgumentType]
    hog = "x = []\nwhile True: x.append(bytearray(8 * 1024 * 1024))"
    result = await sandbox.run(["python3", "-c", hog], timeout=60)
    assert (result.exit_code, result.cause, result.limit) == (137, "out_of_memory", "128 MiB of memory")
    in_a_shell = await sandbox.run(f"python3 -c '{hog}'; exit $?", shell=True, timeout=60)
    assert (in_a_shell.exit_code, in_a_shell.cause) == (137, "out_of_memory")
    assert (await sandbox.run(["echo", "alive"])).stdout == "alive\n"
    assert (await sandbox.usage()).oom_kills >= 2


async def test_running_out_of_processes_is_told_with_the_limit(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox(limits=ResourceLimits(pids=48))
    spawn = "import subprocess\nfor _ in range(100): subprocess.Popen(['sleep', '4711.1'])"
    result = await sandbox.run(["python3", "-c", spawn], timeout=60)
    assert (result.cause, result.limit) == ("too_many_processes", "48 processes")
    assert result.exit_code != 0
    with pytest.raises(ResourceExhaustedError, match="cannot start another process"):
        for _ in range(40):
            await sandbox.start_job(["sleep", "4711.1"])
    assert await sandbox.kill_all() > 10
    assert (await sandbox.run(["echo", "alive"])).stdout == "alive\n"


@contextlib.contextmanager
def unkillable(sandbox: DockerSandbox, count: int) -> Generator[None]:
    """Once its processes are that many, those which the runner started stand still in a way that only ends with this."""
    assert sandbox.ref is not None
    engine = sandbox.engine
    assert isinstance(engine, DockerEngine)
    runner = str(engine.api().inspect_container(sandbox.ref.id)["State"]["Pid"])
    lines = Path("/proc", runner, "cgroup").read_text().splitlines()
    (path,) = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == "freezer"]
    folder = FREEZER / path.lstrip("/")
    give_up = time.monotonic() + 30
    while len(host_processes(sandbox)) < count:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    others = [process for process in (folder / "cgroup.procs").read_text().split() if process != runner]
    place = folder / "unkillable"
    place.mkdir()
    try:
        for process in others:
            with contextlib.suppress(ProcessLookupError):
                (place / "cgroup.procs").write_text(process)
        (place / "freezer.state").write_text("FROZEN")
        yield
    finally:
        (place / "freezer.state").write_text("THAWED")
        while (place / "cgroup.procs").read_text():
            time.sleep(0.01)
        place.rmdir()


@pytest.mark.skipif(not FREEZER.is_dir(), reason="by cgroup v2 what is frozen can be killed")
async def test_whoever_comes_while_what_was_stopped_still_dies_waits_for_that(
    make_sandbox: Callable[..., DockerSandbox],
) -> None:
    # As where a disk or another container's processes keep them in the kernel.
    sandbox = make_sandbox(limits=ResourceLimits(pids=48))
    await sandbox.run(["true"])
    bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)"
    stopped = asyncio.create_task(sandbox.execute(["python3", "-c", bomb], timeout=2))
    begun = asyncio.Event()

    def hold() -> None:
        with unkillable(sandbox, 24):
            stopped.get_loop().call_soon_threadsafe(begun.set)
            release.wait(60)

    release = threading.Event()
    holding = asyncio.create_task(asyncio.to_thread(hold))
    try:
        assert (await stopped).cause == "timeout"
        assert begun.is_set()
        coming = asyncio.create_task(sandbox.run("true & true & wait; echo done", shell=True))
        starting = asyncio.create_task(sandbox.start_job(["echo", "job"]))
        await asyncio.sleep(1)
        assert not coming.done()
        assert not starting.done()
    finally:
        release.set()
        await holding
    assert (await coming).stdout == "done\n"
    assert (await (await starting).wait(20)).exit_code == 0


async def test_too_much_output_is_an_error_that_keeps_the_beginning_and_never_a_shortened_success(
    sandbox: DockerSandbox,
) -> None:
    with pytest.raises(WorkspaceOutputLimitError) as caught:
        await sandbox.run("seq 1000000; echo done", shell=True)
    assert caught.value.stdout.startswith("1\n2\n3\n")
    assert caught.value.limit == 1024 * 1024


@pytest.mark.parametrize("flood", ["yes", "cat /dev/zero", "yes >&2", "yes & yes >&2"])
async def test_an_output_flood_is_stopped_at_once(sandbox: DockerSandbox, flood: str) -> None:
    execution = await sandbox.execute(flood, shell=True, timeout=120)
    assert (execution.cause, execution.limit) == ("output_limit", "16 MiB")
    assert not await settle(sandbox, lambda found: not found)


FLOODED = """
import asyncio, contextlib, json, resource, sys, time
from pydantic_ai.workspaces import WorkspaceOutputLimitError
from pydantic_ai_sandbox import DockerSandbox

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

async def main(flood):
    async with DockerSandbox(idle_timeout=90) as sandbox:
        await sandbox.run(["true"])
        before = peak()
        job = await sandbox.start_job(flood, shell=True)
        end = time.monotonic() + 60
        printed = 0
        async with sandbox.stream(flood, shell=True) as stream:
            async for chunk in stream:
                printed += len(chunk.data)
                # A consumer slower than the flood: it must wait, not pile up.
                await asyncio.sleep(0.001)
                if time.monotonic() > end:
                    break
        with contextlib.suppress(WorkspaceOutputLimitError):
            await sandbox.run(flood, shell=True, timeout=10)
        backend, runner = peak() - before, (await sandbox.usage()).runner_rss
        job_printed = (await job.info()).output
        print(json.dumps([printed, job_printed, runner, backend, (await job.stop()).running]))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
async def test_a_minute_of_flood_raises_the_backends_memory_by_less_than_32_mb() -> None:
    async def flooded(flood: str) -> None:
        # In a process of its own: the peak of this one may be high already, and would hide any growth below it.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FLOODED, flood, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        printed, job_printed, runner, backend, running = json.loads(out)
        assert min(printed, job_printed) > 32 * 1024 * 1024, flood
        assert backend < 32 * 1024 * 1024, flood
        assert runner < 32 * 1024 * 1024, flood
        assert running is False

    await asyncio.gather(flooded("yes"), flooded("cat /dev/zero"))
