"""Whether limits hold, found out by running into them."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import Any

from pydantic_ai.workspaces import WorkspaceUnavailableError

from ..errors import EngineUnavailableError, SandboxError
from ..protocols import CauseOfDeath, Execution
from ..sandbox import Sandbox
from ..spec import ContainerSpec, readable_size
from .results import Check, printable

__all__ = ("LIMITS", "limits_as_set", "limits_by_exhaustion", "unknown_limits")

LIMITS = ("memory limit", "process limit", "processor limit")

_PATIENCE = 60.0
"""Seconds that using up a limit may take on a busy machine."""

_BEYOND = 32 * 1024 * 1024
"""Bytes above the limit that a process tries to have."""

_FULL = 7
"""Exit status of a program that was refused another process."""

_FILL = """
import mmap, sys
size = int(sys.argv[1])
memory = mmap.mmap(-1, size)
for at in range(0, size, 4096):
    memory[at] = 1
"""

_FORK = f"""
import os, signal, sys
children = []
try:
    for _ in range(int(sys.argv[1])):
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            signal.pause()
            os._exit(0)
        children.append(child)
    status = 0
except OSError:
    status = {_FULL}
for child in children:
    os.kill(child, signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
os._exit(status)
"""

_BURN = """
import os, sys, time
def throttled():
    for path in ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/cpu,cpuacct/cpu.stat"):
        try:
            fields = dict(line.split() for line in open(path))
            return int(fields["nr_throttled"])
        except (OSError, KeyError, ValueError):
            pass
    return -1
before, children = throttled(), []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            pass
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
times = os.times()
print(throttled() - before if before >= 0 else -1, times.children_user + times.children_system)
"""

_BURNT = 1.5
"""Seconds for which `_BURN` keeps processors busy."""


async def limits_by_exhaustion(sandbox: Sandbox, spec: ContainerSpec, processors: int) -> tuple[Check, ...]:
    """Try to get more of everything than the limits allow; what else runs there may suffer.

    Raises:
        EngineUnavailableError: The engine does not answer.
    """
    # The gentlest first: a runtime whose own processes count towards the limits may end with the whole sandbox.
    tries: dict[str, Coroutine[Any, Any, Check]] = {
        "processor limit": _processor_time(sandbox, spec, processors),
        "memory limit": _memory(sandbox, spec),
        "process limit": _processes(sandbox, spec),
    }
    checks: dict[str, Check] = {}
    gone = False
    for name, attempt in tries.items():
        if gone:
            attempt.close()
            checks[name] = Check(name=name, verdict="skipped", seen="the sandbox has ended")
            continue
        try:
            checks[name] = await attempt
        except EngineUnavailableError:
            raise
        except (WorkspaceUnavailableError, SandboxError) as error:
            gone = True
            checks[name] = _took_all(name, error)
    return tuple(checks[name] for name in LIMITS)


def _took_all(name: str, error: Exception) -> Check:
    return Check(
        name=name,
        verdict="warn",
        seen=f"running into it ended the whole sandbox, not only what ran into it: {printable(str(error))}",
        remedy="raise the limit, or take the engine's default OCI runtime, if sandboxes must outlive it",
    )


async def limits_as_set(sandbox: Sandbox, spec: ContainerSpec) -> tuple[Check, ...]:
    """Only read what limits the kernel knows.

    Raises:
        SandboxError: The sandbox cannot be used.
    """
    usage = await sandbox.usage()
    return (
        _as_set("memory limit", usage.memory_limit, int(spec.limits.memory)),
        _as_set("process limit", usage.pids_limit, spec.limits.pids),
        Check(
            name="processor limit", verdict="skipped", seen="not tried: exhaust=True does, and may disturb what runs"
        ),
    )


def unknown_limits(reason: str) -> tuple[Check, ...]:
    """The limits, when nobody can run into them."""
    return tuple(Check(name=name, verdict="skipped", seen=reason) for name in LIMITS)


def _as_set(name: str, found: int | None, wanted: int) -> Check:
    if found is None:
        return _no_limit(name, "the kernel knows none")
    if found > wanted:
        return _no_limit(name, f"the kernel's is {found}, {wanted} was asked for")
    return Check(name=name, verdict="ok", seen=f"{found}; not tried: exhaust=True does, and may disturb what runs")


def _no_limit(name: str, seen: str) -> Check:
    controller = {"memory limit": "memory", "process limit": "pids", "processor limit": "cpu"}[name]
    return Check(
        name=name,
        verdict="fail",
        seen=seen,
        remedy=f"let the engine use the {controller} controller of cgroups (`docker info` warns when it cannot)",
    )


async def _memory(sandbox: Sandbox, spec: ContainerSpec) -> Check:
    limit = int(spec.limits.memory)
    done = await _run(sandbox, _FILL, limit + _BEYOND)
    return _held("memory limit", done, "out_of_memory", readable_size(limit), used_up=done.cause == "signal")


async def _processes(sandbox: Sandbox, spec: ContainerSpec) -> Check:
    limit = spec.limits.pids
    done = await _run(sandbox, _FORK, limit + 1)
    return _held("process limit", done, "too_many_processes", f"{limit} processes", used_up=done.exit_code == _FULL)


async def _run(sandbox: Sandbox, program: str, argument: int) -> Execution:
    return await sandbox.execute(["python3", "-I", "-c", program, str(argument)], timeout=_PATIENCE)


def _held(name: str, done: Execution, cause: CauseOfDeath, limit: str, *, used_up: bool) -> Check:
    """Whether a limit stopped a program and the runner said so."""
    if done.cause == cause:
        return Check(name=name, verdict="ok", seen=f"{limit} were used up, and the runner said {cause}")
    if used_up:
        return Check(
            name=name,
            verdict="warn",
            seen=f"more than {limit} were refused, but the runner said {done.cause}",
            remedy="commands that run into it cannot be told from others that fail: look at their output",
        )
    if done.exit_code == 0:
        return _no_limit(name, f"more than {limit} were had")
    said = printable(done.stderr.head[-200:])
    return Check(
        name=name, verdict="skipped", seen=f"nobody could tell: {done.cause} ({done.exit_code}) {said}".rstrip()
    )


async def _processor_time(sandbox: Sandbox, spec: ContainerSpec, processors: int) -> Check:
    name, cpus = "processor limit", spec.limits.cpus
    if processors <= cpus:
        return Check(name=name, verdict="skipped", seen=f"{cpus:g} allowed, and there are no more than {processors}")
    done = await _run(sandbox, _BURN, min(math.floor(cpus) + 1, processors))
    try:
        throttled, burnt = (float(number) for number in done.stdout.head.split())
    except ValueError:
        return Check(name=name, verdict="skipped", seen=f"nobody could tell: {done.cause} ({done.exit_code})")
    seen = f"{burnt / _BURNT:.2f} processors were had, {cpus:g} are allowed"
    if throttled > 0:
        return Check(name=name, verdict="ok", seen=f"{seen}; the kernel made it wait {throttled:.0f} times")
    if throttled < 0:
        return Check(
            name=name, verdict="skipped", seen=f"{seen}, by the accounts of a kernel that does not say who waits"
        )
    if burnt > 1.3 * cpus * _BURNT:
        return _no_limit(name, seen)
    return Check(name=name, verdict="skipped", seen=f"{seen}; the machine is too busy to tell")
