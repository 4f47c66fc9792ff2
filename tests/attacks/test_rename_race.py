"""Twenty thousand reads and two thousand writes, while names turn into links and back as fast as they can."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pydantic_ai_sandbox import Sandbox, SessionManager
from tests.attacks.families.files import SECRET, content, our_users, users
from tests.attacks.families.races import checked, lay
from tests.attacks.lab import Lab
from tests.trees.making import swapping

pytestmark = [pytest.mark.docker, pytest.mark.attacks, pytest.mark.slow, pytest.mark.timeout(600)]

READS, WRITES, ARCHIVES = 20_000, 2_000, 200

AT_ONCE = 16

PATHS = ("file", "folder/secret")

Report = Callable[[str], None]


@contextmanager
def _racing(alice: Path) -> Generator[None]:
    with ExitStack() as stack:
        for name in ("file", "folder"):
            stack.enter_context(swapping(alice / name, alice / f"{name}-link"))
        yield


def _paths(count: int) -> Iterator[str]:
    return (PATHS[number % len(PATHS)] for number in range(count))


async def _all(count: int, attempt: Callable[[str], Awaitable[bytes]]) -> Counter[str]:
    """How many attempts found what, several under way at once."""
    found: Counter[str] = Counter()
    paths = _paths(count)

    async def work() -> None:
        for path in paths:
            try:
                found["foreign" if await attempt(path) == SECRET else "own"] += 1
            except OSError:
                # Whoever swaps may cause an error, no more.
                found["refused"] += 1

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return found


def _said(what: str, found: Counter[str], began: float) -> str:
    counts = ", ".join(f"{found[key]} {key}" for key in ("own", "refused", "foreign"))
    return f"rename race, {what}: {counts} in {time.monotonic() - began:.1f} s"


async def test_naively_checked_paths_leak_and_are_overwritten(lab: Lab, report: Report) -> None:
    alice, bob = users(lab)
    lay(alice)
    began, found = time.monotonic(), Counter[str]()
    with _racing(alice):
        # So many more only where the machine is too busy for the race to be lost sooner.
        for path in _paths(10 * READS):
            try:
                found["foreign" if checked(alice, path).read_bytes() == SECRET else "own"] += 1
            except OSError:
                found["refused"] += 1
            if found["foreign"] and found.total() >= READS:
                break
        report(_said("realpath, then read", found, began))
        for path in _paths(100 * WRITES):
            with suppress(OSError):
                checked(alice, path).write_bytes(b"overwritten")
            if (bob / "secret").read_bytes() != SECRET:
                break
    assert found["foreign"]
    assert (bob / "secret").read_bytes() != SECRET


async def test_no_byte_of_another_user_is_read(lab: Lab, report: Report) -> None:
    manager, alice = await our_users(lab)
    lay(alice)
    sandbox = await manager.get_or_create("alice")

    async def download(path: str) -> bytes:
        return await content(await manager.download("alice", path))

    async def read(path: str) -> bytes:
        return await sandbox.read_bytes(f"/workspace/{path}")

    with _racing(alice):
        for what, attempt in (("read through the runner", read), ("downloaded on the host", download)):
            began = time.monotonic()
            found = await _all(READS, attempt)
            report(_said(what, found, began))
            assert found["foreign"] == 0
            assert found["own"], "the race was never won by the reader"
        began, leaked = time.monotonic(), 0
        for _ in range(ARCHIVES):
            leaked += await _archived_secret(manager)
        report(
            f"rename race, archived on the host: {ARCHIVES} times, {leaked} foreign in {time.monotonic() - began:.1f} s"
        )
        assert leaked == 0


async def _archived_secret(manager: SessionManager) -> bool:
    data = b"".join([piece async for piece in await manager.archive("alice", format="tar")])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames()
    return SECRET in data


async def test_no_byte_of_another_user_is_written(lab: Lab, report: Report) -> None:
    manager, alice = await our_users(lab)
    lay(alice)
    sandbox: Sandbox = await manager.get_or_create("alice")

    async def upload(path: str) -> bytes:
        await manager.upload("alice", path, b"overwritten")
        return b""

    async def write(path: str) -> bytes:
        await sandbox.write_bytes(f"/workspace/{path}", b"overwritten")
        return b""

    bob = alice.parent / "bob"
    for what, attempt in (("written through the runner", write), ("uploaded on the host", upload)):
        began = time.monotonic()
        with _racing(alice):
            found = await _all(WRITES, attempt)
        found["foreign"] = int((bob / "secret").read_bytes() != SECRET or os.listdir(bob) != ["secret"])
        report(_said(what, found, began))
        assert not found["foreign"]
        assert found["own"], "the race was never won by the writer"
