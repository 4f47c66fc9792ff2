"""Whatever a runner answers is a value of the right type or a `ChannelError`, and the errors it names are Python's own."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydantic_ai_sandbox.channel import answers
from pydantic_ai_sandbox.channel.client import RunnerClient, command_request
from pydantic_ai_sandbox.channel.frames import Kind
from pydantic_ai_sandbox.channel.sinks import Collector
from pydantic_ai_sandbox.errors import ChannelError, EditError, ResourceExhaustedError
from tests.channel.peer import connected

TRUE = command_request(["true"], shell=False)

OPERATIONS: dict[str, Callable[[RunnerClient], Awaitable[object]]] = {
    "exec": lambda runner: runner.execute(TRUE, timeout=1, stdin=None, keep=10, stop=10, spill=None),
    "job_start": lambda runner: runner.start_job(TRUE),
    "job_list": lambda runner: runner.jobs(),
    "job_read": lambda runner: runner.read_job("j1", 0, 10, 0),
    "job_stop": lambda runner: runner.stop_job("j1"),
    "kill_all": lambda runner: runner.kill_all(),
    "read": lambda runner: runner.read("/f", limit=10),
    "read_text": lambda runner: runner.read_text("/f", 1, 10),
    "write": lambda runner: runner.write("/f", b"x"),
    "stat": lambda runner: runner.stat("/f"),
    "list": lambda runner: runner.list_dir("/"),
    "realpath": lambda runner: runner.realpath("/f"),
    "glob": lambda runner: runner.glob("*", "/", limit=1, ignore=True, hidden=True),
    "grep": lambda runner: runner.grep(
        "x",
        "/",
        glob=None,
        mode="content",
        literal=False,
        ignore_case=False,
        context=0,
        limit=1,
        ignore=True,
        hidden=True,
    ),
    "dial": lambda runner: runner.dial("/s"),
    "usage": lambda runner: runner.usage(),
    "retire": lambda runner: runner.retire(),
}

MALFORMED: list[tuple[dict[str, Any], bytes]] = [
    ({}, b""),
    ({"job": []}, b"[[1]]"),
    ({"jobs": 5, "job": {"running": 1}}, b'{"a": 1}'),
    ({"exit_code": "x", "cause": "exit", "version": 5, "path": ["x"], "type": "door", "killed": "many"}, b'[["name"]]'),
    ({"exit_code": 0, "cause": "spite", "size": None, "memory": {}, "version": None}, b"[["),
]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("result", "data"), MALFORMED)
async def test_a_malformed_answer_is_a_channel_error(name: str, result: dict[str, Any], data: bytes) -> None:
    async with connected() as (channel, peer):
        call = asyncio.ensure_future(OPERATIONS[name](RunnerClient(channel)))
        stream, _ = await peer.read_until(Kind.OPEN)
        if data:
            peer.send(Kind.DATA, stream, data)
        peer.send(Kind.RESULT, stream, result)
        with pytest.raises(ChannelError):
            async with asyncio.timeout(5):
                await call


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

CONVERSIONS = [
    answers.captured, answers.answered_job, answers.job_output, answers.content, answers.text_range, answers.written,
    answers.file_stat, answers.glob_result, answers.usage, answers.retired,
]  # fmt: skip


@pytest.mark.parametrize("convert", CONVERSIONS)
@given(
    result=st.dictionaries(st.sampled_from(["size", "version", "job", "cause", "path", "lines"]), json_values),
    rows=json_values,
)
def test_no_answer_raises_anything_but_a_channel_error(
    convert: Callable[[Any, Collector], object], result: dict[str, Any], rows: Any
) -> None:
    collector = Collector(10_000)
    collector.data += json.dumps(rows).encode()
    try:
        with answers.well_formed():
            convert(result, collector)
    except ChannelError:
        pass


USAGE: dict[str, Any] = {
    "memory": 1, "memory_limit": 2, "pids": 3, "pids_limit": None, "cpu": 4, "oom_kills": 0, "runner_rss": 5, "uptime": 6,
    "idle": 7, "jobs": 0, "commands": 0, "disk": {"total": 8, "free": 9, "inodes": 1, "inodes_free": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ({}, None),
        ({"quota": None}, None),
        ({"quota": {"used": 5, "limit": 10}}, answers.DiskUse(used=5, limit=10)),
    ],
)
def test_a_quota_is_there_when_the_runner_watches_one(quota: dict[str, Any], expected: answers.DiskUse | None) -> None:
    assert answers.usage({**USAGE, **quota}, Collector(0)).quota == expected


@pytest.mark.parametrize(
    "quota", [5, [], "x", {}, {"used": 1}, {"used": None, "limit": 1}, {"used": 1, "limit": "many"}, {"used": 1e400}]
)
def test_a_quota_of_another_shape_is_a_channel_error(quota: Any) -> None:
    with pytest.raises(ChannelError), answers.well_formed():
        answers.usage({**USAGE, "quota": quota}, Collector(0))


def test_a_command_can_end_by_the_quota() -> None:
    assert answers.ended({"exit_code": 143, "cause": "disk_quota", "duration": 5}).cause == "disk_quota"


@pytest.mark.parametrize(
    ("code", "error", "number"),
    [
        ("ENOENT", FileNotFoundError, errno.ENOENT),
        ("EACCES", PermissionError, errno.EACCES),
        ("EISDIR", IsADirectoryError, errno.EISDIR),
        ("ENOTDIR", NotADirectoryError, errno.ENOTDIR),
        ("EEXIST", FileExistsError, errno.EEXIST),
        ("EPIPE", BrokenPipeError, errno.EPIPE),
        ("ENOSPC", OSError, errno.ENOSPC),
        ("EDQUOT", OSError, errno.EDQUOT),
        ("not_regular", OSError, errno.EINVAL),
        ("refused", ValueError, None),
        ("bad_pattern", ValueError, None),
        ("changed", EditError, None),
        ("no_such_job", LookupError, None),
        ("too_many_processes", ResourceExhaustedError, None),
        ("EAGAIN", ResourceExhaustedError, None),
        ("something new", ChannelError, None),
    ],
)
async def test_the_runners_errors_are_the_ones_callers_know(
    code: str, error: type[Exception], number: int | None
) -> None:
    async with connected() as (channel, peer):
        call = asyncio.create_task(RunnerClient(channel).stat("/f"))
        stream, _ = await peer.read_until(Kind.OPEN)
        peer.send(Kind.ERROR, stream, {"code": code, "message": "because", "path": "/f"})
        with pytest.raises(error) as caught:
            await call
        assert getattr(caught.value, "errno", None) == number
        assert channel.usable


@pytest.mark.parametrize("message", [5, None, ["x"], "y" * 100_000])
async def test_an_errors_text_is_bounded_and_text(message: Any) -> None:
    async with connected() as (channel, peer):
        call = asyncio.create_task(RunnerClient(channel).stat("/f"))
        stream, _ = await peer.read_until(Kind.OPEN)
        peer.send(Kind.ERROR, stream, {"code": 7, "message": message, "path": 9})
        with pytest.raises(ChannelError) as caught:
            await call
        assert len(str(caught.value)) < 2_200
