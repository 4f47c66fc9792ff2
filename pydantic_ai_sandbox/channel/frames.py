"""The wire format: `u32 length | u8 kind | u32 stream | payload`, big-endian (see `runtimes/runner/PROTOCOL.md`)."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, cast

from ..errors import ChannelError

__all__ = (
    "HEADER",
    "MAX_PAYLOAD",
    "PROTOCOL_VERSION",
    "WINDOW",
    "FrameReader",
    "Kind",
    "decode_json",
    "encode",
    "encode_json",
)

PROTOCOL_VERSION = 1

MAX_PAYLOAD = 262_144
"""Bytes in one frame's payload, at most; what claims to be longer is not a frame of ours."""

WINDOW = 1_048_576
"""Bytes of data that may be under way on one stream in one direction."""

HEADER = struct.Struct(">IBI")


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    OPEN = 2
    DATA = 3
    STDERR = 4
    END = 5
    RESULT = 6
    ERROR = 7
    CREDIT = 8
    CANCEL = 9
    GOODBYE = 10


def encode(kind: Kind, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """One frame as bytes."""
    return b"".join((HEADER.pack(len(payload), kind, stream), payload))


def encode_json(value: Mapping[str, Any]) -> bytes:
    """A control payload; undecodable bytes in text travel as lone surrogates, which ASCII JSON can carry.

    Raises:
        ValueError: It does not fit into a frame.
    """
    payload = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"the request is {len(payload)} bytes long, {MAX_PAYLOAD} fit")
    return payload


def decode_json(payload: bytes | memoryview) -> dict[str, Any]:
    """The object in a control payload.

    Raises:
        ChannelError: It is not a JSON object.
    """
    try:
        value: object = json.loads(bytes(payload))
    # RecursionError: deep nesting is the peer's doing, not ours.
    except (ValueError, RecursionError) as error:
        raise ChannelError("the peer sent a control frame that is not JSON") from error
    if not isinstance(value, dict):
        raise ChannelError("the peer sent a control frame that is not an object")
    return cast("dict[str, Any]", value)


_SMALL = 16 * 1024
"""Bytes of a reader's buffer while little comes: a backend holds a channel for every user, most of whom are quiet."""

_LARGE = HEADER.size + 2 * MAX_PAYLOAD
"""… while much comes: room for one whole frame and a good part of the next, so that big reads stay big."""


class FrameReader:
    """Cuts a byte stream into frames in a buffer of one of two sizes, so that no peer can make it grow further.

    `handle(kind, stream, payload)` is called for every frame; `payload` is valid only during the call.
    """

    def __init__(self, handle: Callable[[int, int, memoryview], None]) -> None:
        self._handle = handle
        self._buffer = bytearray(_SMALL)
        self._view = memoryview(self._buffer)
        self._filled = 0

    def free(self) -> memoryview:
        """Where the next bytes of the stream belong; never empty."""
        return self._view[self._filled :]

    def advance(self, count: int) -> None:
        """Take note of `count` new bytes in `free()` and handle the frames they complete.

        Raises:
            ChannelError: The stream is not one of frames.
        """
        self._filled += count
        much = self._filled == len(self._buffer)
        start = 0
        while self._filled - start >= HEADER.size:
            length, kind, stream = HEADER.unpack_from(self._buffer, start)
            if length > MAX_PAYLOAD:
                raise ChannelError(f"the peer announced a frame of {length} bytes, {MAX_PAYLOAD} are allowed")
            end = start + HEADER.size + length
            if end > self._filled:
                much = much or end - start > len(self._buffer)
                break
            self._handle(kind, stream, self._view[start + HEADER.size : end])
            start = end
        rest = self._filled - start
        if much and len(self._buffer) < _LARGE:
            self._move(_LARGE, start)
        elif count < _SMALL < len(self._buffer) and not rest:
            self._move(_SMALL, start)
        elif start:
            self._view[:rest] = self._view[start : self._filled]
        self._filled = rest

    def _move(self, size: int, start: int) -> None:
        """Go on in a buffer of another size."""
        buffer = bytearray(size)
        buffer[: self._filled - start] = self._view[start : self._filled]
        self._buffer = buffer
        self._view = memoryview(buffer)

    def feed(self, data: memoryview) -> None:
        """Handle bytes that arrived elsewhere, as when another protocol wraps the stream."""
        while data:
            free = self.free()
            count = min(len(free), len(data))
            free[:count] = data[:count]
            self.advance(count)
            data = data[count:]
