"""What a worker does for a user through the public interface; each deed answers with what it saw, as JSON."""

from __future__ import annotations

import asyncio
import io
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_ai_sandbox import Sandbox, SessionManager
from pydantic_ai_sandbox.sessions import warm
from pydantic_ai_sandbox.sessions.storage import working

from .people import content, file_name, index_of, mark_of, recognised, scratch

__all__ = ("DEEDS", "UntypedResultError")

Arguments = Mapping[str, Any]

_COMMAND_TIMEOUT = 60.0


class UntypedResultError(Exception):
    """An operation returned, but what it returned cannot be."""


async def _sandbox(manager: SessionManager, args: Arguments) -> Sandbox:
    return await manager.get_or_create(args["user"], scope=args.get("scope", "default"))


def _path(args: Arguments) -> str:
    return f"/workspace/{file_name(args['user'], args['index'])}"


def _data(args: Arguments) -> bytes:
    return content(args["user"], args["index"], args["nonce"], args["size"])


def _seen(args: Arguments, data: bytes) -> str:
    return recognised(args["user"], args["index"], data)


# --- writing


async def write(manager: SessionManager, host: Path, args: Arguments) -> None:
    await (await _sandbox(manager, args)).write_bytes(_path(args), _data(args))


async def write_text(manager: SessionManager, host: Path, args: Arguments) -> None:
    await (await _sandbox(manager, args)).write_text(_path(args), _data(args).decode())


async def write_by_command(manager: SessionManager, host: Path, args: Arguments) -> int:
    """Whole or not at all, as far as a shell can: written aside, counted, moved.

    In a file system of its own beneath which the disk may be full, no program knows that its file is there before it asks.
    """
    data = _data(args)
    path = shlex.quote(file_name(args["user"], args["index"]))
    aside = shlex.quote(scratch(args["user"], args["nonce"]))
    command = (
        f"mkdir -p d0 d1 d2 && cat > {aside} && test $(wc -c < {aside}) = {len(data)} "
        f"{f'&& sync {aside} ' if args['own_disks'] else ''}&& mv {aside} {path} "
        f"|| {{ rm -f {aside}; exit 1; }}"
    )
    sandbox = await _sandbox(manager, args)
    result = await sandbox.run(command, shell=True, stdin=data, timeout=_COMMAND_TIMEOUT)
    return result.exit_code if result.cause == "exit" else -1


async def upload(manager: SessionManager, host: Path, args: Arguments) -> None:
    await manager.upload(args["user"], file_name(args["user"], args["index"]), _data(args))


async def edit(manager: SessionManager, host: Path, args: Arguments) -> None:
    sandbox = await _sandbox(manager, args)
    await sandbox.edit(_path(args), args["old"], args["nonce"], replace_all=True)


async def remove(manager: SessionManager, host: Path, args: Arguments) -> None:
    await (await _sandbox(manager, args)).remove(_path(args))


async def copy_to(manager: SessionManager, host: Path, args: Arguments) -> None:
    folder = Path(tempfile.mkdtemp(dir=host))
    try:
        source = folder / Path(_path(args)).name
        source.write_bytes(_data(args))
        sandbox = await _sandbox(manager, args)
        await sandbox.copy_to(source, str(Path(_path(args)).parent))
    finally:
        shutil.rmtree(folder)


# --- reading


async def read(manager: SessionManager, host: Path, args: Arguments) -> str:
    return _seen(args, await (await _sandbox(manager, args)).read_bytes(_path(args)))


async def read_text(manager: SessionManager, host: Path, args: Arguments) -> str:
    """By lines, in two pages."""
    sandbox = await _sandbox(manager, args)
    first = await sandbox.read_text(_path(args), 1, 1)
    rest = await sandbox.read_text(_path(args), 2, 1_000_000)
    if first.version != rest.version or len(rest.lines) < rest.total - 1:
        # Changed in between, or more than one page holds.
        return _seen(args, await sandbox.read_bytes(_path(args)))
    return _seen(args, b"".join(line + b"\n" for line in (*first.lines, *rest.lines)))


async def cat(manager: SessionManager, host: Path, args: Arguments) -> str | None:
    """By a command; `None` if that says that it cannot."""
    sandbox = await _sandbox(manager, args)
    name = shlex.quote(file_name(args["user"], args["index"]))
    result = await sandbox.run(f"test ! -e {name} && exit 44; exec cat {name}", shell=True, timeout=_COMMAND_TIMEOUT)
    if result.exit_code == 44:
        raise FileNotFoundError(2, "the command says so")
    return _seen(args, result.stdout.encode()) if result.exit_code == 0 else None


async def download(manager: SessionManager, host: Path, args: Arguments) -> str:
    file = await manager.download(args["user"], file_name(args["user"], args["index"]))
    try:
        return _seen(args, b"".join([piece async for piece in file.pieces]))
    finally:
        await file.aclose()


async def copy_from(manager: SessionManager, host: Path, args: Arguments) -> str:
    folder = Path(tempfile.mkdtemp(dir=host))
    try:
        sandbox = await _sandbox(manager, args)
        copied = await sandbox.copy_from(_path(args), folder)
        return _seen(args, copied[0].read_bytes())
    finally:
        shutil.rmtree(folder)


