"""What is known of a cell after it ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic_ai.messages import BinaryContent

from ..protocols import BoundedText

__all__ = ("CellError", "CellResult", "CellStatus", "InterpreterState", "KernelDeath", "StopReason")

CellStatus: TypeAlias = Literal["ok", "error", "interrupted", "died"]
"""How a cell ended: by itself, by an exception, because somebody or its timeout stopped it, or with its kernel."""

StopReason: TypeAlias = Literal["timeout", "interrupt", "restart", "cancelled"]
"""Why a cell was stopped."""


@dataclass(frozen=True, kw_only=True)
class CellError:
    """An exception that ended a cell."""

    name: str
    """Its class."""
    message: str
    traceback: BoundedText
    """Where it came from, as text."""


@dataclass(frozen=True, kw_only=True)
class KernelDeath:
    """How a kernel ended that nobody had told to."""

    exit_code: int
    """Its exit code, or 128 + the signal's number."""
    signal: str | None = None
    """Name of the signal that killed it (`"SIGSEGV"`)."""
    out_of_memory: bool = False
    """Whether it was killed because the sandbox had no memory left."""
    memory_limit: int = 0
    """Bytes that the sandbox may use, 0 if unknown."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """How a cell ended and what it produced, bounded; no outcome of the code itself is an exception."""

    status: CellStatus
    """How it ended."""
    execution_count: int
    """Its number, from 1 in every kernel: what `In [3]` says."""
    duration: float
    """Seconds it ran, as measured beside the kernel; the time it waited for its turn is not in there."""
    stdout: BoundedText = field(default_factory=lambda: BoundedText(head=""))
    """What it printed or displayed as text."""
    stderr: BoundedText = field(default_factory=lambda: BoundedText(head=""))
    """What it wrote to standard error, warnings among it."""
    result: BoundedText = field(default_factory=lambda: BoundedText(head=""))
    """The value of its last expression as text, empty when that is `None`."""
    error: CellError | None = None
    """The exception that ended it."""
    images: Sequence[BinaryContent] = ()
    """Figures and other images that it displayed, in order."""
    images_omitted: int = 0
    """Images left out: too many, too large, or none."""
    stopped: StopReason | None = None
    """Why it was interrupted."""
    state_kept: bool = True
    """Whether what earlier cells defined is still there. Not after the kernel died or had to be killed, which is made up
    for by a new one."""
    death: KernelDeath | None = None
    """How the kernel ended under this cell, if it did."""
    lost: KernelDeath | None = None
    """How the kernel of the cells before had ended, if it died unnoticed: this cell ran in a new one."""

    @property
    def is_first(self) -> bool:
        """Whether it was the first cell of its kernel, so that nothing was defined before it."""
        return self.execution_count == 1


@dataclass(frozen=True, kw_only=True)
class InterpreterState:
    """An interpreter at one moment."""

    state: Literal["absent", "starting", "idle", "busy", "dead"]
    """`absent`: never started here, or shut down; `dead`: its kernel ended, and the next cell starts a new one."""
    cells: int = 0
    """Cells that its kernel has begun."""
    queued: int = 0
    """Cells that wait for their turn."""
