"""Many operations at once over one byte stream, with credit in both directions.

The peer is hostile: it may be any program inside the sandbox. What it sends is bounded before it is kept, and the first
rule it breaks closes the channel with a `ChannelError`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from ..errors import ChannelError
from .frames import MAX_PAYLOAD, PROTOCOL_VERSION, WINDOW, FrameReader, Kind, decode_json, encode, encode_json
from .remainder import read_remainder
from .sinks import Sink

__all__ = ("Channel", "PeerError", "Stream")

MAX_STREAMS = 1000
"""Operations under way at once; the runner refuses a little more than this, further ones wait here."""

_MAX_STRAY_FRAMES = 8192
"""Frames in a row for streams that have ended. Some cross a cancellation; a peer that sends nothing else is burning our time."""

_LAST_STREAM = 2**32 - 1

_GRANT = WINDOW // 4
"""Credit is given back in steps of this size: rare enough to cost nothing, early enough that the sender never waits."""


class PeerError(Exception):
    """The runner answered that an operation failed; the typed client turns it into the error its caller expects."""

    def __init__(self, code: str, message: str, path: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path


class Stream:
    """One operation under way."""

    __slots__ = (
        "_channel",
        "_credit_waiter",
        "_deadline",
        "_granted",
        "_receivable",
        "_sendable",
        "_sink",
        "future",
        "id",
    )

    def __init__(self, channel: Channel, id: int, sink: Sink, future: asyncio.Future[dict[str, Any]]) -> None:
        self.id = id
        self.future = future
        self._channel = channel
        self._sink = sink
        self._sendable = WINDOW
        self._receivable = WINDOW
        self._granted = 0
        self._credit_waiter: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    async def send(self, data: bytes | memoryview) -> None:
        """Send data; waits for the peer's credit. Ends early, without an error, when the operation has ended.

        Raises:
            ChannelError: The channel closed.
        """
        view = memoryview(data)
        while view and not self.future.done():
            if not self._sendable:
                await self._wait_for_credit()
                continue
            await self._channel.writable(self.future)
            if self.future.done():
                return
            count = min(len(view), self._sendable, MAX_PAYLOAD)
            self.send_now(view[:count])
            view = view[count:]

    def send_now(self, data: bytes | memoryview) -> None:
        """Send a piece that fits into a frame and the window."""
        self._sendable -= len(data)
        self._channel.write(encode(Kind.DATA, self.id, data))

    def end(self) -> None:
        """No more data from us."""
        if not self.future.done():
            self._channel.write(encode(Kind.END, self.id))

    def cancel(self) -> None:
        """Ask for the operation to be stopped; its end is still reported."""
        if not self.future.done():
            self._channel.write(encode(Kind.CANCEL, self.id))

    def abandon(self, error: BaseException | None = None) -> None:
        """Stop the operation and forget it: whatever still comes for it is dropped."""
        self._channel.abandon(self, error or ChannelError("the operation was given up"))

    def expire_after(self, seconds: float) -> None:
        """Give up unless the operation ends within that time."""
        self._deadline = self.future.get_loop().call_later(seconds, self._expire, seconds)

    def _expire(self, seconds: float) -> None:
        self.abandon(ChannelError(f"the sandbox's runner did not answer within {seconds:g} s; the outcome is unknown"))

    async def _wait_for_credit(self) -> None:
        self._credit_waiter = asyncio.get_running_loop().create_future()
        try:
            await self._credit_waiter
        finally:
            self._credit_waiter = None

    def _wake(self) -> None:
        if self._credit_waiter is not None and not self._credit_waiter.done():
            self._credit_waiter.set_result(None)

    def grant(self, count: int) -> None:
        """Give back credit for `count` bytes that were consumed."""
        self._granted += count
        if self._granted >= _GRANT and not self.future.done():
            self._channel.write(encode(Kind.CREDIT, self.id, self._granted.to_bytes(4, "big")))
            self._receivable += self._granted
            self._granted = 0

    def on_data(self, kind: Kind, payload: memoryview) -> None:
        self._receivable -= len(payload)
        if self._receivable < 0:
            raise ChannelError("the peer sent more data than it had credit for")
        if not payload:
            raise ChannelError("the peer sent an empty data frame")
        consumed = self._sink.receive(kind, payload)
        if consumed:
            self.grant(consumed)

    def on_credit(self, payload: memoryview) -> None:
        credit = int.from_bytes(payload, "big") if len(payload) == 4 else 0
        self._sendable += credit
        if not credit or self._sendable > WINDOW:
            raise ChannelError("the peer gave credit for what was never sent")
        self._wake()

    def close(self, outcome: dict[str, Any] | BaseException) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self.future.done():
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
                # Nobody may be waiting any more, which is no reason for a warning.
                self.future.exception()
            else:
                self.future.set_result(outcome)
        self._sink.finish()
        self._wake()


class Channel(asyncio.BufferedProtocol):
    """The backend's end of the stream to one runner; lives on the event loop it was made on.

    It is the asyncio protocol of a connected transport: `loop.create_connection(Channel, …)`, then `await hello()`.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(self._on_frame)
        self._streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._stray_frames = 0
        self._transport: asyncio.WriteTransport | None = None
        self._hello: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._may_write: asyncio.Future[None] | None = None
        self._slots: deque[asyncio.Future[None]] = deque()
        self._closed: BaseException | None = None
        self.peer: Mapping[str, Any] = {}
        """What the runner said of itself."""
        self.goodbye: str | None = None
        """Why the runner ended, if it said so (`"idle"`, `"lifetime"`, `"retired"`); set before anything fails of it."""

    # --- life

    async def hello(self, timeout: float) -> Mapping[str, Any]:
        """Exchange greetings; the first thing to do.

        Raises:
            ChannelError: The peer is not a runner that speaks our protocol, or is silent for `timeout` seconds.
        """
        self.write(encode(Kind.HELLO, 0, encode_json({"protocol": PROTOCOL_VERSION})))
        try:
            async with asyncio.timeout(timeout):
                self.peer = await self._hello
        except TimeoutError:
            self.close()
            raise ChannelError(f"the sandbox's runner did not greet within {timeout:g} s") from None
        if self.peer.get("protocol") != PROTOCOL_VERSION:
            self.close()
            raise ChannelError(f"the runner speaks protocol {self.peer.get('protocol')!r}, not {PROTOCOL_VERSION}")
        return self.peer

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it lives on."""
        return self._loop

    @property
    def usable(self) -> bool:
        """Whether operations can be started."""
        return self._closed is None and self._last_stream < _LAST_STREAM

    def close(self) -> None:
        """Close the connection; what is under way fails."""
        self._fail(ChannelError("the channel to the sandbox was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # That of uvloop is one by what it does, not by its class.
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._closed is None and self._transport is not None:
            read_remainder(self._transport, self)
        self.lost(exc)

    def lost(self, exc: Exception | None) -> None:
        """Take note that nothing more comes, as a wrapping protocol knows."""
        reason = f": {exc}" if exc else ""
        self._fail(ChannelError(f"the connection to the sandbox's runner broke off{reason}"))

    def _fail(self, error: BaseException) -> None:
        if self._closed is not None:
            return
        self._closed = error
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.close(error)
        if not self._hello.done():
            self._hello.set_exception(error)
            self._hello.exception()
        self.resume_writing()
        for slot in self._slots:
            if not slot.done():
                slot.set_result(None)
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    # --- operations

    async def open(
        self,
        request: Mapping[str, Any],
        sink: Sink,
        *,
        body: bytes | memoryview | None = None,
        deadline: float | None = None,
    ) -> Stream:
        """Start an operation.

        Args:
            request: The OPEN frame's payload.
            sink: Takes the data that comes back.
            body: Data to send along and be done with; `None` leaves our side of the stream open.
            deadline: Seconds after which the operation is given up.

        Raises:
            ChannelError: The channel is closed.
        """
        while len(self._streams) >= MAX_STREAMS and self._closed is None:
            await self._wait_for_slot()
        if self._closed is not None:
            raise self._closed_error()
        payload = encode_json(request)
        self._last_stream += 1
        stream = Stream(self, self._last_stream, sink, self._loop.create_future())
        self._streams[stream.id] = stream
        if deadline is not None:
            stream.expire_after(deadline)
        if body is None:
            self.write(encode(Kind.OPEN, stream.id, payload))
        elif len(body) <= MAX_PAYLOAD:
            self._open_with_body(stream, payload, body)
        else:
            self.write(encode(Kind.OPEN, stream.id, payload))
            await self._send_body(stream, body)
        return stream

    def _open_with_body(self, stream: Stream, payload: bytes, body: bytes | memoryview) -> None:
        """One write, so that a small operation is one system call here and one wake-up there."""
        frames = [encode(Kind.OPEN, stream.id, payload)]
        if body:
            frames.append(encode(Kind.DATA, stream.id, body))
        frames.append(encode(Kind.END, stream.id))
        self.write(b"".join(frames))

    async def _send_body(self, stream: Stream, body: bytes | memoryview) -> None:
        try:
            await stream.send(body)
        except BaseException:
            stream.abandon()
            raise
        stream.end()

    async def call(
        self,
        request: Mapping[str, Any],
        sink: Sink,
        *,
        body: bytes | memoryview | None = b"",
        deadline: float | None = None,
    ) -> dict[str, Any]:
        """Do an operation and return its RESULT; being cancelled cancels it in the sandbox.

        Raises:
            PeerError: The runner says it failed.
            ChannelError: The channel closed, or the deadline passed.
        """
        stream = await self.open(request, sink, body=body, deadline=deadline)
        try:
            return await stream.future
        except asyncio.CancelledError:
            stream.abandon()
            raise

    def abandon(self, stream: Stream, error: BaseException) -> None:
        """Cancel an operation without waiting for its end."""
        # Whether it is under way is for us to know: a cancelled caller has cancelled the stream's future already.
        if self._streams.pop(stream.id, None) is not None:
            self.write(encode(Kind.CANCEL, stream.id))
            self._free_slot()
        stream.close(error)

    async def _wait_for_slot(self) -> None:
        slot: asyncio.Future[None] = self._loop.create_future()
        self._slots.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            # A slot that was given to us while we were being cancelled goes to the next in line.
            if slot.done() and not slot.cancelled():
                self._free_slot()
            raise

    def _free_slot(self) -> None:
        while self._slots:
            slot = self._slots.popleft()
            if not slot.done():
                slot.set_result(None)
                return

    def _closed_error(self) -> ChannelError:
        return ChannelError(str(self._closed))

    # --- writing

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, which keeps what the peer does not take yet."""
        if self._closed is None and self._transport is not None:
            self._transport.write(data)

    async def writable(self, unless: asyncio.Future[Any]) -> None:
        """Wait until the transport has room, or until `unless` is done."""
        while self._may_write is not None and not unless.done():
            await asyncio.wait((self._may_write, unless), return_when=asyncio.FIRST_COMPLETED)

    def pause_writing(self) -> None:
        if self._may_write is None:
            self._may_write = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._may_write is not None:
            self._may_write.set_result(None)
            self._may_write = None

    # --- reading

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.free()

    def buffer_updated(self, nbytes: int) -> None:
        self._guard(self._reader.advance, nbytes)

    def feed(self, data: memoryview) -> None:
        """Take bytes that a wrapping protocol received."""
        self._guard(self._reader.feed, data)

    def _guard(self, handle: Callable[[Any], None], argument: int | memoryview) -> None:
        if self._closed is not None:
            return
        try:
            handle(argument)
        except ChannelError as error:
            self._fail(error)

    def _on_frame(self, kind: int, number: int, payload: memoryview) -> None:
        if self._closed is not None:
            return
        if number == 0:
            self._on_control(kind, payload)
            return
        stream = self._streams.get(number)
        if stream is None:
            self._on_stray(number)
            return
        self._stray_frames = 0
        if kind == Kind.DATA:
            stream.on_data(Kind.DATA, payload)
        elif kind == Kind.RESULT:
            self._finish(stream, decode_json(payload))
        elif kind == Kind.STDERR:
            stream.on_data(Kind.STDERR, payload)
        elif kind == Kind.CREDIT:
            stream.on_credit(payload)
        elif kind == Kind.ERROR:
            self._finish(stream, _peer_error(decode_json(payload)))
        else:
            raise ChannelError(f"the peer sent a frame of kind {kind}, which is not its to send")

    def _finish(self, stream: Stream, outcome: dict[str, Any] | PeerError) -> None:
        del self._streams[stream.id]
        stream.close(outcome)
        self._free_slot()

    def _on_control(self, kind: int, payload: memoryview) -> None:
        if kind == Kind.HELLO and not self._hello.done():
            self._hello.set_result(decode_json(payload))
        elif kind == Kind.GOODBYE:
            self.goodbye = str(decode_json(payload).get("reason", "no reason given"))[:100]
            # It is the last that comes, and whoever fails now may ask why.
            self._fail(ChannelError(f"the connection to the sandbox's runner broke off: it ended ({self.goodbye})"))
        else:
            raise ChannelError(f"the peer sent a frame of kind {kind} where none belongs")

    def _on_stray(self, number: int) -> None:
        self._stray_frames += 1
        if number > self._last_stream or self._stray_frames > _MAX_STRAY_FRAMES:
            raise ChannelError("the peer sends frames for streams that do not exist")


def _peer_error(error: Mapping[str, Any]) -> PeerError:
    path = error.get("path")
    return PeerError(
        str(error.get("code", "EIO"))[:64],
        str(error.get("message", "no reason given"))[:2000],
        path if isinstance(path, str) else None,
    )
