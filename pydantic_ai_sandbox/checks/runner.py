"""Whether the runner is ours and well, and how it is reached."""

from __future__ import annotations

import hashlib
import time

from ..errors import EngineError, SandboxError
from ..runtimes import runner_binary
from ..sandbox import Sandbox
from ..spec import MOUNT_ROOT
from .results import Check

__all__ = ("check_runner", "check_transport")

_BINARY = f"{MOUNT_ROOT}/bin/runner"

_ARCHITECTURES = ("amd64", "arm64")

_TIMES = 5
"""Round trips of which the fastest counts: a busy machine makes any single one slow."""


async def check_runner(sandbox: Sandbox) -> Check:
    """Whether it answers, and whether its program is the one that this package carries."""
    name = "runner"
    try:
        fastest = min([await _round_trip(sandbox) for _ in range(_TIMES)])
        found = await sandbox.read_bytes(_BINARY)
    except (SandboxError, OSError) as error:
        return Check(
            name=name, verdict="fail", seen=str(error), remedy="make a new sandbox; this one's runner does not work"
        )
    seen = f"answers in {fastest * 1000:.1f} ms"
    if hashlib.sha256(found).digest() in _known():
        return Check(name=name, verdict="ok", seen=f"{seen}; its program is this package's")
    return Check(
        name=name,
        verdict="fail",
        seen=f"{seen}; its program is not the one that this package carries",
        remedy="make a new sandbox; if that is no better, somebody changed the volume it comes from: "
        "`pydantic-ai-sandbox remove` removes it, and it is made again",
    )


async def _round_trip(sandbox: Sandbox) -> float:
    started = time.monotonic()
    await sandbox.usage()
    return time.monotonic() - started


def _known() -> set[bytes]:
    known: set[bytes] = set()
    for architecture in _ARCHITECTURES:
        try:
            known.add(hashlib.sha256(runner_binary(architecture).read_bytes()).digest())
        except EngineError:
            # This installation lacks it; a container of that architecture could not have been made by it.
            continue
    return known


def check_transport(sandbox: Sandbox) -> Check:
    """How the runner is reached, and what that costs."""
    transport = sandbox.transport
    if transport == "exec":
        return Check(
            name="transport",
            verdict="ok",
            seen="one `docker exec` stream: each command costs about a third more than through the runner's own socket, "
            "which takes a local daemon and a backend that is root",
        )
    if transport is None:
        return Check(name="transport", verdict="skipped", seen="the runner is not reached")
    return Check(name="transport", verdict="ok", seen="the runner's own socket, the fastest way")
