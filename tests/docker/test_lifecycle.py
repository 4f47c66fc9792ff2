"""One container per sandbox, made on first use, found again by its ref, and never silently replaced."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.messages import WorkspaceRef
from pydantic_ai.workspaces import WorkspaceUnavailableError

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, EngineError, EngineUnavailableError, ResourceLimits
from pydantic_ai_sandbox.engines.docker.containers import list_containers
from tests.docker.noting import NotingEngine

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session")
def engine() -> NotingEngine:
    return NotingEngine()


def is_there(api: Any, id: str) -> bool:
    return id in {found["Id"] for found in list_containers(api)}


async def test_building_a_sandbox_does_no_io(monkeypatch: pytest.MonkeyPatch) -> None:
    def audit(event: str, arguments: tuple[object, ...]) -> None:
        ours = recording and threading.get_ident() == thread
        if ours and event.split(".", maxsplit=1)[0] in ("open", "os", "socket", "subprocess", "glob", "shutil"):
            seen.append((event, arguments))

    recording, thread = False, threading.get_ident()
    seen: list[tuple[str, tuple[object, ...]]] = []
    sys.addaudithook(audit)
    recording = True
    sandbox = DockerSandbox(workspace="/srv/x/y", volumes={"/data/z": "/data:ro"}, engine=DockerEngine())
    other = DockerSandbox(runtime="no-such-runtime", name="x", engine=DockerEngine("tcp://127.0.0.1:1"))
    recording = False
    assert (sandbox.ref, other.ref, seen) == (None, None, [])


async def test_fifty_tasks_that_come_first_make_one_container(
    make_sandbox: Callable[..., DockerSandbox], engine: NotingEngine
) -> None:
    before = engine.containers()
    sandbox = make_sandbox()
    results = await asyncio.gather(*(sandbox.run(["sh", "-c", f"echo {n}"]) for n in range(50)))
    assert [int(result.stdout) for result in results] == list(range(50))
    assert sandbox.ref is not None
    assert engine.containers() - before == {sandbox.ref.id}


def test_several_threads_with_loops_of_their_own_share_one_container(
    make_sandbox: Callable[..., DockerSandbox], engine: NotingEngine
) -> None:
    before = engine.containers()
    sandbox = make_sandbox()
    answers: list[str] = []

    def work(number: int) -> None:
        async def main() -> None:
            answers.extend([(await sandbox.run(["echo", str(number)])).stdout.strip() for _ in range(5)])

        asyncio.run(main())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(str(number) for number in range(4) for _ in range(5))
    assert len(engine.containers() - before) == 1


async def test_a_cancelled_first_caller_leaves_a_container_that_is_known_and_removed(
    make_sandbox: Callable[..., DockerSandbox], engine: NotingEngine
) -> None:
    before = engine.containers()
    sandbox = make_sandbox()
    for delay in (0.0, 0.01, 0.03):
        task = asyncio.create_task(sandbox.run(["true"]))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await sandbox.run(["echo", "one"])).stdout == "one\n"
    assert sandbox.ref is not None
    assert engine.containers() - before == {sandbox.ref.id}
    await sandbox.aclose()
    assert engine.containers() == before


ATTACH = """
import asyncio, json, sys
from pydantic_ai.messages import WorkspaceRef
from pydantic_ai_sandbox import DockerSandbox
async def main():
    sandbox = DockerSandbox(ref=WorkspaceRef(**json.loads(sys.argv[1])))
    job = sandbox.job(sys.argv[2])
    output = await job.output(wait=10)
    print(json.dumps([output.data.decode(), output.job.running, (await sandbox.run(["cat", "f"])).stdout]))
    await sandbox.aclose()
