"""A user who has filled the own directory is stopped, one way or the other, and a neighbour writes on."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pydantic_ai_sandbox import QuotaExceededError, SessionManager
from pydantic_ai_sandbox.sessions import storage

pytestmark = pytest.mark.docker

MIB = 1024 * 1024


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system for every user takes root")
async def test_a_hard_quota_is_the_kernels(managers: Callable[..., SessionManager]) -> None:
    manager = managers(disk_quota="32MiB", require_hard_quota=True)
    assert await manager.quota_level() in ("loopback", "project")
    alice, bob = [await manager.get_or_create(user) for user in ("alice", "bob")]
    await alice.write_text("/workspace/kept", "kept")
    neighbour = await bob.start_job("for i in $(seq 20); do head -c 1M /dev/zero > f$i; sleep 0.1; done", shell=True)
    full = await alice.run("head -c 100M /dev/zero > big", shell=True)
    assert full.exit_code != 0
    assert "No space left on device" in full.stderr
    with pytest.raises(OSError, match="no space left") as caught:
        await alice.write_bytes("/workspace/more", bytes(40 * MIB))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(QuotaExceededError) as refused:
        await manager.upload("alice", "more", bytes(40 * MIB))
    assert refused.value.limit <= 32 * MIB
    usage = await manager.usage("alice")
    assert usage.limit is not None
    assert usage.used <= usage.limit <= 32 * MIB
    assert (await neighbour.wait(timeout=60)).exit_code == 0
    # The file that did not fit is not there in part, and what is deleted makes room again.
    assert not await alice.exists("/workspace/more")
    await alice.remove("/workspace/big")
    assert (await alice.run("cat kept; head -c 20M /dev/zero > fits", shell=True)).stdout == "kept"
    await manager.stop("alice")
    assert (await (await manager.get_or_create("alice")).run(["cat", "kept"])).stdout == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system for every user takes root")
async def test_files_cannot_be_too_many_either(managers: Callable[..., SessionManager]) -> None:
    manager = managers(disk_quota="16MiB", require_hard_quota=True)
    alice = await manager.get_or_create("alice")
    result = await alice.run(
        "i=0; while : > f$i; do i=$((i+1)); [ $i -lt 200000 ] || exit 7; done", shell=True, timeout=120
    )
    assert result.exit_code != 7
    assert "No space left" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system for every user takes root")
async def test_with_a_hard_quota_containers_are_started_ahead_and_checkpoints_are_made(
    managers: Callable[..., SessionManager],
) -> None:
    async with managers(disk_quota="32MiB", require_hard_quota=True, warm={"python-minimal": 1}) as manager:
        while not list((manager._directories.own / "warm").glob("*/*.ready")):
            await asyncio.sleep(0.05)
        waiting = {info.id for info in await manager._submit(manager._population.all)}
        alice = await manager.get_or_create("alice")
        assert alice.info is not None
        assert alice.info.id in waiting
        assert (await alice.run("echo one > f; head -c 100M /dev/zero > big", shell=True)).exit_code != 0
        await alice.remove("/workspace/big")
        first = await manager.checkpoint("alice")
        await alice.write_text("/workspace/f", "two\n")
        await manager.restore("alice", first)
        assert (await alice.run("cat f; head -c 100M /dev/zero > big", shell=True)).stdout == "one\n"
        assert (await manager.usage("alice")).limit is not None
        await manager.fork("alice", "bob")
        bob = await manager.get_or_create("bob")
        assert (await bob.run("rm big; cat f; head -c 100M /dev/zero > big", shell=True)).stdout == "one\n"
        for user in ("alice", "bob"):
            await manager.delete(user, files=True)
        await manager._refilling.stop()
        await manager._tidying.stop()
        for info in await manager._submit(manager._household.warm.waiting):
            manager._engine.remove(info.id)
        for directory in (manager._directories.own / "warm").glob("*/*"):
            if directory.is_dir():
                manager._directories.storage.delete(directory)


@pytest.fixture
def only_soft(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot do better, as one whose backend is not root."""

    def choose(root: Path, quota: int | None, *, require_hard: bool) -> storage.Storage:
        return storage.PlainStorage(root, quota)

    monkeypatch.setattr("pydantic_ai_sandbox.sessions.manager.choose_storage", choose)


@pytest.mark.usefixtures("only_soft")
async def test_a_soft_quota_stops_the_writer_and_says_so(managers: Callable[..., SessionManager]) -> None:
    manager = managers(disk_quota="32MiB")
    assert await manager.quota_level() == "soft"
    alice, bob = [await manager.get_or_create(user) for user in ("alice", "bob")]
    neighbour = await bob.start_job("for i in $(seq 20); do head -c 1M /dev/zero > f$i; sleep 0.1; done", shell=True)
    write = "i=0; while :; do head -c 4M /dev/zero > big-$$-$i; i=$((i+1)); sleep 0.05; done"
    with pytest.raises(QuotaExceededError, match="32 MiB") as caught:
        await alice.run(write, shell=True, timeout=60)
    assert caught.value.limit == 32 * MIB
    execution = await alice.execute(write, shell=True, timeout=60)
    assert (execution.cause, execution.limit) == ("disk_quota", "32 MiB in the workspace")
    with pytest.raises(QuotaExceededError):
        await alice.write_bytes("/workspace/more", bytes(MIB))
    with pytest.raises(QuotaExceededError):
        await manager.upload("alice", "more", bytes(MIB))
    # What frees room works, and then all is well again.
    assert (await alice.run("rm big*", shell=True)).exit_code == 0
    await alice.write_bytes("/workspace/more", bytes(MIB))
    job = await alice.start_job(write, shell=True)
    assert (await job.wait(timeout=60)).cause == "disk_quota"
    assert (await neighbour.wait(timeout=60)).exit_code == 0
