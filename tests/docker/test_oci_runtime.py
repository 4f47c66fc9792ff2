"""Another OCI runtime gets what the daemon's own gets, and one that does not work is named."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import docker
import pytest

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, OCIRuntimeError, run_once
from pydantic_ai_sandbox.checks.doctor import Examination, examine
from tests.docker.own_daemon import OwnDaemon

pytestmark = pytest.mark.docker

WRAPPER = """#!/bin/sh
echo "$@" >> {folder}/calls
exec runc "$@"
"""


@pytest.fixture(scope="module")
def folder() -> Generator[Path]:
    """Where a daemon and two OCI runtimes are: one that writes down its calls and hands them to runc, and one that is none."""
    if os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("unshare") or not shutil.which("runc"):
        pytest.skip("a daemon with runtimes of its own needs root, dockerd, runc and unshare")
    # Not below pytest's own temporary directory: a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="pydantic-ai-sandbox-oci-"))
    for name, script in (("other", WRAPPER.format(folder=folder)), ("broken", "#!/bin/sh\nexit 3\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def own_engine(folder: Path, docker_api: docker.APIClient, busybox: str) -> Generator[DockerEngine]:
    runtimes = [f"--add-runtime={name}={folder / name}" for name in ("other", "broken")]
    daemon = OwnDaemon(folder / "daemon")
    (folder / "daemon").mkdir()
    try:
        daemon.guard()
        daemon.start(*runtimes)
        daemon.load(docker_api, busybox)
        yield DockerEngine(daemon.url, timeout=60)
    finally:
        daemon.end()


async def test_containers_are_started_by_the_runtime_that_was_asked_for(
    own_engine: DockerEngine, busybox: str, folder: Path
) -> None:
    async with DockerSandbox(image=busybox, engine=own_engine, oci_runtime="other", idle_timeout=60) as sandbox:
        assert (await sandbox.run(["echo", "works"])).stdout == "works\n"
        assert sandbox.ref is not None
        found: dict[str, Any] = own_engine.api().inspect_container(sandbox.ref.id)
        assert found["HostConfig"]["Runtime"] == "other"
        assert f"start {sandbox.ref.id}" in (folder / "calls").read_text()


async def test_a_single_command_takes_it_too(own_engine: DockerEngine, busybox: str) -> None:
    assert (await run_once(busybox, ["echo", "once"], oci_runtime="other", engine=own_engine)).stdout == "once\n"


async def test_a_runtime_that_cannot_start_containers_is_named_and_leaves_none(
    own_engine: DockerEngine, busybox: str
) -> None:
    sandbox = DockerSandbox(image=busybox, engine=own_engine, oci_runtime="broken", idle_timeout=60)
    with pytest.raises(OCIRuntimeError, match="'broken'") as failure:
        await sandbox.run(["true"])
    assert failure.value.oci_runtime == "broken"
    await sandbox.aclose()
    # That of a single command may still be on its way out.
    assert "broken" not in {container.spec.oci_runtime for container in own_engine.find({})}


async def test_the_doctor_tries_a_runtime_before_all_else(own_engine: DockerEngine, busybox: str) -> None:
    async def seen(name: str) -> dict[str, tuple[str, str]]:
        what = Examination(engine=own_engine, image=busybox, oci_runtime=name)
        return {check.name: (check.verdict, check.seen) async for check in examine(what)}

    works, fails = await seen("other"), await seen("broken")
    assert works["OCI runtime"][0] == "ok"
    assert "other" in works["daemon"][1]
    assert works["runner"][0] == "ok"
    assert fails["OCI runtime"][0] == "fail"
    assert "runner" not in fails
