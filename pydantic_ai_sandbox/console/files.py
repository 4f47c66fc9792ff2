"""Reading, writing and editing files, over the abilities of the backend where it has them.

A file that changed since the model last saw it is not written over: the version the model saw goes along where the
backend compares and swaps, else the content is compared right before.
"""

from __future__ import annotations

import asyncio
import difflib
import posixpath
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.messages import BinaryContent
from pydantic_ai.workspaces import Workspace, WorkspaceError, WorkspaceUnavailableError

from ..editing import Replacement, changed_since_read, detect_encoding, replace_text
from ..protocols import SupportsEdit, SupportsTextRange, SupportsVersionedWrite, TextRange
from . import pages
from .place import Place
from .state import RunState
from .text import rendered_path, size

__all__ = ("absolute", "edit", "missing", "read", "write")

LARGEST_IMAGE = 3_750_000
"""Bytes of an image that is shown; models' providers refuse larger ones."""
_LARGEST_WHOLE = 64 << 20
"""Bytes of a file that is read whole because the workspace can give no part of it."""
_BINARY_PROBE = 8192
_LAST_LINE = 1 << 53
"""A line number that no file has and every number format holds."""
_TEXT_WITH_NULS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
"""Byte order marks of encodings in which text has NUL bytes."""
_SMALL = 256 * 1024
_COMPARED_NAMES = 2_000


async def absolute(workspace: Workspace, path: str) -> str:
    """`path` from the working directory, as text.

    Raises:
        ModelRetry: It cannot be a path.
    """
    if "\0" in path:
        raise ModelRetry("a path cannot contain a NUL character")
    if path == "~" or path.startswith("~/"):
        raise ModelRetry("~ is not expanded here; give an absolute path or one relative to the working directory")
    return await workspace.resolve(path)


@dataclass(frozen=True)
class _File:
    path: str
    """Absolute, as it was named."""
    real: str
    """Where that leads; what its version is remembered under."""


@asynccontextmanager
async def _turn(place: Place, state: RunState, path: str) -> AsyncGenerator[_File]:
    """Hold the file at `path`, in order of the calls."""
    named = path

    async def resolve() -> str:
        nonlocal named
        named = await absolute(place.workspace, path)
        return await place.workspace.realpath(named)

    async with state.order.turn(resolve) as real:
        yield _File(named, real)


