"""What a sandbox can do beyond Pydantic AI's workspace protocols.

Each ability is a protocol of its own, found by `isinstance`, like the `Supports*` protocols of `pydantic_ai.workspaces`,
which stay the base: an object may have any of these abilities, and a tool that wants one falls back to the frozen
protocol where it is missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from pydantic_ai.workspaces import WorkspaceCommand

__all__ = (
    "BoundedText",
    "ByteStream",
    "CauseOfDeath",
    "CommandStream",
    "Edit",
    "Execution",
    "GlobMatch",
    "GlobResult",
    "GrepLine",
    "GrepResult",
    "Job",
    "JobInfo",
    "JobOutput",
    "OutputChunk",
    "SupportsDial",
    "SupportsEdit",
    "SupportsExecution",
    "SupportsGlob",
    "SupportsGrep",
    "SupportsJobs",
    "SupportsStreaming",
    "SupportsTextRange",
    "SupportsVersionedWrite",
    "TextRange",
    "Written",
)

CauseOfDeath: TypeAlias = Literal[
    "exit", "signal", "timeout", "cancelled", "output_limit", "out_of_memory", "too_many_processes", "disk_quota"
]
"""Why a command ended, told out of band: an exit code of 124 or 137 alone proves nothing."""


@dataclass(frozen=True, kw_only=True)
class BoundedText:
    """The beginning and the end of something that may have been longer."""

    head: str
    """The beginning; all of it when nothing was omitted."""
    tail: str = ""
    """The end, empty when nothing was omitted."""
    omitted: int = 0
    """Bytes left out between `head` and `tail`."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a command ended and what it printed, bounded; no outcome of the command itself is an exception."""

    exit_code: int
    """The real exit code, or 128 + the signal's number."""
    cause: CauseOfDeath
    """Why it ended."""
    stdout: BoundedText
    """Standard output."""
    stderr: BoundedText
    """Standard error."""
    duration: float
    """Seconds from start to end, as measured beside the command."""
    cwd: str
    """The directory it ran in."""
    signal: str | None = None
    """Name of the signal that killed it (`"SIGSEGV"`)."""
    limit: str | None = None
    """The limit that ended it, readable (`"1 GiB of memory"`, `"256 processes"`), when one did."""
    spilled_to: str | None = None
    """Path of the file in the workspace that holds the whole output, when it did not fit."""


@runtime_checkable
class SupportsExecution(Protocol):
    """Runs a command and tells everything about its end, keeping only the head and tail of long output."""

    async def execute(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
        spill: str | None = None,
    ) -> Execution:
        """Run `command` to its end, timeout included.

        Args:
            command: An argv sequence, or a shell string with `shell=True`; a mismatch raises `TypeError`.
            shell: Whether `command` is a shell string.
            env: Variables laid over the sandbox's own.
            timeout: Seconds before the command's process tree is killed.
            cwd: Absolute directory to start in; the working directory by default.
            stdin: What to feed to its standard input, which is at EOF otherwise.
            spill: Absolute path of a file to create with the whole output if it does not fit.

        Raises:
            FileNotFoundError, NotADirectoryError: `cwd` is missing or not a directory.
            WorkspaceUnavailableError: The sandbox is gone.
            SandboxError: The command could not be started or its outcome is unknown.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class OutputChunk:
    """A piece of live output."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@runtime_checkable
class CommandStream(Protocol):
    """A running command: iterate for its output; leaving its context stops it if it still runs."""

    def __aiter__(self) -> AsyncIterator[OutputChunk]: ...

    async def write(self, data: bytes) -> None:
        """Feed standard input; waits while the command does not read.

        Raises:
            BrokenPipeError: Standard input is closed.
        """
        ...

    async def close_stdin(self) -> None:
        """Put standard input at EOF."""
        ...

    async def wait(self) -> Execution:
        """Wait for the end, dropping output that was not read; `stdout` and `stderr` of the result are empty."""
        ...


@runtime_checkable
class SupportsStreaming(Protocol):
    """Runs a command with its output as it comes and its input open."""

    def stream(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cwd: str | None = None,
    ) -> AbstractAsyncContextManager[CommandStream]:
        """Start `command`; a consumer that does not read makes the command wait, nothing is buffered without bound."""
        ...


@dataclass(frozen=True, kw_only=True)
class JobInfo:
    """A background job at one moment."""

    id: str
    """What to ask for it by."""
    command: str
    """The command, as one readable line."""
    running: bool
    """Whether it still runs; the fields about its end are `None` until it does not."""
    started: float
    """Unix time of its start."""
    duration: float
    """Seconds it has run, or ran."""
    output: int
    """Bytes it has printed so far, which is also the cursor after all of it."""
    exit_code: int | None = None
    """The real exit code, or 128 + the signal's number."""
    cause: CauseOfDeath | None = None
    """Why it ended."""
    signal: str | None = None
    """Name of the signal that killed it."""


