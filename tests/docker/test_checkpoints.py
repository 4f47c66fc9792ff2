"""Copies of a user's directory: of one moment, whole or absent, and back in one step."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pydantic_ai_sandbox import InvalidUserIdError, Sandbox, SessionManager
from tests.forked import Forked

pytestmark = pytest.mark.docker


async def test_a_checkpoint_is_come_back_to(managers: Callable[..., SessionManager]) -> None:
    manager = managers()
    sandbox = await manager.get_or_create("alice")
    await sandbox.run("mkdir -p a/b; echo one > a/b/f; ln -s a/b/f link; chmod 750 a; echo x > extra", shell=True)
    first = await manager.checkpoint("alice")
    await sandbox.run("rm -r a extra; echo two > new", shell=True)
    second = await manager.checkpoint("alice")
    found = await manager.checkpoints("alice")
    assert [checkpoint.id for checkpoint in found] == [first, second]
    assert found[0].created < found[1].created
    await manager.restore("alice", first)
    # The same object goes on, over what there is now.
    shown = await sandbox.run("cat link; stat -c %a a; ls -A; whoami >/dev/null 2>&1; touch writable", shell=True)
    assert (shown.exit_code, shown.stdout) == (0, "one\n750\na\nextra\nlink\n")
    await manager.restore("alice", second)
    assert (await sandbox.run("ls -A; cat new", shell=True)).stdout == "link\nnew\ntwo\n"
    await manager.delete_checkpoint("alice", first)
    assert [checkpoint.id for checkpoint in await manager.checkpoints("alice")] == [second]
    with pytest.raises(FileNotFoundError):
        await manager.restore("alice", first)
    await manager.delete("alice", files=True)
    assert await manager.checkpoints("alice") == []


async def test_a_copy_is_of_one_moment_although_a_program_writes_all_the_time(
    managers: Callable[..., SessionManager],
) -> None:
    manager = managers()
    sandbox = await manager.get_or_create("alice")
    # Two files, written one after the other: in no state of the directory is the second ahead of the first.
    write = "import itertools\nfor n in itertools.count():\n for f in 'ab':\n  open(f, 'w').write(str(n))\n"
    job = await sandbox.start_job(["python3", "-c", write])
    await asyncio.sleep(0.3)
    for _ in range(5):
        id = await manager.checkpoint("alice")
        files = manager._checkpoints._folder("alice") / id / "files"
        a, b = ((files / name).read_text() for name in "ab")
        # One of them may have been opened, and so emptied, but not written yet.
        assert not (a and b) or int(a) in (int(b), int(b) + 1)
    before = await number(sandbox)
    async with asyncio.timeout(20):
        while await number(sandbox) == before:
            await asyncio.sleep(0.05)
    await job.stop()


async def number(sandbox: Sandbox) -> int:
    """What the program has written, once it is not just about to write it."""
    while not (content := await sandbox.read_bytes("/workspace/a")):
        await asyncio.sleep(0.001)
    return int(content)


async def test_a_fork_is_a_copy_for_somebody_new(managers: Callable[..., SessionManager]) -> None:
    manager = managers()
    alices = await manager.get_or_create("alice")
    await alices.write_text("/workspace/f", "from alice")
    await manager.fork("alice", "bob")
    bobs = await manager.get_or_create("bob")
    await bobs.run("cat f; echo bob >> f", shell=True)
    assert await alices.read_bytes("/workspace/f") == b"from alice"
    assert await bobs.read_bytes("/workspace/f") == b"from alicebob\n"
    with pytest.raises(FileExistsError, match="has a directory already"):
        await manager.fork("alice", "bob")
    with pytest.raises(FileNotFoundError, match="has no directory"):
        await manager.fork("nobody", "carol")
    assert not (manager._directories.root / "carol").exists()


async def test_a_checkpoint_for_which_there_is_no_room_leaves_nothing(
    managers: Callable[..., SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()
    await manager.upload("alice", "f", b"x")

    def full(source: Path, target: Path, **_: object) -> None:
        target.mkdir()
        (target / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pydantic_ai_sandbox.sessions.checkpoints.copy_tree", full)
    with pytest.raises(OSError, match="No space left"):
        await manager.checkpoint("alice")
    assert list(manager._checkpoints._folder("alice").iterdir()) == []


async def test_what_is_left_of_a_fork_whose_maker_was_killed_is_tidied_away(
    managers: Callable[..., SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()
    await manager.upload("alice", "f", b"x")
    checkpoints = manager._checkpoints
    with checkpoints._forking() as draft:
        manager._directories.storage.create(draft, 10001)
        (draft / "half").write_bytes(b"x")
        monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.working._STALE", 0.0)
        checkpoints.tidy()
        assert draft.is_dir(), "its maker is at work"
    mark = draft.with_suffix(".mark")
    mark.touch()
    checkpoints.tidy()
    assert list(draft.parent.iterdir()) == []


@pytest.mark.parametrize("id", ["", "..", "../../alice", "20260101T000000000000Z-abcdef", "x" * 500])
async def test_a_checkpoint_that_is_none_is_refused(managers: Callable[..., SessionManager], id: str) -> None:
    manager = managers()
    await manager.upload("alice", "f", b"x")
    for call in (manager.restore, manager.delete_checkpoint):
        with pytest.raises(FileNotFoundError, match="no such checkpoint"):
            await call("alice", id)
    assert (manager._directories.root / "alice/f").read_bytes() == b"x"


async def test_another_users_checkpoint_is_none_of_ones_own(managers: Callable[..., SessionManager]) -> None:
    manager = managers()
    await manager.upload("alice", "f", b"alice's")
    id = await manager.checkpoint("alice")
    await manager.upload("mallory", "f", b"x")
    with pytest.raises(FileNotFoundError):
        await manager.restore("mallory", id)
    with pytest.raises(InvalidUserIdError):
        await manager.checkpoint("")


KILLED = """
import asyncio, sys
from pydantic_ai_sandbox import SessionManager
async def main(root):
    manager = SessionManager(workspace_root=root, idle_timeout=90)
    ids = [checkpoint.id for checkpoint in await manager.checkpoints("alice")][:1]
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        await manager.checkpoint("alice")
        await manager.restore("alice", ids[number % len(ids)])
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_backend_killed_at_any_moment_leaves_checkpoints_and_directory_whole(
    managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    manager = managers()
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    for number in range(200):
        await manager.upload("alice", f"d{number % 7}/f{number}", b"%d" % number * 100)
    want = {f"d{number % 7}/f{number}": b"%d" % number * 100 for number in range(200)}
    await manager.checkpoint("alice")

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    for _ in range(20):
        with Forked(KILLED, str(tmp_path / "users")) as backend:
            assert await asyncio.to_thread(backend.readline) == "ready\n"
            await asyncio.sleep(moments.random() * 0.4)
        found = await manager.checkpoints("alice")
        assert found
        for checkpoint in found:
            assert content(manager._checkpoints._folder("alice") / checkpoint.id / "files") == want
        assert content(manager._directories.root / "alice") == want
        for checkpoint in found[1:]:
            await manager.delete_checkpoint("alice", checkpoint.id)
    await manager.checkpoint("alice")
    names = sorted(path.name for path in manager._checkpoints._folder("alice").iterdir())
    assert names == [checkpoint.id for checkpoint in await manager.checkpoints("alice")], "a draft is left"


WRITER = """
import asyncio, json, sys
from pydantic_ai_sandbox import SessionManager
async def main(root, begin):
    manager = SessionManager(workspace_root=root, idle_timeout=90)
    sandbox = await manager.get_or_create("alice")
    for number in range(begin, begin + 100_000):
        await sandbox.write_bytes("/workspace/f", json.dumps({"number": number, "fill": "x" * 20_000}).encode())
        print(number, flush=True)
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.slow
async def test_a_backend_killed_in_the_midst_of_writes_leaves_the_old_or_the_new(
    managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    manager = managers()
    sandbox = await manager.get_or_create("alice")
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    written = 0
    while written < 500:
        with Forked(WRITER, str(tmp_path / "users"), str(written + 1)) as backend:
            acknowledged = int(await asyncio.to_thread(backend.readline))
            await asyncio.sleep(moments.random() * 0.3)
            backend.kill()
            rest = backend.rest().split("\n")[:-1]
        acknowledged = int(rest[-1]) if rest else acknowledged
        found = json.loads(await sandbox.read_bytes("/workspace/f"))
        assert found["number"] in (acknowledged, acknowledged + 1)
        assert len(found["fill"]) == 20_000
        written = found["number"]
