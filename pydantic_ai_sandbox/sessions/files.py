"""A user's files for web handlers: without a shell, whether a sandbox runs or not, in memory of a piece at a time."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from ..engines.base import Engine
from ..errors import QuotaExceededError
from ..spec import DEFAULT_UID, readable_size
from ..trees import Tree, TreeListing, archive
from .directories import UserDirectories

__all__ = ("Download", "UserFiles")

T = TypeVar("T")

_PIECE = 262_144
"""Bytes read at once."""


class Download:
    """A file that was opened to be sent: read `pieces`, once, or close it."""

    def __init__(self, name: str, file: FileIO) -> None:
        found = os.fstat(file.fileno())
        self.name = name
        self.size = found.st_size
        """In bytes."""
        self.modified = found.st_mtime
        """Seconds since the epoch."""
        self.pieces: AsyncIterator[bytes] = self._read(file)
        """Its content, exactly `size` bytes even if it changes meanwhile; closes the file at its end."""
        self._file = file

    async def aclose(self) -> None:
        """Close the file, read or not."""
        self._file.close()

    async def _read(self, file: FileIO) -> AsyncGenerator[bytes]:
        left = self.size
        with file:
            while left > 0:
                # It may be cut meanwhile; an answer whose length was announced needs all of it.
                wanted = min(left, _PIECE)
                piece = await _finished(partial(file.read, wanted)) or bytes(wanted)
                left -= len(piece)
                yield piece


class UserFiles:
    """Reads and writes in users' directories on the host, never outside of them, whatever links users plant."""

    def __init__(self, engine: Engine, directories: UserDirectories) -> None:
        self._engine = engine
        self._directories = directories

    async def list(self, user_id: str, path: str) -> TreeListing:
        """The entries of a directory.

        Raises:
            FileNotFoundError, NotADirectoryError: The user or the path has none.
        """

        def look() -> TreeListing:
            with Tree(self._existing(user_id)) as tree:
                return tree.list(path)

        return await asyncio.to_thread(look)

    async def upload(self, user_id: str, path: str, data: bytes | AsyncIterable[bytes]) -> int:
        """Write a file, atomically, creating parents and the user's directory; returns its size.

        Raises:
            QuotaExceededError: It does not fit.
            IsADirectoryError, NotADirectoryError, PermissionError, OSError: As for any file.
        """
        root = await asyncio.to_thread(self._made, user_id)
        room = await asyncio.to_thread(self._room, root)
        size = 0
        try:
            # Every step to its end: giving up closes descriptors, whose numbers may be another file's a moment later.
            with Tree(root) as tree, ExitStack() as stack:
                upload = await _finished(lambda: stack.enter_context(tree.write(path, limit=room)))
                async for piece in _pieces(data):
                    await _finished(partial(upload.write, piece))
                    size += len(piece)
                await _finished(upload.commit)
        except OSError as error:
            if error.errno not in (errno.EDQUOT, errno.ENOSPC):
                raise
            limit = self._directories.storage.usage(root).limit
            if limit is None:
                # It is the host's disk that is full.
                raise
            raise _too_large(user_id, limit) from error
        return size

    async def download(self, user_id: str, path: str) -> Download:
        """Open a file to send it.

        Raises:
            FileNotFoundError, IsADirectoryError, PermissionError: As for any file.
            OSError: It is not a regular file.
        """

        def open_it() -> FileIO:
            with Tree(self._existing(user_id)) as tree:
                return FileIO(tree.open_file(path))

        return Download(PurePosixPath(path).name, await asyncio.to_thread(open_it))

    async def archive(
        self, user_id: str, path: str, *, format: Literal["tar", "tar.gz"], max_bytes: int | None
    ) -> AsyncIterator[bytes]:
        """The files below a path as an archive, made while it is read.

        Raises:
            FileNotFoundError, NotADirectoryError: The user or the path has none.
        """

        def look() -> Path:
            root = self._existing(user_id)
            with Tree(root) as tree:
                os.close(tree.open_directory(path))
            return root

        root = await asyncio.to_thread(look)
        return _threaded(archive(root, path, format=format, max_bytes=max_bytes))

    # ---

    def _existing(self, user_id: str) -> Path:
        path = self._directories.path(user_id)
        if not self._directories.is_there(user_id):
            raise FileNotFoundError(errno.ENOENT, f"{user_id!r} has no files", str(path))
        self._directories.storage.open(path)
        return path

    def _made(self, user_id: str) -> Path:
        with self._directories.hold(user_id) as home:
            home.ensure(DEFAULT_UID)
            self._engine.prepare_workspace(home.path, is_session=True)
            return home.path

    def _room(self, root: Path) -> int | None:
        """Bytes that may still be written, where only we look after that."""
        storage = self._directories.storage
        if storage.level != "soft":
            return None
        usage = storage.usage(root)
        return None if usage.limit is None else max(0, usage.limit - usage.used)


def _too_large(user_id: str, limit: int) -> QuotaExceededError:
    return QuotaExceededError(
        f"the file does not fit: the files of {user_id!r} may occupy {readable_size(limit)}; delete some of them",
        limit=limit,
    )


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    async for piece in data:
        yield piece


async def _threaded(pieces: Iterator[bytes]) -> AsyncGenerator[bytes]:
    """What a blocking generator yields, each piece made in a thread."""
    try:
        while (piece := await _finished(lambda: next(pieces, None))) is not None:
            yield piece
    finally:
        close: Callable[[], None] | None = getattr(pieces, "close", None)
        if close is not None:
            await asyncio.to_thread(close)


async def _finished(call: Callable[[], T]) -> T:
    """Run `call` in a thread to its end, also when cancelled: a generator that runs cannot be closed."""
    future = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        with suppress(Exception):
            await future
        raise
