"""Rounds of chores: when they come, and that they end when they are to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pydantic_ai_sandbox.sessions.housekeeping import Housekeeper


def housekeeper(chore: Callable[[], Awaitable[object]], interval: float = 600) -> Housekeeper:
    return Housekeeper([chore], interval)


async def test_a_round_comes_at_once_and_whenever_it_is_called_for() -> None:
    rounds = asyncio.Semaphore(0)

    async def chore() -> None:
        rounds.release()

    keeper = housekeeper(chore)
    keeper.start()
    async with asyncio.timeout(60):
        await rounds.acquire()
        for _ in range(3):
            keeper.call()
            await rounds.acquire()
        await keeper.stop()


async def test_a_chore_that_fails_is_done_again(caplog: pytest.LogCaptureFixture) -> None:
    rounds = asyncio.Semaphore(0)

    async def chore() -> None:
        rounds.release()
        raise OSError("no space left")

    keeper = housekeeper(chore, interval=0.01)
    keeper.start()
    async with asyncio.timeout(60):
        for _ in range(3):
            await rounds.acquire()
        await keeper.stop()
    assert "no space left" in caplog.text


@pytest.mark.parametrize("steps", range(8))
async def test_it_ends_also_when_a_round_is_just_due(steps: int) -> None:
    started = asyncio.Event()

    async def chore() -> None:
        started.set()

    keeper = housekeeper(chore)
    keeper.start()
    async with asyncio.timeout(60):
        await started.wait()
        await asyncio.sleep(0.01)
        keeper.call()
        for _ in range(steps):
            await asyncio.sleep(0)
        stopping = asyncio.create_task(keeper.stop())
        done, _ = await asyncio.wait([stopping], timeout=5)
    assert done, "it goes on"
