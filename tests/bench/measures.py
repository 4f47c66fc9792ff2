"""The measurements. Every one makes the sandboxes it needs and removes them."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, Interpreter, ResourceLimits, SessionManager, run_once

from .report import Report, in_blocks, in_turns, ms

Measure = Callable[[Report], Awaitable[None]]

TRANSPORTS: tuple[Literal["socket", "exec"], ...] = ("socket", "exec")
KIB, MIB = 1024, 1024 * 1024


@asynccontextmanager
async def running(transport: Literal["socket", "exec"] = "socket", **options: Any) -> AsyncGenerator[DockerSandbox]:
    """A sandbox that has been used once."""
    async with DockerSandbox(engine=DockerEngine(transport=transport), idle_timeout=600, **options) as sandbox:
        await sandbox.run(["true"])
        yield sandbox


async def host_true() -> None:
    process = await asyncio.create_subprocess_exec(
        "true", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await process.communicate()


def docker_exec(sandbox: DockerSandbox, *command: str) -> Callable[[], Awaitable[object]]:
    """The same command by docker-py's exec, in the same container."""
    assert isinstance(sandbox.engine, DockerEngine)
    assert sandbox.ref is not None
    api, container = sandbox.engine.api(), sandbox.ref.id

    def call() -> bytes:
        return api.exec_start(api.exec_create(container, list(command))["Id"])

    return lambda: asyncio.to_thread(call)


async def commands(report: Report) -> None:
    """One command at a time."""
    for transport in TRANSPORTS:
        async with running(transport) as sandbox:
            ours, host = await in_turns(300, lambda: sandbox.run(["true"]), host_true)
            # In blocks: what one exec leaves the daemon to clean up must not be counted against the next command.
            again, by_exec = await in_blocks(10, (lambda: sandbox.run(["true"]), 30), (docker_exec(sandbox, "true"), 4))
        bound = transport == "socket"
        report.line(f"run(['true']), {transport}", ms(ours))
        ratio = ours / host
        report.line(
            "  / host asyncio subprocess", f"{ratio:.2f} ({ms(host)})", "<= 1.7", ratio <= 1.7 if bound else None
        )
        ratio = by_exec / again
        report.line("  docker-py exec / it", f"{ratio:.0f} ({ms(by_exec)})", ">= 30", ratio >= 30 if bound else None)


async def files(report: Report) -> None:
    """Reading and writing, small and large."""
    small, large = os.urandom(KIB), os.urandom(10 * MIB)
    for transport in TRANSPORTS:
        bound = transport == "socket"
        async with running(transport) as sandbox:
            await sandbox.write_bytes("/workspace/large", large)
            await sandbox.write_bytes("/workspace/small", small)
            read, write = await in_turns(
                300,
                lambda: sandbox.read_bytes("/workspace/small"),
                lambda: sandbox.write_bytes("/workspace/small", small),
            )
            report.line(f"read 1 KiB, {transport}", ms(read), "<= 1 ms", read <= 0.001 if bound else None)
            report.line(f"write 1 KiB, {transport}", ms(write), "<= 1 ms", write <= 0.001 if bound else None)
            read, write = await in_turns(
                20,
                lambda: sandbox.read_bytes("/workspace/large"),
                lambda: sandbox.write_bytes("/workspace/large", large),
            )
            speed = 10 * MIB / read / 1e6
            report.line(
                f"read 10 MiB, {transport}", f"{speed:.0f} MB/s", ">= 100 MB/s", speed >= 100 if bound else None
            )
            speed = 10 * MIB / write / 1e6
            report.line(f"write 10 MiB, {transport}", f"{speed:.0f} MB/s", ">= 80 MB/s", speed >= 80 if bound else None)


async def listing(report: Report) -> None:
    """A directory of 1,000 entries."""
    async with running() as sandbox:
        await sandbox.run("mkdir d && cd d && touch $(seq 1000)", shell=True)
        (taken,) = await in_turns(50, lambda: sandbox.list_dir("/workspace/d"))
        assert len(await sandbox.list_dir("/workspace/d")) == 1000
    report.line("ls of 1,000 entries", ms(taken), "<= 8 ms", taken <= 0.008)


