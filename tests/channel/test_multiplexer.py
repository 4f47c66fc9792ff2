"""The channel keeps its promises to callers, and survives every peer."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import tracemalloc
from collections.abc import Callable

import pytest

from pydantic_ai_sandbox.channel.client import RunnerClient
from pydantic_ai_sandbox.channel.frames import HEADER, MAX_PAYLOAD, WINDOW, Kind, encode
from pydantic_ai_sandbox.channel.multiplexer import MAX_STREAMS, Channel, PeerError
from pydantic_ai_sandbox.channel.sinks import Collector, Flow
from pydantic_ai_sandbox.engines.docker.exec_stream import Demultiplexer
from pydantic_ai_sandbox.errors import ChannelError

from .peer import Peer, connected

pytestmark = pytest.mark.anyio

PING = {"op": "ping"}


async def test_answers_find_their_callers_in_any_order() -> None:
    async with connected() as (channel, peer):
        calls = [asyncio.create_task(channel.call({"op": "ping", "n": n}, Collector(0))) for n in range(50)]
        streams = [(await peer.read_until(Kind.OPEN))[0] for _ in calls]
        for stream in reversed(streams):
            peer.send(Kind.RESULT, stream, {"answer": stream})
        assert [await call for call in calls] == [{"answer": stream} for stream in streams]


async def test_an_error_frame_is_a_peer_error_with_its_code() -> None:
    async with connected() as (channel, peer):
        call = asyncio.create_task(channel.call(PING, Collector(0)))
        stream, _ = await peer.read_until(Kind.OPEN)
        peer.send(Kind.ERROR, stream, {"code": "ENOENT", "message": "no such file", "path": "/x"})
        with pytest.raises(PeerError) as caught:
            await call
        assert (caught.value.code, caught.value.path) == ("ENOENT", "/x")


async def test_cancelling_a_caller_cancels_its_operation_and_later_frames_are_dropped() -> None:
    async with connected() as (channel, peer):
        call = asyncio.create_task(channel.call(PING, Collector(100)))
        stream, _ = await peer.read_until(Kind.OPEN)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await peer.read_until(Kind.CANCEL))[0] == stream
        peer.send(Kind.DATA, stream, b"late")
        peer.send(Kind.RESULT, stream, {})
        again = asyncio.create_task(channel.call(PING, Collector(0)))
        following, _ = await peer.read_until(Kind.OPEN)
        peer.send(Kind.RESULT, following, {"fine": True})
        assert await again == {"fine": True}


async def test_a_silent_peer_runs_into_the_deadline_and_is_told_to_stop() -> None:
    async with connected() as (channel, peer):
        with pytest.raises(ChannelError, match=r"did not answer within 0\.05 s"):
            await channel.call(PING, Collector(0), deadline=0.05)
        assert (await peer.read_until(Kind.CANCEL))[0] == 1
        assert channel.usable


async def test_a_sender_stops_when_its_credit_is_used_up_and_goes_on_when_it_gets_more() -> None:
    async with connected() as (channel, peer):
        body = b"z" * (WINDOW + 100_000)
        call = asyncio.create_task(channel.call({"op": "write"}, Collector(0), body=body))
        stream, _ = await peer.read_until(Kind.OPEN)
        received = 0
        while received < WINDOW:
            received += len((await peer.read_until(Kind.DATA))[1])
        assert received == WINDOW
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.read()
        peer.send(Kind.CREDIT, stream, (100_000).to_bytes(4, "big"))
        while received < len(body):
            received += len((await peer.read_until(Kind.DATA))[1])
        await peer.read_until(Kind.END)
        peer.send(Kind.RESULT, stream, {})
        await call


async def test_an_upload_ends_early_when_the_peer_refuses_it() -> None:
    async with connected() as (channel, peer):
        call = asyncio.create_task(channel.call({"op": "write"}, Collector(0), body=b"z" * (3 * WINDOW)))
        stream, _ = await peer.read_until(Kind.OPEN)
        peer.send(Kind.ERROR, stream, {"code": "EACCES", "message": "no"})
        with pytest.raises(PeerError):
            async with asyncio.timeout(5):
                await call


async def test_a_consumer_that_does_not_read_gives_no_credit() -> None:
    async with connected() as (channel, peer):
        flow = Flow()
        stream = await channel.open({"op": "exec"}, flow)
        number, _ = await peer.read_until(Kind.OPEN)
        for _ in range(WINDOW // MAX_PAYLOAD):
            peer.send(Kind.DATA, number, b"o" * MAX_PAYLOAD)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.read()
        assert await flow.next(stream) is not None
        _, credit = await peer.read_until(Kind.CREDIT)
        assert int.from_bytes(credit, "big") == MAX_PAYLOAD


async def test_more_operations_than_streams_wait_their_turn() -> None:
    async with connected() as (channel, peer):
        calls = [asyncio.create_task(channel.call(PING, Collector(0))) for _ in range(MAX_STREAMS + 5)]
        for _ in range(MAX_STREAMS):
            await peer.read_until(Kind.OPEN)
        await peer.read_until(Kind.END)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.read()
        calls[-1].cancel()
        for stream in range(1, MAX_STREAMS + 5):
            peer.send(Kind.RESULT, stream, {})
            if stream <= 4:
                await peer.read_until(Kind.OPEN)
        await asyncio.gather(*calls[:-1])


async def test_a_connection_that_breaks_off_fails_what_is_under_way_and_what_comes_after() -> None:
    async with connected() as (channel, peer):
        call = asyncio.create_task(channel.call(PING, Collector(0)))
        await peer.read_until(Kind.OPEN)
        peer.send(Kind.GOODBYE, 0, {"reason": "idle"})
        peer.close()
        with pytest.raises(ChannelError, match=r"it ended \(idle\)"):
            await call
        assert not channel.usable
        with pytest.raises(ChannelError):
            await channel.call(PING, Collector(0))


@pytest.mark.parametrize(
    ("reason", "never_begun"), [("idle", True), ("retired", True), ("lifetime", False), ("error", False), (None, False)]
)
async def test_whoever_is_cut_off_can_tell_whether_it_was_ever_begun(reason: str | None, never_begun: bool) -> None:
    async with connected() as (channel, peer):
        runner = RunnerClient(channel)

        async def cut_off() -> tuple[str | None, bool]:
            with pytest.raises(ChannelError):
                await runner.make_dir("/d")
            return channel.goodbye, runner.never_begun

        calls = [asyncio.create_task(cut_off()) for _ in range(3)]
        for _ in calls:
            await peer.read_until(Kind.OPEN)
        assert not runner.never_begun
        # The peer does not even hang up: what it says is enough.
        if reason is None:
            peer.close()
        else:
            peer.send(Kind.GOODBYE, 0, {"reason": reason})
        async with asyncio.timeout(5):
            assert await asyncio.gather(*calls) == [(reason, never_begun)] * 3
        assert await cut_off() == (reason, never_begun)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": use}) for use in (False, True)], ids=str)
@pytest.mark.parametrize("wrap", [lambda channel: channel, Demultiplexer], ids=["socket", "exec"])
async def test_last_words_are_heard_by_whoever_was_speaking(
    anyio_backend: object, wrap: Callable[[Channel], asyncio.BaseProtocol]
) -> None:
    """Writing to a peer that is gone fails before what it said has been read."""
    ours, theirs = socket.socketpair()
    channel = Channel()
    await asyncio.get_running_loop().create_unix_connection(lambda: wrap(channel), sock=ours)

    def say(kind: Kind, **what: object) -> None:
        frame = encode(kind, 0, json.dumps(what).encode())
        theirs.sendall(frame if wrap is not Demultiplexer else struct.pack(">BxxxI", 1, len(frame)) + frame)

    say(Kind.HELLO, protocol=1)
    await channel.hello(5)
    say(Kind.GOODBYE, reason="retired")
    # Our greeting is unread, so that this breaks the connection off.
    theirs.close()
    with pytest.raises(ChannelError, match=r"it ended \(retired\)"):
        await channel.call(PING, Collector(0))
    assert channel.goodbye == "retired"


async def test_a_freeze_begins_when_the_runner_says_so_and_ends_with_its_context() -> None:
    async with connected() as (channel, peer):
        frozen, thaw = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with RunnerClient(channel).freeze(5):
                frozen.set()
                await thaw.wait()

        task = asyncio.create_task(hold())
        stream, request = await peer.read_until(Kind.OPEN)
        assert json.loads(request) == {"op": "freeze", "timeout": 5000}
        await asyncio.sleep(0.05)
        assert not frozen.is_set()
        peer.send(Kind.DATA, stream, b"\1")
        async with asyncio.timeout(5):
            await frozen.wait()
            thaw.set()
            assert (await peer.read_until(Kind.END))[0] == stream
            assert not task.done()
            peer.send(Kind.RESULT, stream, {"frozen": 3, "duration": 5})
            await task


async def test_a_freeze_that_ended_too_early_is_no_success() -> None:
    async with connected() as (channel, peer):

        async def hold() -> None:
            async with RunnerClient(channel).freeze(5):
                peer.send(Kind.RESULT, 1, {"frozen": 3, "duration": 5000})
                await asyncio.sleep(0.05)

        task = asyncio.create_task(hold())
        await peer.read_until(Kind.OPEN)
        peer.send(Kind.DATA, 1, b"\1")
        with pytest.raises(ChannelError, match="5 s were not enough"):
            async with asyncio.timeout(5):
                await task


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((Kind.ERROR, {"code": "EBUSY", "message": "everything is frozen already"}), OSError),
        ((Kind.ERROR, {"code": "ETIMEDOUT", "message": "not everything could be stopped in time"}), TimeoutError),
        ((Kind.RESULT, {}), ChannelError),
        ((Kind.GOODBYE, {"reason": "lifetime"}), ChannelError),
    ],
)
async def test_a_freeze_that_does_not_hold_never_enters_its_context(
    answer: tuple[Kind, dict[str, str]], error: type[Exception]
) -> None:
    async with connected() as (channel, peer):

        async def hold() -> None:
            async with RunnerClient(channel).freeze():
                pytest.fail("nothing is frozen")

        task = asyncio.create_task(hold())
        stream, _ = await peer.read_until(Kind.OPEN)
        kind, payload = answer
        peer.send(kind, 0 if kind is Kind.GOODBYE else stream, payload)
        with pytest.raises(error):
            async with asyncio.timeout(5):
                await task


async def test_whoever_fails_inside_a_freeze_thaws_without_waiting() -> None:
    async with connected() as (channel, peer):

        async def hold() -> None:
            async with RunnerClient(channel).freeze():
                raise KeyError

        task = asyncio.create_task(hold())
        stream, _ = await peer.read_until(Kind.OPEN)
        peer.send(Kind.DATA, stream, b"\1")
        with pytest.raises(KeyError):
            async with asyncio.timeout(5):
                await task
        assert (await peer.read_until(Kind.CANCEL))[0] == stream


@pytest.mark.parametrize(
    "greeting",
    [b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n" * 10, HEADER.pack(2, Kind.HELLO, 0) + b"[]", HEADER.pack(0, Kind.RESULT, 0)],
)
async def test_whoever_does_not_greet_like_a_runner_is_refused(greeting: bytes) -> None:
    async with connected(greet=False) as (channel, peer):
        peer.send_raw(greeting)
        with pytest.raises(ChannelError):
            await channel.hello(5)


async def test_another_protocol_version_is_named() -> None:
    async with connected(greet=False) as (channel, peer):
        peer.send(Kind.HELLO, 0, {"protocol": 2})
        with pytest.raises(ChannelError, match="speaks protocol 2"):
            await channel.hello(5)


async def test_a_silent_peer_is_given_up() -> None:
    async with connected(greet=False) as (channel, _):
        with pytest.raises(ChannelError, match="did not greet"):
            await channel.hello(0.05)


def _too_much_data(peer: Peer, stream: int) -> None:
    for _ in range(WINDOW // MAX_PAYLOAD + 1):
        peer.send(Kind.DATA, stream, b"x" * MAX_PAYLOAD)


def _strays(peer: Peer, stream: int) -> None:
    peer.send(Kind.RESULT, stream, {})
    for _ in range(10_000):
        peer.send(Kind.DATA, stream, b"x")


VIOLATIONS: dict[str, Callable[[Peer, int], None]] = {
    "garbage": lambda peer, _: peer.send_raw(b"\xde\xad\xbe\xef" * 1000),
    "a giant length": lambda peer, stream: peer.send_raw(HEADER.pack(2**32 - 1, Kind.DATA, stream)),
    "data beyond its credit": _too_much_data,
    "empty data": lambda peer, stream: peer.send(Kind.DATA, stream),
    "credit that was never used": lambda peer, stream: peer.send(Kind.CREDIT, stream, b"\0\0\0\1"),
    "no credit": lambda peer, stream: peer.send(Kind.CREDIT, stream, b"\0\0\0\0"),
    "half a credit": lambda peer, stream: peer.send(Kind.CREDIT, stream, b"\1"),
    "a stream that was never opened": lambda peer, stream: peer.send(Kind.DATA, stream + 1, b"x"),
    "endless data for a stream that ended": _strays,
    "a request of its own": lambda peer, stream: peer.send(Kind.OPEN, stream, PING),
    "an unknown kind": lambda peer, stream: peer.send(99, stream),
    "a second greeting": lambda peer, _: peer.send(Kind.HELLO, 0, {"protocol": 1}),
    "a result that is no object": lambda peer, stream: peer.send(Kind.RESULT, stream, b"[1]"),
    "a result nested too deeply": lambda peer, stream: peer.send(Kind.RESULT, stream, b"[" * 200_000),
    "an error that is no object": lambda peer, stream: peer.send(Kind.ERROR, stream, b"null"),
}


@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS.keys())
async def test_a_broken_rule_closes_the_channel_with_a_typed_error(violation: Callable[[Peer, int], None]) -> None:
    async with connected() as (channel, peer):
        flow = Flow()
        stream = await channel.open(PING, flow)
        other = asyncio.create_task(channel.call(PING, Collector(0)))
        number, _ = await peer.read_until(Kind.OPEN)
        await peer.read_until(Kind.OPEN)
        violation(peer, number)
        with pytest.raises(ChannelError):
            async with asyncio.timeout(10):
                await other
        assert not channel.usable
        assert stream.future.done()


async def test_a_body_longer_than_asked_for_closes_the_channel() -> None:
    async with connected() as (channel, peer):
        call = asyncio.create_task(channel.call(PING, Collector(10)))
        stream, _ = await peer.read_until(Kind.OPEN)
        peer.send(Kind.DATA, stream, b"12345678901")
        with pytest.raises(ChannelError, match="more data than was asked for"):
            await call


async def test_a_flooding_peer_cannot_make_memory_grow() -> None:
    async with connected() as (channel, peer):
        flow = Flow()
        await channel.open(PING, flow)
        number, _ = await peer.read_until(Kind.OPEN)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await _flood(channel, peer, number)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # One window of data, and what the sending side of this very test holds.
        assert peak - before < 8 * WINDOW


async def _flood(channel: Channel, peer: Peer, stream: int) -> None:
    piece = b"f" * MAX_PAYLOAD
    for _ in range(400):
        if not channel.usable:
            return
        peer.send(Kind.DATA, stream, piece)
        try:
            await peer.writer.drain()
        except ConnectionError:
            return
        await asyncio.sleep(0)
