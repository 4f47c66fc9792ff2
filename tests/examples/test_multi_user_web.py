"""Two workers of a web application serve twenty users: each has one container, own files and nobody else's."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pydantic_ai_sandbox import DockerEngine, SessionManager

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@asynccontextmanager
async def served(root: Path, **settings: str) -> AsyncGenerator[str]:
    """The application with two workers, and its address."""
    port = free_port()
    environment = {f"MULTI_USER_WEB_{name.upper()}": value for name, value in {"root": str(root), **settings}.items()}
    process = subprocess.Popen(  # noqa: ASYNC220 - starting is quick
        [
            *(sys.executable, "-m", "uvicorn", "examples.multi_user_web.app:app", "--workers", "2"),
            *("--port", str(port), "--timeout-worker-healthcheck", "120", "--log-level", "warning"),
        ],
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        await answering(address)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 60)
        engine = DockerEngine()
        manager = SessionManager(workspace_root=root / "workspaces", engine=engine, disk_quota="32MiB")
        for info in manager._population.all():
            engine.remove(info.id)
        storage = manager._directories.storage
        for folder in ("*", ".manager/warm/*/*"):
            for path in (root / "workspaces").glob(folder):
                if path.is_dir() and not path.name.startswith("."):
                    storage.delete(path)


async def answering(address: str) -> None:
    """Wait until both workers serve."""
    workers = set[str]()
    give_up = time.monotonic() + 150
    while len(workers) < 2:
        assert time.monotonic() < give_up, "the workers do not answer"
        try:
            # A new connection each time, for the other worker to get it.
            workers.add((await asked(address, "alice", "GET", "/")).headers["X-Worker"])
        except httpx.TransportError:
            await asyncio.sleep(0.1)


async def asked(address: str, user: str, method: str, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=address, timeout=150, trust_env=False) as client:
        headers = {"X-User": "".join(f"%{byte:02X}" for byte in user.encode())}
        return await client.request(method, httpx.URL(f"{address}{path}"), headers=headers, **options)


async def chat(address: str, user: str, text: str) -> tuple[str, list[dict[str, Any]]]:
    """Which worker answered, and what it told."""
    answer = await asked(address, user, "POST", "/chat", json={"text": text})
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    return answer.headers["X-Worker"], events


def results(events: list[dict[str, Any]]) -> str:
    return "\n".join(event["text"] for event in events if event["type"] in ("result", "error"))


async def bytes_of(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


@pytest.mark.timeout(400)
async def test_twenty_users_over_two_workers_keep_one_container_and_own_files(
    tmp_path: Path, docker_containers: Callable[[str], list[str]]
) -> None:
    users = [f"user{number}" for number in range(18)] + ["../../x", "Zoë/7"]
    async with served(tmp_path, warm="2", disk_quota="32MiB") as address:
        workers = set[str]()

        async def visit(user: str) -> None:
            chance = random.Random(user)
            for number in range(4):
                await asyncio.sleep(chance.random() / 10)
                worker, events = await chat(address, user, f"run echo {user} was here {number} >> visits; cat visits")
                workers.add(worker)
                said = results(events)
                assert f"{user} was here {number}" in said
                assert not [other for other in users if other != user and f"{other} was here" in said]
                assert events[-1] == {"type": "done"}

        await asyncio.gather(*(visit(user) for user in users))
        assert len(workers) == 2, "one worker served everybody"
        namespace = SessionManager(workspace_root=tmp_path / "workspaces")._namespace
        named = [name for name in docker_containers(namespace) if not name.startswith("sandbox-warm-")]
        assert len(named) == len(set(named)) == 20

        for user in users[:3]:
            _, events = await chat(address, user, "read visits")
            assert "was here 3" in results(events)
        # Up, run, down, from whichever worker.
        up = await asked(address, "user0", "PUT", "/files/in/numbers.txt", content=b"3\n1\n2\n")
        assert up.json() == {"size": 6}
        await chat(address, "user0", "run sort in/numbers.txt > sorted.txt")
        assert (await asked(address, "user0", "GET", "/files/sorted.txt")).content == b"1\n2\n3\n"
        packed = (await asked(address, "user0", "GET", "/archive")).content
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            assert sorted(archive.getnames()) == ["in", "in/numbers.txt", "sorted.txt", "visits"]
        for path in (
            "/files/..%2fuser1%2fvisits",
            "/files//etc/passwd",
            "/files/%2fetc%2fpasswd",
            "/files/..%2f..%2fx",
        ):
            refused = await asked(address, "user0", "GET", path)
            assert refused.status_code in (400, 403, 404), path
            assert b"was here" not in refused.content
            assert b"root:" not in refused.content
        too_much = await asked(address, "user0", "PUT", "/files/big", content=bytes(40 * 2**20))
        assert too_much.status_code == 413
        assert (await asked(address, "x" * 5000, "GET", "/files")).status_code == 400

        # Back to before, and gone.
        remembered = (await asked(address, "user1", "POST", "/checkpoints")).json()["id"]
        await chat(address, "user1", "run rm visits")
        assert (await asked(address, "user1", "POST", f"/checkpoints/{remembered}/restore")).status_code == 204
        assert "was here" in results((await chat(address, "user1", "read visits"))[1])
        assert (await asked(address, "user1", "DELETE", "/everything")).status_code == 204
        assert (await asked(address, "user1", "GET", "/files")).json()["entries"] == []


@pytest.fixture
def docker_containers() -> Callable[[str], list[str]]:
    """Names of the containers of a namespace, as Docker knows them."""

    def names(namespace: str) -> list[str]:
        label = f"pydantic-ai-sandbox.owner.namespace={namespace}"
        found = DockerEngine().api().containers(all=True, filters={"label": label})
        return [container["Names"][0].lstrip("/") for container in found]

    return names


@pytest.mark.timeout(300)
async def test_when_there_is_no_room_people_wait_and_are_told_their_place(tmp_path: Path) -> None:
    async with served(tmp_path, warm="0", max_sessions="1", disk_quota="32MiB") as address:
        busy = asyncio.create_task(chat(address, "alice", "run sleep 5"))
        await asyncio.sleep(2)
        _, events = await chat(address, "bob", "run echo at last")
        assert [event["type"] for event in events][:3] == ["starting", "waiting", "ready"]
        assert "at last" in results(events)
        assert (await busy)[1][-1] == {"type": "done"}
