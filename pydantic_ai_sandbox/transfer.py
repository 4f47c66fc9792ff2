"""Copying files between the host and a sandbox, streamed, in memory of a few windows whatever their size."""

from __future__ import annotations

import asyncio
import errno
import glob
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath

import aiofiles

from .channel.client import RunnerClient
from .protocols import GlobMatch

__all__ = ("copy_from", "copy_to")

_PIECE = 262_144
"""Bytes read from the host at once."""

_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)

_MAX_FILES = 200_000
"""Files of one copy; what has more is not something to copy file by file."""


async def copy_to(runner: RunnerClient, host_glob: str, dest: str) -> list[str]:
    """Copy the host's files and directories that match `host_glob` into the sandbox's directory `dest`.

    Returns the paths of the files in the sandbox.

    Raises:
        FileNotFoundError: Nothing matches.
    """
    sources = await asyncio.to_thread(lambda: list(_host_files(host_glob)))
    if not sources:
        raise FileNotFoundError(errno.ENOENT, "nothing on the host matches", host_glob)
    copied: list[str] = []
    for source, relative in sources:
        path = str(PurePosixPath(dest) / relative)
        mode = (await asyncio.to_thread(source.stat)).st_mode & 0o777
        await runner.upload(path, _pieces(source), mode=mode)
        copied.append(path)
    return copied


def _host_files(pattern: str) -> Iterator[tuple[Path, PurePosixPath]]:
    """Each file to copy, and where it goes relative to the destination."""
    # pathlib's glob takes no absolute pattern.
    for match in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True)):  # noqa: PTH207
        path = Path(match)
        if path.is_file():
            yield path, PurePosixPath(path.name)
            continue
        for folder, _, names in os.walk(path):
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_file():
                    yield file, PurePosixPath(path.name, *file.relative_to(path).parts)


async def _pieces(source: Path) -> AsyncIterator[bytes]:
    async with aiofiles.open(source, "rb") as file:
        while piece := await file.read(_PIECE):
            yield piece


async def copy_from(runner: RunnerClient, src: str, host_dir: Path, *, limit: int) -> list[Path]:
    """Copy the sandbox's file or directory `src` into the host's directory `host_dir` and return the files written.

    Only regular files are written; links in the sandbox are not followed, and nothing is ever written outside `host_dir`.

    Raises:
        FileNotFoundError: `src` does not exist.
        OSError: With `EFBIG`: there are more than `limit` bytes, or too many files.
    """
    targets = await _targets(runner, src, host_dir)
    room = limit
    for path, target in targets:
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        room -= await _download(runner, path, target, room)
    return [target for _, target in targets]


async def _targets(runner: RunnerClient, src: str, host_dir: Path) -> list[tuple[str, Path]]:
    """What to copy, and where to."""
    name = PurePosixPath(src).name
    if (await runner.stat(src)).kind != "dir":
        return [(src, host_dir / _component(name, src))]
    found = await runner.glob("**", src, limit=_MAX_FILES, ignore=False, hidden=True)
    if found.total > len(found.matches) or found.timed_out:
        raise OSError(errno.EFBIG, f"more than {_MAX_FILES} files", src)
    return [
        (match.path, _inside(host_dir, PurePosixPath(name), src, match))
        for match in found.matches
        if await _is_plain(runner, match.path)
    ]


async def _is_plain(runner: RunnerClient, path: str) -> bool:
    try:
        found = await runner.stat(path)
    except OSError as error:
        # A link that leads nowhere must not keep everything else from being copied.
        if error.errno not in _LEADS_NOWHERE:
            raise
        return False
    return found.kind == "file" and not found.is_link


def _inside(host_dir: Path, name: PurePosixPath, root: str, match: GlobMatch) -> Path:
    """Where a file goes; the sandbox chose its name, so every component of it is looked at."""
    relative = PurePosixPath(match.path).relative_to(root)
    return host_dir.joinpath(*(_component(part, match.path) for part in (*name.parts, *relative.parts)))


def _component(part: str, path: str) -> str:
    if part in ("", ".", "..") or "/" in part or "\0" in part or os.sep in part:
        raise OSError(errno.EINVAL, "not a name for a file on the host", path)
    return part


async def _download(runner: RunnerClient, path: str, target: Path, room: int) -> int:
    """Write one file to the host; returns its size."""
    size = 0
    async with runner.download(path) as pieces, aiofiles.open(target, "wb") as file:
        async for piece in pieces:
            size += len(piece)
            if size > room:
                raise OSError(errno.EFBIG, "the copy is larger than its limit", path)
            await file.write(piece)
    return size
