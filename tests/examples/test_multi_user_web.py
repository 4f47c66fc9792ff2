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
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pydantic_ai_sandbox import DockerEngine, SessionManager
from pydantic_ai_sandbox.engines.docker.containers import list_containers, listed_name

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

SERVER = ("-m", "uvicorn", "examples.multi_user_web.app:app", "--timeout-worker-healthcheck", "120")

EXAMPLE = (str(ROOT / "examples/multi_user_web"),)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@asynccontextmanager
async def served(
    root: Path, *, command: Sequence[str] = SERVER, workers: int = 2, **settings: str
) -> AsyncGenerator[str]:
    """The application, and its address; nothing of it is left afterwards."""
    port = free_port()
    chosen = {"root": str(root), "disk_quota": "32MiB", **settings}
    process = subprocess.Popen(  # noqa: ASYNC220 - starting is quick
        [sys.executable, *command, "--port", str(port), "--workers", str(workers)],
        cwd=ROOT if command is SERVER else root,
        env={**os.environ, **{f"MULTI_USER_WEB_{name.upper()}": value for name, value in chosen.items()}},
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    pids = set[int]()
    try:
        pids = await answering(address, workers)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 60)
        finally:
            process.kill()
            remove_all(root)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "workers outlive the server"


def remove_all(root: Path) -> None:
    """End the sandboxes, which outlive the server on purpose, and delete the users' file systems."""
    engine = DockerEngine()
    manager = SessionManager(workspace_root=root / "workspaces", engine=engine, disk_quota="32MiB")
    for info in manager._population.all():
        engine.remove(info.id)
    storage = manager._directories.storage
    for folder in ("*", ".manager/warm/*/*"):
        for path in (root / "workspaces").glob(folder):
            if path.is_dir() and not path.name.startswith("."):
                storage.delete(path)
    engine.close()


async def answering(address: str, count: int) -> set[int]:
    """Wait until all workers serve; returns who they are."""
    workers = set[int]()
    give_up = time.monotonic() + 150
    while len(workers) < count:
        assert time.monotonic() < give_up, "the workers do not answer"
        try:
            # A new connection each time, for the other worker to get it.
            workers.add(int((await asked(address, "alice", "GET", "/")).headers["X-Worker"]))
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    return workers


def named(user: str) -> dict[str, str]:
    return {"X-User": "".join(f"%{byte:02X}" for byte in user.encode())}


async def asked(
    address: str, user: str, method: str, path: str, headers: dict[str, str] | None = None, **options: Any
) -> httpx.Response:
    async with httpx.AsyncClient(timeout=150, trust_env=False) as client:
        return await client.request(method, f"{address}{path}", headers={**named(user), **(headers or {})}, **options)


async def chat(address: str, user: str, text: str) -> tuple[str, list[dict[str, Any]]]:
    """Which worker answered, and what it told."""
    answer = await asked(address, user, "POST", "/chat", json={"text": text})
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    return answer.headers["X-Worker"], events


async def said(address: str, user: str, text: str) -> str:
    """What the tools answered."""
    return results((await chat(address, user, text))[1])


def results(events: list[dict[str, Any]]) -> str:
    return "\n".join(event["text"] for event in events if event["type"] in ("result", "error"))


@asynccontextmanager
async def watched(manager: SessionManager) -> AsyncGenerator[list[str]]:
    """Look all the time at whose sandboxes run; users who ever had more than one."""
    greedy: list[str] = []

    async def look() -> None:
        while True:
            running = Counter(session.user_id for session in await manager.list() if session.running)
            greedy.extend(user for user, count in running.items() if count > 1)
            await asyncio.sleep(0.3)

    looking = asyncio.create_task(look())
    try:
        yield greedy
    finally:
        assert not looking.done(), "nobody looked"
        looking.cancel()


@pytest.mark.timeout(400)
async def test_twenty_users_over_two_workers_keep_one_container_and_own_files(
    tmp_path: Path, docker_containers: Callable[[str], list[str]]
) -> None:
    users = [f"user{number}" for number in range(17)] + ["../../x", "a/b", "Zoë/7"]
    async with served(tmp_path, warm="2") as address:
        workers = set[str]()
        manager = SessionManager(workspace_root=tmp_path / "workspaces")

        async def visit(user: str) -> None:
            chance = random.Random(user)
            for number in range(4):
                await asyncio.sleep(chance.random() / 10)
                worker, events = await chat(address, user, f"run echo {user} was here {number} >> visits; cat visits")
                workers.add(worker)
                seen = [line for line in results(events).splitlines() if " was here " in line]
                assert seen == [f"{user} was here {earlier}" for earlier in range(number + 1)]
                assert events[-1] == {"type": "done"}

        async with watched(manager) as greedy:
            await asyncio.gather(*(visit(user) for user in users))
        assert len(workers) == 2, "one worker served everybody"
        assert greedy == []
        sessions = await manager.list()
        assert sorted(session.user_id for session in sessions) == sorted(users)
        there, theirs = set(docker_containers(manager._namespace)), {session.container for session in sessions}
        assert len(theirs) == len(theirs & there) == 20
        # The others wait for a user.
        assert len(there - theirs) <= 2

        for user in users[-4:]:
            kept = (await asked(address, user, "GET", "/files/visits")).text.splitlines()
            assert kept == [f"{user} was here {number}" for number in range(4)]


