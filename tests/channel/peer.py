"""A runner that misbehaves: the other end of a channel, speaking raw frames, for what the real one never does."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai_sandbox.channel.frames import HEADER, Kind, encode
from pydantic_ai_sandbox.channel.multiplexer import Channel


class Peer:
    """Reads and writes whole frames, right or wrong ones."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self) -> tuple[int, int, bytes]:
        length, kind, stream = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        return kind, stream, await self.reader.readexactly(length)

    async def read_until(self, kind: Kind) -> tuple[int, bytes]:
        while True:
            found, stream, payload = await self.read()
            if found == kind:
                return stream, payload

    def send(self, kind: int, stream: int, payload: bytes | dict[str, Any] = b"") -> None:
        if isinstance(payload, dict):
            payload = json.dumps(payload).encode()
        self.writer.write(HEADER.pack(len(payload), kind, stream) + payload)

    def send_raw(self, data: bytes) -> None:
        self.writer.write(data)

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def connected(*, greet: bool = True) -> AsyncGenerator[tuple[Channel, Peer]]:
    """A channel and the peer at its other end; unless told otherwise they have exchanged greetings."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    peer = Peer(reader, writer)
    channel = Channel()
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
    try:
        if greet:
            peer.send_raw(encode(Kind.HELLO, 0, b'{"protocol": 1, "workdir": "/workspace"}'))
            await channel.hello(5)
            await peer.read()
        yield channel, peer
    finally:
        channel.close()
        peer.close()
        await asyncio.sleep(0)
