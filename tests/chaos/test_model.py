"""What the model lets be read, since a model that allows everything would find nothing."""

from __future__ import annotations

import pytest

from .model import FileModel, UserModel
from .people import ABSENT, PATHS, USERS, content, file_name, mark_of, recognised
from .rules import judged


def test_what_was_acknowledged_is_the_only_thing_to_read() -> None:
    file = FileModel(0)
    file.done(["a"])
    file.done(["b"])
    assert not file.observed("a")
    assert not file.observed(ABSENT)
    assert file.observed("b")


def test_what_is_in_doubt_may_be_there_or_not_until_it_was_seen() -> None:
    file = FileModel(0)
    file.done(["a"])
    file.unknown(["b"], 0.0)
    assert file.certain is None
    assert file.observed("b")
    assert not file.observed("a")


def test_what_may_still_come_may_come_after_what_was_acknowledged() -> None:
    file = FileModel(0)
    file.unknown(["late"], 60.0)
    file.done(["new"])
    assert file.observed("new")
    assert file.observed("late")
    assert not file.observed(ABSENT)


def test_whoever_looks_for_a_while_may_see_what_was_before_under_way_and_after() -> None:
    file = FileModel(0)
    file.done(["before"])
    with file.attempted(["during"]), file.watched() as seen:
        file.done(["after"])
    file.done(["later"])
    assert seen == {"before", "during", "after"}


async def test_whoever_is_alone_with_a_user_waits_for_the_others() -> None:
    user, order = UserModel("alice"), list[str]()
    async with user.shared(), user.shared():
        order.append("shared")
    async with user.alone():
        order.append("alone")
    assert order == ["shared", "alone"]


def test_every_user_and_every_file_has_a_name_and_a_mark_of_its_own() -> None:
    assert len({mark_of(user) for user in USERS}) == len(USERS)
    assert len({file_name(user, index) for user in USERS for index in range(PATHS)}) == len(USERS) * PATHS


def test_only_what_was_written_whole_for_this_user_and_file_is_recognised() -> None:
    data = content("alice", 3, "0123456789ab", 500)
    assert recognised("alice", 3, data) == "0123456789ab"
    for other in (data[:-1], data[70:], data + b"x", data * 2, b""):
        assert recognised("alice", 3, other).startswith("torn or foreign")
    assert recognised("Alice", 3, data).startswith("torn or foreign")
    assert recognised("alice", 4, data).startswith("torn or foreign")


@pytest.mark.parametrize(
    ("deed", "type", "bases", "errno"),
    [
        ("read", "builtins.KeyError", ["KeyError", "LookupError"], None),
        ("read", "builtins.AssertionError", ["AssertionError"], None),
        ("read", "requests.exceptions.ConnectionError", ["ConnectionError", "RequestException", "OSError"], None),
        ("read", "docker.errors.NotFound", ["NotFound", "APIError", "DockerException"], None),
        ("read", "builtins.PermissionError", ["PermissionError", "OSError"], 13),
        ("ensure", "builtins.FileNotFoundError", ["FileNotFoundError", "OSError"], 2),
        ("write", "pydantic_ai_sandbox.errors.InvalidUserIdError", ["InvalidUserIdError", "SandboxError"], None),
    ],
)
def test_an_error_that_nobody_can_expect_is_complained_about(
    deed: str, type: str, bases: list[str], errno: int | None
) -> None:
    error = {"type": type, "bases": bases, "errno": errno, "text": "", "traceback": ""}
    assert judged(deed, error).complaint is not None
