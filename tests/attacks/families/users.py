"""Ids of users that are paths, somebody else's id in disguise, or nothing a disk can hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pydantic_ai_sandbox.errors import InvalidUserIdError
from pydantic_ai_sandbox.sessions.identity import container_name, directory_name
from tests.attacks.lab import Lab
from tests.attacks.registry import Family

family = Family("user ids")

JOINED = "`Path(root) / user_id`"

LONG = "auth0|" + "x" * 80

# --- out of the root


def _joined(user_id: str, lab: Lab) -> bool:
    """Whether what a naive backend takes for a user's own directory is outside of the root, or all of it."""
    root = lab.place / "root"
    path = (root / user_id).resolve()
    return path == root or not path.is_relative_to(root)


async def _uploaded(user_id: str, lab: Lab) -> bool:
    """Whether an upload for this user lies anywhere but directly in a directory of this user's own."""
    manager = lab.manager()
    try:
        await manager.upload(user_id, "f", b"x")
    except InvalidUserIdError:
        return False
    (found,) = [path for path in lab.place.rglob("f") if path.is_file()]
    return found.parent.parent != lab.place / "users" or found.parent.name in ("", ".", "..")


for _name, _id in (
    ("climbs out of the root", "../../etc"),
    ("climbs into a sibling's directory", "../bob"),
    ("is an absolute path", "/etc"),
    ("is empty, and so the root itself", ""),
    ("is a dot", "."),
    ("is two dots", ".."),
):
    family.pair(_name, against=JOINED, naive=partial(_joined, _id), ours=partial(_uploaded, _id), quick=True)

# --- somebody else's


def _slug(user_id: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", user_id.lower()).strip("-")


def _printable(user_id: str) -> str:
    return "".join(character for character in user_id if character.isprintable())


def _hashed(user_id: str) -> str:
    """As ours, but for what keeps a plain id apart from another's result."""
    return user_id if re.fullmatch(r"[a-z0-9~_-]{1,63}", user_id) else directory_name(user_id)


def _collides(naive: Callable[[str], str], one: str, other: str, lab: Lab) -> bool:
    return naive(one) == naive(other)


async def _shares(one: str, other: str, lab: Lab) -> bool:
    manager = lab.manager()
    await manager.upload(one, "f", b"of one")
    try:
        await manager.upload(other, "f", b"of the other")
    except InvalidUserIdError:
        return False
    download = await manager.download(one, "f")
    found = b"".join([piece async for piece in download.pieces])
    names = {directory_name(user_id).casefold() for user_id in (one, other)}
    return found != b"of one" or len(names) != 2


for _name, _against, _naive, _one, _other in (
    ("differs by case alone", "a disk that ignores case", str.casefold, "alice", "Alice"),
    ("differs by what is no letter", "an id made a slug", _slug, "alice@example.com", "alice+example.com"),
    ("is another spelling of the same letters", "NFKC", partial(unicodedata.normalize, "NFKC"), "alice", "\uff41lice"),
    ("is composed of other code points", "a disk that normalises names", partial(unicodedata.normalize, "NFD"), "\u00e9", "e\u0301"),
    ("ends in a space", "`user_id.strip()`", str.strip, "alice", "alice "),
    ("hides a character without width", "`isprintable` as a filter", _printable, "alice", "alice\u200b"),
    ("hides a NUL", "`isprintable` as a filter", _printable, "alice", "alice\0"),
    ("is so long that its end is cut off", "`user_id[:63]`", lambda user_id: user_id[:63], f"{LONG}1", f"{LONG}2"),
    ("is what another id is made into", "`slug~hash` for odd ids, `~` in plain ones", _hashed, "Alice", directory_name("Alice")),
):  # fmt: skip
    family.pair(
        _name, against=_against, naive=partial(_collides, _naive, _one, _other), ours=partial(_shares, _one, _other)
    )


def _shifted_naive(lab: Lab) -> bool:
    return "sandbox-{}-{}".format("a-b", "c") == "sandbox-{}-{}".format("a", "b-c")


def _shifted_ours(lab: Lab) -> bool:
    return container_name("n", "a-b", "c") == container_name("n", "a", "b-c")


family.pair(
    "moves a part of the id into the conversation's",
    against='`f"sandbox-{user}-{scope}"`',
    naive=_shifted_naive,
    ours=_shifted_ours,
)


def _too_long_naive(lab: Lab) -> bool:
    with pytest.raises(OSError, match="too long"):
        (lab.place / LONG.ljust(300, "x")).mkdir()
    return True


async def _too_long_ours(lab: Lab) -> bool:
    manager = lab.manager()
    with pytest.raises(InvalidUserIdError):
        await manager.upload("x" * 1025, "f", b"x")
    return await manager.upload(LONG.ljust(1024, "x"), "f", b"x") != 1


family.pair(
    "breaks what makes the directory, being too long", against=JOINED, naive=_too_long_naive, ours=_too_long_ours
)


def _record_naive(lab: Lab) -> bool:
    (lab.place / "alice").mkdir()
    record = lab.place / "alice.owner.json"
    (lab.place / "alice.owner.json").mkdir()
    return Path(record).is_dir()


async def _record_ours(lab: Lab) -> bool:
    manager = lab.manager()
    for user_id in ("alice.owner.json", "alice", ".manager"):
        await manager.upload(user_id, "f", b"x")
    names = {path.name for path in (lab.place / "users").iterdir() if path.is_dir()}
    return "alice.owner.json" in names or len(names) != 4


family.pair(
    "is the name of what is kept beside another's directory", against=JOINED, naive=_record_naive, ours=_record_ours
)
