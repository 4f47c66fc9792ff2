"""Running commands, in the foreground and in the background."""

from __future__ import annotations

import asyncio
import posixpath
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import TypeVar

from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.workspaces import (
    Workspace,
    WorkspaceError,
    WorkspaceOutputLimitError,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
)

from ..protocols import BoundedText, Execution, Job, SupportsExecution, SupportsJobs
from . import reports
from .place import Place
from .state import RunState
from .text import inline, size

__all__ = ("ENVIRONMENT", "job_input", "job_output", "job_stop", "run", "start")

ENVIRONMENT = {
    "TERM": "dumb",
    "NO_COLOR": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "PYTHONUNBUFFERED": "1",
    "LANG": "C.UTF-8",
    # A mounted workspace often belongs to another user than the sandbox's; git would refuse it as "dubious ownership".
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}
"""Laid over the environment of every command: no colours, no pagers, nothing that waits for a person."""

_SPILL_DIRECTORY = "/tmp/pydantic-ai-console"  # noqa: S108 — a path inside the sandbox
"""Where a sandbox puts output that does not fit: beside the workspace, so that it goes when the sandbox goes."""
_OWN_DIRECTORY = ".console"
"""The same under the working directory, for workspaces that may have no other place; ignored by git."""
_SPILLS_KEPT = 4
"""Files of spilled output that stay; older ones are removed. They are up to 16 MiB each, `/tmp` often 256 MiB."""
_LONGEST_WAIT = 300.0
_SMALL = 64 * 1024
"""Characters of output that are rendered without a detour over a thread."""

_T = TypeVar("_T")


async def run(place: Place, command: str, *, timeout: float, limit: int, notes: Sequence[str] = ()) -> str:
    """Run a shell command to its end and report it in at most `limit` characters."""
    if isinstance(place.backend, SupportsExecution):
        directory = _SPILL_DIRECTORY
        spill = posixpath.join(directory, _spill_name())
        execution = await place.backend.execute(command, shell=True, env=ENVIRONMENT, timeout=timeout, spill=spill)
    else:
        execution = await _run_to_end(place.workspace, command, timeout)
        directory = posixpath.join(execution.cwd, _OWN_DIRECTORY)
    report = await _report(execution, limit, notes)
    if report.clipped and not execution.spilled_to and _is_whole(execution):
        # Short enough for the backend to keep all of it, too long to be shown.
        execution = replace(execution, spilled_to=await _spill(place.workspace, execution, directory))
        report = await _report(execution, limit, notes)
    if execution.spilled_to:
        await _remove_old_spills(place.workspace, posixpath.dirname(execution.spilled_to))
    return report.text


def _is_whole(execution: Execution) -> bool:
    return not (execution.stdout.omitted or execution.stderr.omitted)


async def _report(execution: Execution, limit: int, notes: Sequence[str]) -> reports.Report:
    streams = (execution.stdout, execution.stderr)
    if sum(len(stream.head) + len(stream.tail) for stream in streams) <= _SMALL:
        return reports.command(execution, limit=limit, notes=notes)
    return await asyncio.to_thread(reports.command, execution, limit=limit, notes=notes)


async def _run_to_end(workspace: Workspace, command: str, timeout: float) -> Execution:
    """Run on the frozen protocol, where an end other than an exit is an exception that holds what was printed."""
    cwd = await workspace.working_dir()
    started = monotonic()

    def ended(exit_code: int, stdout: str, stderr: str) -> Execution:
        return Execution(
            exit_code=exit_code,
            cause="exit",
            stdout=BoundedText(head=stdout),
            stderr=BoundedText(head=stderr),
            duration=monotonic() - started,
            cwd=cwd,
        )

    try:
        result = await workspace.run(command, shell=True, env=ENVIRONMENT, timeout=timeout)
    except WorkspaceTimeoutError as error:
        return replace(ended(124, error.stdout, error.stderr), cause="timeout", duration=timeout)
    except WorkspaceOutputLimitError as error:
        return replace(ended(137, error.stdout, error.stderr), cause="output_limit", limit=size(error.limit))
    return ended(result.exit_code, result.stdout, result.stderr)


async def _spill(workspace: Workspace, execution: Execution, directory: str) -> str | None:
    """Save what was captured; its path, or `None` when that is impossible."""
    path = posixpath.join(directory, _spill_name())
    try:
        if directory != _SPILL_DIRECTORY:
            await workspace.write_bytes(posixpath.join(directory, ".gitignore"), b"*\n")
        await workspace.write_bytes(path, reports.raw_output(execution).encode("utf-8", "replace"))
    except WorkspaceUnavailableError:
        raise
    except (WorkspaceError, OSError):
        return None
    return path


def _spill_name() -> str:
    # Names sort by age, and no two commands share one.
    return f"output-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}.log"


async def _remove_old_spills(workspace: Workspace, directory: str) -> None:
    try:
        names = sorted(entry.name for entry in await workspace.list_dir(directory) if entry.name.startswith("output-"))
        for name in names[:-_SPILLS_KEPT]:
            await workspace.remove(posixpath.join(directory, name))
    except WorkspaceUnavailableError:
        raise
    except (WorkspaceError, OSError):
        return  # a parallel command was quicker, or somebody made the directory theirs


def _jobs(place: Place) -> SupportsJobs:
    if not isinstance(place.backend, SupportsJobs):
        raise ModelRetry("this workspace cannot run commands in the background")
    return place.backend


async def start(place: Place, command: str, *, tools: frozenset[str]) -> str:
    """Start a command in the background."""
    job = await _jobs(place).start_job(command, shell=True, env=ENVIRONMENT)
    return reports.job_started(job.id, command, tools=tools)


async def job_output(place: Place, state: RunState, job_id: str, *, cursor: int | None, wait: float, limit: int) -> str:
    """What a job printed since `cursor`, by default since this run last looked."""
    start = state.cursors.get(job_id, 0) if cursor is None else cursor
    if start < 0:
        raise ModelRetry("cursor must not be negative")
    wait = min(max(wait, 0.0), _LONGEST_WAIT)
    read = await _of_job(place, job_id, lambda job: job.output(start, limit=limit - 500, wait=wait))
    text, state.cursors[job_id] = reports.job_printed(read, limit=limit)
    return text


async def job_input(place: Place, job_id: str, text: str, *, close: bool) -> str:
    """Write to a job's standard input."""
    data = text.encode()
    try:
        await _of_job(place, job_id, lambda job: job.write(data, close=close))
    except BrokenPipeError:
        info = await _of_job(place, job_id, lambda job: job.info())
        return reports.job_deaf(info)
    return reports.job_fed(job_id, len(data), closed=close)


async def job_stop(place: Place, job_id: str) -> str:
    """Kill a job's process tree."""
    return reports.job_stopped(await _of_job(place, job_id, lambda job: job.stop()))


async def _of_job(place: Place, job_id: str, ask: Callable[[Job], Awaitable[_T]]) -> _T:
    """An answer of a job.

    Raises:
        ModelRetry: There is no such job; the message names those there are.
    """
    jobs = _jobs(place)
    try:
        return await ask(jobs.job(job_id))
    except LookupError as error:
        known = reports.jobs_known(await jobs.jobs())
        raise ModelRetry(f"no job {inline(job_id)!r}; {known}") from error
