"""There are never more sandboxes than there may be; whoever waits is served in order, or told why not."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox import CapacityError, SessionManager, Waiting
from tests.forked import Forked

pytestmark = pytest.mark.docker


async def test_a_request_waits_for_room_and_is_told_its_place(managers: Callable[..., SessionManager]) -> None:
    manager = managers(max_sessions=1, evict_after=600)
    await manager.get_or_create("alice")
    heard: list[Waiting] = []
    waiting = [asyncio.create_task(manager.get_or_create(user, on_wait=heard.append)) for user in ("bob", "carol")]
    # Whoever asks later may be told first, and one that finds room when it looks is told nothing.
    while len(heard) < 2:
        await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    await manager.stop("alice")
    await waiting[0]
    assert [session.user_id for session in await manager.list()] == ["bob"]
    await manager.stop("bob")
    await waiting[1]
    assert [event.position for event in heard if event.user_id == "carol"] == [2, 1]
    assert [event.position for event in heard if event.user_id == "bob"] == [1]
    assert {event.limit for event in heard} == {1}


async def test_whoever_waits_too_long_is_told_the_limit_and_the_place(managers: Callable[..., SessionManager]) -> None:
    manager = managers(max_sessions=1, queue_timeout=0.5, evict_after=600)
    sandbox = await manager.get_or_create("alice")
    results = await asyncio.gather(*(manager.get_or_create(user) for user in ("bob", "carol")), return_exceptions=True)
    errors = [error for error in results if isinstance(error, CapacityError)]
    assert [(error.limit, error.position) for error in errors] == [(1, 1), (1, 2)]
    assert "all 1 are in use" in str(errors[0])
    assert (await sandbox.run(["true"])).exit_code == 0


async def test_a_refused_user_leaves_nothing_behind_and_may_come_again(managers: Callable[..., SessionManager]) -> None:
    manager = managers(max_sessions=1, queue_timeout=0, evict_after=600)
    await manager.get_or_create("alice")
    with pytest.raises(CapacityError):
        await manager.get_or_create("bob")
    assert [session.user_id for session in await manager.list()] == ["alice"]
    await manager.stop("alice")
    deadline = time.monotonic() + 30
    while True:
        try:
            bobs = await manager.get_or_create("bob")
            break
        except CapacityError:
            # Alice's container is still on its way out.
            assert time.monotonic() < deadline
    assert (await bobs.run(["true"])).exit_code == 0


async def test_the_one_that_was_idle_longest_makes_room_and_a_busy_one_never_does(
    managers: Callable[..., SessionManager],
) -> None:
    manager = managers(max_sessions=3, evict_after=0.5)
    sandboxes = {user: await manager.get_or_create(user) for user in ("busy", "older", "newer")}
    job = await sandboxes["busy"].start_job(["sleep", "600"])
    await asyncio.sleep(0.6)
    await sandboxes["newer"].run(["true"])
    await manager.get_or_create("next")
    assert [session.user_id for session in await manager.list() if session.running] == ["busy", "newer", "next"]
    assert (await job.info()).running
    # The one that had to go is back when it is used, over the same files.
    assert (await sandboxes["older"].run(["true"])).exit_code == 0


async def test_looking_at_a_sandbox_is_no_use_of_it(managers: Callable[..., SessionManager]) -> None:
    manager = managers(idle_timeout=2)
    sandbox = await manager.get_or_create("alice")
    deadline = time.monotonic() + 20
    while await manager.list():
        assert time.monotonic() < deadline, "asking for its usage kept it alive"
        (session, *_) = await manager.list() or [None]
        if session is not None and session.running:
            found = await manager._submit(lambda: manager._population.of("alice"))
            await manager._evictor._idle_times([info for info in found if info.running])
        await asyncio.sleep(0.2)
    assert (await sandbox.run(["true"])).exit_code == 0


async def test_a_user_may_not_have_more_than_the_own_share(managers: Callable[..., SessionManager]) -> None:
    manager = managers(max_sessions_per_user=2, queue_timeout=0.5, evict_after=600)
    one, two = [await manager.get_or_create("alice", scope=scope) for scope in ("one", "two")]
    jobs = [await sandbox.start_job(["sleep", "600"]) for sandbox in (one, two)]
    with pytest.raises(CapacityError) as caught:
        await manager.get_or_create("alice", scope="three")
    assert caught.value.limit == 2
    # Others are not concerned.
    assert (await (await manager.get_or_create("bob")).run(["true"])).exit_code == 0
    await jobs[0].stop()
    patient = managers(max_sessions_per_user=2, queue_timeout=60, evict_after=600)
    await patient.get_or_create("alice", scope="three")
    running = [session.scope for session in await manager.list() if session.user_id == "alice" and session.running]
    assert running == ["three", "two"]


async def test_a_cancelled_request_makes_nothing_and_holds_nobody_up(managers: Callable[..., SessionManager]) -> None:
    manager = managers(max_sessions=1, evict_after=600)
    await manager.get_or_create("alice")
    tasks = [asyncio.create_task(manager.get_or_create(user)) for user in ("bob", "carol", "dave")]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    await manager.stop("alice")
    await tasks[2]
    assert [session.user_id for session in await manager.list()] == ["dave"]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_sessions": 0},
        {"max_sessions_per_user": 0},
        {"queue_timeout": -1},
        {"evict_after": float("nan")},
        {"warm": {"python-minimal": -1}},
    ],
)
def test_limits_that_cannot_be_are_refused_at_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SessionManager(workspace_root=tmp_path, **settings)


WORKER = """
import asyncio, json, os, random, sys, time
from pydantic_ai_sandbox import CapacityError, SessionManager