@pytest.mark.timeout(300)
async def test_files_go_in_and_out_and_nobody_gets_at_anothers(tmp_path: Path) -> None:
    async with served(tmp_path, warm="0") as address:
        # Up, run, down.
        up = await asked(address, "alice", "PUT", "/files/in/numbers.txt", content=b"3\n1\n2\n")
        assert up.json() == {"size": 6}
        await chat(address, "alice", "run sort in/numbers.txt > sorted.txt")
        down = await asked(address, "alice", "GET", "/files/sorted.txt")
        assert (down.content, down.headers["Content-Length"]) == (b"1\n2\n3\n", "6")
        packed = (await asked(address, "alice", "GET", "/archive")).content
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            assert sorted(archive.getnames()) == ["in", "in/numbers.txt", "sorted.txt"]

        await asked(address, "bob", "PUT", "/files/secret", content=b"bob's secret")
        await chat(address, "alice", "run ln -s /etc/passwd host; ln -s ../bob/secret link; ln -s ../bob folder")
        for path in (
            "..%2fbob%2fsecret",
            "%2e%2e/bob/secret",
            "in%2f..%2f..%2fbob%2fsecret",
            "..%252fbob%252fsecret",
            "/etc/passwd",
            "%2fetc%2fpasswd",
            "%2fworkspace%2f..%2fetc%2fpasswd",
            "link",
            "host",
            "folder/secret",
            "secret%00",
        ):
            for method in ("GET", "PUT"):
                answer = await asked(address, "alice", method, f"/files/{path}", content=b"x")
                assert b"secret" not in answer.content or answer.status_code == 422, path
                assert b"root:" not in answer.content, path
                assert method == "PUT" or answer.status_code in (400, 403, 404, 422), (path, answer.status_code)
        assert (await asked(address, "alice", "GET", "/files?path=..%2fbob")).status_code == 403
        assert (await asked(address, "bob", "GET", "/files/secret")).content == b"bob's secret"
        assert [entry["name"] for entry in (await asked(address, "bob", "GET", "/files")).json()["entries"]] == [
            "secret"
        ]

        # Names that are no text, and what is no file.
        await chat(address, "bob", r"run touch \"$(printf 'a\377b')\"; mkdir folder; mkfifo pipe".replace('\\"', '"'))
        names = [entry["name"] for entry in (await asked(address, "bob", "GET", "/files")).json()["entries"]]
        assert sorted(names) == ["a\N{REPLACEMENT CHARACTER}b", "folder", "pipe", "secret"]
        assert (await asked(address, "bob", "GET", "/files/folder")).status_code == 409
        assert (await asked(address, "bob", "GET", "/files/pipe")).status_code == 409
        assert (await asked(address, "bob", "PUT", "/files/folder", content=b"x")).status_code == 409

        too_much = await asked(address, "bob", "PUT", "/files/big", content=bytes(40 * 2**20))
        assert too_much.status_code == 413
        assert str(tmp_path) not in too_much.text

        # Back to before, and gone.
        remembered = (await asked(address, "bob", "POST", "/checkpoints")).json()["id"]
        await chat(address, "bob", "run rm secret")
        assert (await asked(address, "alice", "POST", f"/checkpoints/{remembered}/restore")).status_code == 404
        assert (await asked(address, "bob", "POST", f"/checkpoints/{remembered}/restore")).status_code == 204
        assert "bob's secret" in await said(address, "bob", "read secret")
        assert (await asked(address, "bob", "DELETE", "/everything")).status_code == 204
        assert (await asked(address, "bob", "GET", "/files")).json()["entries"] == []
        assert (await asked(address, "bob", "GET", "/chat")).json() == []


