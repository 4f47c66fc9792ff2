"""What the runner answers, as typed values.

The sender is hostile: any conversion here may fail on any answer, and `well_formed` around it makes that one error. Text
is checked, since it travels on to callers; numbers are used as such.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ..errors import ChannelError
from ..protocols import CauseOfDeath, GlobMatch, GlobResult, GrepLine, GrepResult, JobInfo, JobOutput, TextRange
from .sinks import Collector

__all__ = (
    "Captured",
    "DiskUse",
    "Ended",
    "FileStat",
    "Usage",
    "answered_job",
    "captured",
    "content",
    "ended",
    "file_stat",
    "glob_result",
    "grep_result",
    "job",
    "job_output",
    "nothing",
    "rows",
    "text",
    "text_range",
    "usage",
    "well_formed",
    "written",
)

_CAUSES = frozenset(get_args(CauseOfDeath))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    exit_code: int
    cause: CauseOfDeath
    signal: str | None
    duration: float


@dataclass(frozen=True, slots=True)
class Captured:
    """A command's end with what was kept of its output; `*_head` is how many bytes of it are the beginning."""

    ended: Ended
    stdout: bytes
    stdout_head: int
    stdout_total: int
    stderr: bytes
    stderr_head: int
    stderr_total: int
    spilled: bool


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a path is, following symbolic links."""

    kind: Literal["file", "dir", "other"]
    size: int
    mode: int
    modified: float
    is_link: bool


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a working directory holds, and may hold; bytes."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox uses at one moment; limits are `None` where there is none."""

    memory: int
    """Bytes charged to it, page cache included."""
    memory_limit: int | None
    pids: int
    """Processes and threads."""
    pids_limit: int | None
    cpu: float
    """Seconds of processor time used so far."""
    oom_kills: int
    """Processes killed for memory so far."""
    runner_rss: int
    """Bytes of memory the runner itself occupies."""
    uptime: float
    """Seconds since it started."""
    idle: float
    """Seconds since it was last used."""
    jobs: int
    """Background jobs that run."""
    commands: int
    """Commands that run."""
    disk_total: int
    """Bytes of the file system under the working directory."""
    disk_free: int
    quota: DiskUse | None
    """What the working directory holds, if the runner watches that."""


@contextmanager
def well_formed() -> Generator[None]:
    """Make any failure to convert an answer a `ChannelError`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ChannelError(f"the runner's answer is malformed ({type(error).__name__})") from error


def text(value: Any) -> str:
    """A string, which an answer must be where one is expected."""
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def rows(answer: Collector) -> list[Any]:
    """The rows of a list that came as data; the first column of each is text."""
    rows: object = json.loads(answer.data)
    if not isinstance(rows, list):
        raise TypeError("not a list")
    rows = cast("list[Any]", rows)
    for row in rows:
        if not isinstance(row[0], str):
            raise TypeError("not a name")
    return rows


def nothing(result: Mapping[str, Any], answer: Collector) -> None:
    """The answer says nothing but that it worked."""


def ended(result: Mapping[str, Any]) -> Ended:
    """The end of a command."""
    if result["cause"] not in _CAUSES:
        raise ValueError("unknown cause")
    return Ended(
        int(result["exit_code"]), result["cause"], _optional_text(result.get("signal")), result["duration"] / 1000
    )


def _optional_text(value: Any) -> str | None:
    return None if value is None else text(value)


def captured(result: Mapping[str, Any], answer: Collector) -> Captured:
    """The end of a command whose output was kept."""
    stdout, stderr = result["stdout"], result["stderr"]
    return Captured(
        ended=ended(result),
        stdout=bytes(answer.data),
        stdout_head=int(stdout["head"]),
        stdout_total=int(stdout["total"]),
        stderr=bytes(answer.stderr),
        stderr_head=int(stderr["head"]),
        stderr_total=int(stderr["total"]),
        spilled=bool(result.get("spill")),
    )


def job(found: Mapping[str, Any]) -> JobInfo:
    """A job's state."""
    end = None if found["running"] else ended(found)
    return JobInfo(
        id=text(found["id"]),
        command=text(found["command"]),
        running=end is None,
        started=found["started"] / 1000,
        duration=found["duration"] / 1000,
        output=int(found["output"]),
        exit_code=end and end.exit_code,
        cause=end and end.cause,
        signal=end and end.signal,
    )


