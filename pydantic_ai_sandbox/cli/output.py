"""What people read on a terminal or in a log."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

import typer
from rich.console import Console

from ..errors import ImageBuildError, SandboxError

__all__ = ("failures", "new_console", "printable")

_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_LOG_WIDTH = 200
"""Columns of a log, which has no width of its own."""


def new_console() -> Console:
    """A console on standard output."""
    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=_LOG_WIDTH)


def printable(line: str) -> str:
    """A line without what could steer a terminal: builds and containers print what they like."""
    return _UNPRINTABLE.sub("", line)


@contextmanager
def failures(status: int = 1) -> Generator[None]:
    """End with a message, and an exit status, instead of a traceback."""
    try:
        yield
    except SandboxError as error:
        log = error.log_tail if isinstance(error, ImageBuildError) else ""
        typer.echo("\n".join(printable(line) for line in [*log.splitlines(), f"error: {error}"]), err=True)
        raise typer.Exit(status) from None