@dataclass(frozen=True, kw_only=True)
class JobOutput:
    """What a job printed from a cursor on."""

    data: bytes
    """Output, both streams in order of arrival."""
    cursor: int
    """Where to go on reading: bytes from the job's start."""
    skipped: int
    """Bytes between the cursor asked for and `data` that are no longer kept."""
    job: JobInfo
    """The job when this was read."""


@runtime_checkable
class Job(Protocol):
    """A command in the background; it belongs to the sandbox and outlives whoever started it."""

    @property
    def id(self) -> str: ...

    async def info(self) -> JobInfo:
        """Its state now.

        Raises:
            LookupError: The sandbox knows no such job (any more).
        """
        ...

    async def output(self, cursor: int = 0, *, limit: int = 65_536, wait: float = 0.0) -> JobOutput:
        """Up to `limit` bytes of output from `cursor`; waits up to `wait` seconds for some, or for the end."""
        ...

    async def write(self, data: bytes, *, close: bool = False) -> None:
        """Feed its standard input; `close` puts it at EOF afterwards.

        Raises:
            BrokenPipeError: It has ended or closed its standard input.
        """
        ...

    async def stop(self) -> JobInfo:
        """Kill its process tree; returns when that is gone. Stopping an ended job changes nothing."""
        ...

    async def wait(self, timeout: float | None = None) -> JobInfo:
        """Wait for its end.

        Raises:
            TimeoutError: It still runs after `timeout` seconds.
        """
        ...


