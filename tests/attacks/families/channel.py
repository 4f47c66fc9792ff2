"""Peers that lie: a runner that is none, and code in a sandbox that talks to the runner as a backend would."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from pydantic_ai_sandbox.channel.client import RunnerClient
from pydantic_ai_sandbox.channel.frames import HEADER, MAX_PAYLOAD, WINDOW, Kind
from pydantic_ai_sandbox.channel.sinks import Collector, Flow
from pydantic_ai_sandbox.errors import ChannelError
from pydantic_ai_sandbox.transfer import copy_from
from tests.attacks.lab import Lab, Plain
from tests.attacks.registry import Family
from tests.channel.peer import Peer, connected

family = Family("channel")

NAIVE = "a length, then JSON, read as it comes"

PING = {"op": "ping"}

MIB = 1024 * 1024

# --- a runner that lies: everything a naive client believes


class NaiveClient:
    """Questions and answers in turn, each a length and JSON, as everybody writes it first."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(1)

    def ask(self, question: object) -> Any:
        data = json.dumps(question).encode()
        self.sock.sendall(struct.pack(">I", len(data)) + data)
        return self.answer()

    def answer(self) -> Any:
        (length,) = struct.unpack(">I", self.sock.recv(4))
        buffer = bytearray(length)
        view = memoryview(buffer)
        filled = 0
        while filled < length:
            filled += self.sock.recv_into(view[filled:])
            self.allocated = len(buffer)
        return json.loads(bytes(buffer))


def _answered(said: bytes, *, hang_up: bool = False) -> tuple[NaiveClient, Callable[[], Any]]:
    ours, theirs = socket.socketpair()
    theirs.sendall(said)
    if hang_up:
        theirs.shutdown(socket.SHUT_WR)
    client = NaiveClient(ours)

    def ask() -> Any:
        try:
            return client.ask(PING)
        finally:
            for end in (ours, theirs):
                end.close()

    return client, ask


def _framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def _untyped(said: bytes, error: type[Exception], lab: Lab) -> bool:
    """Whether the naive client fails by something its callers do not expect of a broken connection."""
    _, ask = _answered(said)
    with pytest.raises(error):
        ask()
    return True


Violation = Callable[[Peer, int], None]


async def _typed(violate: Violation, lab: Lab) -> bool:
    """Whether anything but a typed error, at once and for all that is under way, comes of it here."""
    async with connected() as (channel, peer):
        stream = await channel.open(PING, Flow())
        other = asyncio.create_task(channel.call(PING, Collector(0)))
        number, _ = await peer.read_until(Kind.OPEN)
        await peer.read_until(Kind.OPEN)
        violate(peer, number)
        async with asyncio.timeout(5):
            with pytest.raises(ChannelError):
                await other
        return channel.usable or not stream.future.done()


def _lies_naive(lab: Lab) -> bool:
    client, ask = _answered(struct.pack(">I", 64 * MIB) + b"x")
    with pytest.raises(TimeoutError):
        ask()
    return client.allocated == 64 * MIB


family.pair(
    "announces a message of megabytes that never comes",
    against=NAIVE,
    naive=_lies_naive,
    ours=partial(_typed, lambda peer, stream: peer.send_raw(HEADER.pack(2**32 - 1, Kind.DATA, stream))),
    quick=True,
)

for _name, _said, _error, _violate in (
    (
        "sends garbage",
        _framed(b"\xde\xad\xbe\xef"),
        UnicodeDecodeError,
        lambda peer, _: peer.send_raw(b"\xde\xad\xbe\xef" * 1000),
    ),
    (
        "sends JSON in JSON in JSON …",
        _framed(b"[" * 200_000),
        RecursionError,
        lambda peer, stream: peer.send(Kind.RESULT, stream, b"[" * 200_000),
    ),
):  # fmt: skip
    family.pair(_name, against=NAIVE, naive=partial(_untyped, _said, _error), ours=partial(_typed, _violate))


def _replayed_naive(lab: Lab) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # Two answers to the first question: the second is taken for the next one's.
        theirs.sendall(_framed(b'{"whose": "first"}') * 2)
        client = NaiveClient(ours)
        client.ask({"op": "read", "path": "first"})
        return client.ask({"op": "read", "path": "second"}) == {"whose": "first"}