def answered_job(result: Mapping[str, Any], answer: Collector) -> JobInfo:
    """The job in an answer."""
    return job(result["job"])


def job_output(result: Mapping[str, Any], answer: Collector) -> JobOutput:
    """A piece of a job's output."""
    return JobOutput(
        data=bytes(answer.data),
        cursor=int(result["cursor"]),
        skipped=int(result["skipped"]),
        job=job(result["job"]),
    )


def content(result: Mapping[str, Any], answer: Collector) -> tuple[int, bytearray, str | None]:
    """A file's size, the part of it that came, and its version if that was asked for."""
    return int(result["size"]), answer.data, _optional_text(result.get("version"))


def text_range(result: Mapping[str, Any], answer: Collector) -> TextRange:
    """Lines of a file."""
    binary, data = bool(result["binary"]), bytes(answer.data)
    return TextRange(
        lines=() if binary or not result["count"] else data.split(b"\n"),
        first=int(result["first"]),
        total=int(result["lines"]),
        size=int(result["size"]),
        version=text(result["version"]),
        cut={int(number): int(length) for number, length in result["cut"]},
        newline=bool(result["newline"]),
        binary=binary,
        head=data if binary else b"",
    )


def written(result: Mapping[str, Any], answer: Collector) -> tuple[str, bool]:
    """A written file's version, and whether it was created."""
    return text(result["version"]), bool(result["created"])


def file_stat(result: Mapping[str, Any], answer: Collector) -> FileStat:
    """What a path is."""
    if result["type"] not in ("file", "dir", "other"):
        raise ValueError("unknown type")
    return FileStat(
        kind=result["type"],
        size=int(result["size"]),
        mode=int(result["mode"]),
        modified=result["mtime"] / 1000,
        is_link=bool(result["link"]),
    )


def glob_result(result: Mapping[str, Any], answer: Collector) -> GlobResult:
    """Paths that matched."""
    return GlobResult(
        matches=[
            GlobMatch(path=path, is_dir=kind == "d", size=int(size), modified=mtime / 1000)
            for path, kind, size, mtime in rows(answer)
        ],
        total=int(result["total"]),
        timed_out=bool(result["timed_out"]),
    )


def grep_result(mode: str, result: Mapping[str, Any], answer: Collector) -> GrepResult:
    """Lines or files that matched."""
    lines: list[GrepLine] = []
    files: dict[str, int] = {}
    if mode == "content":
        lines = [
            GrepLine(path=path, number=int(number), text=text(line), is_match=bool(is_match), length=int(length))
            for path, number, line, is_match, length in rows(answer)
        ]
    elif mode == "count":
        files = {path: int(count) for path, count in rows(answer)}
    else:
        files = {path: 0 for (path,) in rows(answer)}
    return GrepResult(
        lines=lines, files=files, truncated=bool(result["truncated"]), timed_out=bool(result["timed_out"])
    )


def _limit(value: Any) -> int | None:
    return None if value is None else int(value)


def retired(result: Mapping[str, Any], answer: Collector) -> bool:
    """Whether the container ends."""
    return bool(result["retired"])


def usage(result: Mapping[str, Any], answer: Collector) -> Usage:
    """What a sandbox uses."""
    return Usage(
        memory=int(result["memory"]),
        memory_limit=_limit(result["memory_limit"]),
        pids=int(result["pids"]),
        pids_limit=_limit(result["pids_limit"]),
        cpu=result["cpu"] / 1e9,
        oom_kills=int(result["oom_kills"]),
        runner_rss=int(result["runner_rss"]),
        uptime=result["uptime"] / 1000,
        idle=result["idle"] / 1000,
        jobs=int(result["jobs"]),
        commands=int(result["commands"]),
        disk_total=int(result["disk"]["total"]),
        disk_free=int(result["disk"]["free"]),
        quota=_quota(result.get("quota")),
    )


def _quota(value: Any) -> DiskUse | None:
    return None if value is None else DiskUse(used=int(value["used"]), limit=int(value["limit"]))
