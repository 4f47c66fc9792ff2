"""The wire format survives any cutting of the stream, and nothing a peer sends makes the reader grow or hang."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydantic_ai_sandbox.channel.frames import (
    HEADER,
    MAX_PAYLOAD,
    FrameReader,
    Kind,
    decode_json,
    encode,
    encode_json,
)
from pydantic_ai_sandbox.errors import ChannelError

Frames = list[tuple[int, int, bytes]]

frames = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=20)


def reader() -> tuple[FrameReader, Frames]:
    seen: Frames = []
    return FrameReader(lambda kind, stream, payload: seen.append((kind, stream, bytes(payload)))), seen


@given(frames, st.lists(st.integers(1, 400), min_size=1, max_size=50))
def test_frames_arrive_whole_however_the_stream_is_cut(sent: Frames, cuts: list[int]) -> None:
    data = memoryview(b"".join(encode(Kind(kind), stream, payload) for kind, stream, payload in sent))
    parser, seen = reader()
    index = 0
    while data:
        step = cuts[index % len(cuts)]
        parser.feed(data[:step])
        data = data[step:]
        index += 1
    assert seen == sent


@pytest.mark.parametrize("length", [0, 1, MAX_PAYLOAD - 1, MAX_PAYLOAD])
def test_the_longest_payload_fits(length: int) -> None:
    parser, seen = reader()
    payload = b"x" * length
    parser.feed(memoryview(encode(Kind.DATA, 7, payload) * 3))
    assert seen == [(Kind.DATA, 7, payload)] * 3


@pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 2**31, 2**32 - 1])
def test_a_lie_about_the_length_is_refused_before_anything_is_kept(length: int) -> None:
    parser, seen = reader()
    with pytest.raises(ChannelError, match="allowed"):
        parser.feed(memoryview(HEADER.pack(length, Kind.DATA, 1)))
    assert not seen


@given(st.binary(max_size=4000))
def test_garbage_is_frames_or_a_channel_error_and_never_anything_else(data: bytes) -> None:
    parser, _ = reader()
    with suppress(ChannelError):
        parser.feed(memoryview(data))


def test_the_buffer_always_has_room_for_more() -> None:
    parser, _ = reader()
    whole = encode(Kind.DATA, 1, b"y" * MAX_PAYLOAD)
    for start in range(0, len(whole) - 1, 65_536):
        parser.feed(memoryview(whole[start : start + 65_536]))
        assert len(parser.free()) > 0


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53)))
def test_control_payloads_round_trip(value: dict[str, str | int]) -> None:
    assert decode_json(encode_json(value)) == value


def test_undecodable_bytes_in_names_travel_as_lone_surrogates() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    payload = encode_json({"path": name})
    assert b"\\udce9" in payload
    assert decode_json(payload) == {"path": name}


@pytest.mark.parametrize("payload", [b"", b"[]", b"1", b"{", b"\xff", b"[" * 200_000, b'{"a":' * 50_000])
def test_what_is_not_an_object_is_a_channel_error(payload: bytes) -> None:
    with pytest.raises(ChannelError):
        decode_json(payload)


def test_a_request_that_does_not_fit_is_refused_by_us() -> None:
    with pytest.raises(ValueError, match="fit"):
        encode_json({"shell": "x" * MAX_PAYLOAD})
