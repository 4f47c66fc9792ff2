"""What had arrived before a connection broke."""

from __future__ import annotations

import asyncio
import contextlib
import socket

__all__ = ("read_remainder",)

_MOST = 4 * 1024 * 1024
"""Bytes; a socket's buffer holds less."""


def read_remainder(transport: asyncio.BaseTransport, protocol: asyncio.BufferedProtocol) -> None:
    """Give a protocol that is losing its connection the bytes that its transport has not read.

    A transport that fails to write gives up at once, whatever lies in its socket: the last words of a peer, which then
    closed, among them. To be called from `connection_lost`, after which the socket is closed.
    """
    transport_socket: socket.socket | None = transport.get_extra_info("socket")
    if transport_socket is None:
        return
    with (
        contextlib.suppress(OSError),
        socket.fromfd(transport_socket.fileno(), transport_socket.family, transport_socket.type) as sock,
    ):
        sock.setblocking(False)
        left = _MOST
        while left > 0 and (count := sock.recv_into(protocol.get_buffer(-1))):
            protocol.buffer_updated(count)
            left -= count
