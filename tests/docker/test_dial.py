"""Connections into a sandbox that has no network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from pydantic_ai.workspaces import WorkspaceUnavailableError

from pydantic_ai_sandbox import ByteStream, DockerEngine, DockerSandbox, SupportsDial

pytestmark = pytest.mark.docker

LISTENER = """
import socket, sys, time
family, address, what = sys.argv[1:4]
server = socket.socket(socket.AF_INET if family == "port" else socket.AF_UNIX)
server.bind(("127.0.0.1", int(address)) if family == "port" else address.replace("@", "\\0", 1))
server.listen()
print("listening", flush=True)
while True:
    peer, _ = server.accept()
    if what == "echo":
        while piece := peer.recv(65536):
            peer.sendall(piece)
    elif what == "count":
        total = 0
        while piece := peer.recv(65536):
            total += len(piece)
        peer.sendall(b"%d bytes" % total)
    elif what == "flood":
        try:
            while True:
                peer.sendall(bytes(65536))
        except OSError:
            print("hung up", flush=True)
    elif what == "deaf":
        time.sleep(600)
    peer.close()
"""


async def listen(sandbox: DockerSandbox, family: str, address: str, what: str = "echo") -> None:
    await sandbox.write_text("/tmp/listener.py", LISTENER)
    job = await sandbox.start_job(["python3", "/tmp/listener.py", family, address, what])
    assert b"listening" in (await job.output(wait=30)).data


async def everything(stream: ByteStream) -> bytes:
    received = b""
    while piece := await stream.read():
        received += piece
    return received


async def test_a_sandbox_can_be_connected_to(sandbox: DockerSandbox) -> None:
    assert isinstance(sandbox, SupportsDial)


@pytest.mark.parametrize(
    ("family", "address"), [("unix", "/tmp/a socket"), ("unix", "@a name"), ("port", "8765")], ids=str
)
async def test_sockets_names_and_ports_are_reached_by_each_transport(
    transport: DockerEngine, family: str, address: str
) -> None:
    async with DockerSandbox(engine=transport, idle_timeout=60) as sandbox:
        await listen(sandbox, family, address)
        for _ in range(2):
            async with sandbox.dial(int(address) if family == "port" else address) as stream:
                await stream.write(b"ping")
                assert await stream.read() == b"ping"
                await stream.write(b"pong")
                await stream.close_write()
                assert await everything(stream) == b"pong"


async def test_what_a_connection_fails_by_has_pythons_own_names(sandbox: DockerSandbox) -> None:
    await sandbox.write_text("/tmp/file", "")
    for address, error in (
        (8765, ConnectionRefusedError),
        ("@nobody", ConnectionRefusedError),
        ("/tmp/file", ConnectionRefusedError),
        ("/tmp/missing", FileNotFoundError),
        ("/tmp/file/below", NotADirectoryError),
        ("/" + "x" * 200, OSError),
        ("relative", ValueError),
        (0, ValueError),
        (65_536, ValueError),
        ("/nul\0", ValueError),
    ):
        with pytest.raises(error):
            async with sandbox.dial(address):
                pass
    assert (await sandbox.run(["echo", "fine"])).stdout == "fine\n"


async def test_ten_megabytes_pass_and_are_counted_at_the_end(sandbox: DockerSandbox) -> None:
    await listen(sandbox, "unix", "/tmp/s", "count")
    async with sandbox.dial("/tmp/s") as stream:
        await stream.write(bytes(10 * 1024 * 1024))
        await stream.close_write()
        assert await everything(stream) == b"10485760 bytes"


async def test_who_does_not_read_makes_the_other_wait_and_hangs_up_by_leaving(sandbox: DockerSandbox) -> None:
    await listen(sandbox, "unix", "/tmp/s", "flood")
    async with sandbox.dial("/tmp/s") as stream:
        await stream.read()
        await asyncio.sleep(0.5)
        assert (await sandbox.usage()).runner_rss < 32 * 1024 * 1024
    (job,) = await sandbox.jobs()
    assert b"hung up" in (await sandbox.job(job.id).output(len("listening\n"), wait=30)).data


async def test_writing_to_who_does_not_read_waits_and_can_be_given_up(sandbox: DockerSandbox) -> None:
    await listen(sandbox, "unix", "/tmp/s", "deaf")
    async with sandbox.dial("/tmp/s") as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stream.write(bytes(10 * 1024 * 1024))
    assert (await sandbox.run(["echo", "fine"])).stdout == "fine\n"


async def test_writing_after_the_end_is_a_broken_pipe(sandbox: DockerSandbox) -> None:
    await listen(sandbox, "unix", "/tmp/s", "hang up")
    async with sandbox.dial("/tmp/s") as stream:
        assert await stream.read() == b""
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")


async def test_an_open_connection_is_use(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox(idle_timeout=2)
    # Detached, so that nothing else is use.
    await sandbox.write_text("/tmp/listener.py", LISTENER)
    await sandbox.run("setsid python3 /tmp/listener.py unix /tmp/s echo >/tmp/log 2>&1 &", shell=True)
    for _ in range(200):
        if await sandbox.exists("/tmp/log") and b"listening" in await sandbox.read_bytes("/tmp/log"):
            break
        await asyncio.sleep(0.05)
    async with sandbox.dial("/tmp/s") as stream:
        await asyncio.sleep(5)
        await stream.write(b"still there")
        assert await stream.read() == b"still there"
    begun = time.monotonic()
    with pytest.raises(WorkspaceUnavailableError):
        while time.monotonic() - begun < 30:
            await asyncio.sleep(3)
            await sandbox.usage()


async def test_a_connection_of_a_sandbox_that_goes_says_that_it_is_gone(sandbox: DockerSandbox) -> None:
    await listen(sandbox, "unix", "/tmp/s")
    with pytest.raises(WorkspaceUnavailableError):
        async with sandbox.dial("/tmp/s") as stream:
            await sandbox.destroy()
            await stream.read()


async def test_the_runners_own_socket_leads_no_further_than_from_within(
    make_sandbox: Callable[..., DockerSandbox],
) -> None:
    # Its places for backends are not to be had by going through it.
    sandbox = make_sandbox()
    async with AsyncExitStack() as stack:
        for _ in range(80):
            await stack.enter_async_context(sandbox.dial("@pydantic-ai-sandbox"))
        other = make_sandbox(ref=sandbox.ref)
        assert (await other.run(["echo", "welcome"])).stdout == "welcome\n"
