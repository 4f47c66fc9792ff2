"""Answers about commands and jobs: every text their tools return, as pure functions of what a workspace said.

The last line of each is ours and says how the command or job stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..protocols import Execution, JobInfo, JobOutput
from .text import clip, count, duration, inline, shares, status

__all__ = (
    "Report",
    "command",
    "job_deaf",
    "job_fed",
    "job_printed",
    "job_started",
    "job_stopped",
    "jobs_known",
    "raw_output",
)

_LISTED_JOBS = 20


@dataclass(frozen=True)
class Report:
    """An answer about a command, and whether output is missing from it."""

    text: str
    clipped: bool


def command(execution: Execution, *, limit: int, notes: Sequence[str] = ()) -> Report:
    """What a command printed, and the line `[exit 0 · 1.2 s · /workspace]` that says how it ended, in `limit` characters.

    Standard error is labelled only when there is text on both streams.
    """
    ran = duration(execution.duration) if execution.cause != "timeout" else ""
    last = status(_ending(execution), ran, *notes, inline(execution.cwd, 200))
    saved = f"output saved to {inline(execution.spilled_to)}" if execution.spilled_to else ""
    limit = max(200, limit - len(last) - 2 * (len(saved) + 60))

    def marker(omitted: int) -> str:
        return f"[… {omitted:,} bytes omitted{'; ' if saved else ''}{saved} …]"

    streams = (execution.stdout, execution.stderr)
    allotted = shares([len(stream.head) + len(stream.tail) for stream in streams], limit)
    stdout, stderr = (
        clip(stream.head, stream.tail, stream.omitted, share, marker)
        for stream, share in zip(streams, allotted, strict=True)
    )
    label = "[stderr]" if stdout.text and stderr.text else ""
    body = [part for part in (stdout.text, label, stderr.text) if part] or ["(no output)"]
    clipped = bool(stdout.omitted or stderr.omitted)
    # What was too long to keep can be short enough to show once progress bars have collapsed.
    extra = [] if clipped or not saved else [f"[… {saved} …]"]
    return Report("\n".join([*body, *extra, last]), clipped)


def _ending(execution: Execution) -> str:
    limit = f": {execution.limit}" if execution.limit else ""
    match execution.cause:
        case "exit":
            return f"exit {execution.exit_code}"
        case "signal":
            return f"killed by {execution.signal or 'a signal'}, exit {execution.exit_code}"
        case "timeout":
            return f"timed out after {duration(execution.duration)}; process tree killed"
        case "cancelled":
            return "cancelled; process tree killed"
        case "output_limit":
            return f"stopped at the output limit{limit}; process tree killed"
        case "out_of_memory":
            return f"killed: out of memory{limit}, exit {execution.exit_code}"
        case "too_many_processes":
            return f"exit {execution.exit_code}, too many processes{limit}"
        case "disk_quota":
            return f"stopped: the workspace is over its quota{limit}; delete files to go on"


def raw_output(execution: Execution) -> str:
    """All that was captured, for a file."""
    parts = [execution.stdout.head + execution.stdout.tail, execution.stderr.head + execution.stderr.tail]
    return "\n[stderr]\n".join(part for part in parts if part)


def job_started(job_id: str, command_line: str, *, tools: frozenset[str]) -> str:
    """The answer for a command that went to the background."""
    uses = {"job_output": "read its output", "job_input": "write to its standard input", "job_stop": "stop it"}
    hints = ", ".join(f"{name} to {use}" for name, use in uses.items() if name in tools)
    return "\n".join(
        [
            f"Started in the background: {inline(command_line)}",
            status(f"job {inline(job_id)}", "running", f"use {hints}" if hints else ""),
        ]
    )


def job_printed(read: JobOutput, *, limit: int) -> tuple[str, int]:
    """What a job printed since the cursor and how it stands, and the cursor after what is shown."""
    is_all = not read.job.running and read.cursor >= read.job.output
    data = read.data if is_all else _whole_characters(read.data)
    cursor = read.cursor - (len(read.data) - len(data))
    clipped = clip(data.decode("utf-8", "replace"), "", 0, limit - 300, lambda n: f"[… {n:,} bytes omitted …]")
    skipped = [f"[… {read.skipped:,} bytes are no longer kept …]"] if read.skipped else []
    body = [clipped.text] if clipped.text else [] if skipped else ["(no new output)"]
    more = max(0, read.job.output - cursor)
    last = status(
        f"job {inline(read.job.id)}", _job_state(read.job), f"cursor={cursor}", f"{more:,} more bytes" if more else ""
    )
    return "\n".join([*skipped, *body, last]), cursor


def _whole_characters(data: bytes) -> bytes:
    """`data` without the beginning of a character or an escape sequence that the next read completes."""
    escape = data.rfind(b"\x1b", max(0, len(data) - 32))
    if escape > 0 and not any(0x40 <= byte <= 0x7E and byte not in b"[" for byte in data[escape + 1 :]):
        return data[:escape]
    for back in range(1, min(4, len(data))):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < needed else data
        if byte < 0x80:
            break
    return data


def _job_state(job: JobInfo) -> str:
    ran = duration(job.duration)
    if job.running:
        return f"running for {ran}"
    match job.cause:
        case "signal":
            how = f"killed by {job.signal or 'a signal'}"
        case "cancelled":
            how = "stopped"
        case "out_of_memory":
            how = "killed: out of memory"
        case "too_many_processes":
            how = f"exit {job.exit_code}, too many processes"
        case "disk_quota":
            how = "stopped over the workspace's quota"
        case _:
            how = f"exit {job.exit_code}"
    return f"{how} after {ran}"


def job_stopped(job: JobInfo) -> str:
    """The answer for a job that was stopped, or had ended before."""
    return status(f"job {inline(job.id)}", _job_state(job), count(job.output, "byte") + " printed")


def jobs_known(jobs: Sequence[JobInfo]) -> str:
    """The jobs there are, for a message about one that is not."""
    if not jobs:
        return "there are no jobs"
    shown = [f"{inline(job.id)} ({_job_state(job)}: {inline(job.command, 80)})" for job in jobs[:_LISTED_JOBS]]
    return f"jobs: {'; '.join(shown)}" + (f"; … {len(jobs) - _LISTED_JOBS} more" if len(jobs) > _LISTED_JOBS else "")


def job_fed(job_id: str, written: int, *, closed: bool) -> str:
    """The answer for input that a job took."""
    return status(
        f"job {inline(job_id)}", f"{count(written, 'byte')} written", "standard input closed" if closed else ""
    )


def job_deaf(job: JobInfo) -> str:
    """The answer for input that a job did not take."""
    why = "has closed its standard input" if job.running else "has ended"
    return f"Nothing written: the job {why}\n{status(f'job {inline(job.id)}', _job_state(job))}"
