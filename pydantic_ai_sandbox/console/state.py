"""What is remembered within one agent run: what the model has seen of which file, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from ..interpreter import Interpreter

__all__ = ("PathOrder", "RunState", "current_state", "remembering")


@dataclass
class _PathLock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class PathOrder:
    """Lets operations on one file happen in the order in which they were called, and all others at once.

    What a path leads to is only known after asking the workspace, and the answers may come in any order. So a caller
    takes a ticket before it asks, and queues for the file when every earlier ticket has queued for its own.
    """

    def __init__(self) -> None:
        self._issued = 0
        self._not_queued: dict[int, asyncio.Event] = {}
        self._locks: dict[str, _PathLock] = {}

    @asynccontextmanager
    async def turn(self, resolve: Callable[[], Awaitable[str]]) -> AsyncGenerator[str]:
        """Hold the file that `resolve` names, in order of the calls; gives its name.

        The ticket is taken before the first `await`, so callers started in order keep it.
        """
        ticket = self._take_ticket()
        try:
            name = await resolve()
            await self._wait_for_earlier(ticket)
            entry = self._locks.setdefault(name, _PathLock())
            entry.users += 1
        finally:
            self._not_queued.pop(ticket).set()
        try:
            # Joins the lock's queue without giving way first: nobody behind can overtake.
            async with entry.lock:
                yield name
        finally:
            entry.users -= 1
            if not entry.users:
                del self._locks[name]

    def _take_ticket(self) -> int:
        self._issued += 1
        self._not_queued[self._issued] = asyncio.Event()
        return self._issued

    async def _wait_for_earlier(self, ticket: int) -> None:
        # Insertion order is ticket order, and one that gives up removes itself.
        while (first := next(iter(self._not_queued))) != ticket:
            await self._not_queued[first].wait()


class RunState:
    """The memory of one run."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        """Real path → version of the content that the model last read or wrote."""
        self.order = PathOrder()
        self.cursors: dict[str, int] = {}
        """Job id → where the model's reading of its output stands."""
        self.interpreter: tuple[object, Interpreter] | None = None
        """The workspace of the last cell, and its interpreter, which keeps cells in the order of their calls."""


_current: ContextVar[RunState | None] = ContextVar("pydantic_ai_sandbox_console_state", default=None)


def current_state() -> RunState:
    """The state of the run whose tool is being called; without a run, one that remembers nothing."""
    return _current.get() or RunState()


@contextmanager
def remembering(state: RunState | None) -> Generator[None]:
    """Make `state` the one of the tool that is called inside."""
    token = _current.set(state)
    try:
        yield
    finally:
        _current.reset(token)
