"""What nobody thought of: any frames from a peer, any links in an archive, any names of users together."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pydantic_ai_sandbox.channel.client import RunnerClient
from pydantic_ai_sandbox.channel.frames import HEADER, Kind
from pydantic_ai_sandbox.channel.sinks import Flow
from pydantic_ai_sandbox.errors import ChannelError, EditError, ResourceExhaustedError
from pydantic_ai_sandbox.trees import archive, remove_tree
from tests.channel.peer import Peer, connected

pytestmark = [pytest.mark.attacks, pytest.mark.slow, pytest.mark.timeout(300)]

# --- a peer

JSON = st.sampled_from([
    b"{}", b"[]", b"null", b"{", b'{"size": -1}', b'{"size": 1e999}', b'{"code": "ENOENT", "message": "x"}', b'{"code": 5}',
    b'{"code": "EAGAIN", "message": null}', b'{"total": 3, "truncated": false, "timed_out": 0}', b'{"jobs": [{}]}',
    b'{"exit_code": 99999999999999999999}', b'{"protocol": 1}', b'{"reason": "idle"}', b'{"path": "\\ud800"}',
    b'{"killed": true}', b'{"lines": -5, "first": 0}', b"\xff\xfe", b"[" * 5000,
])  # fmt: skip
"""Answers as they may be and as they may not, each once a reason to think."""

FRAMES = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.sampled_from([0, 1, 2, 3, 4, 5, 6, 2**32 - 1]),
        JSON | st.binary(max_size=64) | st.just(bytes([0, 16, 0, 0])),
    ),
    max_size=30,
)

EXPECTED = (ChannelError, OSError, ValueError, LookupError, EditError, ResourceExhaustedError)
"""What callers of a workspace know; anything else would be the peer's choice."""


async def _asked(peer: Peer, frames: list[tuple[int, int, bytes]], runner: RunnerClient) -> list[object]:
    calls = [
        asyncio.create_task(call)
        for call in (
            runner.kill_all(),
            runner.jobs(),
            runner.stat("/f"),
            runner.usage(),
            runner.read("/f", limit=100, version=True),
            runner.glob("**", "/", limit=10, ignore=True, hidden=True),
        )
    ]
    await asyncio.sleep(0)
    for kind, stream, payload in frames:
        peer.writer.write(HEADER.pack(len(payload), kind, stream) + payload)
    peer.close()
    async with asyncio.timeout(10):
        return list(await asyncio.gather(*calls, return_exceptions=True))


@settings(max_examples=400, deadline=None)
@given(frames=FRAMES)
@example(frames=[(Kind.RESULT, 4, b'{"total": 3}'), (Kind.GOODBYE, 0, b'{"reason": []}')])
@example(frames=[(Kind.DATA, 5, b"x" * 60), (Kind.DATA, 5, b"x" * 60), (Kind.RESULT, 5, b"{}")])
@example(frames=[(Kind.CREDIT, 1, bytes([255] * 4)), (Kind.ERROR, 0, b"{}")])
def test_whatever_a_peer_sends_callers_get_an_answer_or_an_error_they_know(
    frames: list[tuple[int, int, bytes]],
) -> None:
    async def attempt() -> None:
        async with connected() as (channel, peer):
            await channel.open({"op": "exec"}, Flow())
            for outcome in await _asked(peer, frames, RunnerClient(channel)):
                assert not isinstance(outcome, BaseException) or isinstance(outcome, EXPECTED), repr(outcome)

    asyncio.run(attempt())


# --- an archive

NAMES = ("a", "b", "a/b", "a/c", "a/b/d", "l")

TARGETS = st.sampled_from([
    ".", "..", "../..", "a", "b", "/", "/etc", "/workspace", "/workspace/a", "/workspace/..", "a/..", "a/../..", "./b/../a/l",
    "l", "../l", "a/b/d/../../..", "/workspace/l/..", "\udcff", "x" * 255,
])  # fmt: skip

LINKS = st.dictionaries(st.sampled_from(NAMES), TARGETS | st.text("ab./l", min_size=1, max_size=12), max_size=6)


def _plant(root: Path, links: dict[str, str]) -> None:
    """Links, and directories above them; what does not go together is left out."""
    for name in sorted(links):
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.parent.resolve().is_relative_to(root.resolve()):
                path.symlink_to(links[name])
        except (OSError, RuntimeError):
            continue


def _led(path: Path) -> str | None:
    """Where a path leads as far as it can be followed; `None` if in a circle."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
    return os.path.realpath(path)


@settings(max_examples=400, deadline=None)
@given(links=LINKS)
@example(links={"a": "..", "l": "a/.."})
@example(links={"a/b": "..", "a/c": "b/..", "l": "a/b/../.."})
def test_no_link_in_an_archive_leads_out_of_where_it_is_unpacked(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]
) -> None:
    place = tmp_path_factory.mktemp("archive")
    try:
        (place / "root").mkdir()
        _plant(place / "root", links)
        data = b"".join(archive(place / "root", format="tar"))
        target = place / "unpacked"
        target.mkdir()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(target, filter="fully_trusted")
        for folder, folders, files in os.walk(target):
            for name in (*folders, *files):
                if (led := _led(Path(folder, name))) is None:
                    continue
                assert led == str(target) or led.startswith(f"{target}/"), (links, name, led)
    finally:
        remove_tree(place.parent, place.name)
