"""Every user id is refused at once or gets a directory of its own, whatever it is made of."""

# ruff: noqa: RUF001 — look-alike characters are what is tested

from __future__ import annotations

import json
import os
import re
import unicodedata
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydantic_ai_sandbox.errors import InvalidUserIdError, SandboxError
from pydantic_ai_sandbox.sessions.directories import UserDirectories
from pydantic_ai_sandbox.sessions.identity import container_name, directory_name
from pydantic_ai_sandbox.sessions.storage import choose_storage

HOSTILE = [
    ".", "..", "../x", "../../etc", "/etc", "/", "a/b", "a\\b", "-rf", "~root", "~", "a~b", "alice~0123", "CON", "nul", "A", "a",
    "Alice", "ALICE", "alice", "alice ", " alice", "alice.", ".alice", "aliçe", "alic\u0327e", "ｅａｓｙ", "ß", "SS", "ss", "İ", "i",
    "ı", "I", "K", "k", "\u202ealice", "alice\u200b", "alice\n", "alice\r", "\x1b[31m", "%2e%2e", "a" * 63, "a" * 64, "a" * 1024,
    "😀", "-", "_", "a-", "a_", "0", "user@example.com", "user+tag@example.com", "auth0|5f7c8ec7c33c6c004bbafe82", "\U0010ffff",
    "a\u0300", "à", ".owner.json", "alice.owner.json",
]  # fmt: skip

REFUSED = ["", "\0", "a\0b", "\ud800", "a\udfff", "x" * 1025, "x" * 1_000_000]

NAME = re.compile(r"[a-z0-9][a-z0-9_~-]{0,62}")


@pytest.mark.parametrize("user_id", REFUSED, ids=lambda user_id: repr(user_id[:8]))
def test_an_id_that_nobody_can_have_is_a_typed_error(user_id: str) -> None:
    for name in (directory_name, lambda it: container_name("n", it, "s"), lambda it: container_name("n", "u", it)):
        with pytest.raises(InvalidUserIdError):
            name(user_id)


@pytest.mark.parametrize("user_id", [None, 5, b"alice", ["alice"]])
def test_what_is_no_text_is_a_typed_error(user_id: object) -> None:
    with pytest.raises(InvalidUserIdError, match="must be a string"):
        directory_name(user_id)  # pyright: ignore[reportArgumentType]


def test_hostile_ids_get_names_of_their_own_that_are_only_names() -> None:
    names = [directory_name(user_id) for user_id in HOSTILE]
    assert all(NAME.fullmatch(name) for name in names)
    assert len({name.casefold() for name in names}) == len(set(HOSTILE))


@pytest.mark.parametrize("user_id", ["alice", "0", "a-b_c", "a" * 63])
def test_a_plain_id_is_its_own_name(user_id: str) -> None:
    assert directory_name(user_id) == user_id


ids = st.text(min_size=1, max_size=80) | st.sampled_from(HOSTILE) | st.sampled_from(HOSTILE).map(directory_name)


@given(ids, ids)
def test_two_ids_never_share_a_directory_or_a_container(one: str, other: str) -> None:
    try:
        names = [directory_name(one).casefold(), directory_name(other).casefold()]
        containers = [container_name("n", one, "s"), container_name("n", other, "s")]
    except InvalidUserIdError:
        return
    for pair in (names, containers):
        assert (pair[0] == pair[1]) is (one == other)
        assert all(NAME.fullmatch(name) for name in pair)
        assert all(unicodedata.is_normalized("NFD", name) for name in pair)


@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=3, max_size=3),
    st.lists(st.text(min_size=1), min_size=3, max_size=3),
)
def test_namespace_user_and_scope_cannot_be_shifted_into_each_other(one: list[str], other: list[str]) -> None:
    try:
        names = container_name(*one), container_name(*other)
    except InvalidUserIdError:
        return
    assert (names[0] == names[1]) is (one == other)


def directories_in(root: Path) -> UserDirectories:
    return UserDirectories(root, partial(choose_storage, quota=None, require_hard=False))


def ensured(directories: UserDirectories, user_id: str) -> Path:
    with directories.hold(user_id) as home:
        home.ensure(10001)
        return home.path


@pytest.mark.parametrize("user_id", HOSTILE, ids=ascii)
def test_a_directory_lies_directly_under_the_root_and_knows_its_owner(tmp_path: Path, user_id: str) -> None:
    directories = directories_in(tmp_path / "root")
    path = ensured(directories, user_id)
    assert path.parent == tmp_path / "root"
    assert os.path.realpath(path) == str(path)
    assert path.stat().st_mode & 0o777 == 0o700
    assert ensured(directories, user_id) == path
    assert list(path.iterdir()) == []
    assert json.loads(path.with_name(f"{path.name}.owner.json").read_text()) == {"user_id": user_id}


def test_a_directory_of_somebody_else_or_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    directories = directories_in(tmp_path)
    ensured(directories, "alice")
    (tmp_path / "bob.owner.json").write_text('{"user_id": "mallory"}')
    with pytest.raises(SandboxError, match="belongs to 'mallory'"):
        ensured(directories, "bob")
    (tmp_path / "carol").symlink_to(tmp_path / "alice")
    with pytest.raises(SandboxError, match="not a directory"):
        ensured(directories, "carol")
    (tmp_path / "dave.owner.json").write_text("garbage")
    with pytest.raises(SandboxError, match="does not say"):
        ensured(directories, "dave")


def test_a_user_is_new_once(tmp_path: Path) -> None:
    directories = directories_in(tmp_path)
    with directories.hold("alice") as home:
        assert home.is_new
        assert not home.exists
        home.ensure(10001)
    with directories.hold("alice") as home:
        assert not home.is_new
        assert directories.forget(home)
    assert not directories.is_there("alice")
    with directories.hold("alice") as home:
        assert home.is_new
