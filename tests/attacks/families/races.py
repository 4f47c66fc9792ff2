"""Names that change between being checked and being used. With numbers: `test_rename_race.py`."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pydantic_ai_sandbox import SessionManager
from tests.attacks.families.files import SECRET, content, our_users, users
from tests.attacks.lab import Lab
from tests.attacks.registry import Family
from tests.trees.making import attempts, swapping

family = Family("races")

CHECKED = "`realpath`, then `open`"

ROUNDS = 200


def checked(root: Path, name: str, meanwhile: Callable[[], object] = lambda: None) -> Path:
    """The path of something below a root, as everybody checks it.

    Raises:
        PermissionError: It leads out, at the moment.
    """
    path = root / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise PermissionError(name)
    meanwhile()
    return path


def lay(alice: Path) -> None:
    """A file and a directory of hers, and links out to swap them with."""
    (alice / "file").write_bytes(b"own")
    (alice / "file-link").symlink_to("../bob/secret")
    (alice / "folder").mkdir()
    (alice / "folder/secret").write_bytes(b"own")
    (alice / "folder-link").symlink_to("../bob")
    hers = alice.stat()
    for name in ("file", "file-link", "folder", "folder/secret", "folder-link"):
        os.lchown(alice / name, hers.st_uid, hers.st_gid)


def _swap(alice: Path, name: str) -> None:
    (alice / name).rename(alice / "aside")
    (alice / f"{name}-link").rename(alice / name)


def _read_naive(name: str, path: str, lab: Lab) -> bool:
    alice, _ = users(lab)
    lay(alice)
    return checked(alice, path, lambda: _swap(alice, name)).read_bytes() == SECRET


async def _read(manager: SessionManager, path: str) -> bytes:
    # Whoever swaps may cause an error, no more.
    with suppress(OSError):
        return await content(await manager.download("alice", path))
    return b""


async def _read_ours(name: str, path: str, lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    lay(alice)
    with swapping(alice / name, alice / f"{name}-link"):
        found: set[bytes] = set()
        for _ in attempts(ROUNDS, lambda: b"own" in found):
            found.add(await _read(manager, path))
    assert b"own" in found
    return SECRET in found


for _kind, _path in (("file", "file"), ("folder", "folder/secret")):
    family.pair(
        f"swaps a {_kind} for a link while it is read",
        against=CHECKED,
        naive=partial(_read_naive, _kind, _path),
        ours=partial(_read_ours, _kind, _path),
    )


def _write_naive(lab: Lab) -> bool:
    alice, bob = users(lab)
    lay(alice)
    checked(alice, "folder/secret", lambda: _swap(alice, "folder")).write_bytes(b"overwritten")
    return (bob / "secret").read_bytes() != SECRET


async def _write_ours(lab: Lab) -> bool:
    manager, alice = await our_users(lab)
    lay(alice)
    with swapping(alice / "folder", alice / "folder-link"):
        for _ in range(ROUNDS // 4):
            with suppress(OSError):
                await manager.upload("alice", "folder/secret", b"overwritten")
    return (alice.parent / "bob/secret").read_bytes() != SECRET or len(os.listdir(alice.parent / "bob")) != 1


family.pair("swaps a folder for a link while it is written to", against=CHECKED, naive=_write_naive, ours=_write_ours)
