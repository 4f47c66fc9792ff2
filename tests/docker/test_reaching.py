"""Every way to a runner works where it should and is refused where something stands in for it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, EngineError
from pydantic_ai_sandbox.engines.docker import runner_volume
from tests.docker.conftest import IDLE

pytestmark = pytest.mark.docker


class Proxy:
    """A daemon elsewhere: the machine's own one behind a TCP port, with TLS or without, in a thread of its own."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with await asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=self._context) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.05)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_unix_connection("/var/run/docker.sock")
        try:
            await asyncio.gather(_carry(reader, downstream), _carry(upstream, writer))
        finally:
            writer.close()
            downstream.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65_536):
            target.write(piece)
            await target.drain()
        # The end of one direction is the end of both: TLS has no half of a connection.
        target.close()


@pytest.fixture
def proxy() -> Generator[Proxy]:
    if not Path("/var/run/docker.sock").is_socket():
        pytest.skip("the daemon is not at its usual socket")
    proxy = Proxy()
    yield proxy
    proxy.close()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, under the names Docker's tools look for."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.copy(tmp_path / "cert.pem", tmp_path / "ca.pem")
    return tmp_path


async def exercise(sandbox: DockerSandbox) -> None:
    """Enough traffic both ways to notice a byte gone astray."""
    content = bytes(range(256)) * 20_000
    async with sandbox:
        await sandbox.write_bytes("/workspace/f", content)
        assert await sandbox.read_bytes("/workspace/f") == content
        results = await asyncio.gather(*(sandbox.run(["echo", str(n)]) for n in range(20)))
        assert [int(result.stdout) for result in results] == list(range(20))


async def test_a_daemon_behind_tcp(proxy: Proxy) -> None:
    engine = DockerEngine(f"tcp://127.0.0.1:{proxy.port}")
    await exercise(DockerSandbox(engine=engine, idle_timeout=IDLE))


async def test_a_daemon_behind_tls_named_by_the_environment(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    proxy = Proxy(context)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        # The HTTP library lets these overrule DOCKER_CERT_PATH.
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    try:
        await exercise(DockerSandbox(engine=DockerEngine(), idle_timeout=IDLE))
    finally:
        proxy.close()


FAKE_RUNNER = """
import os, socket
os.unlink("/.sandbox/run/socket")
server = socket.socket(socket.AF_UNIX); server.bind("/.sandbox/run/socket"); server.listen()
print("listening", flush=True)
while True: server.accept()[0].sendall(b"hello")
"""


@pytest.mark.parametrize(
    "tamper",
    [
        "rm /.sandbox/run/socket; ln -s /var/run/docker.sock /.sandbox/run/socket; echo done; sleep 600",
        "rm /.sandbox/run/socket; mkdir /.sandbox/run/socket; echo done; sleep 600",
        "rm /.sandbox/run/socket; mkfifo /.sandbox/run/socket; echo done; sleep 600",
        f"python3 -c '{FAKE_RUNNER}'",
    ],
    ids=["a link", "a directory", "a pipe", "a listener of its own"],
)
async def test_what_stands_in_for_the_runners_socket_is_refused_and_gone_around(
    make_sandbox: Callable[..., DockerSandbox], tamper: str
) -> None:
    sandbox = make_sandbox()
    job = await sandbox.start_job(tamper, shell=True)
    await job.output(wait=10)
    with pytest.raises(EngineError, match="cannot reach the runner's socket"):
        await make_sandbox(ref=sandbox.ref, engine=DockerEngine(transport="socket")).run(["true"])
    # The other way ends where nothing inside can get at it.
    attached = make_sandbox(ref=sandbox.ref, engine=DockerEngine())
    assert (await attached.run(["echo", "still the runner"])).stdout == "still the runner\n"


async def test_both_transports_are_what_they_say(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox()
    await sandbox.run(["true"])
    assert sandbox.ref is not None

    container = sandbox.ref.id

    def transports() -> list[str]:
        connections = [DockerEngine(transport=way).connect(container) for way in ("auto", "socket", "exec")]
        for connection in connections:
            connection.sock.close()
        return [connection.transport for connection in connections]

    assert await asyncio.to_thread(transports) == ["socket", "socket", "exec"]


async def test_a_relay_ends_with_its_connection(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox()
    await sandbox.run(["true"])
    quiet = (await sandbox.usage()).pids
    for _ in range(3):
        attached = make_sandbox(ref=sandbox.ref, engine=DockerEngine(transport="exec"))
        await attached.run(["true"])
        await attached.aclose()
    for _ in range(100):
        if (await sandbox.usage()).pids <= quiet + 2:
            return
        await asyncio.sleep(0.05)
    pytest.fail("relays are left in the container")


# --- the runner's volume


@pytest.fixture
def fresh_volume(monkeypatch: pytest.MonkeyPatch, docker_api: Any) -> Generator[str]:
    """The name of a runner's volume that does not exist yet."""
    monkeypatch.setattr(runner_volume, "runner_version", lambda: "test-of-filling")
    name = "pydantic-ai-sandbox-runner-test-of-filling-amd64"
    yield name
    with contextlib.suppress(docker.errors.NotFound):
        docker_api.remove_volume(name, force=True)


async def test_many_first_users_fill_the_volume_once(
    fresh_volume: str, make_sandbox: Callable[..., DockerSandbox], docker_api: Any
) -> None:
    engines = [DockerEngine() for _ in range(4)]
    sandboxes = [make_sandbox(engine=engine) for engine in engines]
    results = await asyncio.gather(*(sandbox.run(["echo", "filled"]) for sandbox in sandboxes))
    assert [result.stdout for result in results] == ["filled\n"] * 4
    assert docker_api.inspect_volume(fresh_volume)["Labels"] == {"pydantic-ai-sandbox.managed": "1"}
    for sandbox in sandboxes:
        await sandbox.aclose()


async def test_a_volume_whose_filling_was_interrupted_is_filled_again(
    fresh_volume: str, make_sandbox: Callable[..., DockerSandbox], docker_api: Any
) -> None:
    docker_api.create_volume(fresh_volume, labels={"pydantic-ai-sandbox.managed": "1"})
    sandbox = make_sandbox(engine=DockerEngine())
    assert (await sandbox.run(["echo", "healed"])).stdout == "healed\n"
    await sandbox.aclose()


async def test_a_filler_whose_maker_died_is_taken_over(
    fresh_volume: str,
    make_sandbox: Callable[..., DockerSandbox],
    docker_api: Any,
    busybox: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner_volume, "_FILL_DEADLINE", 2)
    filler = docker_api.create_container(busybox, ["true"], name=f"{fresh_volume}-fill")["Id"]
    engine = DockerEngine()
    remove, refused = engine.api().remove_container, 0

    def being_removed(*what: Any, **how: Any) -> None:
        # By another process that takes it over, too; the daemon takes its time.
        nonlocal refused
        refused += 1
        if refused < 3:
            response = requests.Response()
            response.status_code = 409
            raise docker.errors.APIError("removal of container is already in progress", response)
        remove(*what, **how)

    monkeypatch.setattr(engine.api(), "remove_container", being_removed)
    sandbox = make_sandbox(engine=engine)
    assert (await sandbox.run(["echo", "taken over"])).stdout == "taken over\n"
    assert filler not in {found["Id"] for found in docker_api.containers(all=True)}
    await sandbox.aclose()
