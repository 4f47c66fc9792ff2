"""The tools themselves: arguments as models know them, checked and handed on."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.messages import BinaryContent
from pydantic_ai.tools import RunContext
from pydantic_ai.workspaces import WorkspaceError

from ..protocols import SupportsGlob, SupportsGrep
from . import commands, files, findings, python, search
from .descriptions import JOB_TOOLS, Limits
from .patterns import split_root
from .place import Place, find_place
from .state import current_state
from .text import duration

__all__ = ("Tools",)

_GLOB_LIMIT = 100
_MOST_ROWS = 2_000
_MOST_CONTEXT = 50

_T = TypeVar("_T")

_Context = RunContext[Any]
_JobId = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]
"""Models like to give a number back as a number."""


class Tools:
    """The functions behind the tools. What they remember of a run is `state.current_state()`."""

    def __init__(self, limits: Limits, offered: frozenset[str], interpreter: str) -> None:
        self._limits = limits
        self._offered = offered
        self._interpreter = interpreter

    async def run(self, ctx: _Context, command: str, timeout: float | None = None, background: bool = False) -> str:
        """Run a command.

        Args:
            ctx: The run.
            command: The shell command.
            timeout: Seconds after which the command is killed.
            background: Start the command as a background job and return at once; it has no timeout.
        """
        place = find_place(ctx)
        _check_command(command)
        if background:
            self._check_background()
            return await commands.start(place, command, tools=self._offered)
        seconds, notes = self._timeout(timeout)
        return await commands.run(place, command, timeout=seconds, limit=self._limits.max_output, notes=notes)

    def _check_background(self) -> None:
        if not self._offered & JOB_TOOLS:
            raise ModelRetry("commands cannot run in the background here")

    def _timeout(self, asked: float | None) -> tuple[float, list[str]]:
        limits = self._limits
        if asked is None:
            return limits.timeout, []
        if not math.isfinite(asked) or asked <= 0:
            raise ModelRetry(f"timeout must be a positive number of seconds, at most {limits.max_timeout:g}")
        if asked > limits.max_timeout:
            return limits.max_timeout, [f"timeout lowered to {duration(limits.max_timeout)}, the maximum"]
        return asked, []

    async def python(
        self, ctx: _Context, code: str = "", timeout: float | None = None, restart: bool = False
    ) -> str | list[str | BinaryContent]:
        """Run Python code.

        Args:
            ctx: The run.
            code: The code; the value of its last expression is returned.
            timeout: Seconds after which the code is interrupted.
            restart: Start a new interpreter first, in which nothing is defined.
        """
        place = find_place(ctx)
        if not code.strip() and not restart:
            raise ModelRetry("code is empty; give Python code")
        seconds, notes = self._timeout(timeout)
        return await python.run(
            place,
            current_state(),
            code,
            name=self._interpreter,
            timeout=seconds,
            restart=restart,
            limit=self._limits.max_output,
            notes=notes,
        )

    async def read(
        self, ctx: _Context, path: str, offset: int = 1, limit: int = 2000
    ) -> str | list[str | BinaryContent]:
        """Read a file.

        Args:
            ctx: The run.
            path: The file.
            offset: 1-based number of the first line to return.
            limit: How many lines to return at most.
        """
        place = find_place(ctx)
        work = files.read(place, current_state(), path, offset=offset, limit=limit, most=self._limits.max_output)
        return await _or_missing(place, path, work)

    async def write(self, ctx: _Context, path: str, content: str) -> str:
        """Write a file.

        Args:
            ctx: The run.
            path: The file.
            content: The file's whole new content.
        """
        return await files.write(find_place(ctx), current_state(), path, content)

    async def edit(self, ctx: _Context, path: str, old_string: str, new_string: str, replace_all: bool = False) -> str:
        """Edit a file.

        Args:
            ctx: The run.
            path: The file.
            old_string: The exact text to replace.
            new_string: The text to put in its place.
            replace_all: Replace every occurrence instead of the only one.
        """
        place = find_place(ctx)
        work = files.edit(
            place,
            current_state(),
            path,
            old_string,
            new_string,
            replace_all=replace_all,
            most=self._limits.max_output,
        )
        return await _or_missing(place, path, work)

    async def ls(self, ctx: _Context, path: str = ".") -> str:
        """List a directory.

        Args:
            ctx: The run.
            path: The directory.
        """
        place = find_place(ctx)
        return await _or_missing(place, path, self._ls(place, path))

    async def _ls(self, place: Place, path: str) -> str:
        directory = await files.absolute(place.workspace, path)
        try:
            entries = await place.workspace.list_dir(directory)
        except NotADirectoryError:
            entries = [await place.workspace.stat(directory)]
        return findings.listing(entries, directory, limit=self._limits.max_output)

    async def glob(self, ctx: _Context, pattern: str, path: str = ".") -> str:
        """Find files.

        Args:
            ctx: The run.
            pattern: The pattern, such as `*.py` or `src/**/*.{ts,tsx}`.
            path: The directory to search.
        """
        place = find_place(ctx)
        if pattern.startswith("/"):
            path, pattern = split_root(pattern)
        return await _or_missing(place, path, self._glob(place, pattern, path))

    async def _glob(self, place: Place, pattern: str, path: str) -> str:
        root = await files.absolute(place.workspace, path)
        if isinstance(place.backend, SupportsGlob):
            found = await place.backend.glob(pattern, root, limit=_GLOB_LIMIT)
            order = "newest first"
        else:
            found = await search.glob(place.workspace, pattern, root, limit=_GLOB_LIMIT)
            order = "in order of path"
        base = await place.workspace.working_dir()
        return findings.glob_matches(found, root, base, order=order, limit=self._limits.max_output)

    async def grep(
        self,
        ctx: _Context,
        pattern: str,
        path: str = ".",
        glob: str | None = None,
        output_mode: Literal["files_with_matches", "content", "count"] = "files_with_matches",
        literal: bool = False,
        ignore_case: bool = False,
        context: int = 0,
        head_limit: int = 200,
    ) -> str:
        """Search files.

        Args:
            ctx: The run.
            pattern: The regular expression, or the text with `literal`.
            path: The file or directory to search.
            glob: Only files whose name or path matches this pattern, such as `*.py`.
            output_mode: What to return.
            literal: Take the pattern as plain text.
            ignore_case: Let upper and lower case match each other.
            context: Lines to show around each match, with `content`.
            head_limit: How many rows to return at most.
        """
        place = find_place(ctx)
        if not pattern:
            raise ModelRetry("pattern is empty; give what to search for")
        work = self._grep(
            place,
            path,
            pattern=pattern,
            glob=glob,
            mode=output_mode,
            literal=literal,
            ignore_case=ignore_case,
            context=min(max(context, 0), _MOST_CONTEXT),
            limit=min(max(head_limit, 1), _MOST_ROWS),
        )
        return await _or_missing(place, path, work)

    async def _grep(
        self,
        place: Place,
        path: str,
        *,
        pattern: str,
        glob: str | None,
        mode: Literal["files_with_matches", "content", "count"],
        literal: bool,
        ignore_case: bool,
        context: int,
        limit: int,
    ) -> str:
        root = await files.absolute(place.workspace, path)
        if isinstance(place.backend, SupportsGrep):
            found = await place.backend.grep(
                pattern,
                root,
                glob=glob,
                mode=mode,
                literal=literal,
                ignore_case=ignore_case,
                context=context,
                limit=limit,
            )
        else:
            found = await search.grep(
                place.workspace,
                pattern,
                root,
                glob=glob,
                mode=mode,
                literal=literal,
                ignore_case=ignore_case,
                context=context,
                limit=limit,
            )
        base = await place.workspace.working_dir()
        return findings.grep_matches(found, mode, root, base, limit=self._limits.max_output, head_limit=limit)

    async def job_output(self, ctx: _Context, job_id: _JobId, cursor: int | None = None, wait: float = 0.0) -> str:
        """Read a job's output.

        Args:
            ctx: The run.
            job_id: The job.
            cursor: The byte to read from; by default where the last call stopped.
            wait: Seconds to wait for new output or the end of the job, at most 300.
        """
        return await commands.job_output(
            find_place(ctx), current_state(), job_id, cursor=cursor, wait=wait, limit=self._limits.max_output
        )

    async def job_input(self, ctx: _Context, job_id: _JobId, text: str, close: bool = False) -> str:
        """Feed a job.

        Args:
            ctx: The run.
            job_id: The job.
            text: What to write.
            close: Close its standard input afterwards.
        """
        return await commands.job_input(find_place(ctx), job_id, text, close=close)

    async def job_stop(self, ctx: _Context, job_id: _JobId) -> str:
        """Stop a job.

        Args:
            ctx: The run.
            job_id: The job.
        """
        return await commands.job_stop(find_place(ctx), job_id)


def _check_command(command: str) -> None:
    if not command.strip():
        raise ModelRetry("command is empty; give a shell command")
    if "\0" in command:
        raise ModelRetry("a command cannot contain a NUL character")


async def _or_missing(place: Place, path: str, work: Awaitable[_T]) -> _T | str:
    """What `work` gives; for a path that is not there, a plain answer with names that are."""
    try:
        return await work
    except WorkspaceError:
        raise
    except FileNotFoundError:
        return await files.missing(place.workspace, path)