async def _replayed_ours(lab: Lab) -> bool:
    async with connected() as (channel, peer):
        first = asyncio.create_task(channel.call(PING, Collector(0)))
        number, _ = await peer.read_until(Kind.OPEN)
        for _ in range(3):
            peer.send(Kind.RESULT, number, {"whose": "first"})
        await first
        second = asyncio.create_task(channel.call(PING, Collector(0)))
        following, _ = await peer.read_until(Kind.OPEN)
        peer.send(Kind.RESULT, following, {"whose": "second"})
        return await second != {"whose": "second"}


family.pair(
    "answers twice, to have the second taken for another's", against=NAIVE, naive=_replayed_naive, ours=_replayed_ours
)


def _numbers_naive(lab: Lab) -> bool:
    # By number, but believed: it answers a question that was never asked, or another's.
    waiting: dict[int, str] = {1: "alice's question", 2: "bob's question"}
    answer = json.loads('{"stream": 2, "result": "for alice"}')
    return waiting[answer["stream"]] == "bob's question"


family.pair(
    "answers on a stream that was never opened",
    against="answers taken by their number",
    naive=_numbers_naive,
    ours=partial(_typed, lambda peer, stream: peer.send(Kind.RESULT, stream + 5, {"for": "alice"})),
)


def _silent_naive(lab: Lab) -> bool:
    _, ask = _answered(b"")
    with pytest.raises(TimeoutError):
        # It would wait for good, without the second that this test gives it.
        ask()
    return True


async def _silent_ours(lab: Lab) -> bool:
    async with connected() as (channel, _):
        with pytest.raises(ChannelError, match="did not answer"):
            await channel.call(PING, Collector(0), deadline=0.2)
        return False


family.pair("never answers", against=NAIVE, naive=_silent_naive, ours=_silent_ours)


def _unread_naive(lab: Lab) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(1)
        with pytest.raises(TimeoutError):
            ours.sendall(bytes(64 * MIB))
        return True


async def _unread_ours(lab: Lab) -> bool:
    async with connected() as (channel, _):
        with pytest.raises(ChannelError, match="did not answer"):
            async with asyncio.timeout(5):
                await channel.call({"op": "write"}, Collector(0), body=bytes(64 * MIB), deadline=0.3)
        assert channel._transport is not None
        return channel._transport.get_write_buffer_size() > 2 * WINDOW


family.pair("never reads", against="`sendall`", naive=_unread_naive, ours=_unread_ours)


def _flood(peer: Peer, stream: int) -> None:
    for _ in range(WINDOW // MAX_PAYLOAD + 1):
        peer.send(Kind.DATA, stream, b"x" * MAX_PAYLOAD)


def _flooded_naive(lab: Lab) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=theirs.sendall, args=(bytes(32 * MIB),))
        sender.start()
        kept = b"".join(iter(lambda: ours.recv(MIB) if sender.is_alive() else b"", b""))
        return len(kept) > 16 * MIB


family.pair(
    "sends what nobody asked for, without end",
    against="`recv` into a list",
    naive=_flooded_naive,
    ours=partial(_typed, _flood),
)


def _shape_naive(lab: Lab) -> bool:
    _, ask = _answered(_framed(b'{"exit_code": {"a": 1}}'))
    with pytest.raises((TypeError, KeyError)):
        assert ask()["exit_code"] + 0 == 0
    return True


async def _shape_ours(lab: Lab) -> bool:
    async with connected() as (channel, peer):
        runner = RunnerClient(channel)
        for answer in ({}, {"killed": "many"}, {"killed": None}, {"killed": {}}):
            call = asyncio.create_task(runner.kill_all())
            number, _ = await peer.read_until(Kind.OPEN)
            peer.send(Kind.RESULT, number, answer)
            with pytest.raises(ChannelError):
                await call
        return False


family.pair("answers in another shape", against=NAIVE, naive=_shape_naive, ours=_shape_ours)

NAMES = ("../planted", "../../planted", "/planted", "..", "a/../../planted")


