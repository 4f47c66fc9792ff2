"""Whose turn it is, when what a path leads to is told late and in any order."""

import random

import anyio
import pytest

from pydantic_ai_sandbox.console.state import PathOrder

pytestmark = pytest.mark.anyio


async def test_order_is_that_of_the_calls_however_late_the_answers_are() -> None:
    order, done = PathOrder(), list[int]()
    delays = [0.05, 0.0, 0.03, 0.01, 0.02, 0.0]

    async def operate(number: int) -> None:
        async def resolve() -> str:
            await anyio.sleep(delays[number])
            return "/same"

        async with order.turn(resolve):
            await anyio.sleep(random.random() / 100)
            done.append(number)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(operate, number)
    assert done == [0, 1, 2, 3, 4, 5]


async def test_other_paths_do_not_wait_for_the_operation() -> None:
    order, done = PathOrder(), list[str]()
    release = anyio.Event()

    async def operate(path: str) -> None:
        async def resolve() -> str:
            return path

        async with order.turn(resolve):
            if path == "/slow":
                await release.wait()
            done.append(path)

    async with anyio.create_task_group() as group:
        group.start_soon(operate, "/slow")
        group.start_soon(operate, "/quick")
        await anyio.sleep(0.02)
        assert done == ["/quick"]
        release.set()


async def test_one_that_fails_or_is_cancelled_holds_up_nobody_and_lets_nobody_overtake() -> None:
    order, done, release = PathOrder(), list[str](), anyio.Event()

    async def operate(name: str) -> None:
        async def resolve() -> str:
            if name == "first":
                await release.wait()
            if name == "fails":
                raise OSError
            return "/same"

        try:
            async with order.turn(resolve):
                done.append(name)
        except OSError:
            done.append("failed")

    async with anyio.create_task_group() as group:
        group.start_soon(operate, "first")
        group.start_soon(operate, "fails")
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0.01):
            await operate("cancelled")
        group.start_soon(operate, "last")
        await anyio.wait_all_tasks_blocked()
        assert done == ["failed"]
        release.set()
    assert done == ["failed", "first", "last"]


async def test_nothing_is_kept_of_paths_nobody_holds() -> None:
    order = PathOrder()

    async def resolve() -> str:
        return "/a"

    async with order.turn(resolve) as held:
        assert held == "/a"
    assert not order._locks
    assert not order._not_queued
