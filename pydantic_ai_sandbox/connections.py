"""Connections to what listens in a sandbox."""

from __future__ import annotations

from .channel.client import RunnerClient
from .channel.multiplexer import Stream
from .channel.sinks import Flow

__all__ = ("SandboxConnection",)


class SandboxConnection:
    """A `ByteStream` into a sandbox."""

    def __init__(self, stream: Stream, flow: Flow) -> None:
        self._stream = stream
        self._flow = flow

    async def read(self) -> bytes:
        piece = await self._flow.next(self._stream)
        if piece is not None:
            return piece[1]
        await RunnerClient.closed(self._stream)
        return b""

    async def write(self, data: bytes) -> None:
        await self._stream.send(data)
        if self._stream.future.done():
            await RunnerClient.closed(self._stream)
            raise BrokenPipeError("the other side has closed the connection")

    async def close_write(self) -> None:
        self._stream.end()