def _names_naive(lab: Lab) -> bool:
    # The names come from the sandbox's own listing.
    target = lab.folder("out")
    (target / NAMES[0]).write_bytes(b"planted")
    return (lab.place / "planted").exists()


async def _names_ours(lab: Lab) -> bool:
    target = lab.folder("out-ours")
    for name in NAMES:
        async with connected() as (channel, peer):
            copying = asyncio.create_task(copy_from(RunnerClient(channel), "/workspace/d", target, limit=MIB))
            serving = asyncio.create_task(_lying_tree(peer, name))
            # What is only an odd way to say "in here" may be copied, to there.
            with suppress(OSError, ChannelError):
                async with asyncio.timeout(5):
                    await copying
            serving.cancel()
    (lab.place / "planted").unlink()
    written = [path for path in lab.place.rglob("*") if path.is_file() and path.read_bytes() == b"planted"]
    return any(not path.is_relative_to(target) for path in written)


async def _lying_tree(peer: Peer, name: str) -> None:
    """A runner whose directory has a file of such a name."""
    while True:
        stream, payload = await peer.read_until(Kind.OPEN)
        request = json.loads(payload)
        if request["op"] == "glob":
            peer.send(Kind.DATA, stream, json.dumps([[f"/workspace/d/{name}", "f", 7, 0]]).encode())
            peer.send(Kind.RESULT, stream, {"total": 1, "truncated": False, "timed_out": False})
        elif request["op"] == "stat":
            kind = "dir" if request["path"] == "/workspace/d" else "file"
            peer.send(Kind.RESULT, stream, {"type": kind, "size": 7, "mode": 0o644, "mtime": 0, "link": False})
        else:
            peer.send(Kind.DATA, stream, b"planted")
            peer.send(Kind.RESULT, stream, {"size": 7})


family.pair(
    "names files so that a copy lands elsewhere",
    against="`target / name`",
    naive=_names_naive,
    ours=_names_ours,
    quick=True,
)

# --- something else in the place of the runner's socket

SOCKET = "/.sandbox/run/socket"
AGENT_SOCKET = "/tmp/agent.sock"

IMPOSTOR = (
    "import os, socket, sys, time\nos.unlink(sys.argv[1])\ns = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
    "print('ready', flush=True)\nc, _ = s.accept(); c.sendall(b'hostile'); time.sleep(60)"
)
LINKED = "import os, sys; os.unlink(sys.argv[1]); os.symlink('/var/run/docker.sock', sys.argv[1]); print('ready')"

AGENT = f"import socket, time\ns = socket.socket(socket.AF_UNIX); s.bind({AGENT_SOCKET!r}); s.listen(); time.sleep(60)"


def _ready(plain: Plain, path: str) -> None:
    plain.sh(f"for i in $(seq 50); do test -S {path} && break; sleep 0.1; done")


def _path_naive(plain: Plain) -> str:
    plain.container.reload()
    return f"/proc/{plain.container.attrs['State']['Pid']}/root{AGENT_SOCKET}"


def _impostor_naive(lab: Lab) -> bool:
    plain = lab.another_plain(["python3", "-c", AGENT])
    _ready(plain, AGENT_SOCKET)
    plain.start(["python3", "-c", IMPOSTOR, AGENT_SOCKET])
    plain.sh("sleep 0.5")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(3)
        client.connect(_path_naive(plain))
        return client.recv(100) == b"hostile"


async def _swapped(lab: Lab, program: str) -> bool:
    """Whether a sandbox whose socket was swapped answers anything but what it should."""
    first = await lab.another_sandbox()
    assert first.ref is not None
    job = await first.start_job(["python3", "-c", program, SOCKET])
    assert b"ready" in (await job.output(wait=10)).data
    first.detach()
    answer = await first.run(["echo", "alive"], timeout=10)
    assert first.transport == "exec"
    return answer.stdout != "alive\n"


family.pair(
    "puts a socket of its own in the place of the agent's",
    against="`connect(/proc/PID/root/…)`",
    naive=_impostor_naive,
    ours=lambda lab: _swapped(lab, IMPOSTOR),
)