async def archive(manager: SessionManager, host: Path, args: Arguments) -> dict[str, str]:
    """Everything that the user has: index → what it is; names that are none of the user's files' are reported as such."""
    pieces = await manager.archive(args["user"], format=args["format"])
    whole = io.BytesIO(b"".join([piece async for piece in pieces]))
    found: dict[str, str] = {}
    with tarfile.open(fileobj=whole) as tar:
        for member in tar:
            if not member.isfile():
                continue
            file = tar.extractfile(member)
            assert file is not None
            index = index_of(args["user"], member.name)
            if index is not None:
                found[str(index)] = recognised(args["user"], index, file.read())
            elif not Path(member.name).name.startswith("."):
                raise UntypedResultError(f"the archive has {member.name!r}, which is nobody's")
    return found


# --- looking around


async def list_dir(manager: SessionManager, host: Path, args: Arguments) -> list[str]:
    entries = await (await _sandbox(manager, args)).list_dir(str(Path(_path(args)).parent))
    return [entry.name for entry in entries]


async def list_files(manager: SessionManager, host: Path, args: Arguments) -> list[str]:
    listing = await manager.list_files(args["user"], f"d{args['index'] % 3}")
    return [entry.name for entry in listing.entries]


async def glob(manager: SessionManager, host: Path, args: Arguments) -> list[str]:
    found = await (await _sandbox(manager, args)).glob("d*/*")
    return [Path(match.path).name for match in found.matches]


async def grep(manager: SessionManager, host: Path, args: Arguments) -> list[str]:
    """Every mark that stands in any file, which only the user's own can."""
    found = await (await _sandbox(manager, args)).grep(r"mark:[0-9a-f]{8}", mode="content", limit=50)
    foreign = [line.text for line in found.lines if f"mark:{mark_of(args['user'])}" not in line.text]
    if foreign:
        raise UntypedResultError(f"grep found a line of somebody else: {foreign[0]!r}")
    return [Path(line.path).name for line in found.lines if not Path(line.path).name.startswith(".")]


async def usage(manager: SessionManager, host: Path, args: Arguments) -> int:
    return (await (await _sandbox(manager, args)).usage()).memory


async def usage_of_files(manager: SessionManager, host: Path, args: Arguments) -> int:
    return (await manager.usage(args["user"])).used


async def sessions(manager: SessionManager, host: Path, args: Arguments) -> list[str]:
    return [session.user_id for session in await manager.list()]


# --- commands


async def ensure(manager: SessionManager, host: Path, args: Arguments) -> None:
    await _sandbox(manager, args)


async def job(manager: SessionManager, host: Path, args: Arguments) -> str:
    """A job's whole output, which nobody else's can be."""
    sandbox = await _sandbox(manager, args)
    word = f"mark:{mark_of(args['user'])} job {args['nonce']}"
    started = await sandbox.start_job(f"echo '{word}'; sleep {args['seconds']}; echo '{word}'", shell=True)
    await started.wait(_COMMAND_TIMEOUT)
    data = (await started.output(0)).data.decode("utf-8", "replace")
    if data.strip().splitlines() != [word, word] and (await started.info()).cause == "exit":
        raise UntypedResultError(f"a job that printed {word!r} twice has the output {data[:300]!r}")
    return started.id


async def stream(manager: SessionManager, host: Path, args: Arguments) -> int:
    """Some of an endless output, which leaving ends."""
    sandbox = await _sandbox(manager, args)
    word = f"mark:{mark_of(args['user'])} stream {args['nonce']}"
    seen = 0
    async with sandbox.stream(["yes", word], timeout=_COMMAND_TIMEOUT) as running:
        async for chunk in running:
            line = f"{word}\n".encode()
            if chunk.data not in line * (len(chunk.data) // len(line) + 2):
                raise UntypedResultError(f"the stream of {word!r} has {chunk.data[:200]!r}")
            seen += len(chunk.data)
            if seen > args["size"]:
                break
    return seen


# --- all of a user's files


async def checkpoint(manager: SessionManager, host: Path, args: Arguments) -> str:
    return await manager.checkpoint(args["user"])


async def checkpoints(manager: SessionManager, host: Path, args: Arguments) -> list[str]:
    return [found.id for found in await manager.checkpoints(args["user"])]


async def restore(manager: SessionManager, host: Path, args: Arguments) -> None:
    await manager.restore(args["user"], args["checkpoint"])


async def delete_checkpoint(manager: SessionManager, host: Path, args: Arguments) -> None:
    await manager.delete_checkpoint(args["user"], args["checkpoint"])


async def fork(manager: SessionManager, host: Path, args: Arguments) -> None:
    await manager.fork(args["user"], args["new"])


async def stop(manager: SessionManager, host: Path, args: Arguments) -> int:
    return await manager.stop(args["user"], scope=args.get("scope"))


async def delete(manager: SessionManager, host: Path, args: Arguments) -> None:
    await manager.delete(args["user"], files=args["files"])


async def rest(manager: SessionManager, host: Path, args: Arguments) -> None:
    """Let go of every sandbox."""
    await manager.aclose()
    await asyncio.sleep(0.5)


async def sweep(manager: SessionManager, host: Path, args: Arguments) -> None:
    """Remove what was left over, however young it is: nobody else is at work."""
    working._STALE = warm._STALE = 0.0
    await manager._submit(manager._tidy)


Deed = Callable[[SessionManager, Path, Arguments], Awaitable[Any]]

_ALL: Sequence[Deed] = (
    write, write_text, write_by_command, upload, edit, remove, copy_to, read, read_text, cat, download, copy_from, archive,
    list_dir, list_files, glob, grep, usage, usage_of_files, sessions, ensure, job, stream, checkpoint, checkpoints,
    restore, delete_checkpoint, fork, stop, delete, rest, sweep,
)  # fmt: skip

DEEDS: Mapping[str, Deed] = {deed.__name__: deed for deed in _ALL}  # type: ignore[attr-defined]
"""Every deed by its name."""