MAKE_TREE = """
i=0; while [ $i -lt 50 ]; do mkdir -p tree/$i; j=0; while [ $j -lt 100 ]; do
printf 'import os\\n\\ndef f_%s_%s(x):\\n    return os.path.join(x, "%s")\\n' $i $j $j > tree/$i/$j.py; j=$((j+1)); done; i=$((i+1)); done
"""


async def searching(report: Report) -> None:
    """A tree of 5,000 small files, as fast as GNU grep."""
    async with running() as sandbox:
        await sandbox.run(MAKE_TREE, shell=True)
        ours, theirs, run = await in_turns(
            15,
            lambda: sandbox.grep("f_4[0-9]_77", "/workspace/tree", mode="content"),
            docker_exec(sandbox, "grep", "-rnE", "f_4[0-9]_77", "/workspace/tree"),
            lambda: sandbox.run(["grep", "-rnE", "f_4[0-9]_77", "/workspace/tree"]),
        )
        assert len((await sandbox.grep("f_4[0-9]_77", "/workspace/tree", mode="content")).lines) == 10
    report.line("grep over 5,000 files", ms(ours))
    report.line("  / grep -rn by docker exec", f"{ours / theirs:.2f} ({ms(theirs)})", "<= 1", ours <= theirs)
    report.line("  / grep -rn by our own run", f"{ours / run:.2f} ({ms(run)})")


async def starting(report: Report) -> None:
    """From nothing to the first result, the image being there."""
    engine = DockerEngine()
    async with DockerSandbox(engine=engine) as sandbox:
        await sandbox.run(["true"])
        assert sandbox.info is not None
        image = sandbox.info.spec.image
    api = engine.api()
    ours: list[float] = []
    plain: list[float] = []
    for number in range(11):
        start = time.perf_counter()
        sandbox = DockerSandbox(engine=engine)
        await sandbox.run(["true"])
        mine = time.perf_counter() - start
        await sandbox.aclose()
        start = time.perf_counter()
        container = await asyncio.to_thread(_run_plainly, api, image)
        theirs = time.perf_counter() - start
        await asyncio.to_thread(api.remove_container, container, force=True)
        if number:
            ours.append(mine)
            plain.append(theirs)
    mine, theirs = statistics.median(ours), statistics.median(plain)
    report.line("first result from nothing", ms(mine))
    report.line("  / docker run + exec", f"{mine / theirs:.2f} ({ms(theirs)})", "<= 0.5", mine <= 0.5 * theirs)


def _run_plainly(api: Any, image: str) -> str:
    """What one writes without us: a container on the default network, and an exec."""
    config = api.create_container(image, ["sleep", "600"], labels={"pydantic-ai-sandbox.bench": "1"})
    api.start(config["Id"])
    api.exec_start(api.exec_create(config["Id"], ["true"])["Id"])
    return config["Id"]


async def once(report: Report) -> None:
    """A container for one command, beside the first result of a sandbox."""
    engine = DockerEngine()
    api = engine.api()
    sandboxes: list[float] = []
    commands: list[float] = []
    for number in range(11):
        start = time.perf_counter()
        sandbox = DockerSandbox(engine=engine)
        await sandbox.run(["true"])
        cold = time.perf_counter() - start
        await sandbox.aclose()
        before = len(api.containers(all=True))
        start = time.perf_counter()
        await run_once("python-minimal", ["true"], engine=engine)
        taken = time.perf_counter() - start
        while len(api.containers(all=True)) > before:
            await asyncio.sleep(0.02)
        if number:
            sandboxes.append(cold)
            commands.append(taken)
    cold, taken = statistics.median(sandboxes), statistics.median(commands)
    report.line("run_once", ms(taken))
    report.line(
        "  / first result of a sandbox from nothing", f"{taken / cold:.2f} ({ms(cold)})", "<= 1.2", taken <= 1.2 * cold
    )


