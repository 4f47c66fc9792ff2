"""`glob` and `grep` on a workspace that can only list directories and read files.

The same rules as the runner's search (PROTOCOL.md, "Search"), within bounds: entries, bytes and seconds. Regular
expressions are Python's here, matched in a process of its own that is killed at the time limit.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import re
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Protocol

from pydantic_ai.workspaces import FileEntry, Workspace, WorkspaceError, WorkspaceUnavailableError

from ..protocols import GlobMatch, GlobResult, GrepLine, GrepResult
from . import matcher
from .patterns import Glob, Ignore

__all__ = ("glob", "grep")

TIME_LIMIT = 20.0
"""Seconds a search may take."""
_MOST_ENTRIES = 100_000
"""Directory entries looked at."""
_LARGEST_FILE = 8 << 20
"""Bytes of a file that is searched; larger ones are left out."""
_MOST_BYTES = 256 << 20
"""Bytes read in one search."""
_LARGEST_ANSWER = 16 << 20
_BINARY_PROBE = 8192
_PLAIN = re.compile(r"[\w \-/:;,=<>@#%&!~`'\"]*")


@dataclass
class _Search:
    """How far a search may go and has gone."""

    deadline: float
    entries: int = 0
    bytes_read: int = 0
    incomplete: bool = False

    def spend(self, *, entries: int = 0, bytes_: int = 0) -> bool:
        """Whether there is enough left to go on."""
        self.entries += entries
        self.bytes_read += bytes_
        exhausted = self.entries > _MOST_ENTRIES or self.bytes_read > _MOST_BYTES
        self.incomplete = self.incomplete or exhausted or time.monotonic() > self.deadline
        return not self.incomplete


@dataclass(frozen=True)
class _Directory:
    path: str
    real: str
    """Where it is when no symbolic link leads there."""
    rules: Sequence[tuple[str, Ignore]] = field(default_factory=list[tuple[str, Ignore]])
    """The `.gitignore` files from the root down to here: their directory and rules."""


def _start() -> _Search:
    return _Search(time.monotonic() + TIME_LIMIT)


async def _walk(workspace: Workspace, root: str, search: _Search) -> AsyncIterator[FileEntry]:
    """Files under `root`, in order of path within each directory; links to directories are not followed."""
    waiting = [_Directory(root, await workspace.realpath(root))]
    while waiting and search.spend():
        directory = waiting.pop()
        entries = await _entries(workspace, directory, is_root=directory.path == root)
        if not search.spend(entries=len(entries)):
            return
        rules = await _rules(workspace, directory, entries)
        kept = [entry for entry in entries if entry.name != ".git" and not _ignored(entry, rules)]
        for entry in kept:
            if not entry.is_dir:
                yield entry
        below = [
            _Directory(entry.path, posixpath.join(directory.real, entry.name), rules) for entry in kept if entry.is_dir
        ]
        waiting.extend(reversed(below))


async def _entries(workspace: Workspace, directory: _Directory, *, is_root: bool) -> Sequence[FileEntry]:
    if not is_root and await workspace.realpath(directory.path) != directory.real:
        return ()  # a symbolic link, which may lead anywhere or in a circle
    try:
        entries = await workspace.list_dir(directory.path)
    except OSError:
        if is_root:
            raise
        return ()  # gone or closed to us since its parent was listed
    return sorted(entries, key=lambda entry: entry.name)


async def _rules(
    workspace: Workspace, directory: _Directory, entries: Sequence[FileEntry]
) -> Sequence[tuple[str, Ignore]]:
    if not any(entry.name == ".gitignore" and not entry.is_dir and (entry.size or 0) < 1 << 20 for entry in entries):
        return directory.rules
    content = await _read(workspace, posixpath.join(directory.path, ".gitignore"))
    lines = content.decode("utf-8", "surrogateescape").split("\n") if content else []
    return [*directory.rules, (directory.path, Ignore(lines))]


def _ignored(entry: FileEntry, rules: Sequence[tuple[str, Ignore]]) -> bool:
    for directory, ignore in reversed(rules):
        decision = ignore.decides(posixpath.relpath(entry.path, directory), is_dir=entry.is_dir)
        if decision is not None:
            return decision
    return False


async def _read(workspace: Workspace, path: str) -> bytes | None:
    """A file's content, `None` when it cannot be read: a search goes on without it."""
    try:
        return await workspace.read_bytes(path)
    except WorkspaceUnavailableError:
        raise
    except (OSError, WorkspaceError):
        return None


async def glob(workspace: Workspace, pattern: str, root: str, *, limit: int) -> GlobResult:
    """Files under the absolute `root` that match, in order of path: the frozen protocol knows no times.

    Raises:
        ValueError: The pattern is malformed.
        OSError: `root` cannot be listed.
    """
    wanted = Glob(pattern)
    search = _start()
    files = _walk(workspace, root, search)
    found = [entry async for entry in files if wanted.matches(posixpath.relpath(entry.path, root))]
    found.sort(key=lambda entry: entry.path)
    matches = [GlobMatch(path=entry.path, is_dir=False, size=entry.size or 0, modified=0.0) for entry in found[:limit]]
    return GlobResult(matches=matches, total=len(found), timed_out=search.incomplete)


