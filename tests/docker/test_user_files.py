"""A user's files without a shell: in and out for web handlers, with a sandbox up or down, and nobody else's ever."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pydantic_ai_sandbox import Download, InvalidUserIdError, QuotaExceededError, SandboxError, SessionManager
from pydantic_ai_sandbox.trees import Tree
from pydantic_ai_sandbox.trees.uploading import Upload
from tests.descriptors import open_below

pytestmark = pytest.mark.docker


async def content(download: Download) -> bytes:
    return b"".join([piece async for piece in download.pieces])


async def unpacked(pieces: AsyncIterator[bytes]) -> dict[str, bytes | str | None]:
    """What is in an archive: a file's content, a link's target, `None` for a directory."""
    data = b"".join([piece async for piece in pieces])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: member.linkname
            if member.issym()
            else None
            if member.isdir()
            else (archive.extractfile(member) or io.BytesIO()).read()
            for member in archive
        }


@pytest.mark.parametrize("running", [True, False], ids=["up", "down"])
async def test_files_go_in_and_out(managers: Callable[..., SessionManager], running: bool) -> None:
    manager = managers()
    if running:
        await manager.get_or_create("alice")

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 10_000

    assert await manager.upload("alice", "data/in.bin", pieces()) == 1_000_000
    assert await manager.upload("alice", "/workspace/data/small", b"x") == 1
    sandbox = await manager.get_or_create("alice")
    made = await sandbox.run("wc -c < data/in.bin; cp data/in.bin out.bin; echo more >> data/small", shell=True)
    assert (made.exit_code, made.stdout) == (0, "1000000\n")
    if not running:
        await manager.stop("alice")
    download = await manager.download("alice", "out.bin")
    assert (download.name, download.size) == ("out.bin", 1_000_000)
    assert await content(download) == b"".join(bytes([number]) * 10_000 for number in range(100))
    listing = await manager.list_files("alice", "data")
    assert [(entry.name, entry.kind, entry.size) for entry in listing.entries] == [
        ("in.bin", "file", 1_000_000),
        ("small", "file", 6),
    ]
    found = await unpacked(await manager.archive("alice"))
    assert set(found) == {"data", "data/in.bin", "data/small", "out.bin"}
    assert found["data/small"] == b"xmore\n"
    assert (await manager.usage("alice")).used >= 2_000_000


@pytest.mark.parametrize(
    "path",
    [
        "../bob/secret", "/workspace/../../bob/secret", "/etc/passwd", "link-out", "link-up", "folder-link/secret", "fifo",
        "a\0b", "x" * 300, "loop", "",
    ],
)  # fmt: skip
async def test_a_path_or_a_link_that_leads_out_opens_nothing(
    managers: Callable[..., SessionManager], path: str
) -> None:
    manager = managers()
    await manager.upload("bob", "secret", b"bob's")
    await manager.upload("alice", "f", b"alice's")
    root = manager._directories.root / "alice"
    (root / "link-out").symlink_to("/etc/passwd")
    (root / "link-up").symlink_to("../bob/secret")
    (root / "folder-link").symlink_to(manager._directories.root / "bob")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    async with asyncio.timeout(30):
        with pytest.raises((OSError, ValueError)):
            await manager.download("alice", path)
        if path not in ("fifo", "link-out", "link-up", "loop", "/etc/passwd"):
            with pytest.raises((OSError, ValueError)):
                await manager.upload("alice", path, b"overwritten")
    found = await unpacked(await manager.archive("alice"))
    assert found.get("f") == b"alice's"
    assert not {"link-out", "link-up", "folder-link", "fifo"} & set(found)
    assert not [value for value in found.values() if isinstance(value, bytes) and b"bob" in value]
    assert await content(await manager.download("bob", "secret")) == b"bob's"
    assert b"overwritten" not in Path("/etc/passwd").read_bytes()


async def test_a_link_in_the_place_of_a_file_is_replaced_and_its_target_spared(
    managers: Callable[..., SessionManager],
) -> None:
    manager = managers()
    await manager.upload("bob", "secret", b"bob's")
    await manager.upload("alice", "f", b"x")
    (manager._directories.root / "alice/link").symlink_to("../bob/secret")
    await manager.upload("alice", "link", b"alice's")
    assert await content(await manager.download("alice", "link")) == b"alice's"
    assert await content(await manager.download("bob", "secret")) == b"bob's"


async def test_a_user_who_is_nobody_or_has_nothing_is_told_so(managers: Callable[..., SessionManager]) -> None:
    manager = managers()
    for call in (manager.archive, manager.list_files, manager.usage):
        with pytest.raises(FileNotFoundError):
            await call("nobody")
        with pytest.raises(InvalidUserIdError):
            await call("")
    with pytest.raises(FileNotFoundError):
        await manager.download("nobody", "f")
    assert list(manager._directories.root.glob("nobody*")) == []


async def test_an_upload_that_breaks_off_leaves_the_old_file(managers: Callable[..., SessionManager]) -> None:
    manager = managers()
    await manager.upload("alice", "f", b"old")

    async def broken() -> AsyncIterator[bytes]:
        yield b"new" * 100_000
        raise ConnectionResetError("the browser went away")

    with pytest.raises(ConnectionResetError):
        await manager.upload("alice", "f", broken())
    assert await content(await manager.download("alice", "f")) == b"old"
    assert [entry.name for entry in (await manager.list_files("alice")).entries] == ["f"]


async def test_an_answer_that_is_not_read_to_its_end_leaves_no_descriptor(
    managers: Callable[..., SessionManager],
) -> None:
    manager = managers()
    await manager.upload("alice", "f", bytes(3_000_000))
    users = manager._directories.root
    before = open_below(users)
    for _ in range(5):
        download = await manager.download("alice", "f")
        async for _ in download.pieces:
            break
        await download.aclose()
        await (await manager.download("alice", "f")).aclose()
        pieces = await manager.archive("alice", format="tar")
        async for _ in pieces:
            break
        await pieces.aclose()  # pyright: ignore[reportAttributeAccessIssue] - an async generator's
    assert open_below(users) == before


BIG = """
import asyncio, sys
from pathlib import Path
from pydantic_ai_sandbox import SessionManager