@pytest.mark.timeout(300)
async def test_a_conversation_goes_on_in_any_worker_and_after_being_hung_up(tmp_path: Path) -> None:
    async with served(tmp_path, warm="0") as address:
        workers = set[str]()
        while len(workers) < 2:
            worker, _ = await chat(address, "alice", "write a file note with hello")
            workers.add(worker)
        for _ in range(6):
            told = (await asked(address, "alice", "GET", "/chat")).json()
            assert [event["type"] for event in told[:4]] == ["asked", "call", "result", "text"]
            assert told[1]["arguments"] == {"path": "note", "content": "hello\n"}

        # Asked at the same time, one after the other is answered, and none is lost.
        together = [f"run echo {number} >> order; sleep 0.5; echo {number} >> order" for number in range(5)]
        await asyncio.gather(*(chat(address, "alice", text) for text in together))
        order = (await asked(address, "alice", "GET", "/files/order")).text.split()
        assert order[::2] == order[1::2]
        told = (await asked(address, "alice", "GET", "/chat")).json()
        assert sorted(event["text"] for event in told if event["type"] == "asked")[:5] == together

        with pytest.raises(httpx.ReadTimeout):
            await hung_up(address, "alice", "run sleep 1000")
        # Neither the command nor the conversation goes on for somebody who has left.
        while "sleep" in (await said(address, "alice", "run cat /proc/[0-9]*/comm")).split():
            await asyncio.sleep(0.2)
        told = (await asked(address, "alice", "GET", "/chat")).json()
        assert "run sleep 1000" not in [event.get("text") for event in told]


async def hung_up(address: str, user: str, text: str) -> None:
    timeout = httpx.Timeout(30, read=5)
    async with (
        httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
        client.stream("POST", f"{address}/chat", json={"text": text}, headers=named(user)) as answer,
    ):
        async for _ in answer.aiter_bytes():
            pass


@pytest.mark.timeout(300)
async def test_only_the_page_itself_and_somebody_with_a_name_may_ask(tmp_path: Path) -> None:
    async with served(tmp_path, command=EXAMPLE, workers=1, warm="0") as address:
        page = await asked(address, "alice", "GET", "/")
        assert "default-src 'none'; script-src 'self'" in page.headers["Content-Security-Policy"]
        for part in ("page.js", "style.css", "icon.svg"):
            assert f"/page/{part}" in page.text
            assert (await asked(address, "alice", "GET", f"/page/{part}")).status_code == 200
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert (await asked(address, "alice", "PUT", "/files/x", foreign, content=b"x")).status_code == 403
        assert (await asked(address, "alice", "GET", "/files")).json()["entries"] == []
        for name in ("", "x" * 1025, "a\0b"):
            assert (await asked(address, name, "GET", "/files")).status_code == 400
            assert (await asked(address, name, "POST", "/chat", json={"text": "list"})).status_code == 400
        assert (await asked(address, "", "GET", "/files", {"X-User": "%FF"})).status_code == 400
        assert list((tmp_path / "workspaces").glob("[!.]*")) == []


@pytest.mark.timeout(300)
async def test_when_there_is_no_room_people_wait_and_are_told_their_place(tmp_path: Path) -> None:
    async with served(tmp_path, warm="0", max_sessions="1") as address:
        busy = asyncio.create_task(chat(address, "alice", "run sleep 10"))
        while "alice" not in await names(tmp_path):
            await asyncio.sleep(0.2)
        _, events = await chat(address, "bob", "run echo at last")
        assert [event["type"] for event in events][:2] == ["waiting", "ready"]
        assert events[0]["position"] == 1
        assert "at last" in results(events)
        assert (await busy)[1][-1] == {"type": "done"}


@pytest.mark.timeout(300)
async def test_who_need_not_wait_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with served(tmp_path, command=EXAMPLE, workers=1, warm="0", max_sessions="1", queue_timeout="0") as address:
        await chat(address, "alice", "run true")
        busy = asyncio.create_task(chat(address, "alice", "run sleep 5"))
        await asyncio.sleep(1)
        refused = await asked(address, "bob", "POST", "/chat", json={"text": "list"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
        assert "no room" in refused.json()["detail"]
        assert (await busy)[1][-1] == {"type": "done"}


async def names(root: Path) -> list[str]:
    return [session.user_id for session in await SessionManager(workspace_root=root / "workspaces").list()]


def test_a_model_that_cannot_be_had_is_told_before_anything_is_served(tmp_path: Path) -> None:
    command = [sys.executable, *EXAMPLE, "--model", "no-such-provider:x"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "Unknown model" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def docker_containers() -> Callable[[str], list[str]]:
    """Names of the containers of a namespace, as Docker knows them."""

    def names(namespace: str) -> list[str]:
        label = f"pydantic-ai-sandbox.owner.namespace={namespace}"
        return [listed_name(container) for container in list_containers(DockerEngine().api(), [label])]

    return names
