"""What the model is told about the tools: one description each, which names no tool that is not offered."""

# ruff: noqa: E501 — prose

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from .text import duration

__all__ = ("JOB_TOOLS", "PYTHON", "TOOL_NAMES", "Limits", "describe")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The numbers that descriptions and tools share."""

    timeout: float
    """Seconds a command may run unless the call says otherwise."""
    max_timeout: float
    """Seconds a command may run at most."""
    max_output: int
    """Characters of one answer."""


_FILE = "Paths are absolute or relative to the working directory. "

_TEMPLATES: Mapping[str, str] = {
    "run": (
        "Run a shell command (`/bin/sh -c`) in the working directory and wait for it. Every call is a process of its own: "
        "`cd`, variables and shell options do not last. Standard input is empty. "
        "Returns what it printed (standard error after a `[stderr]` line when both streams have text) and a last line like "
        "`[exit 0 · 1.2 s · /workspace]`; a non-zero exit is an ordinary result. "
        "Output over {max_output:,} characters loses its middle: a line `[… bytes omitted …]` says how much and names the file "
        "with all of it. The command is killed after `timeout` seconds ({timeout} by default, {max_timeout} at most); "
        "what it had printed is still returned.{background}"
    ),
    "read": (
        "Read a text file, or look at an image (PNG, JPEG, GIF, WebP). " + _FILE + "Returns lines as `number<tab>text`, up to `limit` of them "
        "from line `offset` on and {max_output:,} characters in all, lines over 2,000 characters cut; the last line says which "
        "lines these are and, if there are more, with which offset to continue. Other binary files are described by type, "
        "size and first bytes."
    ),
    "write": (
        "Create a file, or replace one as a whole; missing directories are made. " + _FILE + "Refused when the file changed since you last "
        "read it. Returns the number of lines and bytes and whether the file was created or overwritten."
    ),
    "edit": (
        "Replace exact text in a file. " + _FILE + "`old_string` must be in the file exactly once, whitespace and indentation included (without "
        "line numbers), unless `replace_all`. Encoding and line endings are kept. Refused when the file changed since you last "
        "read it. Returns the changed lines, numbered; on failure how often and where the text was found, or the nearest lines."
    ),
    "ls": (
        "List a directory: directories with a `/`, files with their size. " + _FILE + "Long listings end in `… N more`."
    ),
    "glob": (
        "Find files by name. `*` and `?` stay within one directory, `**` crosses directories, `{{a,b}}` and `[a-z]` work; a pattern "
        "without `/` matches the name at any depth. Leaves out what .gitignore names. Returns up to 100 paths, newest first "
        "where the workspace knows times (the last line says so), and how many matched."
    ),
    "grep": (
        "Search file contents, line by line, for a regular expression (RE2 syntax; `literal` for plain text). "
        "`output_mode`: `files_with_matches` (default) returns paths, `count` returns `path:count`, `content` returns "
        "`path:line:text` (`path-line-text` for lines of context). Leaves out binary files and what .gitignore names. "
        "Returns at most `head_limit` rows; the last line says whether there are more."
    ),
    "job_output": (
        "Read what a background job has printed (both streams) since you last read it, or from byte `cursor` on. `wait` waits up to that many "
        "seconds for new output or the job's end. The last line tells whether the job runs, how it ended, and the next cursor."
    ),
    "job_input": (
        "Write `text` to a background job's standard input, exactly as given: end it with a line feed to send a line. "
        "`close` then closes it (end of file)."
    ),
    "job_stop": "Stop a background job and all its processes. Stopping one that has ended changes nothing.",
    "python": (
        "Run Python code in an interpreter (IPython) that keeps variables, imports and functions from one call to the next; calls run one after "
        "the other. Returns what the code printed, the value of its last expression, standard error after a `[stderr]` line, a "
        "traceback if it failed, and a last line like `[ok · 0.02 s · In [3]]`; `In [1]` was a new interpreter, in which nothing "
        "was defined. Open matplotlib figures are returned as images: no `plt.show()`, no file. Output over {max_output:,} characters "
        "loses its middle: a line `[… bytes omitted …]` says how much. The code is interrupted after `timeout` seconds ({timeout} by default, "
        "{max_timeout} at most), and the last line says whether variables were kept. `restart` starts a new interpreter first. "
        "There is no standard input."
    ),
}  # fmt: skip

_BACKGROUND = " With `background` it returns at once with a job id, and the command goes on running{hints}."
JOB_TOOLS = frozenset({"job_output", "job_input", "job_stop"})
"""The tools for commands in the background."""
PYTHON = "python"
"""The tool that is offered only if asked for."""
_JOB_USES = {"job_output": "read its output", "job_input": "write to its standard input", "job_stop": "stop it"}

TOOL_NAMES = tuple(_TEMPLATES)
"""Every tool of the console, in the order in which they are offered."""


@cache
def describe(name: str, offered: frozenset[str], limits: Limits, *, background: bool) -> str:
    """The description of a tool, given the tools offered beside it and whether commands may go to the background."""
    hints = ", ".join(f"`{tool}` to {use}" for tool, use in _JOB_USES.items() if tool in offered)
    return _TEMPLATES[name].format(
        max_output=limits.max_output,
        timeout=duration(limits.timeout),
        max_timeout=duration(limits.max_timeout),
        background=_BACKGROUND.format(hints=f" (use {hints})" if hints else "") if background else "",
    )