def _linked_naive(lab: Lab) -> bool:
    plain = lab.another_plain(["python3", "-c", AGENT])
    _ready(plain, AGENT_SOCKET)
    plain.exec(["python3", "-c", LINKED, AGENT_SOCKET])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(_path_naive(plain))
        # The link is followed on the host: what was meant for the agent goes to the engine, which is root.
        client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b"200 OK" in client.recv(1000)


family.pair(
    "puts a link to the engine's socket in its place",
    against="`connect(/proc/PID/root/…)`",
    naive=_linked_naive,
    ours=lambda lab: _swapped(lab, LINKED),
    quick=True,
)

# --- a peer of the runner that is none of ours

SERVER = """
import json, socket
server = socket.create_server(("127.0.0.1", 7070))
while True:
    peer, _ = server.accept()
    length = int.from_bytes(peer.recv(4), "big")
    data = bytearray(min(length, 1 << 26))
    request = json.loads(peer.recv(length))
    peer.sendall(json.dumps({"answer": request}).encode())
"""

ASK_SERVER = (
    "s = socket.create_connection(('127.0.0.1', 7070), 1); s.settimeout(1)\n"
    "s.sendall(b'\\x00\\x00\\x00\\x02{}'); assert s.recv(100)"
)

TO_SERVER = "keep = socket.create_connection(('127.0.0.1', 7070)); {}; time.sleep(0.3)"

TO_RUNNER = (
    """FLOOD = b'{{"op": "exec", "shell": "yes", "live": true}}'\n"""
    "keep = [socket.socket(socket.AF_UNIX) for _ in range({count})]\n"
    "for s in keep: s.connect('\\0pydantic-ai-sandbox')\n"
    "for s in keep:\n"
    "    try:\n"
    "        {what}\n"
    "    except (BrokenPipeError, ConnectionResetError, TimeoutError): pass\n"
    "subprocess.run(['sleep', '{pause}']) "
)

HELLO = "s.settimeout(0.5); s.sendall(struct.pack('>IBI', 15, 1, 0) + b'{\"protocol\": 1}')"


def _server_naive(what: str, lab: Lab) -> bool:
    plain = lab.another_plain(["python3", "-c", SERVER])
    plain.sh("for i in $(seq 50); do grep -q :1B9E /proc/net/tcp && break; sleep 0.1; done")
    try:
        return plain.attempt(f"{TO_SERVER.format(what)}\n{ASK_SERVER}").error is not None
    except AssertionError:
        # It closed the connection without an answer.
        return True


async def _runner_ours(what: str, count: int, lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    attack = asyncio.create_task(lab.attempt(TO_RUNNER.format(what=what, count=count, pause=1), sandbox=sandbox))
    await asyncio.sleep(0.4)
    answers = [await sandbox.run(["echo", "alive"], timeout=5) for _ in range(10)]
    tried = await attack
    assert tried.error is None, tried
    assert (await sandbox.usage()).runner_rss < 96 * MIB
    return any(answer.stdout != "alive\n" for answer in answers)


for _name, _to_server, _to_runner, _count in (
    ("says nothing to the agent and keeps others waiting", "pass", "pass", 50),
    ("says half a message to the agent", "keep.sendall(b'\\x00\\x00')", "s.sendall(b'\\x00\\x00')", 50),
    ("sends the agent garbage", "keep.sendall(b'\\x00\\x00\\x00\\x04abcd')", "s.sendall(os.urandom(100_000))", 20),
    (
        "tells the agent of a message of gigabytes",
        "keep.sendall(b'\\xff\\xff\\xff\\xff')",
        f"{HELLO}; s.sendall(struct.pack('>IBI', 2**32 - 1, 3, 1))",
        50,
    ),
    (
        "has the agent send without end, and reads nothing",
        "keep.sendall(b'\\xff\\xff\\xff\\xff')",
        f"{HELLO}; [s.sendall(struct.pack('>IBI', len(FLOOD), 2, n) + FLOOD) for n in range(1, 11)]",
        4,
    ),
):  # fmt: skip
    family.pair(
        _name,
        against="one loop of `accept`, `recv`, `json.loads`",
        naive=partial(_server_naive, _to_server),
        ours=partial(_runner_ours, _to_runner, _count),
    )