async def concurrency(report: Report) -> None:
    """32 callers at once, and an event loop that stays awake."""
    gaps: list[float] = []

    async def heartbeat() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            gaps.append(now - last - 0.005)
            last = now

    async with running() as sandbox:
        count = 2000
        numbers = itertools.count()

        async def caller() -> None:
            while next(numbers) < count:
                await sandbox.run(["true"])

        beat = asyncio.create_task(heartbeat())
        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(32)))
        taken = time.perf_counter() - start
        beat.cancel()
    rate = count / taken
    p99 = statistics.quantiles(gaps, n=100)[98]
    report.line("true, 32 at once", f"{rate:.0f}/s", ">= 400/s", rate >= 400)
    report.line("  longest gap of a heartbeat, p99", ms(p99), "<= 100 ms", p99 <= 0.1)


async def memory(report: Report) -> None:
    """What the runner occupies in an idle container."""
    async with running() as sandbox:
        await asyncio.gather(*(sandbox.run(["true"]) for _ in range(200)))
        await asyncio.sleep(5)
        usage = await sandbox.usage()
    megabytes = usage.runner_rss / 1e6
    report.line("runner, idle", f"{megabytes:.1f} MB RSS", "<= 12 MB", megabytes <= 12)
    report.line("container, idle", f"{usage.memory / 1e6:.1f} MB charged")


async def sessions(report: Report) -> None:
    """What a backend with many users waits for."""
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-") as root:
        manager = SessionManager(workspace_root=root, idle_timeout=600)
        try:
            await manager.get_or_create("live")
            (live,) = await in_turns(300, lambda: manager.get_or_create("live"))
            await (await manager.get_or_create("returning")).write_bytes("/workspace/f", os.urandom(MIB))
            fresh, returning = await _cold_starts(manager)
            start = time.perf_counter()
            await asyncio.gather(*(_first_result(manager, f"crowd{number}") for number in range(32)))
            crowd = time.perf_counter() - start
        finally:
            for session in await manager.list():
                await manager.stop(session.user_id)
            await manager.aclose()
    report.line("get_or_create of a live session", ms(live), "<= 2 ms", live <= 0.002)
    report.line("first result for a new user", ms(fresh))
    report.line("  returning user / new user", f"{returning / fresh:.2f}", "<= 1.1", returning <= 1.1 * fresh)
    report.line("  32 new users at once / one", f"{crowd / fresh:.1f}", "<= 16", crowd <= 16 * fresh)


async def _cold_starts(manager: SessionManager) -> list[float]:
    numbers = itertools.count()

    async def new_user() -> None:
        await _first_result(manager, f"fresh{next(numbers)}")

    async def returning_user() -> None:
        await _first_result(manager, "returning")

    times: list[list[float]] = [[], []]
    for _ in range(15):
        for action, taken in zip((new_user, returning_user), times, strict=True):
            await manager.stop("returning")
            start = time.perf_counter()
            await action()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


async def _first_result(manager: SessionManager, user_id: str) -> None:
    await (await manager.get_or_create(user_id)).run(["true"])


async def warm(report: Report) -> None:
    """What a new user waits for when containers were started ahead."""
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-") as folder:
        cold = SessionManager(workspace_root=f"{folder}/cold", idle_timeout=600)
        warm = {"python-minimal": 2}
        async with SessionManager(workspace_root=f"{folder}/warm", idle_timeout=600, warm=warm) as manager:
            try:
                times: list[list[float]] = [[], []]
                for number in range(20):
                    for how, taken in zip((manager, cold), times, strict=True):
                        await _filled(manager, 2)
                        await asyncio.sleep(0.1)
                        start = time.perf_counter()
                        await _first_result(how, f"{how is manager}{number}")
                        taken.append(time.perf_counter() - start)
                        await how.stop(f"{how is manager}{number}")
            finally:
                for how in (manager, cold):
                    for session in await how.list():
                        await how.stop(session.user_id)
                await cold.aclose()
        claimed, made = (statistics.median(taken) for taken in times)
        _remove_waiting(manager)
    report.line("first result for a new user, started ahead", ms(claimed), "<= 20 ms", claimed <= 0.020)
    report.line("  made on demand / started ahead", f"{made / claimed:.1f}", ">= 8", made >= 8 * claimed)


