"""The runner's operations as typed calls."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, TypeVar

from pydantic_ai.workspaces import FileEntry

from ..errors import ChannelError, EditError, ResourceExhaustedError
from ..protocols import GlobResult, GrepResult, JobInfo, JobOutput, TextRange
from . import answers
from .answers import Captured, Ended, FileStat, Usage
from .multiplexer import Channel, PeerError, Stream
from .sinks import Collector, Flow

__all__ = ("CommandRequest", "RunnerClient", "command_request")

_ANSWER_DEADLINE = 60.0
"""Seconds for an operation on files or jobs; only a frozen container or a dead disk takes that long."""

_TRANSFER_DEADLINE = 3600.0
"""Seconds for an operation that moves a file, however large."""

_MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of a listing or a search result that we are ready to hold."""

_LINE_CAP = 8192
"""Bytes of one line of text that are worth sending: 2,000 characters of the widest kind."""

_TEXT_CAP = 1024 * 1024
"""Bytes of text sent for one range of lines."""

_MAX_COMMANDS = 200
"""Commands that one backend has running at once in a sandbox; further ones wait for their turn, first come, first served.
The runner takes 256 from all of its backends."""

_CONNECTED = b"\x01"
"""The first data of a connection, which says that there is one."""

_CODES = {name: number for number, name in errno.errorcode.items()}

T = TypeVar("T")

CommandRequest = dict[str, Any]
"""The part of a request that says what to run."""


