"""A tenant's directory as a tar archive, made while it is read, in bounded memory."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import zlib
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Literal

from .descriptors import is_gone, is_no_file, open_regular
from .opening import SEEN_AS, Tree
from .resolving import components
from .walking import Step, walk

__all__ = ("archive",)

_PIECE = 262_144
"""Bytes read at once."""

_LONGEST = 1_048_576
"""Characters of a member's name; a tree can be so deep that its names alone would fill the memory."""


def archive(
    root: Path,
    path: str = "",
    *,
    format: Literal["tar", "tar.gz"] = "tar.gz",
    chunk_size: int = 262_144,
    max_bytes: int | None = None,
) -> Generator[bytes]:
    """What is below the directory `path` in the tree `root` as a POSIX archive (pax), in chunks. Nothing is done before the first.

    In it are directories, regular files, and those symbolic links that lead to something below `path` by going up first, if
    at all, and then only down; absolute ones, as the tenant sees them, are made relative. So no link in it leads out of
    where it is unpacked, whatever hostile code changes meanwhile. Pipes, sockets, devices, and files that a process keeps
    others from reading are left out. Every name of a file is a file of its own. Owners are not told. Holes are read as
    zeros, so a file can be larger here than it is on the disk: give `max_bytes` unless the tree is trusted. A file that
    shrinks meanwhile is filled up with zeros, one that grows is cut.

    Args:
        root: The tenant's directory.
        path: As for `Tree`, which follows links.
        format: Whether it is compressed.
        chunk_size: Bytes of each chunk at least, except for the last.
        max_bytes: Bytes that the archive may have before compression.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError, ValueError: As for `Tree.open_directory`.
        OSError: With `EFBIG`: there is more than `max_bytes`. With `ENAMETOOLONG`: a name is longer than 1 MiB. Otherwise a
            part of it cannot be read.
    """
    pack = zlib.compressobj(wbits=31) if format == "tar.gz" else None
    chunk = bytearray()
    with closing(_Members(root, path, max_bytes).blocks()) as blocks:
        for block in blocks:
            chunk += pack.compress(block) if pack else block
            if len(chunk) >= chunk_size:
                yield bytes(chunk)
                chunk.clear()
    if pack:
        chunk += pack.flush()
    if chunk:
        yield bytes(chunk)


class _Members:
    """The members of one archive, one after the other."""

    def __init__(self, root: Path, path: str, max_bytes: int | None) -> None:
        self._root = root
        self._path = path
        self._room = max_bytes
        self._size = 0
        self._prefix = ""
        self._depth = 0

    def blocks(self) -> Generator[bytes]:
        """The archive before compression."""
        with Tree(self._root) as tree:
            top = tree.open_directory(self._path)
        try:
            with closing(walk(top)) as steps:
                for step in steps:
                    yield from self._member(step)
        finally:
            os.close(top)
        end = 2 * tarfile.BLOCKSIZE
        end += -(self._size + end) % tarfile.RECORDSIZE
        self._take(end)
        yield bytes(end)

    def _member(self, step: Step) -> Generator[bytes]:
        if step.kind == "leave":
            self._prefix = self._prefix[: -len(step.name) - 1]
            self._depth -= 1
        elif step.kind == "enter":
            yield self._header(step.name, step.found, tarfile.DIRTYPE)
            self._prefix += step.name + "/"
            self._depth += 1
        elif stat.S_ISLNK(step.found.st_mode):
            yield from self._link(step)
        elif stat.S_ISREG(step.found.st_mode):
            yield from self._file(step)

    def _link(self, step: Step) -> Generator[bytes]:
        try:
            text = os.readlink(step.name, dir_fd=step.folder)
        except OSError as error:
            if is_gone(error) or error.errno == errno.EINVAL:
                return
            raise
        target = self._inside(text)
        if target is not None:
            yield self._header(step.name, step.found, tarfile.SYMTYPE, target=target)

    def _inside(self, text: str) -> str | None:
        """What a link must be in the archive to lead to the same; None if that may be outside.

        The directory that the link is in is no link, so what goes up from it goes up in the tree. After a name that may be
        a link this is not so.
        """
        names = components(text)
        if text.startswith("/"):
            above = [*components(SEEN_AS), *components(self._path)]
            if names[: len(above)] != above:
                return None
            names = [".."] * self._depth + names[len(above) :]
            text = "/".join(names) or "."
        ups = next((index for index, name in enumerate(names) if name != ".."), len(names))
        return text if ups <= self._depth and ".." not in names[ups:] else None

    def _file(self, step: Step) -> Generator[bytes]:
        try:
            file = open_regular(step.name, step.folder)
        except OSError as error:
            if is_gone(error) or is_no_file(error):
                return
            raise
        try:
            found = os.fstat(file)
            yield self._header(step.name, found, tarfile.REGTYPE, size=found.st_size)
            rest = found.st_size
            while rest:
                piece = os.read(file, min(rest, _PIECE)) or bytes(min(rest, _PIECE))
                rest -= len(piece)
                yield piece
            yield bytes(-found.st_size % tarfile.BLOCKSIZE)
        finally:
            os.close(file)

    def _header(self, name: str, found: os.stat_result, type: bytes, *, size: int = 0, target: str = "") -> bytes:
        """What is before a member's content, which is reckoned up with it."""
        member = tarfile.TarInfo(self._prefix + name)
        if len(member.name) > _LONGEST:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), f"{member.name[:200]}…")
        member.type = type
        member.size = size
        member.linkname = target
        member.mode = stat.S_IMODE(found.st_mode) & 0o777
        member.mtime = int(found.st_mtime)
        header = member.tobuf(tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")
        # Before anything of it is read: a hole can be larger than any disk.
        self._take(len(header) + size + -size % tarfile.BLOCKSIZE)
        return header

    def _take(self, size: int) -> None:
        self._size += size
        if self._room is not None and self._size > self._room:
            raise OSError(errno.EFBIG, f"the archive would have more than {self._room} bytes")
