"""What hostile code leaves in a workspace for the host to stumble over."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from pydantic_ai.workspaces import WorkspaceUnavailableError

from pydantic_ai_sandbox import Download, SandboxError, SessionManager
from tests.attacks.lab import Lab
from tests.attacks.registry import Family
from tests.trees.making import make_deep, make_special

family = Family("files")

SECRET = b"another user's"

OPENED = "`open(path)` on the host"


async def content(download: Download) -> bytes:
    return b"".join([piece async for piece in download.pieces])


def users(lab: Lab) -> tuple[Path, Path]:
    """The directories of an attacker and of a victim, as a naive backend keeps them."""
    alice, bob = lab.folder("alice"), lab.folder("bob")
    (bob / "secret").write_bytes(SECRET)
    return alice, bob


async def our_users(lab: Lab) -> tuple[SessionManager, Path]:
    """The same here, and the attacker's directory."""
    manager = lab.manager()
    await manager.upload("bob", "secret", SECRET)
    await manager.upload("alice", "f", b"own")
    return manager, lab.place / "users/alice"


# --- links

LINKS: dict[str, Callable[[Path], object]] = {
    "a link to a file of the host": lambda alice: (alice / "way").symlink_to("/etc/hostname"),
    "a link to another user's file": lambda alice: (alice / "way").symlink_to("../bob/secret"),
    "a link to another user's directory": lambda alice: (alice / "folder").symlink_to("../bob"),
    "a link through the kernel's links": lambda alice: (alice / "way").symlink_to("/proc/self/cwd"),
}


def _leads_out_naive(plant: Callable[[Path], object], name: str, lab: Lab) -> bool:
    alice, _ = users(lab)
    plant(alice)
    path = alice / name
    return path.is_dir() or bool(path.read_bytes())


