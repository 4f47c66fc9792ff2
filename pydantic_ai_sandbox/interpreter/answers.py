"""What an interpreter answers, as typed values.

Whoever answers is hostile: it may be any program in the sandbox. Every line has a longest size and a latest time, any
conversion may fail on any answer, and all of that is one error.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast, get_args

from ..errors import InterpreterError
from ..protocols import BoundedText, ByteStream
from .cells import CellError, CellResult, CellStatus, InterpreterState, KernelDeath, StopReason
from .pictures import picture

__all__ = ("Answers", "cell_result", "interpreter_state", "well_formed")

_LONGEST = 16 * 1024 * 1024
"""Bytes of an answer that we are ready to hold: a few images and the ends of some text."""
_SMALL = 64 * 1024
"""Bytes that are parsed without a detour over a thread."""
_MOST_TEXT = 256 * 1024
"""Characters of one text in an answer."""
_MOST_IMAGES = 16

T = TypeVar("T")


class Answers:
    """The lines that come over a connection."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def next(self, within: float) -> dict[str, Any]:
        """The next line, which has to come within so many seconds.

        Raises:
            InterpreterError: It did not come, is too long, is not what it should be, or says that something failed.
        """
        line = await self._line(time.monotonic() + within, within)
        answer = await asyncio.to_thread(_parsed, line) if len(line) > _SMALL else _parsed(line)
        if "failure" in answer:
            raise InterpreterError(f"the interpreter failed: {str(answer['failure'])[:2000]}")
        return answer

    async def event(self, name: str, within: float) -> None:
        """The next line, which has to be that event."""
        if (await self.next(within)).get("event") != name:
            raise InterpreterError("the interpreter's answer is malformed (not the event that belongs here)")

    async def _line(self, deadline: float, within: float) -> bytes:
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > _LONGEST:
                raise InterpreterError("the interpreter's answer is larger than any that it can give")
            self._received += await self._piece(deadline - time.monotonic(), within)
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    async def _piece(self, left: float, within: float) -> bytes:
        try:
            async with asyncio.timeout(left):
                piece = await self._stream.read()
        except TimeoutError:
            raise InterpreterError(
                f"the interpreter did not answer within {within:g} s; if it never does, end its processes (`kill_all`)"
            ) from None
        except ConnectionResetError:
            piece = b""
        if not piece:
            raise InterpreterError(
                "the interpreter ended without an answer, and what was defined in it is gone; the next cell starts a new one"
            )
        return piece


def _parsed(line: bytes) -> dict[str, Any]:
    with well_formed():
        answer: object = json.loads(line.decode("utf-8", "surrogatepass"))
        if not isinstance(answer, dict):
            raise TypeError("not an object")
        return cast("dict[str, Any]", answer)


@contextmanager
def well_formed() -> Generator[None]:
    """Make any failure to convert an answer an `InterpreterError`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise InterpreterError(f"the interpreter's answer is malformed ({type(error).__name__})") from error


def cell_result(answer: Mapping[str, Any]) -> CellResult:
    """How a cell ended."""
    killed = answer["status"] == "killed"
    status: CellStatus = "interrupted" if killed else _one_of(CellStatus, answer["status"])
    death, lost = _death(answer["death"]), _death(answer["lost"])
    images = [picture(_text(image["type"], 100), image["data"]) for image in answer["images"][:_MOST_IMAGES]]
    return CellResult(
        status=status,
        execution_count=_count(answer["cells"]),
        duration=_seconds(answer["duration"]),
        stdout=_bounded(answer["stdout"]),
        stderr=_bounded(answer["stderr"]),
        result=_bounded(answer["result"]),
        error=_error(answer["error"]),
        images=[image for image in images if image is not None],
        images_omitted=_count(answer["images_omitted"]) + images.count(None),
        stopped=None if answer["stopped"] is None else _one_of(StopReason, answer["stopped"]),
        state_kept=not (killed or status == "died" or lost),
        death=death,
        lost=lost,
    )


def interpreter_state(answer: Mapping[str, Any]) -> InterpreterState:
    """How an interpreter stands."""
    state = _one_of(Literal["starting", "idle", "busy", "dead"], answer["state"])
    return InterpreterState(state=state, cells=_count(answer["cells"]), queued=_count(answer["queued"]))


def _text(value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value[:limit]


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError("not a number of anything")
    return value


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError("not a duration")
    return seconds


def _one_of(kind: Any, value: Any) -> Any:
    if value not in get_args(kind):
        raise ValueError("unknown word")
    return value


def _bounded(value: Any) -> BoundedText:
    return BoundedText(
        head=_text(value["head"], _MOST_TEXT), tail=_text(value["tail"], _MOST_TEXT), omitted=_count(value["omitted"])
    )


def _error(value: Any) -> CellError | None:
    if value is None:
        return None
    return CellError(
        name=_text(value["name"], 200), message=_text(value["message"], 4096), traceback=_bounded(value["traceback"])
    )


def _death(value: Any) -> KernelDeath | None:
    if value is None:
        return None
    signal = value["signal"]
    return KernelDeath(
        exit_code=_count(value["exit_code"]),
        signal=None if signal is None else _text(signal, 40),
        out_of_memory=bool(value["out_of_memory"]),
        memory_limit=_count(value["memory_limit"]),
    )
