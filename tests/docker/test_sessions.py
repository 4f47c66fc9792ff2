"""Every user gets one sandbox over the same files, from any task, worker or restart, and nobody gets another's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, WorkspaceRef
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.workspaces import WorkspaceUnavailableError

from pydantic_ai_sandbox import (
    ConsoleToolset,
    DockerSandbox,
    InvalidUserIdError,
    ResourceLimits,
    RuntimeConfig,
    SessionManager,
    SpecMismatchError,
    UserSandbox,
)

pytestmark = pytest.mark.docker


async def test_a_user_gets_one_sandbox_and_files_that_stay(managers: Callable[..., SessionManager]) -> None:
    manager = managers()
    sandbox = await manager.get_or_create("alice")
    assert await manager.get_or_create("alice") is sandbox
    await sandbox.write_text("/workspace/notes", "mine")
    other = await manager.get_or_create("Bob@example.com")
    assert not await other.exists("/workspace/notes")
    assert [(session.user_id, session.running) for session in await manager.list()] == [
        ("Bob@example.com", True),
        ("alice", True),
    ]
    await manager.stop("alice")
    assert [session.user_id for session in await manager.list()] == ["Bob@example.com"]
    again = await manager.get_or_create("alice")
    assert (await again.run(["cat", "notes"])).stdout == "mine"


async def test_scopes_are_sandboxes_of_their_own_over_the_same_files(managers: Callable[..., SessionManager]) -> None:
    manager = managers(max_sessions_per_user=2)
    one, two = await asyncio.gather(*(manager.get_or_create("alice", scope=scope) for scope in ("one", "two")))
    await one.write_text("/workspace/f", "shared")
    await one.write_text("/tmp/f", "not shared")
    assert await two.read_bytes("/workspace/f") == b"shared"
    assert not await two.exists("/tmp/f")
    assert await manager.stop("alice", scope="one") == 1
    assert [session.scope for session in await manager.list()] == ["two"]


async def test_a_second_worker_finds_what_the_first_made(managers: Callable[..., SessionManager]) -> None:
    first, second = managers(), managers()
    sandbox = await first.get_or_create("alice")
    job = await sandbox.start_job(["sleep", "600"])
    found = await second.get_or_create("alice")
    assert (await found.job(job.id).info()).running
    await first.aclose()
    assert (await found.run(["echo", "goes on"])).stdout == "goes on\n"
    assert len(await second.list()) == 1


async def test_a_session_outlives_its_container(managers: Callable[..., SessionManager], docker_api: Any) -> None:
    manager = managers()
    sandbox = await manager.get_or_create("alice")
    ref = sandbox.ref
    await sandbox.write_text("/workspace/f", "kept")
    running = asyncio.create_task(sandbox.run(["sleep", "600"]))
    await asyncio.sleep(0.2)
    (session,) = await manager.list()
    docker_api.remove_container(session.container, force=True)
    # What was under way is lost, and that is said; what comes next finds a new container over the same files.
    with pytest.raises(WorkspaceUnavailableError):
        await running
    assert await sandbox.read_bytes("/workspace/f") == b"kept"
    assert sandbox.ref == ref


async def test_an_idle_sandbox_goes_and_comes_back(managers: Callable[..., SessionManager]) -> None:
    manager = managers(idle_timeout=1)
    sandbox = await manager.get_or_create("alice")
    await sandbox.write_text("/workspace/f", "kept")
    give_up = time.monotonic() + 15
    while await manager.list() and time.monotonic() < give_up:
        await asyncio.sleep(0.1)
    assert await manager.list() == []
    assert (await sandbox.run(["cat", "f"])).stdout == "kept"


async def test_other_settings_replace_an_idle_sandbox_and_spare_a_busy_one(
    managers: Callable[..., SessionManager],
) -> None:
    old = await managers().get_or_create("alice")
    await old.write_text("/workspace/f", "kept")
    job = await old.start_job(["sleep", "600"])
    changed = managers(limits=ResourceLimits(pids=99))
    with pytest.raises(SpecMismatchError, match="something runs in it"):
        await changed.get_or_create("alice")
    await old.pause()
    with pytest.raises(SpecMismatchError, match="it is paused"):
        await changed.get_or_create("alice")
    await old.resume()
    await job.stop()
    new = await changed.get_or_create("alice")
    assert (await new.usage()).pids_limit == 99
    assert await new.read_bytes("/workspace/f") == b"kept"


async def test_a_user_whose_sandbox_was_closed_gets_another(managers: Callable[..., SessionManager]) -> None:
    manager = managers()
    first = await manager.get_or_create("alice")
    await first.write_text("/workspace/f", "kept")
    await first.aclose()
    second = await manager.get_or_create("alice")
    assert second is not first
    assert await second.read_bytes("/workspace/f") == b"kept"
    await second.destroy()
    assert await (await manager.get_or_create("alice")).read_bytes("/workspace/f") == b"kept"


async def test_another_runtime_replaces_the_sandbox(
    managers: Callable[..., SessionManager], tmp_path: Path, docker_api: Any
) -> None:
    manager = managers()
    await (await manager.get_or_create("alice")).write_text("/workspace/f", "kept")
    image = (await manager.get_or_create("alice")).info
    assert image is not None
    (tmp_path / "Dockerfile").write_text(f"FROM {image.spec.image}\nENV MARK=custom\n")
    runtime = RuntimeConfig(name="test-custom", dockerfile=tmp_path)
    other = await manager.get_or_create("alice", runtime=runtime)
    assert (await other.run("echo $MARK; cat f", shell=True)).stdout == "custom\nkept"
    assert await manager.get_or_create("alice") is other
    assert len(await manager.list()) == 1
    assert other.info is not None
    await manager.stop("alice")
    docker_api.remove_image(other.info.spec.image)


async def test_managers_of_other_roots_never_meet(managers: Callable[..., SessionManager], tmp_path: Path) -> None:
    one, other = managers(), managers(workspace_root=tmp_path / "others")
    first, second = await one.get_or_create("alice"), await other.get_or_create("alice")
    assert first.ref != second.ref
    await first.write_text("/workspace/f", "x")
    assert not await second.exists("/workspace/f")
    assert len(await one.list()) == len(await other.list()) == 1


async def test_a_container_with_our_name_that_is_not_ours_is_refused(
    managers: Callable[..., SessionManager], docker_api: Any, busybox: str, tmp_path: Path
) -> None:
    manager = managers()
    name = f"sandbox-{manager.ref('alice').id}"
    foreign = docker_api.create_container(busybox, ["sleep", "60"], name=name)["Id"]
    try:
        with pytest.raises(WorkspaceUnavailableError, match="not a sandbox of ours"):
            await manager.get_or_create("alice")
    finally:
        docker_api.remove_container(foreign, force=True)


async def test_deleting_takes_the_files_only_when_told_to(
    managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    manager = managers()
    sandbox = await manager.get_or_create("alice")
    await sandbox.run("echo x > f; ln -s / root; ln -s ../bob sibling", shell=True)
    await (await manager.get_or_create("bob")).write_text("/workspace/f", "bob's")
    await manager.delete("alice", files=False)
    assert (tmp_path / "users/alice/f").read_text() == "x\n"
    await manager.delete("alice", files=True)
    assert sorted(path.name for path in (tmp_path / "users").iterdir()) == [".manager", "bob", "bob.owner.json"]
    assert (tmp_path / "users/bob/f").read_text() == "bob's"


@pytest.mark.parametrize("user_id", ["", "\0", "\ud800", "x" * 2000])
async def test_an_id_that_nobody_can_have_is_refused_at_once(
    managers: Callable[..., SessionManager], user_id: str
) -> None:
    manager = managers()
    with pytest.raises(InvalidUserIdError):
        manager.workspace(user_id)
    with pytest.raises(InvalidUserIdError):
        await manager.get_or_create(user_id)
    with pytest.raises(InvalidUserIdError):
        await manager.stop(user_id)


# --- as a capability


@dataclass
class Deps:
    user_id: str


def model(command: str) -> FunctionModel:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        if isinstance(last, ToolReturnPart):
            return ModelResponse(parts=[TextPart(str(last.content))])
        return ModelResponse(parts=[ToolCallPart("run", {"command": command})])

    return FunctionModel(answer)


async def test_a_run_works_in_the_sandbox_of_its_user_and_a_conversation_goes_on_there(
    managers: Callable[..., SessionManager],
) -> None:
    manager = managers()
    agent = Agent(
        model("cat who 2>/dev/null; echo $RANDOM > seen; echo hello >> who"),
        deps_type=Deps,
        capabilities=[UserSandbox(manager)],
        toolsets=[ConsoleToolset()],
    )
    await (await manager.get_or_create("bob")).write_text("/workspace/who", "bob\n")
    first = await agent.run("go", deps=Deps("alice"))
    assert "bob" not in first.output
    assert "bob" in (await agent.run("go", deps=Deps("bob"))).output
    await manager.stop("alice")
    second = await agent.run("go on", deps=Deps("alice"), message_history=first.all_messages())
    assert "hello" in second.output


async def test_another_users_ref_or_history_opens_nothing(managers: Callable[..., SessionManager]) -> None:
    manager = managers()
    agent = Agent(model("ls"), deps_type=Deps, capabilities=[UserSandbox(manager)], toolsets=[ConsoleToolset()])
    history = (await agent.run("go", deps=Deps("alice"))).all_messages()
    (session,) = await manager.list()
    container = await _container_id(manager)
    for ref in (session.ref, manager.ref("alice"), WorkspaceRef(provider=session.ref.provider, id="x"), container):
        with pytest.raises(UserError):
            await agent.run("go", deps=Deps("mallory"), workspace=ref)
    with pytest.raises(UserError):
        await agent.run("go", deps=Deps("mallory"), message_history=history)
    assert [found.user_id for found in await manager.list()] == ["alice"]


async def _container_id(manager: SessionManager) -> WorkspaceRef:
    info = (await manager.get_or_create("alice")).info
    assert info is not None
    return WorkspaceRef(provider="pydantic-ai-sandbox-docker", id=info.id)


async def test_attaching_by_a_container_ref_is_for_whoever_holds_the_engine(
    managers: Callable[..., SessionManager],
) -> None:
    # The operator's own door, beside the sessions: it needs the engine, which no user has.
    manager = managers()
    await (await manager.get_or_create("alice")).write_text("/workspace/f", "x")
    attached = DockerSandbox(ref=await _container_id(manager))
    assert await attached.read_bytes("/workspace/f") == b"x"
    await attached.aclose()
    assert len(await manager.list()) == 1
