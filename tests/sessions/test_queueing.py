"""First come, first served; everybody knows the place, and whoever goes makes everybody behind move."""

from __future__ import annotations

import asyncio
import random

import pytest

from pydantic_ai_sandbox.sessions.queueing import PatienceError, TurnQueue


def soon(seconds: float = 30.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_whoever_comes_first_is_served_first() -> None:
    queue, served = TurnQueue(), list[int]()

    async def ask(number: int) -> None:
        with queue.place(lambda position: None) as place:
            await place.turn(soon())
            await asyncio.sleep(0.001)
            served.append(number)

    await asyncio.gather(*(ask(number) for number in range(50)))
    assert served == list(range(50))
    assert len(queue) == 0


async def test_positions_count_down_one_by_one() -> None:
    queue, told = TurnQueue(), dict[int, list[int]]()

    async def ask(number: int) -> None:
        with queue.place(told.setdefault(number, []).append) as place:
            await place.turn(soon())
            await asyncio.sleep(0)

    await asyncio.gather(*(ask(number) for number in range(5)))
    # The front is told nothing: it has its turn.
    assert told == {0: [], 1: [2], 2: [3, 2], 3: [4, 3, 2], 4: [5, 4, 3, 2]}


async def test_whoever_gives_up_is_forgotten_and_the_others_move() -> None:
    queue = TurnQueue()
    told: list[int] = []
    release = asyncio.Event()

    async def hold() -> None:
        with queue.place(lambda position: None) as place:
            await place.turn(soon())
            await release.wait()

    async def ask() -> None:
        with queue.place(told.append) as place:
            await place.turn(soon())

    first = asyncio.create_task(hold())
    await asyncio.sleep(0)
    leaver = asyncio.create_task(hold())
    await asyncio.sleep(0)
    last = asyncio.create_task(ask())
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.sleep(0)
    assert told == [3, 2]
    release.set()
    await asyncio.gather(first, last)
    assert len(queue) == 0


async def test_a_deadline_ends_the_waiting_and_says_where_it_was() -> None:
    queue = TurnQueue()
    with (
        queue.place(lambda position: None),
        queue.place(lambda position: None) as second,
        pytest.raises(PatienceError) as caught,
    ):
        await second.turn(soon(0.01))
    assert caught.value.position == 2
    assert len(queue) == 0


async def test_a_turn_may_be_over_before_its_context_is_and_a_place_may_be_taken_again() -> None:
    queue = TurnQueue()
    with queue.place(lambda position: None) as first, queue.place(lambda position: None) as second:
        await first.turn(soon())
        first.leave()
        first.leave()
        assert (first.position, second.position) == (0, 1)
        await second.turn(soon())
        first.rejoin()
        assert (first.position, second.position) == (2, 1)
        second.rejoin()
        await first.turn(soon())
    assert len(queue) == 0


async def test_with_cancellations_at_random_everybody_is_served_or_cancelled_in_order() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    queue, served = TurnQueue(), list[int]()

    async def ask(number: int) -> None:
        with queue.place(lambda position: None) as place:
            await place.turn(soon())
            served.append(number)
            await asyncio.sleep(0.0005)

    tasks = [asyncio.create_task(ask(number)) for number in range(200)]
    await asyncio.sleep(0)
    for number in moments.sample(range(200), 80):
        await asyncio.sleep(moments.random() * 0.001)
        tasks[number].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert served == sorted(served)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in done)
    assert [number for number, result in enumerate(done) if result is None] == [
        number for number in served if done[number] is None
    ]
    assert len(queue) == 0


async def test_whoever_waits_for_it_to_be_empty_goes_on_when_the_last_one_is_gone_for_good() -> None:
    queue = TurnQueue()
    async with asyncio.timeout(60):
        await queue.emptied()
        with queue.place(print) as place:
            waiting = asyncio.create_task(queue.emptied())
            await asyncio.sleep(0)
            with queue.place(print):
                place.leave()
                await asyncio.sleep(0.01)
                assert not waiting.done()
            place.rejoin()
            await asyncio.sleep(0.01)
            assert not waiting.done()
        await waiting
