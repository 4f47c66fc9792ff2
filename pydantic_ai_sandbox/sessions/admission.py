"""Who may make a sandbox next, when there cannot be one for everybody at once."""

from __future__ import annotations

import asyncio
import weakref
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ..errors import CapacityError
from .capacity import NoRoomError
from .eviction import Evictor
from .population import Owner
from .queueing import PatienceError, Place, TurnQueue

__all__ = ("Admission", "Ticket", "Waiting")

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
"""Seconds between looking for room: containers end by themselves and by other processes, and nobody tells."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A request for a sandbox has to wait, or moved forward in the queue."""

    user_id: str
    scope: str
    position: int
    """Place in the queue of this process; 1 is served next."""
    limit: int
    """How many sandboxes there may be."""


class Ticket:
    """The right to make a container, used up by making one; may be used in any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place) -> None:
        self._loop = loop
        self._place = place

    def use(self) -> None:
        """Let the next request have its turn."""
        self._loop.call_soon_threadsafe(self._place.leave)


@dataclass
class _Queues:
    """The queues of one event loop."""

    everybody: TurnQueue = field(default_factory=TurnQueue)
    users: dict[str, TurnQueue] = field(default_factory=lambda: defaultdict(TurnQueue))


class Admission:
    """Lets requests make containers one after the other, first come, first served within an event loop.

    Args:
        evictor: Ends those that are not in use.
        limit: How many there may be, as far as it concerns everybody.
        timeout: Seconds after which a request is refused.
        grace: Seconds that a sandbox has to be idle before it makes room for another.
    """

    def __init__(self, evictor: Evictor, *, limit: int | None, timeout: float, grace: float) -> None:
        self._evictor = evictor
        self._limit = limit
        self._timeout = timeout
        self._grace = grace
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queues] = weakref.WeakKeyDictionary()
        self._watchers: dict[Owner, list[Callable[[Waiting], None]]] = {}
        self._told: dict[Owner, Waiting] = {}

    async def idle(self) -> None:
        """Wait until no request waits or is being served in the running event loop."""
        await self._queues().everybody.emptied()

    @contextmanager
    def watched(self, owner: Owner, watcher: Callable[[Waiting], None] | None) -> Generator[None]:
        """Tell `watcher`, in here, what becomes of requests for this sandbox."""
        if watcher is None:
            yield
            return
        watchers = self._watchers.setdefault(owner, [])
        watchers.append(watcher)
        try:
            yield
        finally:
            watchers.remove(watcher)
            if not watchers:
                self._watchers.pop(owner, None)

    async def admit(self, owner: Owner, attempt: Callable[[Ticket | None], Awaitable[T]]) -> T:
        """Make attempts, which raise `NoRoomError` while there is no room, when it is this request's turn.

        The first attempt is made at once, without a ticket: what is there already needs no room.

        Raises:
            CapacityError: There was no room before the deadline.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        queues = self._queues()
        with self._own_queue(owner) as own, queues.everybody.place(partial(self._tell, owner, self._limit)) as place:
            try:
                return await attempt(None)
            except NoRoomError as full:
                limit = full.limit
            try:
                if own.position > 1:
                    # The user's earlier requests come first, and other users' need not wait for that.
                    place.leave()
                    await own.turn(deadline)
                    place.rejoin()
                while True:
                    await place.turn(deadline)
                    try:
                        return await self._in_turn(owner, place, attempt, deadline)
                    except NoRoomError as full:
                        limit = full.limit
                        place.leave()
                        await self._own_room(owner, full, deadline)
                        place.rejoin()
            except PatienceError as error:
                raise self._refusal(owner, limit, max(error.position, own.position)) from None
            finally:
                self._told.pop(owner, None)

    @contextmanager
    def _own_queue(self, owner: Owner) -> Generator[Place]:
        users = self._queues().users
        queue = users[owner.user_id]
        try:
            with queue.place(lambda position: None) as place:
                yield place
        finally:
            if not queue:
                users.pop(owner.user_id, None)

    async def _in_turn(
        self, owner: Owner, place: Place, attempt: Callable[[Ticket | None], Awaitable[T]], deadline: float
    ) -> T:
        """Attempts at the front of the queue, until there is room or the user's own limit is in the way."""
        ticket = Ticket(asyncio.get_running_loop(), place)
        pause = _FIRST_PAUSE
        while True:
            try:
                return await attempt(ticket)
            except NoRoomError as full:
                if full.user_id is not None:
                    raise
                self._tell(owner, full.limit, 1)
                if not await self._evictor.make_room(None, self._grace):
                    await _pause(pause, deadline)
                    pause = min(pause * 2, _LONGEST_PAUSE)

    async def _own_room(self, owner: Owner, full: NoRoomError, deadline: float) -> None:
        """Wait a little for one of the user's own sandboxes to end, or end one that is idle."""
        self._tell(owner, full.limit, 1)
        if not await self._evictor.make_room(owner.user_id, min(self._grace, 1.0)):
            await _pause(_LONGEST_PAUSE, deadline)

    def _tell(self, owner: Owner, limit: int | None, position: int) -> None:
        waiting = Waiting(user_id=owner.user_id, scope=owner.scope, position=position, limit=limit or position)
        if self._told.get(owner) == waiting:
            return
        self._told[owner] = waiting
        for watcher in tuple(self._watchers.get(owner, ())):
            watcher(waiting)

    def _refusal(self, owner: Owner, limit: int, position: int) -> CapacityError:
        return CapacityError(
            f"no room for a sandbox of {owner.user_id!r}: all {limit} are in use and none came free within "
            f"{self._timeout:g} s; the request was number {position} in the queue. Try again later, stop one, or raise "
            "the limit",
            limit=limit,
            position=position,
        )

    def _queues(self) -> _Queues:
        return self._loops.setdefault(asyncio.get_running_loop(), _Queues())


async def _pause(seconds: float, deadline: float) -> None:
    """Wait, at the front of the queue.

    Raises:
        PatienceError: The deadline has come.
    """
    left = deadline - asyncio.get_running_loop().time()
    if left <= 0:
        raise PatienceError(1)
    await asyncio.sleep(min(seconds, left))