async def _leads_out_ours(plant: Callable[[Path], object], name: str, lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    plant(alice)
    for call in (manager.download, manager.list_files, manager.archive):
        with pytest.raises((PermissionError, NotADirectoryError)):
            await call("alice", name)
    data = b"".join([piece async for piece in await manager.archive("alice", format="tar")])
    return SECRET in data


for _name, _plant in LINKS.items():
    _way = "folder/secret" if "directory" in _name else "way"
    family.pair(
        f"reads through {_name}",
        against=OPENED,
        naive=partial(_leads_out_naive, _plant, _way),
        ours=partial(_leads_out_ours, _plant, _way),
        quick="file of the host" in _name,
    )


def _written_naive(lab: Lab) -> bool:
    alice, bob = users(lab)
    (alice / "way").symlink_to("../bob/secret")
    (alice / "way").write_bytes(b"overwritten")
    return (bob / "secret").read_bytes() != SECRET


async def _written_ours(lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    (alice / "way").symlink_to("../bob/secret")
    (alice / "folder").symlink_to("../bob")
    await manager.upload("alice", "way", b"overwritten")
    with pytest.raises(PermissionError):
        await manager.upload("alice", "folder/secret", b"overwritten")
    return await content(await manager.download("bob", "secret")) != SECRET


family.pair(
    "has an upload written through a link", against=OPENED, naive=_written_naive, ours=_written_ours, quick=True
)


def _mounted_naive(lab: Lab) -> bool:
    _, bob = users(lab)
    (lab.place / "mallory").symlink_to(bob)
    return lab.another_plain(volumes=[f"{lab.place}/mallory:/workspace"]).sh("cat /workspace/secret") == SECRET.decode()


async def _mounted_ours(lab: Lab) -> bool:
    manager, _ = await our_users(lab)
    (lab.place / "users/mallory").symlink_to("bob")
    with pytest.raises((SandboxError, WorkspaceUnavailableError), match="not a directory"):
        await manager.get_or_create("mallory")
    return False


family.pair(
    "puts a link in the place of a whole directory", against="`docker run -v`", naive=_mounted_naive, ours=_mounted_ours
)

LINK = "os.link('/workspaces/bob/secret', '/workspaces/alice/mine')"


def _hard_naive(lab: Lab) -> bool:
    alice, _ = users(lab)
    plain = lab.another_plain(volumes=[f"{lab.place}:/workspaces"])
    plain.attempt(LINK)
    return (alice / "mine").read_bytes() == SECRET


async def _hard_ours(lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    sandbox = await manager.get_or_create("alice")
    # Not even with a place that both can see: what is mounted is another file system.
    for source in ("/workspaces/bob/secret", "/etc/hostname", "/.sandbox/bin/runner", "/proc/1/exe"):
        linked = await sandbox.run(["ln", source, "mine"])
        assert linked.exit_code != 0
    return (alice / "mine").exists()


family.pair(
    "makes a hard link to another user's file",
    against="all workspaces mounted together",
    naive=_hard_naive,
    ours=_hard_ours,
)

# --- what is no file


def _blocks(path: Path) -> bool:
    """Whether reading it keeps a reader for good, in a process that can be ended."""
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", f"open({str(path)!r}, 'rb').read(1)"], timeout=1, check=False)
    return True


def _fifo_naive(lab: Lab) -> bool:
    os.mkfifo(lab.place / "fifo")
    return _blocks(lab.place / "fifo")


def _zero_naive(lab: Lab) -> bool:
    os.mknod(lab.place / "zero", 0o20666, os.makedev(1, 5))
    with (lab.place / "zero").open("rb") as file:
        return len(file.read(1 << 20)) == 1 << 20


async def _special_ours(name: str, lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    assert name in make_special(alice)
    with pytest.raises(OSError, match="not a regular file"):
        await manager.download("alice", name)
    sandbox = await manager.get_or_create("alice")
    with pytest.raises(OSError, match="not a regular file"):
        await sandbox.read_bytes(f"/workspace/{name}")
    data = b"".join([piece async for piece in await manager.archive("alice", format="tar")])
    await manager.checkpoint("alice")
    return name.encode() in data


for _name, _entry, _naive in (
    ("has the host wait for a pipe", "fifo", _fifo_naive),
    ("has the host read a device", "character", _zero_naive),
):
    family.pair(_name, against=OPENED, naive=_naive, ours=partial(_special_ours, _entry))


def _broken_copy(lab: Lab) -> bool:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(lab.folder("source") / "s"))
    with pytest.raises(shutil.Error):
        shutil.copytree(lab.place / "source", lab.place / "copy")
    return True


family.pair(
    "breaks copies with a socket",
    against="`shutil.copytree`",
    naive=_broken_copy,
    ours=partial(_special_ours, "socket"),
)

# --- sizes and shapes

TERABYTE = 1 << 40


def _huge(folder: Path) -> None:
    with (folder / "huge").open("wb") as file:
        file.truncate(TERABYTE)


def _sparse_naive(lab: Lab) -> bool:
    _huge(lab.place)
    with pytest.raises((MemoryError, OverflowError)):
        (lab.place / "huge").read_bytes()
    return True


async def _sparse_ours(lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    _huge(alice)
    sandbox = await manager.get_or_create("alice")
    with pytest.raises(OSError, match="too large") as caught:
        await sandbox.read_bytes("/workspace/huge")
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(OSError, match="more than"):
        async for _ in await manager.archive("alice", max_bytes=1 << 30):
            pass
    download = await manager.download("alice", "huge")
    first = await anext(download.pieces)
    await download.aclose()
    return len(first) > 1 << 20 or (await manager.usage("alice")).used > 1 << 30


family.pair("makes a terabyte of nothing", against="`read_bytes()` on the host", naive=_sparse_naive, ours=_sparse_ours)

DEPTH = 3000


def _deep_naive(lab: Lab) -> bool:
    make_deep(lab.folder("deep"), DEPTH)
    with pytest.raises((RecursionError, OSError)):
        shutil.rmtree(lab.place / "deep")
    return (lab.place / "deep").exists()


async def _deep_ours(lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    make_deep(alice, DEPTH)
    await manager.delete("alice", files=True)
    return alice.exists()


family.pair("makes a tree too deep to delete", against="`shutil.rmtree`", naive=_deep_naive, ours=_deep_ours)

BIG = 4 << 20


def _bury(folder: Path) -> None:
    """A large file deeper than any path reaches."""
    name = "d" * 200
    make_deep(folder, 30, name)
    current = os.open(folder, os.O_RDONLY)
    for _ in range(30):
        deeper = os.open(name, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = deeper
    with open("big", "wb", opener=lambda path, flags: os.open(path, flags, 0o644, dir_fd=current)) as file:
        file.write(bytes(BIG))
    os.close(current)


def _buried_naive(lab: Lab) -> bool:
    _bury(lab.folder("deep"))
    total = sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(lab.place / "deep")
        for name in names
    )
    return total < BIG


async def _buried_ours(lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    _bury(alice)
    return (await manager.usage("alice")).used < BIG


family.pair("hides files where nobody counts them", against="`os.walk`", naive=_buried_naive, ours=_buried_ours)

WIDE = 12_000


def _widen(folder: Path) -> None:
    for number in range(WIDE):
        (folder / str(number)).touch()


def _wide_naive(lab: Lab) -> bool:
    _widen(lab.place)
    return len(os.listdir(lab.place)) == WIDE


async def _wide_ours(lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    _widen(alice)
    listing = await manager.list_files("alice")
    assert listing.truncated
    return len(listing.entries) > 10_000


family.pair(
    "makes a directory of more entries than a page can show", against="`os.listdir`", naive=_wide_naive, ours=_wide_ours
)

# --- names

NEWLINE = "touch 'a\nforged'"
NO_TEXT = "touch \"$(printf 'a\\377')\""


def _newline_naive(lab: Lab) -> bool:
    return "forged" in lab.another_plain(working_dir="/srv").sh(f"{NEWLINE}; ls -1").splitlines()


async def _newline_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    await sandbox.run(NEWLINE, shell=True)
    names = [entry.name for entry in await sandbox.list_dir("/workspace")]
    assert names == ["a\nforged"]
    return "forged" in names


family.pair("forges an entry by a line break in a name", against="`ls -1`", naive=_newline_naive, ours=_newline_ours)


def _no_text_naive(lab: Lab) -> bool:
    plain = lab.another_plain(working_dir="/srv")
    plain.sh(NO_TEXT)
    with pytest.raises(UnicodeDecodeError):
        plain.output(["ls", "-1"])[1].decode()
    return True


async def _no_text_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    await sandbox.run(NO_TEXT, shell=True)
    (entry,) = await sandbox.list_dir("/workspace")
    await sandbox.write_bytes(entry.path, b"x")
    return await sandbox.read_bytes(entry.path) != b"x"


family.pair(
    "breaks a listing by a name that is no text", against="`.decode()`", naive=_no_text_naive, ours=_no_text_ours
)

PLANTED = "x; touch planted"


def _command_naive(lab: Lab) -> bool:
    plain = lab.another_plain(working_dir="/srv")
    plain.sh(f"cat {PLANTED}")
    return "planted" in plain.sh("ls")


async def _command_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    await sandbox.write_text(f"/workspace/{PLANTED}", "x")
    await sandbox.read_text(f"/workspace/{PLANTED}")
    await sandbox.glob(PLANTED)
    await sandbox.grep("x", f"/workspace/{PLANTED}")
    return await sandbox.exists("/workspace/planted")


family.pair(
    "names a file like a command", against='`sh -c f"cat {path}"`', naive=_command_naive, ours=_command_ours, quick=True
)

OPTION = "-f/etc/passwd"


def _option_naive(lab: Lab) -> bool:
    # Taken for an option, the pattern is every line of that file, and matches where it should not.
    code, output = lab.plain.exec(["grep", "-c", OPTION, "/etc/passwd"])
    return code == 0 and int(output) > 0


async def _option_ours(lab: Lab) -> bool:
    found = await lab.sandbox.grep(OPTION, "/etc/passwd")
    return bool(found.files)


family.pair("searches for an option", against='`["grep", pattern, path]`', naive=_option_naive, ours=_option_ours)

EVIL = r"^(\w+\s?)*$"
VICTIM = "an input that takes a while " * 2 + "!"


def _regex_naive(lab: Lab) -> bool:
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", f"import re; re.search({EVIL!r}, {VICTIM!r})"], timeout=1, check=False)
    return True


async def _regex_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox()
    await sandbox.write_text("/workspace/f", f"{VICTIM}\n" * 100)
    found = await sandbox.grep(EVIL, "/workspace/f", mode="count")
    return bool(found.timed_out or found.files)


family.pair("searches for a pattern that never ends", against="`re.search`", naive=_regex_naive, ours=_regex_ours)
