"""First come, first served: a queue in which everybody knows the place."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ("PatienceError", "Place", "TurnQueue")


class PatienceError(Exception):
    """The deadline came before the turn."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Place:
    """A place in a queue, taken on arrival."""

    def __init__(self, queue: TurnQueue, moved: Callable[[int], None]) -> None:
        self._queue = queue
        self._moved = moved
        self._front = asyncio.Event()
        self._told = 0
        self._waiting = False
        self.position = 0
        """1 at the front, 0 outside of the queue."""

    async def turn(self, deadline: float) -> None:
        """Wait to be at the front; the position is told at first and whenever it changes, as long as it is not there.

        Args:
            deadline: A time of the event loop's clock.

        Raises:
            PatienceError: The deadline came first.
        """
        self._waiting = True
        self._tell()
        try:
            async with asyncio.timeout_at(deadline):
                await self._front.wait()
        except TimeoutError:
            raise PatienceError(self.position) from None
        finally:
            self._waiting = False

    def leave(self) -> None:
        """Give the place up, for the next one to have its turn; further calls do nothing."""
        self._queue.remove(self)

    def rejoin(self) -> None:
        """Go to the end of the queue."""
        self._queue.remove(self)
        self._queue.append(self)

    def move(self, position: int) -> None:
        """Be where the queue says."""
        self.position = position
        if position == 1:
            self._front.set()
        else:
            self._front.clear()
        self._tell()

    def _tell(self) -> None:
        if self._waiting and self.position > 1 and self.position != self._told:
            self._told = self.position
            self._moved(self.position)


class TurnQueue:
    """A queue of one event loop's tasks, of which one at a time has its turn."""

    def __init__(self) -> None:
        self._places: deque[Place] = deque()
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        """How many wait or have their turn."""
        return len(self._places)

    async def emptied(self) -> None:
        """Wait until nobody waits or has a turn."""
        while self._places:
            await self._empty.wait()

    @contextmanager
    def place(self, moved: Callable[[int], None]) -> Generator[Place]:
        """Take a place at the end of the queue.

        Args:
            moved: Told the position, 2 being the next but one to be served, while its turn is waited for.
        """
        place = Place(self, moved)
        self.append(place)
        try:
            yield place
        finally:
            self.remove(place)

    def append(self, place: Place) -> None:
        """Put a place at the end."""
        self._places.append(place)
        self._empty.clear()
        place.move(len(self._places))

    def remove(self, place: Place) -> None:
        """Take a place out, which moves everybody behind it forward."""
        if place not in self._places:
            return
        self._places.remove(place)
        if not self._places:
            self._empty.set()
        place.move(0)
        for position, other in enumerate(self._places, start=1):
            if other.position != position:
                other.move(position)
