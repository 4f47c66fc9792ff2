"""Where the data of a stream goes: all of it kept, up to a limit, or handed to a consumer piece by piece."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from ..errors import ChannelError
from .frames import Kind

if TYPE_CHECKING:
    from .multiplexer import Stream

__all__ = ("Collector", "Flow", "Sink")


class Sink(Protocol):
    """Takes the data of one stream."""

    def receive(self, kind: Kind, payload: memoryview) -> int:
        """Take `payload`, valid only during the call; return how many bytes of credit to give back now.

        Raises:
            ChannelError: It is more than this sink will hold.
        """
        ...

    def finish(self) -> None:
        """No more will come."""
        ...


class Collector:
    """Keeps all data of a stream, up to `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.stderr = bytearray()
        self._room = limit

    def receive(self, kind: Kind, payload: memoryview) -> int:
        self._room -= len(payload)
        if self._room < 0:
            raise ChannelError("the peer sent more data than was asked for")
        if kind is Kind.DATA:
            self.data += payload
        else:
            self.stderr += payload
        return len(payload)

    def finish(self) -> None:
        pass


class Flow:
    """Hands data to a consumer piece by piece; credit goes back only as the consumer takes it."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[Kind, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._finished = False

    def receive(self, kind: Kind, payload: memoryview) -> int:
        self._chunks.append((kind, bytes(payload)))
        self._wake()
        return 0

    def finish(self) -> None:
        self._finished = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, stream: Stream) -> tuple[Kind, bytes] | None:
        """The next piece, or `None` after the last."""
        while not self._chunks:
            if self._finished:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        kind, data = self._chunks.popleft()
        stream.grant(len(data))
        return kind, data
