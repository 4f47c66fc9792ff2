"""What of ours is left behind: containers, volumes, networks, processes, files. Used at the end of every test run.

Run as `python -m tests.leaks` it lists what is there now, for instance after a test run that was killed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import docker

from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.engines.docker.containers import list_containers, listed_name
from pydantic_ai_sandbox.errors import EngineUnavailableError

MANAGED = {"label": "pydantic-ai-sandbox.managed"}
"""What every container, volume and network of ours carries."""

RUNNER_VOLUME = "pydantic-ai-sandbox-runner-"
"""Volumes that stay on purpose: they carry the runner's binary, one per version and architecture."""

FILE_PREFIXES = ("pydantic-ai-sandbox", "pydantic_ai_sandbox", "bootstrap-")

RUN_VARIABLE = "PYDANTIC_AI_SANDBOX_TEST_RUN"
"""Set in this process for its descendants to inherit: it identifies them even when their parents are gone."""

GRACE = 15.0
"""Seconds in which whatever is on its way out may still go."""


def begin_run() -> frozenset[str]:
    """Mark the processes started from now on, and remember what is there already."""
    os.environ[RUN_VARIABLE] = f"{os.getpid()}-{time.time_ns()}"
    return snapshot()


def leaked(before: frozenset[str], *, grace: float = GRACE) -> list[str]:
    """What is there now and was not before, one line each; waits for up to `grace` seconds for it to go."""
    deadline = time.monotonic() + grace
    while True:
        left = sorted(snapshot() - before)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def snapshot() -> frozenset[str]:
    """Everything of ours that exists now, each as a line for people."""
    return frozenset([*_in_docker(), *_processes(), *_files()])


def _in_docker() -> Iterable[str]:
    try:
        api = connect_daemon(None, 30)
    except EngineUnavailableError:
        return
    try:
        yield from _engine_objects(api)
    finally:
        api.close()


def _engine_objects(api: docker.APIClient) -> Iterable[str]:
    for container in list_containers(api):
        yield f"container {listed_name(container)} ({container['Id'][:12]})"
    for network in api.networks(filters=MANAGED):
        yield f"network {network['Name']}"
    for volume in api.volumes(filters=MANAGED)["Volumes"] or []:
        if not volume["Name"].startswith(RUNNER_VOLUME):
            yield f"volume {volume['Name']}"


def _processes() -> Iterable[str]:
    run = os.environ.get(RUN_VARIABLE)
    if run is None or not Path("/proc/self/environ").exists():
        return
    marker = f"{RUN_VARIABLE}={run}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if marker not in (process / "environ").read_bytes().split(b"\0"):
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if not _kept_by_multiprocessing(process, command):
            yield f"process {process.name}: {command[:200]}"


def _kept_by_multiprocessing(process: Path, command: str) -> bool:
    """Whether it is there until its parent exits. What a server of forks has forked looks like one, but is no child of ours."""
    if "multiprocessing.resource_tracker" in command:
        return True
    try:
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return False
    return "multiprocessing.forkserver" in command and int(parent) == os.getpid()


def _files() -> Iterable[str]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pydantic-ai-sandbox")
    for directory in (Path(tempfile.gettempdir()), Path("/run"), cache):
        if directory.is_dir():
            yield from (f"file {path}" for path in directory.iterdir() if path.name.startswith(FILE_PREFIXES))


if __name__ == "__main__":
    found = sorted(snapshot())
    print("\n".join(found) or "nothing is left")
    sys.exit(bool(found))
