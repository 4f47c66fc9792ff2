"""The universal way to a runner: one long-lived `docker exec -i … runner connect`, whatever the daemon is and wherever."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from ...channel.multiplexer import Channel
from ...channel.remainder import read_remainder
from ...errors import ChannelError
from .client import Daemon
from .hardening import RUNNER

__all__ = ("Demultiplexer", "open_exec_stream")

T = TypeVar("T")

_HEADER = struct.Struct(">BxxxI")
"""What Docker puts before each piece of output: which stream, and how long."""

_STDOUT, _STDERR = 1, 2

_PIECE = 65_536
"""Bytes relayed at once where a stream has no socket of its own."""

_LONGEST_WAIT = 0.5
"""Seconds between looks at a connection that has nothing to say."""

_MAX_COMPLAINT = 2000
"""Characters kept of what the relay writes to standard error."""


class _RawStream(Protocol):
    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def close(self) -> None: ...


def open_exec_stream(api: Daemon, container_id: str) -> socket.socket:
    """Start the relay in a container and return a socket to it; its output is still framed by Docker.

    Raises:
        docker.errors.APIError: Docker refused.
    """
    exec_id = api.exec_create(container_id, [RUNNER, "connect"], stdin=True, stdout=True, stderr=True)["Id"]
    stream = api.exec_start(exec_id, socket=True)
    raw = getattr(stream, "_sock", stream)
    if isinstance(raw, socket.socket) and type(raw) is socket.socket:
        # Taken away from the HTTP library, whose objects refer to each other and would keep it open for a while.
        sock = socket.socket(fileno=raw.detach())
    elif isinstance(raw, ssl.SSLSocket):
        sock = _bridge(_TLSStream(raw))
    else:
        sock = _bridge(cast("_RawStream", raw))
    sock.setblocking(False)
    return sock


class _TLSStream:
    """A TLS connection that one thread may read while another writes, which the TLS library does not allow by itself."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._lock = threading.Lock()

    def recv(self, size: int, /) -> bytes:
        return self._when_ready(lambda: self._sock.recv(size))

    def sendall(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            view = view[self._when_ready(partial(self._sock.send, view)) :]

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            # Wakes the other thread, which closing alone does not.
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _when_ready(self, call: Callable[[], T]) -> T:
        while True:
            with self._lock:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    event = selectors.EVENT_READ
                except ssl.SSLWantWriteError:
                    event = selectors.EVENT_WRITE
            with selectors.DefaultSelector() as selector:
                selector.register(self._sock, event)
                # Not for ever: what one thread waits for may have been taken in by the other.
                selector.select(_LONGEST_WAIT)


def _bridge(raw: _RawStream) -> socket.socket:
    """A socket for a stream that an event loop cannot watch (TLS, SSH, a Windows pipe): two threads carry the bytes."""
    ours, theirs = socket.socketpair()

    def carry(source: Any, target: Any) -> None:
        try:
            while piece := source.recv(_PIECE):
                target.sendall(piece)
        except (OSError, ValueError):
            pass
        finally:
            # Either end that goes takes the other with it, which ends the second thread.
            theirs.close()
            raw.close()

    for source, target in ((raw, theirs), (theirs, raw)):
        threading.Thread(target=carry, args=(source, target), daemon=True, name="sandbox-stream").start()
    return ours


class Demultiplexer(asyncio.BufferedProtocol):
    """Takes Docker's framing off the stream and hands what is in it to a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._transport: asyncio.BaseTransport | None = None
        self._buffer = memoryview(bytearray(262_144))
        self._header = bytearray()
        self._stream = 0
        self._rest = 0
        self._complaint = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._channel.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._transport is not None:
            read_remainder(self._transport, self)
        if exc is None and self._complaint:
            exc = ChannelError(self._complaint.strip())
        self._channel.lost(exc)

    def pause_writing(self) -> None:
        self._channel.pause_writing()

    def resume_writing(self) -> None:
        self._channel.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._buffer[:nbytes]
        while data:
            data = self._take_body(data) if self._rest else self._take_header(data)

    def _take_header(self, data: memoryview) -> memoryview:
        missing = _HEADER.size - len(self._header)
        self._header += data[:missing]
        if len(self._header) == _HEADER.size:
            self._stream, self._rest = _HEADER.unpack(self._header)
            self._header.clear()
        return data[missing:]

    def _take_body(self, data: memoryview) -> memoryview:
        body = data[: self._rest]
        self._rest -= len(body)
        if self._stream == _STDOUT:
            self._channel.feed(body)
        elif self._stream == _STDERR and len(self._complaint) < _MAX_COMPLAINT:
            self._complaint += bytes(body).decode("utf-8", "replace")[:_MAX_COMPLAINT]
        return data[len(body) :]