def command_request(
    command: str | Sequence[str],
    *,
    shell: bool,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> CommandRequest:
    """Say what to run.

    Raises:
        TypeError: A string without `shell=True`, or a sequence with it.
        ValueError: The command is empty, or it or the environment holds what no command or environment can.
    """
    if isinstance(command, str) != shell:
        raise TypeError("a string command requires shell=True, and an argv sequence shell=False")
    if not command:
        raise ValueError("command must not be empty")
    request: CommandRequest = {"shell": command} if shell else {"argv": [str(argument) for argument in command]}
    _check_words(request.get("argv", (command,)))
    if env:
        _check_environment(env)
        request["env"] = dict(env)
    if cwd is not None:
        request["cwd"] = cwd
    return request


def _check_words(words: Iterable[str]) -> None:
    if any("\0" in word for word in words):
        raise ValueError("a command must not contain a NUL character")


def _check_environment(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"the environment variable {name!r} has a name or a value that none can have")


@contextmanager
def _errors() -> Generator[None]:
    """Turn what the runner reports into the errors that callers of a workspace expect."""
    try:
        yield
    except PeerError as error:
        raise _translate(error) from None


def _translate(error: PeerError) -> Exception:
    if error.code == "EAGAIN":
        return ResourceExhaustedError(
            f"the sandbox is as busy as it may be: {error.message}; wait for something to end", resource="commands"
        )
    number = _CODES.get(error.code)
    if number is not None:
        # OSError picks its own subclass (FileNotFoundError, …) by number.
        return OSError(number, error.message, error.path) if error.path else OSError(number, error.message)
    match error.code:
        case "not_regular":
            return OSError(errno.EINVAL, "not a regular file", error.path)
        case "refused" | "bad_pattern":
            return ValueError(error.message)
        case "changed":
            return EditError(error.message)
        case "no_such_job":
            return LookupError(error.message)
        case "too_many_processes":
            return ResourceExhaustedError(
                f"the sandbox cannot start another process: {error.message}; stop some, or raise limits.pids",
                resource="processes",
            )
        case _:
            return ChannelError(f"the sandbox's runner reported {error.code!r}: {error.message}")


class RunnerClient:
    """One runner, reached over one channel.

    File operations raise what Python's own would: `FileNotFoundError`, `IsADirectoryError`, `NotADirectoryError`,
    `PermissionError`, `FileExistsError`, other `OSError`. All raise `ChannelError` when the channel closes.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._turns = asyncio.Semaphore(_MAX_COMMANDS)

    async def _ask(
        self,
        request: Mapping[str, Any],
        convert: Callable[[Mapping[str, Any], Collector], T],
        *,
        limit: int = 0,
        body: bytes | memoryview = b"",
        deadline: float | None = _ANSWER_DEADLINE,
    ) -> T:
        """Do an operation that answers with at most `limit` bytes of data, and convert the answer."""
        collector = Collector(limit)
        with _errors():
            result = await self.channel.call(request, collector, body=body, deadline=deadline)
        with answers.well_formed():
            return convert(result, collector)

    # --- commands

    async def execute(
        self,
        command: CommandRequest,
        *,
        timeout: float | None,
        stdin: bytes | None,
        keep: int,
        stop: int,
        spill: str | None,
    ) -> Captured:
        """Run a command to its end and keep `keep` bytes of each output stream."""
        request = {"op": "exec", **command, "keep": keep, "stop": stop}
        if timeout is not None:
            request["timeout"] = _milliseconds(timeout)
        if spill is not None:
            request["spill"] = spill
        if stdin is not None:
            request["stdin"] = True
        # Its own timeout runs beside the command; this one is for a runner that does not answer at all.
        deadline = None if timeout is None else timeout + _ANSWER_DEADLINE
        async with self._turns:
            return await self._ask(request, answers.captured, limit=2 * keep, body=stdin or b"", deadline=deadline)

    @asynccontextmanager
    async def stream(self, command: CommandRequest, *, timeout: float | None) -> AsyncGenerator[tuple[Stream, Flow]]:
        """Run a command with live output and open input; leaving the context stops it."""
        request = {"op": "exec", **command, "live": True, "stdin": True, "stop": 0}
        if timeout is not None:
            request["timeout"] = _milliseconds(timeout)
        flow = Flow()
        async with self._turns:
            stream = await self.channel.open(request, flow)
            try:
                yield stream, flow
            finally:
                stream.abandon()

    @staticmethod
    async def ended(stream: Stream) -> Ended:
        """Wait for the end of a streamed command."""
        with _errors():
            result = await stream.future
        with answers.well_formed():
            return answers.ended(result)

    # --- jobs

    async def start_job(self, command: CommandRequest) -> JobInfo:
        """Start a command in the background."""
        return await self._ask({"op": "job_start", **command}, answers.answered_job)

    async def jobs(self) -> list[JobInfo]:
        """The jobs that run or ended lately."""
        return await self._ask({"op": "job_list"}, lambda result, _: [answers.job(job) for job in result["jobs"]])

    async def read_job(self, id: str, cursor: int, limit: int, wait: float) -> JobOutput:
        """Output from `cursor` on; waits up to `wait` seconds for some."""
        request = {"op": "job_read", "id": id, "cursor": cursor, "limit": limit, "wait": _milliseconds(wait)}
        return await self._ask(request, answers.job_output, limit=limit, deadline=wait + _ANSWER_DEADLINE)

    async def write_job(self, id: str, data: bytes, *, close: bool) -> None:
        """Feed a job's standard input."""
        request = {"op": "job_write", "id": id, "close": close}
        await self._ask(request, answers.nothing, body=data, deadline=_TRANSFER_DEADLINE)

    async def stop_job(self, id: str) -> JobInfo:
        """Kill a job's process tree."""
        return await self._ask({"op": "job_stop", "id": id}, answers.answered_job)

    async def kill_all(self) -> int:
        """Kill every process in the sandbox but the runner; returns how many there were."""
        return await self._ask({"op": "kill_all"}, lambda result, _: int(result["killed"]))

    # --- files

    async def read(self, path: str, *, limit: int, version: bool = False) -> tuple[bytearray, str | None]:
        """A file's content, at most `limit` bytes, and its version if asked for.

        Raises:
            OSError: With `EFBIG`: the file is larger.
        """
        request = {"op": "read", "path": path, "length": limit, "version": version}
        size, data, at = await self._ask(request, answers.content, limit=limit, deadline=_TRANSFER_DEADLINE)
        if size > limit:
            raise OSError(errno.EFBIG, f"file of {size} bytes is too large to read at once, {limit} fit", path)
        return data, at

    @asynccontextmanager
    async def download(self, path: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """A file's content piece by piece, in memory of one window."""
        flow = Flow()
        stream = await self.channel.open({"op": "read", "path": path}, flow, body=b"")
        try:
            yield _pieces(stream, flow)
        finally:
            stream.abandon()

    async def read_text(self, path: str, offset: int, limit: int) -> TextRange:
        """A range of lines."""
        request = {"op": "read_text", "path": path, "offset": offset, "limit": limit}
        caps = {"line_cap": _LINE_CAP, "byte_cap": _TEXT_CAP}
        return await self._ask({**request, **caps}, answers.text_range, limit=_TEXT_CAP + _LINE_CAP)

    async def write(
        self, path: str, data: bytes | memoryview, *, mode: int | None = None, expect: str | None = None
    ) -> tuple[str, bool]:
        """Replace a file's content atomically; its new version and whether it was created.

        Raises:
            EditError: The file's version is not `expect`.
        """
        request = _write_request(path, mode, expect)
        return await self._ask(request, answers.written, body=data, deadline=_TRANSFER_DEADLINE)

    async def upload(self, path: str, pieces: AsyncIterator[bytes], *, mode: int | None = None) -> None:
        """Replace a file's content by what `pieces` yields; the old content stays if that fails."""
        stream = await self.channel.open(_write_request(path, mode, None), Collector(0))
        try:
            async for piece in pieces:
                await stream.send(piece)
            stream.end()
            with _errors():
                await stream.future
        finally:
            stream.abandon()

    async def stat(self, path: str) -> FileStat:
        """What a path is."""
        return await self._ask({"op": "stat", "path": path}, answers.file_stat)

    async def list_dir(self, path: str) -> list[FileEntry]:
        """The entries of a directory, sorted by name."""
        prefix = path.rstrip("/") + "/"
        return await self._ask(
            {"op": "list", "path": path},
            lambda _, answer: [
                FileEntry(name=name, path=prefix + name, is_dir=kind == "d", size=size if kind == "f" else None)
                for name, kind, size, _ in answers.rows(answer)
            ],
            limit=_MAX_ANSWER,
        )

    async def make_dir(self, path: str) -> None:
        """Create a directory and its parents."""
        await self._ask({"op": "mkdir", "path": path}, answers.nothing)

    async def remove(self, path: str) -> None:
        """Remove a file or a tree.

        Raises:
            ValueError: It is the working directory or one above it.
        """
        await self._ask({"op": "remove", "path": path}, answers.nothing, deadline=_TRANSFER_DEADLINE)

    async def realpath(self, path: str) -> str:
        """`path` with every symbolic link resolved."""
        return await self._ask({"op": "realpath", "path": path}, lambda result, _: answers.text(result["path"]))

    # --- search

    async def glob(
        self, pattern: str, root: str, *, limit: int, ignore: bool, hidden: bool, dirs: bool = False
    ) -> GlobResult:
        """Paths under `root` that match."""
        request = {"op": "glob", "root": root, "pattern": pattern, "limit": limit, "ignore": ignore}
        return await self._ask({**request, "hidden": hidden, "dirs": dirs}, answers.glob_result, limit=_MAX_ANSWER)

    async def grep(
        self,
        pattern: str,
        root: str,
        *,
        glob: str | None,
        mode: Literal["files_with_matches", "content", "count"],
        literal: bool,
        ignore_case: bool,
        context: int,
        limit: int,
        ignore: bool,
        hidden: bool,
    ) -> GrepResult:
        """Lines under `root` that match."""
        request: dict[str, Any] = {
            "op": "grep", "root": root, "pattern": pattern, "mode": "files" if mode == "files_with_matches" else mode,
            "literal": literal, "ignore_case": ignore_case, "before": context, "after": context, "limit": limit,
            "line_cap": _LINE_CAP, "ignore": ignore, "hidden": hidden,
        }  # fmt: skip
        if glob is not None:
            request["glob"] = glob
        return await self._ask(
            request, lambda result, answer: answers.grep_result(mode, result, answer), limit=_MAX_ANSWER
        )

    # --- connections

    async def dial(self, address: str | int) -> tuple[Stream, Flow]:
        """A connection to a unix socket or a port in the sandbox; whoever gets it abandons the stream in the end.

        Raises:
            ConnectionRefusedError: Nobody listens there.
        """
        flow = Flow()
        request = {"op": "dial", "port" if isinstance(address, int) else "unix": address}
        stream = await self.channel.open(request, flow)
        try:
            async with asyncio.timeout(_ANSWER_DEADLINE):
                piece = await flow.next(stream)
            if piece is None:
                await self.closed(stream)
            if piece is None or piece[1] != _CONNECTED:
                raise ChannelError("the runner's answer is malformed (no confirmation)")
        except TimeoutError:
            stream.abandon()
            raise ChannelError(f"the sandbox's runner did not connect within {_ANSWER_DEADLINE:g} s") from None
        except BaseException:
            stream.abandon()
            raise
        return stream, flow

    @staticmethod
    async def closed(stream: Stream) -> None:
        """Wait for the end of a connection.

        Raises:
            ConnectionResetError: It was broken off.
        """
        with _errors():
            await stream.future

    # --- the container

    async def usage(self) -> Usage:
        """What the sandbox uses; asking is no use of it."""
        return await self._ask({"op": "usage"}, answers.usage)

    async def retire(self, idle: float = 0.0) -> bool:
        """End the container, unless something runs in it or it was used in the last `idle` seconds; whether it ends."""
        return await self._ask({"op": "retire", "idle": _milliseconds(idle)}, answers.retired)

    @asynccontextmanager
    async def freeze(self, timeout: float = 60.0) -> AsyncGenerator[None]:
        """Let no process run and nothing change the workspace in here; files can be read, and processes killed.

        Args:
            timeout: Seconds, at most 600, after which everything goes on even if we do not get here any more.

        Raises:
            ChannelError: The channel closed, or everything went on before the end.
            TimeoutError: Not everything could be stopped.
            OSError: With `EBUSY`: everything is frozen already.
        """
        flow = Flow()
        request = {"op": "freeze", "timeout": _milliseconds(timeout)}
        stream = await self.channel.open(request, flow, deadline=timeout + _ANSWER_DEADLINE)
        try:
            with _errors():
                if await flow.next(stream) is None:
                    await stream.future
            held = not stream.future.done()
            if held:
                yield
                held = not stream.future.done()
                stream.end()
            with _errors():
                await stream.future
            if not held:
                raise ChannelError(f"the sandbox was not frozen any more: {timeout:g} s were not enough")
        finally:
            stream.abandon()

    @property
    def never_begun(self) -> bool:
        """Whether calls that failed when the channel ended were never begun, and so may be repeated elsewhere."""
        return self.channel.goodbye in _NOTHING_UNDER_WAY


_NOTHING_UNDER_WAY = ("idle", "retired")
"""Reasons to end that a runner decides for only when nothing is under way."""


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _write_request(path: str, mode: int | None, expect: str | None) -> dict[str, Any]:
    request: dict[str, Any] = {"op": "write", "path": path}
    if mode is not None:
        request["mode"] = mode
    if expect is not None:
        request["expect"] = expect
    return request


async def _pieces(stream: Stream, flow: Flow) -> AsyncIterator[bytes]:
    while (piece := await flow.next(stream)) is not None:
        yield piece[1]
    # The end of the data is not yet the end of the operation, which may have failed.
    with _errors():
        await stream.future
