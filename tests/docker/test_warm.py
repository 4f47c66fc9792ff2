"""Containers that were started ahead: claimed by users without files, each by one, and never given to a second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.workspaces import WorkspaceUnavailableError

from pydantic_ai_sandbox import ResourceLimits, SessionManager
from tests.forked import Forked

pytestmark = pytest.mark.docker

WARM = {"python-minimal": 2}


async def filled(manager: SessionManager, count: int = 2) -> None:
    """Wait until so many wait for users."""
    deadline = time.monotonic() + 60
    while len(await manager._submit(manager._household.warm.waiting)) < count or not ready(manager, count):
        assert time.monotonic() < deadline, "nothing was started ahead"
        await asyncio.sleep(0.02)


def ready(manager: SessionManager, count: int) -> bool:
    return len(list((manager._directories.own / "warm").glob("*/*.ready"))) >= count


async def containers(manager: SessionManager) -> set[str]:
    return {info.id for info in await manager._submit(manager._population.all)}


async def test_a_new_user_gets_one_that_is_running_already(
    managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    manager = managers(warm=WARM)
    async with manager:
        await filled(manager)
        waiting = await containers(manager)
        assert await manager.list() == []
        sandbox = await manager.get_or_create("alice")
        await sandbox.write_text("/workspace/f", "mine")
        assert sandbox.info is not None
        assert sandbox.info.id in waiting
        assert sandbox.info.spec.workspace == tmp_path / "users/alice"
        assert (tmp_path / "users/alice/f").read_text() == "mine"
        assert [(session.user_id, session.scope) for session in await manager.list()] == [("alice", "default")]
        # Another worker, which keeps none warm, finds it as any other.
        other = await managers().get_or_create("alice")
        assert await other.read_bytes("/workspace/f") == b"mine"
        assert other.info is not None
        assert other.info.id == sandbox.info.id


async def test_it_keeps_its_name(managers: Callable[..., SessionManager], docker_api: Any) -> None:
    # A daemon that is told to rename one which is just going away lists it, and keeps its name from others, for ever.
    async with managers(warm=WARM) as manager:
        await filled(manager)
        sandbox = await manager.get_or_create("alice")
        assert sandbox.info is not None
        assert sandbox.info.name.startswith("sandbox-warm-")
        assert docker_api.inspect_container(sandbox.info.id)["Name"] == f"/{sandbox.info.name}"
        assert [session.container for session in await manager.list()] == [sandbox.info.name]


async def test_one_that_has_ended_when_it_is_claimed_is_followed_by_another(
    managers: Callable[..., SessionManager], docker_api: Any
) -> None:
    manager = managers(warm={"python-minimal": 1})
    async with manager:
        await filled(manager, 1)
        [id] = await containers(manager)
    # Nobody looks after it any more, so that its mark stays.
    docker_api.remove_container(id, force=True)
    assert ready(manager, 1)
    sandbox = await manager.get_or_create("alice")
    assert (await sandbox.run("echo mine > /workspace/f; id -u", shell=True)).stdout == "10001\n"
    assert sandbox.info is not None
    assert sandbox.info.id != id
    assert (manager._directories.root / "alice/f").read_text() == "mine\n"


async def test_what_was_taken_is_replaced_without_waiting_for_the_next_round(
    managers: Callable[..., SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydantic_ai_sandbox.sessions.manager._HOUSEKEEPING", 3600)
    async with managers(warm=WARM) as manager:
        await filled(manager)
        await asyncio.gather(*(manager.get_or_create(user) for user in ("alice", "bob", "carol")))
        await filled(manager)
        assert len(await containers(manager)) == 5


async def test_what_is_being_started_ahead_is_there_when_the_manager_is_closed_and_nothing_comes_later(
    managers: Callable[..., SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers(warm=WARM)
    began, go_on, create = threading.Event(), threading.Event(), manager._engine.create

    def slow(*args: Any) -> Any:
        began.set()
        go_on.wait(20)
        return create(*args)

    monkeypatch.setattr(manager._engine, "create", slow)
    await manager.__aenter__()
    assert await asyncio.to_thread(began.wait, 60)
    closing = asyncio.create_task(manager.aclose())
    await asyncio.sleep(0.2)
    assert not closing.done()
    go_on.set()
    await closing
    assert len(await containers(manager)) == 2


async def test_a_user_with_files_gets_a_container_over_them(managers: Callable[..., SessionManager]) -> None:
    plain = managers()
    await (await plain.get_or_create("alice")).write_text("/workspace/f", "kept")
    await plain.stop("alice")
    async with managers(warm=WARM) as manager:
        await filled(manager)
        waiting = await containers(manager)
        sandbox = await manager.get_or_create("alice")
        assert await sandbox.read_bytes("/workspace/f") == b"kept"
        assert sandbox.info is not None
        assert sandbox.info.id not in waiting


async def test_a_claimed_one_is_never_started_again(managers: Callable[..., SessionManager], docker_api: Any) -> None:
    async with managers(warm={"python-minimal": 1}) as manager:
        await filled(manager, 1)
        sandbox = await manager.get_or_create("alice")
        await sandbox.write_text("/workspace/f", "kept")
        assert sandbox.info is not None
        first = sandbox.info.id
        docker_api.remove_container(first, force=True)
        # Whether the call that was cut off had begun cannot be known, so that is said; the next one starts anew.
        with contextlib.suppress(WorkspaceUnavailableError):
            await sandbox.run(["true"])
        assert await sandbox.read_bytes("/workspace/f") == b"kept"
        assert sandbox.info.id != first
        assert sorted(path.name for path in (manager._directories.root).iterdir() if path.is_dir()) == [
            ".manager",
            "alice",
        ]


async def test_after_the_end_of_a_claimed_one_nothing_of_it_is_left(managers: Callable[..., SessionManager]) -> None:
    async with managers(warm={"python-minimal": 1}) as manager:
        await filled(manager, 1)
        await manager.get_or_create("alice")
        assert len(list((manager._directories.own / "claims").iterdir())) == 1
        await manager.delete("alice", files=True)
        deadline = time.monotonic() + 30
        while list((manager._directories.own / "claims").iterdir()):
            assert time.monotonic() < deadline
            manager._tidying.call()
            await asyncio.sleep(0.1)
        assert not (manager._directories.root / "alice").exists()


async def test_other_settings_have_a_pool_of_their_own(managers: Callable[..., SessionManager]) -> None:
    async with managers(warm=WARM) as manager:
        await filled(manager)
        other = managers(limits=ResourceLimits(pids=99))
        sandbox = await other.get_or_create("alice")
        assert (await sandbox.usage()).pids_limit == 99


async def test_those_that_wait_count_and_are_the_first_to_make_room(managers: Callable[..., SessionManager]) -> None:
    async with managers(warm=WARM, max_sessions=3, evict_after=600) as manager:
        await filled(manager)
        plain = managers(max_sessions=3, evict_after=600, limits=ResourceLimits(pids=99))
        sandboxes = [await plain.get_or_create(user) for user in ("alice", "bob", "carol")]
        assert [(await sandbox.run(["true"])).exit_code for sandbox in sandboxes] == [0, 0, 0]
        assert len(await containers(manager)) == 3


async def test_one_whose_directory_is_gone_or_whose_maker_died_is_cleared_away(
    managers: Callable[..., SessionManager],
) -> None:
    async with managers(warm=WARM) as manager:
        await filled(manager)
        before = await containers(manager)
        # As a maker that was killed before the last step would leave it, a while ago.
        for ready_file in list((manager._directories.own / "warm").glob("*/*.ready")):
            ready_file.unlink()
            os.utime(ready_file.with_suffix(""), (1, 1))
        deadline = time.monotonic() + 60
        while before & await containers(manager):
            assert time.monotonic() < deadline
            manager._tidying.call()
            await asyncio.sleep(0.1)
        manager._refilling.call()
        await filled(manager)


CLAIMER = """
import asyncio, json, sys
from pydantic_ai_sandbox import SessionManager
async def main(root, name):
    async with SessionManager(workspace_root=root, idle_timeout=90, warm={"python-minimal": 3}) as manager:
        async def ask(number):
            user = f"{name}{number}"
            sandbox = await manager.get_or_create(user)
            seen = (await sandbox.run(["ls", "-A"])).stdout
            await sandbox.write_text("/workspace/whose", user)
            return seen
        answers = []
        for batch in range(4):
            answers += await asyncio.gather(*(ask(batch * 5 + number) for number in range(5)))
            await asyncio.sleep(0.3)
        print(json.dumps(answers))
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_workers_that_claim_at_once_never_share_one(
    managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    async with managers(warm={"python-minimal": 3}) as manager:
        await filled(manager, 3)
        with (
            Forked(CLAIMER, str(tmp_path / "users"), "left") as left,
            Forked(CLAIMER, str(tmp_path / "users"), "right") as right,
        ):
            for worker in (left, right):
                assert json.loads(await asyncio.to_thread(worker.rest)) == [""] * 20, "a new user saw files"
        for name in ("left", "right"):
            for number in range(20):
                assert (tmp_path / f"users/{name}{number}/whose").read_text() == f"{name}{number}"
        sessions = await manager.list()
        assert len(sessions) == len({session.user_id for session in sessions}) == 40