asyncio.run(main())
"""


async def test_another_process_attaches_by_ref_and_reaches_a_job_started_before(sandbox: DockerSandbox) -> None:
    await sandbox.write_text("/workspace/f", "shared")
    job = await sandbox.start_job("echo started; sleep 600", shell=True)
    assert sandbox.ref is not None
    ref = json.dumps({"provider": sandbox.ref.provider, "id": sandbox.ref.id})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ATTACH, ref, job.id, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert json.loads(out) == ["started\n", True, "shared"]
    # It only let go of what it had attached to.
    assert (await sandbox.run(["echo", "still here"])).stdout == "still here\n"
    assert (await job.info()).running


@pytest.mark.parametrize("id", ["0" * 64, "no-such-thing", "../../etc", "", "x" * 5000])
async def test_a_ref_that_names_nothing_of_ours_is_unavailable(
    make_sandbox: Callable[..., DockerSandbox], engine: NotingEngine, id: str
) -> None:
    before = engine.containers()
    sandbox = make_sandbox(ref=WorkspaceRef(provider=engine.provider, id=id))
    with pytest.raises(WorkspaceUnavailableError):
        await sandbox.working_dir()
    assert engine.containers() == before


async def test_a_container_that_is_not_ours_is_never_entered(
    make_sandbox: Callable[..., DockerSandbox], engine: DockerEngine, docker_api: Any, busybox: str
) -> None:
    foreign = docker_api.create_container(busybox, ["sleep", "60"], name="sandbox-foreign-name")["Id"]
    try:
        docker_api.start(foreign)
        with pytest.raises(WorkspaceUnavailableError, match="not a sandbox of ours"):
            await make_sandbox(ref=WorkspaceRef(provider=engine.provider, id=foreign)).run(["true"])
        with pytest.raises(WorkspaceUnavailableError, match="not a sandbox of ours"):
            await make_sandbox(name="foreign-name").run(["true"])
    finally:
        docker_api.remove_container(foreign, force=True)


async def test_a_removed_container_is_unavailable_and_not_replaced(sandbox: DockerSandbox, docker_api: Any) -> None:
    await sandbox.run(["true"])
    assert sandbox.ref is not None
    running = asyncio.create_task(sandbox.run(["sleep", "600"]))
    await asyncio.sleep(0.2)
    ref = sandbox.ref
    docker_api.remove_container(ref.id, force=True)
    with pytest.raises(WorkspaceUnavailableError, match="stopped or removed"):
        await running
    for operation in (sandbox.run(["true"]), sandbox.read_bytes("/etc/passwd"), sandbox.working_dir()):
        with pytest.raises(WorkspaceUnavailableError):
            await operation
    assert sandbox.ref == ref


async def test_an_idle_sandbox_ends_itself_and_says_so(
    make_sandbox: Callable[..., DockerSandbox], docker_api: Any
) -> None:
    sandbox = make_sandbox(idle_timeout=2)
    await sandbox.run(["true"])
    assert sandbox.ref is not None
    start = time.monotonic()
    while is_there(docker_api, sandbox.ref.id) and time.monotonic() - start < 60:
        await asyncio.sleep(0.1)
    assert 1 < time.monotonic() - start < 60
    with pytest.raises(WorkspaceUnavailableError, match="idle timeout of 2 s"):
        await sandbox.run(["true"])


async def test_a_running_command_or_job_is_use(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox(idle_timeout=3)
    assert (await sandbox.run("sleep 7; echo done", shell=True)).stdout == "done\n"
    job = await sandbox.start_job("sleep 7; echo done", shell=True)
    await asyncio.sleep(6)
    assert (await job.wait(20)).exit_code == 0
    assert (await job.output()).data == b"done\n"


async def test_the_maximum_lifetime_holds_even_in_use(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox(max_lifetime=2)
    with pytest.raises(WorkspaceUnavailableError, match="maximum lifetime of 2 s"):
        await sandbox.run(["sleep", "60"])


async def test_a_persistent_sandbox_keeps_what_was_put_into_it(make_sandbox: Callable[..., DockerSandbox]) -> None:
    options = {"persistent": True, "name": "test-persistent"}
    first = make_sandbox(**options)
    try:
        await first.write_text("/workspace/kept", "workspace")
        await first.write_text("/home/sandbox/kept", "home")
        await first.aclose()
        second = make_sandbox(**options)
        assert (await second.run("cat /workspace/kept ~/kept", shell=True)).stdout == "workspacehome"
        assert second.ref == first.ref
        # The object that stopped it can go on too, the container being there.
        await second.aclose()
        assert (await first.run(["cat", "/workspace/kept"])).stdout == "workspace"
    finally:
        await first.destroy()
    with pytest.raises(WorkspaceUnavailableError):
        await first.run(["true"])


async def test_a_name_belongs_to_one_set_of_settings(make_sandbox: Callable[..., DockerSandbox]) -> None:
    first = make_sandbox(name="test-name")
    await first.run("echo here > f", shell=True)
    second = make_sandbox(name="test-name")
    assert (await second.run(["cat", "f"])).stdout == "here\n"
    await second.aclose()
    assert (await first.run(["cat", "f"])).stdout == "here\n"
    other = make_sandbox(name="test-name", limits=ResourceLimits(pids=99))
    with pytest.raises(EngineError, match="other settings"):
        await other.run(["true"])


async def test_after_stop_a_sandbox_is_unavailable_and_gone(sandbox: DockerSandbox, docker_api: Any) -> None:
    await sandbox.run(["true"])
    assert sandbox.ref is not None
    sandbox.stop()
    assert not is_there(docker_api, sandbox.ref.id)
    with pytest.raises(WorkspaceUnavailableError, match="was stopped"):
        await sandbox.run(["true"])
    sandbox.stop()


def test_stopping_what_was_never_used_does_nothing() -> None:
    DockerSandbox(engine=DockerEngine("tcp://127.0.0.1:1")).stop()


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:1", "unix:///nowhere/docker.sock"])
async def test_a_daemon_that_is_not_there_is_a_typed_error_with_a_remedy(url: str) -> None:
    sandbox = DockerSandbox(engine=DockerEngine(url))
    with pytest.raises(EngineUnavailableError, match="start it") as caught:
        await sandbox.run(["true"])
    assert isinstance(caught.value, ConnectionError)


async def test_paused_and_resumed(sandbox: DockerSandbox) -> None:
    await sandbox.run(["true"])
    await sandbox.pause()
    waiting = asyncio.create_task(sandbox.run(["echo", "resumed"]))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await sandbox.resume()
    assert (await waiting).stdout == "resumed\n"


async def test_to_pause_what_is_paused_and_to_resume_what_runs_is_fine(sandbox: DockerSandbox) -> None:
    await sandbox.resume()
    for _ in range(2):
        await sandbox.pause()
    for _ in range(2):
        await sandbox.resume()
    assert (await sandbox.run(["echo", "runs"])).stdout == "runs\n"


async def test_one_that_is_gone_cannot_be_paused(sandbox: DockerSandbox, docker_api: Any) -> None:
    await sandbox.run(["true"])
    assert sandbox.ref is not None
    docker_api.kill(sandbox.ref.id)
    for operation in (sandbox.pause, sandbox.resume):
        with pytest.raises(WorkspaceUnavailableError, match="gone"):
            await operation()


async def test_a_host_directory_as_workspace_stays(make_sandbox: Callable[..., DockerSandbox], tmp_path: Path) -> None:
    workspace = tmp_path / "new" / "workspace"
    sandbox = make_sandbox(workspace=workspace)
    await sandbox.write_text("/workspace/a/b.txt", "kept")
    await sandbox.aclose()
    assert (workspace / "a/b.txt").read_text() == "kept"
    owner = workspace.stat().st_uid
    assert owner != 0
    again = make_sandbox(workspace=workspace)
    assert (await again.run(["cat", "/workspace/a/b.txt"])).stdout == "kept"
    assert (await again.run(["id", "-u"])).stdout.strip() == str(owner)


KILLED = """
import asyncio, os, signal
from pydantic_ai_sandbox import DockerSandbox
async def main():
    sandbox = DockerSandbox(idle_timeout=3)
    await sandbox.start_job("true", shell=True)
    print(sandbox.ref.id, flush=True)
    asyncio.create_task(sandbox.run(["sleep", "600"]))
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_killed_backend_leaves_nothing_behind(docker_api: Any) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == -9
    container = out.decode().strip()
    assert is_there(docker_api, container)
    give_up = time.monotonic() + 20
    # Its command died with its connection, so it became idle.
    while is_there(docker_api, container) and time.monotonic() < give_up:
        await asyncio.sleep(0.1)
    assert not is_there(docker_api, container)


def test_a_script_that_forgets_to_close_ends_without_noise() -> None:
    script = (
        "import asyncio\nfrom pydantic_ai_sandbox import DockerSandbox\n"
        "print(asyncio.run(DockerSandbox(idle_timeout=1).run(['echo', 'x'])).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("x", "")