async def grep(
    workspace: Workspace,
    pattern: str,
    path: str,
    *,
    glob: str | None,
    mode: str,
    literal: bool,
    ignore_case: bool,
    context: int,
    limit: int,
) -> GrepResult:
    """Lines that match the regular expression in the file or the tree at the absolute `path`.

    Raises:
        ValueError: The pattern or the glob is malformed.
        OSError: `path` cannot be read.
    """
    wanted = Glob(glob) if glob else None
    search = _start()
    found = _Found(mode, limit)
    request = _Request(pattern, literal, ignore_case, mode, context, limit)
    async with _here(request) if request.is_quick else _elsewhere(request) as match:
        try:
            async with asyncio.timeout(TIME_LIMIT):
                async for name, content in _contents(workspace, path, wanted, search):
                    if found.add(name, await match(content)):
                        break
        # The matching process has bounds of its own: when it dies of one, the search ends as at the time limit.
        except (TimeoutError, EOFError, ConnectionError, asyncio.LimitOverrunError):
            search.incomplete = True
    return found.result(timed_out=search.incomplete)


async def _contents(
    workspace: Workspace, path: str, wanted: Glob | None, search: _Search
) -> AsyncIterator[tuple[str, bytes]]:
    """Path and content of the text files to search, in order of path."""
    if not (await workspace.stat(path)).is_dir:
        yield path, await workspace.read_bytes(path)
        return
    files = [entry async for entry in _walk(workspace, path, search)]
    for entry in sorted(files, key=lambda entry: entry.path):
        if wanted and not wanted.matches(posixpath.relpath(entry.path, path)):
            continue
        if entry.size is not None and entry.size > _LARGEST_FILE:
            continue
        content = await _read(workspace, entry.path)
        if content is None or b"\0" in content[:_BINARY_PROBE]:
            continue
        if not search.spend(bytes_=len(content)):
            return
        yield entry.path, content


class _Found:
    """Collects results up to a limit."""

    def __init__(self, mode: str, limit: int) -> None:
        self._mode = mode
        self._limit = limit
        self._lines: list[GrepLine] = []
        self._files: dict[str, int] = {}

    def add(self, path: str, answer: Mapping[str, Any]) -> bool:
        """Take what one file has; whether that is enough."""
        if self._mode == "content":
            self._lines.extend(
                GrepLine(path=path, number=number, text=text, is_match=is_match, length=length)
                for number, text, is_match, length in answer["rows"]
            )
            return len(self._lines) > self._limit
        if answer["count"]:
            self._files[path] = answer["count"] if self._mode == "count" else 0
        return len(self._files) > self._limit

    def result(self, *, timed_out: bool) -> GrepResult:
        truncated = max(len(self._lines), len(self._files)) > self._limit
        files = dict(list(self._files.items())[: self._limit])
        return GrepResult(lines=self._lines[: self._limit], files=files, truncated=truncated, timed_out=timed_out)


class _Match(Protocol):
    async def __call__(self, content: bytes, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class _Request:
    """A search, as `matcher` wants it."""

    pattern: str
    literal: bool
    ignore_case: bool
    mode: str
    context: int
    limit: int

    @property
    def is_quick(self) -> bool:
        """Whether matching cannot take long, so that it may happen in this process."""
        return self.literal or _PLAIN.fullmatch(self.pattern) is not None


@asynccontextmanager
async def _here(request: _Request) -> AsyncGenerator[_Match]:
    flags = re.IGNORECASE if request.ignore_case else 0
    compiled = re.compile(re.escape(request.pattern) if request.literal else request.pattern, flags)

    async def match(content: bytes, /) -> Mapping[str, Any]:
        return await asyncio.to_thread(
            matcher.search_file, compiled, content, request.mode, request.context, request.limit
        )

    yield match


@asynccontextmanager
async def _elsewhere(request: _Request) -> AsyncGenerator[_Match]:
    """Matches in a process of its own, which dies with this context."""
    async with _process() as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        async def ask(message: Mapping[str, Any], content: bytes = b"") -> Mapping[str, Any]:
            stdin.write(json.dumps(message).encode() + b"\n" + content)
            await stdin.drain()
            return json.loads(await stdout.readuntil(b"\n"))

        async def match(content: bytes, /) -> Mapping[str, Any]:
            return await ask({"size": len(content)}, content)

        if error := (await ask(asdict(request))).get("error"):
            raise ValueError(
                f"bad regular expression {request.pattern!r}: {error}; set literal=true to search for it as it is"
            )
        yield match


@asynccontextmanager
async def _process() -> AsyncGenerator[asyncio.subprocess.Process]:
    program = [sys.executable, "-I", "-S", str(Path(matcher.__file__))]
    process = await asyncio.create_subprocess_exec(
        *program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=_LARGEST_ANSWER
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