@runtime_checkable
class SupportsJobs(Protocol):
    """Runs commands in the background."""

    async def start_job(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Job:
        """Start `command` and return at once."""
        ...

    def job(self, id: str) -> Job:
        """The job of that id, without asking the sandbox whether it exists."""
        ...

    async def jobs(self) -> Sequence[JobInfo]:
        """All jobs that run, and those that ended lately."""
        ...


@dataclass(frozen=True, kw_only=True)
class TextRange:
    """Some lines of a file."""

    lines: Sequence[bytes]
    """The lines, without their line feed (a carriage return stays); a line in `cut` is only its beginning."""
    first: int
    """1-based number of the first line here."""
    total: int
    """Lines in the whole file."""
    size: int
    """Bytes in the whole file."""
    version: str
    """Changes when the content does; compare for equality only."""
    cut: Mapping[int, int] = field(default_factory=dict[int, int])
    """Number → full length in bytes, of the lines that were too long to come whole."""
    newline: bool = True
    """Whether the file ends in a line feed."""
    binary: bool = False
    """Whether the file is not text: `lines` is empty then, and `head` has its first bytes."""
    head: bytes = b""
    """The first bytes of a binary file."""


@runtime_checkable
class SupportsTextRange(Protocol):
    """Reads a range of lines without moving the rest of the file."""

    async def read_text(self, path: str, offset: int = 1, limit: int = 2000) -> TextRange:
        """Lines `offset` (1-based) to `offset + limit - 1` of the file at the absolute `path`.

        Raises:
            FileNotFoundError, IsADirectoryError, PermissionError, OSError: As for `read_bytes`.
            ValueError: `offset` or `limit` is less than 1.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A replacement that was made."""

    lines: Sequence[int]
    """1-based line numbers, in the new content, at which the replacements begin."""
    content: bytes
    """The file's new content."""
    version: str
    """The file's new version."""


@runtime_checkable
class SupportsEdit(Protocol):
    """Replaces text in a file if and only if nobody changed the file meanwhile."""

    async def edit(
        self, path: str, old: str, new: str, *, replace_all: bool = False, expected_version: str | None = None
    ) -> Edit:
        """Replace `old`, which must be there exactly once unless `replace_all`, by `new`.

        Encoding, byte order mark, line endings and mode of the file stay as they are.

        Args:
            path: Absolute path of the file.
            old: Exact text to replace; not empty.
            new: The text to put there.
            replace_all: Replace every occurrence.
            expected_version: Refuse if the file's version (as `read_text` reported it) is another one.

        Raises:
            EditError: The text is not there, is there more than once, is empty or unchanged, or the file changed; the
                message says which and where, for whoever wrote `old`.
            FileNotFoundError, IsADirectoryError, PermissionError, OSError: As for `read_bytes` and `write_bytes`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file that was written whole."""

    created: bool
    """Whether it was not there before."""
    version: str
    """The file's new version."""


@runtime_checkable
class SupportsVersionedWrite(Protocol):
    """Writes a file whole if and only if nobody changed it meanwhile, and tells whether it was there before."""

    async def write_version(self, path: str, data: bytes, *, expected_version: str | None = None) -> Written:
        """Replace or create the file at the absolute `path`, like `write_bytes`.

        Args:
            path: Absolute path of the file.
            data: The new content.
            expected_version: Refuse if the file exists and its version (as `read_text` reported it) is another one.

        Raises:
            EditError: The file changed (`editing.changed_since_read`).
            IsADirectoryError, NotADirectoryError, PermissionError, OSError: As for `write_bytes`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GlobMatch:
    """A path that matched."""

    path: str
    """Absolute path."""
    is_dir: bool
    size: int
    """Bytes."""
    modified: float
    """Unix time of its last change."""


@dataclass(frozen=True, kw_only=True)
class GlobResult:
    """What matched a pattern, bounded."""

    matches: Sequence[GlobMatch]
    total: int
    """How many matched, `matches` and the ones left out together, as far as the search got."""
    timed_out: bool = False
    """Whether the search stopped before it had seen everything."""


@runtime_checkable
class SupportsGlob(Protocol):
    """Finds files by name."""

    async def glob(
        self, pattern: str, root: str, *, limit: int = 100, ignore: bool = True, hidden: bool = True
    ) -> GlobResult:
        """Files under the absolute `root` that match `pattern`, newest first.

        `*` and `?` stay within one path component, `**` crosses, braces and character classes work, a pattern without
        `/` matches the name at any depth. `ignore` leaves out what `.gitignore` files name.

        Raises:
            ValueError: The pattern is malformed.
            FileNotFoundError, NotADirectoryError: `root` is.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GrepLine:
    """A line that matched, or one beside it."""

    path: str
    """Absolute path of the file."""
    number: int
    """1-based line number."""
    text: str
    """The line, without its line ending; of a very long one the part around the match."""
    is_match: bool = True
    """`False` for a line of context."""
    length: int = 0
    """Bytes in the whole line."""


@dataclass(frozen=True, kw_only=True)
class GrepResult:
    """What a search found, bounded, in order of path."""

    lines: Sequence[GrepLine] = ()
    """Matching lines and context (mode `"content"`)."""
    files: Mapping[str, int] = field(default_factory=dict[str, int])
    """Path → matching lines in it (0 when they were not counted), for the modes `"files_with_matches"` and `"count"`."""
    truncated: bool = False
    """Whether there is more than `limit`."""
    timed_out: bool = False
    """Whether the search stopped before it had seen everything."""


@runtime_checkable
class SupportsGrep(Protocol):
    """Searches file contents."""

    async def grep(
        self,
        pattern: str,
        path: str,
        *,
        glob: str | None = None,
        mode: Literal["files_with_matches", "content", "count"] = "files_with_matches",
        literal: bool = False,
        ignore_case: bool = False,
        context: int = 0,
        limit: int = 200,
        ignore: bool = True,
        hidden: bool = True,
    ) -> GrepResult:
        """Lines that match the regular expression `pattern` (RE2 syntax) in the file or the tree at the absolute `path`.

        Raises:
            ValueError: The pattern or the glob is malformed; the message says how.
            FileNotFoundError: `path` is missing.
        """
        ...


@runtime_checkable
class ByteStream(Protocol):
    """A connection to something that listens; leaving its context closes it."""

    async def read(self) -> bytes:
        """Some of what the other side sends, `b""` when it has closed; what nobody reads makes it wait.

        Raises:
            ConnectionResetError: The other side broke the connection off.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the other side does not read.

        Raises:
            BrokenPipeError: The other side has closed.
        """
        ...

    async def close_write(self) -> None:
        """Let the other side read to the end; it can still be read."""
        ...


@runtime_checkable
class SupportsDial(Protocol):
    """Connects to what listens in the workspace, whether or not there is a network."""

    def dial(self, address: str | int) -> AbstractAsyncContextManager[ByteStream]:
        """Connect to a unix socket, by its absolute path or an abstract name (`"@name"`), or to a port of 127.0.0.1.

        Entering the context connects. An open connection is use of the workspace.

        Raises:
            ConnectionRefusedError: Nobody listens there.
            FileNotFoundError, NotADirectoryError, PermissionError, OSError: As for any path.
            ValueError: It cannot be an address.
            WorkspaceUnavailableError: The sandbox is gone.
        """
        ...