async def read(
    place: Place, state: RunState, path: str, *, offset: int, limit: int, most: int
) -> str | list[str | BinaryContent]:
    """Lines `offset` to `offset + limit - 1`, numbered, in at most `most` characters; or the image; or what it is."""
    if offset < 1 or limit < 1:
        raise ModelRetry("offset and limit must be at least 1; offset is the 1-based number of the first line")
    # A line takes at least two characters; more than fit need not cross the wire.
    limit, offset = min(limit, most // 2), min(offset, _LAST_LINE)
    async with _turn(place, state, path) as file:
        try:
            found = await _range(place, file.path, offset, limit)
        except FileNotFoundError:
            state.seen.pop(file.real, None)
            raise
        state.seen[file.real] = found.version
    if found.binary:
        return await _not_text(place.workspace, file.path, found)
    if not found.size:
        return pages.empty_file(file.path)
    if offset > found.total:
        raise ModelRetry(pages.past_the_end(file.path, offset, found.total))
    return pages.page(found, offset=offset, limit=most)


async def _range(place: Place, path: str, offset: int, limit: int) -> TextRange:
    if isinstance(place.backend, SupportsTextRange):
        found = await place.backend.read_text(path, offset, limit)
        if not found.binary or not found.head.startswith(_TEXT_WITH_NULS):
            return found
    entry = await place.workspace.stat(path)
    if entry.size is not None and entry.size > _LARGEST_WHOLE:
        raise ToolFailed(
            f"{rendered_path(path)} has {size(entry.size)}, too large to read here; search it for what you need"
        )
    content = await place.workspace.read_bytes(path)
    if len(content) > _SMALL:
        return await asyncio.to_thread(_slice, content, offset, limit)
    return _slice(content, offset, limit)


def _slice(content: bytes, offset: int, limit: int) -> TextRange:
    """What `SupportsTextRange` gives, from a whole file."""
    version = _version(content)
    if b"\0" in content[:_BINARY_PROBE]:
        text = detect_encoding(content)
        if not text.name.startswith(("utf-16", "utf-32")):
            return TextRange(
                lines=(), first=offset, total=0, size=len(content), version=version, binary=True, head=content[:256]
            )
        content = text.decode(content).encode("utf-8", "surrogatepass")
    lines = _lines(content, offset, limit)
    newline = content.endswith(b"\n")
    total = content.count(b"\n") + (not newline and bool(content))
    return TextRange(lines=lines, first=offset, total=total, size=len(content), version=version, newline=newline)


def _lines(content: bytes, offset: int, limit: int) -> list[bytes]:
    """Some lines, without splitting all the others."""
    start = 0
    for _ in range(offset - 1):
        start = content.find(b"\n", start) + 1
        if not start:
            return []
    lines: list[bytes] = []
    while start < len(content) and len(lines) < limit:
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        lines.append(content[start:end])
        start = end + 1
    return lines


def _version(content: bytes) -> str:
    return sha256(content).hexdigest()


async def _not_text(workspace: Workspace, path: str, found: TextRange) -> str | list[str | BinaryContent]:
    media_type = pages.image_type(found.head)
    if media_type is None:
        return pages.binary(path, found.head, found.size)
    if found.size > LARGEST_IMAGE:
        return pages.binary(path, found.head, found.size, remark=f"images are shown up to {size(LARGEST_IMAGE)}")
    content = await workspace.read_bytes(path)
    if len(content) > LARGEST_IMAGE or pages.image_type(content) != media_type:
        raise ToolFailed(f"{rendered_path(path)} changed while it was read")
    return [pages.image(path, media_type, len(content)), BinaryContent(content, media_type=media_type)]


async def write(place: Place, state: RunState, path: str, content: str) -> str:
    """Replace or create a file."""
    try:
        data = content.encode()
    except UnicodeEncodeError:
        raise ModelRetry("content contains a lone surrogate, which no file can hold") from None
    async with _turn(place, state, path) as file:
        if isinstance(place.backend, SupportsVersionedWrite):
            written = await place.backend.write_version(file.path, data, expected_version=state.seen.get(file.real))
            state.seen[file.real] = written.version
            return pages.wrote(file.path, data, created=written.created)
        created = await _check_unchanged(place, state, file)
        await place.workspace.write_bytes(file.path, data)
        state.seen[file.real] = await _version_now(place, file.path, data)
    return pages.wrote(file.path, data, created=created)


async def _check_unchanged(place: Place, state: RunState, file: _File) -> bool:
    """Whether a write will create the file.

    Raises:
        EditError: It is there and is not what the model last saw.
    """
    seen = state.seen.get(file.real)
    if seen is None:
        return not await place.workspace.exists(file.path)
    try:
        version = await _version_now(place, file.path)
    except FileNotFoundError:
        return True
    if version != seen:
        raise changed_since_read(file.path)
    return False


async def _version_now(place: Place, path: str, content: bytes | None = None) -> str:
    """The version of a file, whose content may be known."""
    if isinstance(place.backend, SupportsTextRange):
        return (await place.backend.read_text(path, 1, 1)).version
    return _version(await place.workspace.read_bytes(path) if content is None else content)


async def edit(place: Place, state: RunState, path: str, old: str, new: str, *, replace_all: bool, most: int) -> str:
    """Replace exact text in a file and show the place, in at most `most` characters."""
    async with _turn(place, state, path) as file:
        seen = state.seen.get(file.real)
        if isinstance(place.backend, SupportsEdit):
            made = await place.backend.edit(file.path, old, new, replace_all=replace_all, expected_version=seen)
            state.seen[file.real] = made.version
        else:
            made = await _edit_whole(place.workspace, file.path, old, new, replace_all=replace_all, seen=seen)
            state.seen[file.real] = await _version_now(place, file.path, made.content)
    return pages.edited(file.path, made.content, made.lines, new, limit=most)


async def _edit_whole(
    workspace: Workspace, path: str, old: str, new: str, *, replace_all: bool, seen: str | None
) -> Replacement:
    content = await workspace.read_bytes(path)
    if seen is not None and _version(content) != seen:
        raise changed_since_read(path)
    if len(content) > _SMALL:
        made = await asyncio.to_thread(replace_text, content, old, new, replace_all=replace_all)
    else:
        made = replace_text(content, old, new, replace_all=replace_all)
    if await workspace.read_bytes(path) != content:
        raise changed_since_read(path)
    await workspace.write_bytes(path, made.content)
    return made


async def missing(workspace: Workspace, path: str) -> str:
    """The answer for a path that is not there: the nearest directory that is, and names in it that look similar."""
    named = await absolute(workspace, path)
    ancestor, wanted = posixpath.split(named)
    for _ in range(8):
        names = await _names(workspace, ancestor)
        if names is not None:
            near = difflib.get_close_matches(wanted, names, 3)
            parent = ancestor if ancestor != posixpath.dirname(named) else None
            return pages.missing(named, ancestor=parent, near=[posixpath.join(ancestor, name) for name in near])
        ancestor, wanted = posixpath.split(ancestor)
    return pages.missing(named, ancestor=None, near=())


async def _names(workspace: Workspace, directory: str) -> list[str] | None:
    try:
        return [entry.name for entry in (await workspace.list_dir(directory))[:_COMPARED_NAMES]]
    except WorkspaceUnavailableError:
        raise
    except (OSError, WorkspaceError):
        return None