async def _filled(manager: SessionManager, count: int) -> None:
    """Wait until so many containers wait for users."""
    folder = manager._directories.own / "warm"
    while len(list(folder.glob("*/*.ready"))) < count:
        await asyncio.sleep(0.05)


def _remove_waiting(manager: SessionManager) -> None:
    for info in manager._household.warm.waiting():
        manager._engine.remove(info.id)


async def crowd(report: Report) -> None:
    """What sandboxes cost that nobody uses."""
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-") as root:
        manager = SessionManager(workspace_root=root, idle_timeout=600)
        try:
            before, own_before = _host_memory(), _own_memory()
            for count in (50, 100):
                await asyncio.gather(*(_first_result(manager, f"user{number}") for number in range(count)))
                await asyncio.sleep(2)
                each = (before - _host_memory()) / count
                own = (_own_memory() - own_before) / count
                report.line(f"memory of the host per idle session, {count} sessions", f"{each / MIB:.1f} MiB")
                report.line("  of which in this process", f"{own / 1024:.0f} KiB")
        finally:
            for session in await manager.list():
                await manager.stop(session.user_id)
            await manager.aclose()


def _host_memory() -> int:
    """Bytes that the host still has for programs."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _own_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def processors(report: Report) -> None:
    """The same commands with two processors, for what the limit of one costs."""
    async with running(limits=ResourceLimits(cpus=2)) as sandbox:
        (taken,) = await in_turns(300, lambda: sandbox.run(["true"]))
    report.line("run(['true']), socket, 2 cpus", ms(taken))


BARE_KERNEL = """
import statistics, time
began = time.perf_counter()
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
client.execute_interactive("1 + 1", output_hook=print)
first = time.perf_counter() - began
times = []
for _ in range(60):
    began = time.perf_counter()
    client.execute_interactive("1 + 1", output_hook=lambda message: None)
    times.append(time.perf_counter() - began)
print(first, statistics.median(times))
manager.shutdown_kernel(now=True)
"""


async def interpreting(report: Report) -> None:
    """A Python that remembers, beside a Jupyter kernel that is used from within the same container."""
    firsts: list[float] = []
    laters: list[float] = []
    bare_firsts: list[float] = []
    bare_laters: list[float] = []
    async with DockerSandbox("python-datascience", idle_timeout=600) as sandbox:
        interpreter = Interpreter(sandbox)
        for number in range(8):
            await interpreter.shutdown()
            start = time.perf_counter()
            await interpreter.run("1 + 1")
            first = time.perf_counter() - start
            (later,) = await in_turns(60, lambda: interpreter.run("1 + 1"))
            await interpreter.shutdown()
            said = await sandbox.run(["python3", "-c", BARE_KERNEL])
            bare_first, bare_later = map(float, said.stdout.splitlines()[-1].split())
            if number:
                firsts.append(first)
                laters.append(later)
                bare_firsts.append(bare_first)
                bare_laters.append(bare_later)
    first, later, bare_first, bare_later = map(statistics.median, (firsts, laters, bare_firsts, bare_laters))
    report.line("first cell of an interpreter", ms(first))
    report.line(
        "  / a bare kernel's start and first cell",
        f"{first / bare_first:.2f} ({ms(bare_first)})",
        "<= 1.5",
        first <= 1.5 * bare_first,
    )
    report.line("later cell, 1 + 1", ms(later), "<= 10 ms", later <= 0.010)
    report.line("  / jupyter_client beside the kernel", f"{later / bare_later:.2f} ({ms(bare_later)})")


MEASURES: dict[str, Measure] = {
    "commands": commands,
    "files": files,
    "listing": listing,
    "searching": searching,
    "starting": starting,
    "once": once,
    "concurrency": concurrency,
    "memory": memory,
    "sessions": sessions,
    "warm": warm,
    "crowd": crowd,
    "processors": processors,
    "interpreting": interpreting,
}
