"""What a command does to outlive its timeout."""

from __future__ import annotations

import asyncio
import subprocess
import time
from functools import partial

import pytest
from pydantic_ai.workspaces import WorkspaceTimeoutError

from tests.attacks.lab import Lab, Plain
from tests.attacks.registry import Family
from tests.docker.test_killing import DETACHED, FOREGROUND, host_processes

family = Family("timeouts")

TIMEOUT = 0.4

MARK = "4711"
"""In every command line of theirs."""


def _left(plain: Plain) -> bool:
    return any(MARK in process for process in plain.processes())


def _naive(script: str, lab: Lab) -> bool:
    # The outer limit is for the fork bomb.
    plain = lab.another_plain(pids_limit=300)
    client = subprocess.Popen(["docker", "exec", plain.id, "sh", "-c", script], stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 5
    while not _left(plain) and time.monotonic() < give_up:
        time.sleep(0.02)
    with pytest.raises(subprocess.TimeoutExpired):
        client.wait(TIMEOUT)
    client.kill()
    client.wait()
    time.sleep(0.2)
    return _left(plain)


async def _ours(script: str, detached: bool, lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    began = time.monotonic()
    with pytest.raises(WorkspaceTimeoutError):
        await sandbox.run(script, shell=True, timeout=TIMEOUT)
    assert time.monotonic() - began < 10
    if detached:
        # A workspace leaves it alone, as its contract wants; one call ends it.
        await sandbox.kill_all()
    give_up = time.monotonic() + 3
    while any(MARK in process for process in host_processes(sandbox)):
        if time.monotonic() > give_up:
            return True
        await asyncio.sleep(0.02)
    return False


for _detached, _shapes in ((False, FOREGROUND), (True, DETACHED)):
    for _name, _script in _shapes.items():
        family.pair(
            f"is still there after its timeout: {_name}",
            against="`docker exec`, and the client gives up",
            naive=partial(_naive, _script),
            ours=partial(_ours, _script, _detached),
            quick=_name in ("ignores TERM", "double fork, setsid, clean environment"),
        )