async def main(root, name, seed, full):
    chance = random.Random(seed)
    manager = SessionManager(workspace_root=root, idle_timeout=90, max_sessions=10, queue_timeout=20, evict_after=600)
    made, told = [], {}
    create = manager._engine.create
    def observed(spec, name, labels):
        made.append(int(labels["user"].split("-")[1]))
        return create(spec, name, labels)
    manager._engine.create = observed
    async def request(number):
        user = f"{name}-{number}"
        started = time.monotonic()
        def on_wait(event):
            told.setdefault(number, []).append(event.position)
        try:
            sandbox = await manager.get_or_create(user, on_wait=on_wait)
        except CapacityError as error:
            return ["refused", error.limit, error.position, time.monotonic() - started]
        code = (await sandbox.run(["sleep", str(0.2 + chance.random())])).exit_code
        # However slow the machine is, nobody leaves before the limit was reached.
        while not os.path.exists(full):
            await asyncio.sleep(0.02)
        await manager.stop(user)
        return ["served", code]
    tasks = [asyncio.create_task(request(number)) for number in range(50)]
    await asyncio.sleep(0)
    for number in chance.sample(range(50), 10):
        await asyncio.sleep(chance.random() * 0.3)
        tasks[number].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    answers = [["cancelled"] if isinstance(result, asyncio.CancelledError) else result for result in results]
    await manager.aclose()
    print(json.dumps({"answers": answers, "made": made, "told": told}, default=repr))
asyncio.run(main(*sys.argv[1:3], int(sys.argv[3]), sys.argv[4]))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_hundred_requests_over_two_workers_never_make_more_than_ten(
    managers: Callable[..., SessionManager], tmp_path: Path, docker_api: Any
) -> None:
    manager = managers(max_sessions=10)
    full = tmp_path / "full"
    seed = random.randrange(2**32)
    print("seed", seed)
    label = f"pydantic-ai-sandbox.owner.namespace={manager._namespace}"
    most = 0
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Forked(WORKER, str(tmp_path / "users"), name, str(seed + number), str(full)))
            for number, name in enumerate(("left", "right"))
        ]
        ended = asyncio.gather(*(asyncio.to_thread(worker.rest) for worker in workers))
        while not ended.done():
            found = await asyncio.to_thread(docker_api.containers, all=True, filters={"label": label})
            most = max(most, len(found))
            if most == 10:
                full.touch()
            await asyncio.sleep(0.02)
    assert most == 10
    for printed in await ended:
        report = json.loads(printed)
        outcomes = [answer[0] for answer in report["answers"]]
        print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})
        assert set(outcomes) <= {"served", "cancelled", "refused"}
        assert all(answer[1] == 0 for answer in report["answers"] if answer[0] == "served")
        for _, limit, position, waited in (answer for answer in report["answers"] if answer[0] == "refused"):
            assert limit == 10
            assert position >= 1
            assert 19 < waited < 60
        assert report["made"] == sorted(report["made"]), "first come, first served within a worker"
        for positions in report["told"].values():
            assert positions == sorted(positions, reverse=True)