def high_water():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")) * 1024

async def main(root):
    manager = SessionManager(workspace_root=root)
    await manager.usage("alice")
    async for _ in await manager.archive("alice", "small"):
        pass
    before, size = high_water(), 0
    async for piece in await manager.archive("alice"):
        size += len(piece)
    assert high_water() - before < 64 * 2**20, high_water() - before
    download = await manager.download("alice", "sparse")
    async for piece in download.pieces:
        size += len(piece)
    assert high_water() - before < 64 * 2**20, high_water() - before
    print(size)
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_huge_workspace_is_archived_in_bounded_memory(
    managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    manager = managers()
    await manager.upload("alice", "small/f", b"x")
    root = manager._directories.root / "alice"
    make = (
        "i=0; while [ $i -lt 400 ]; do mkdir d$i; (cd d$i; j=0; while [ $j -lt 500 ]; do : > f$j; j=$((j+1)); done); "
        "i=$((i+1)); done; mkfifo pipe; ln -s / out; truncate -s 300M sparse"
    )
    assert await (await asyncio.create_subprocess_exec("sh", "-c", make, cwd=root)).wait() == 0
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BIG, str(tmp_path / "users"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert int(out) > 300_000_000


async def test_an_upload_that_is_cancelled_ends_its_step_before_it_gives_up(
    managers: Callable[..., SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()
    await manager.upload("alice", "f", b"old")
    began, go_on, sync = threading.Event(), threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        began.set()
        go_on.wait(20)
        # Closed by then, its number would be another file's.
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    upload = asyncio.create_task(manager.upload("alice", "f", b"new"))
    await asyncio.to_thread(began.wait, 20)
    upload.cancel()
    await asyncio.sleep(0.1)
    assert not upload.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await content(await manager.download("alice", "f")) == b"new"
    assert [entry.name for entry in (await manager.list_files("alice")).entries] == ["f"]


async def test_an_upload_that_is_cancelled_while_it_begins_leaves_nothing_open(
    managers: Callable[..., SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()
    await manager.upload("alice", "f", b"old")
    began, go_on, begin = threading.Event(), threading.Event(), Tree.write
    begun: list[Upload] = []

    def slow(tree: Tree, path: str, *, limit: int | None = None) -> Upload:
        began.set()
        go_on.wait(20)
        begun.append(begin(tree, path, limit=limit))
        return begun[0]

    monkeypatch.setattr(Tree, "write", slow)
    upload = asyncio.create_task(manager.upload("alice", "f", b"new"))
    await asyncio.to_thread(began.wait, 20)
    upload.cancel()
    await asyncio.sleep(0.1)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert not begun[0]._open
    assert await content(await manager.download("alice", "f")) == b"old"


async def test_a_full_disk_of_the_host_is_not_called_a_quota(
    managers: Callable[..., SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()

    def full(upload: Upload, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Upload, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        await manager.upload("alice", "f", b"x")
    assert not isinstance(caught.value, QuotaExceededError)


async def test_a_full_disk_of_the_host_leaves_no_draft_of_a_record_and_is_an_error_of_ours(
    managers: Callable[..., SessionManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()
    write_text = Path.write_text

    def full(path: Path, data: str, encoding: str | None = None) -> None:
        write_text(path, "")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(SandboxError, match="cannot be made"):
            await manager.get_or_create("alice")
    assert not list(manager._directories.own.glob("*.owner.json*"))
    await manager.get_or_create("alice")
