"""Many processes share users: one container each, whoever asks, whoever is killed, and nothing left at the end."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox import SessionManager
from tests.forked import Forked

pytestmark = [pytest.mark.docker, pytest.mark.slow]

WORKER = """
import asyncio, json, sys
from pydantic_ai_sandbox import SessionManager
async def main(root, users, tasks, idle):
    manager = SessionManager(workspace_root=root, idle_timeout=idle)
    async def ask(number):
        sandbox = await manager.get_or_create(f"user{number % users}")
        code = (await sandbox.run(f"echo {number} >> /workspace/asked", shell=True)).exit_code
        return sandbox.info.id, code
    answers = await asyncio.gather(*(ask(number) for number in range(tasks)))
    print(json.dumps({"containers": sorted({id for id, _ in answers}), "codes": sum(code for _, code in answers)}), flush=True)
    if len(sys.argv) > 5:
        await asyncio.sleep(600)
asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
"""


def start_worker(root: Path, users: int, tasks: int, idle: int, *more: str) -> Forked:
    return Forked(WORKER, str(root), str(users), str(tasks), str(idle), *more)


def report(worker: Forked) -> dict[str, Any]:
    with worker:
        printed = worker.rest()
        assert worker.wait() == 0
    return json.loads(printed)


@pytest.mark.timeout(400)
async def test_four_workers_that_ask_for_fifty_users_at_once_make_fifty_containers(
    managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    manager = managers()
    workers = [start_worker(tmp_path / "users", 50, 50, 90) for _ in range(4)]
    reports = [await asyncio.to_thread(report, worker) for worker in workers]
    assert [answer["codes"] for answer in reports] == [0] * 4
    assert len(reports[0]["containers"]) == 50
    assert all(answer["containers"] == reports[0]["containers"] for answer in reports)
    sessions = await manager.list()
    assert sorted(session.user_id for session in sessions) == sorted(f"user{n}" for n in range(50))
    for number in range(50):
        assert (tmp_path / f"users/user{number}/asked").read_text().split() == [str(number)] * 4


@pytest.mark.timeout(400)
async def test_a_worker_that_is_killed_at_any_moment_leaves_no_duplicate_no_hole_and_no_orphan(
    managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    users, idle = 6, 8
    manager = managers(idle_timeout=idle)
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    over = asyncio.Event()

    async def survivor(number: int) -> int:
        done = 0
        while not over.is_set():
            sandbox = await manager.get_or_create(f"user{number}")
            assert (await sandbox.run(["true"])).exit_code == 0
            done += 1
            await asyncio.sleep(0.02)
        return done

    others = asyncio.gather(*(survivor(number) for number in range(users // 2)))
    for _ in range(10):
        with start_worker(tmp_path / "users", users, 3 * users, idle, "stay"):
            await asyncio.sleep(0.6 * moments.random())
        heir = start_worker(tmp_path / "users", users, users, idle)
        adopted = await asyncio.to_thread(report, heir)
        assert adopted["codes"] == 0
        there = await manager._submit(manager._population.all)
        assert sorted(info.id for info in there) == adopted["containers"]
        assert len(there) == users
        # Every other round begins with nothing.
        if moments.random() < 0.5:
            for number in range(users // 2, users):
                await manager.stop(f"user{number}")
    over.set()
    assert min(await others) > 20
    await manager.aclose()
    deadline = time.monotonic() + idle + 30
    while await manager._submit(manager._population.all):
        assert time.monotonic() < deadline, "an orphan is left with no backend alive"
        await asyncio.sleep(0.2)
