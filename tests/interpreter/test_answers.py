"""Whatever comes from an interpreter is a value of the right type or an `InterpreterError`, in bounded memory and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydantic_ai_sandbox.errors import InterpreterError
from pydantic_ai_sandbox.interpreter.answers import Answers, cell_result, interpreter_state, well_formed
from pydantic_ai_sandbox.interpreter.cells import CellResult, InterpreterState

pytestmark = pytest.mark.anyio

TEXT = {"head": "a", "tail": "b", "omitted": 3}
EMPTY = {"head": "", "tail": "", "omitted": 0}

CELL: dict[str, Any] = {
    "status": "ok",
    "cells": 3,
    "duration": 0.5,
    "stdout": TEXT,
    "stderr": EMPTY,
    "result": EMPTY,
    "error": None,
    "images": [],
    "images_omitted": 0,
    "stopped": None,
    "death": None,
    "lost": None,
}
DEATH = {"signal": "SIGSEGV", "exit_code": 139, "out_of_memory": False, "memory_limit": 0}


class Pieces:
    """A connection over which pieces come, and then nothing or the end."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self.pieces = list(pieces)
        self.ends = ends
        self.read_bytes = 0

    async def read(self) -> bytes:
        if not self.pieces and not self.ends:
            await asyncio.sleep(3600)
        piece = self.pieces.pop(0) if self.pieces else b""
        self.read_bytes += len(piece)
        return piece

    async def write(self, data: bytes) -> None: ...

    async def close_write(self) -> None: ...


def parsed(answer: Any) -> CellResult:
    with well_formed():
        return cell_result(answer)


def test_a_cell_is_what_was_said() -> None:
    result = parsed(
        {**CELL, "status": "error", "error": {"name": "ValueError", "message": "no", "traceback": TEXT}, "cells": 7}
    )
    assert (result.status, result.execution_count, result.duration) == ("error", 7, 0.5)
    assert (result.stdout.head, result.stdout.tail, result.stdout.omitted) == ("a", "b", 3)
    assert result.error is not None
    assert (result.error.name, result.error.message, result.error.traceback.omitted) == ("ValueError", "no", 3)


@pytest.mark.parametrize(
    ("answer", "status", "kept"),
    [
        ({}, "ok", True),
        ({"status": "interrupted", "stopped": "timeout"}, "interrupted", True),
        ({"status": "killed", "stopped": "timeout"}, "interrupted", False),
        ({"status": "died", "death": DEATH}, "died", False),
        ({"lost": DEATH}, "ok", False),
    ],
)
def test_the_state_is_kept_unless_a_kernel_ended(answer: dict[str, Any], status: str, kept: bool) -> None:
    result = parsed({**CELL, **answer})
    assert (result.status, result.state_kept) == (status, kept)


def test_images_that_are_none_are_counted_as_left_out() -> None:
    images = [{"type": "image/png", "data": "AAAA"}, {"type": "text/html", "data": "AAAA"}]
    result = parsed({**CELL, "images": images, "images_omitted": 2})
    assert (result.images, result.images_omitted) == ([], 4)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {**CELL, "status": "fine"},
        {**CELL, "status": ["ok"]},
        {**CELL, "cells": -1},
        {**CELL, "cells": "3"},
        {**CELL, "cells": 1e300},
        {**CELL, "duration": "x"},
        {**CELL, "duration": float("nan")},
        {**CELL, "duration": float("inf")},
        {**CELL, "duration": -1},
        {**CELL, "stdout": "text"},
        {**CELL, "stdout": {"head": 1, "tail": "", "omitted": 0}},
        {**CELL, "stdout": {"head": "", "tail": "", "omitted": None}},
        {**CELL, "images": 5},
        {**CELL, "images": [None]},
        {**CELL, "images": [{"type": "image/png", "data": 7}]},
        {**CELL, "images_omitted": None},
        {**CELL, "stopped": "because"},
        {**CELL, "stopped": {}},
        {**CELL, "death": "SIGSEGV"},
        {**CELL, "death": {**DEATH, "exit_code": "139"}},
        {**CELL, "death": {**DEATH, "signal": 11}},
        {**CELL, "error": {"name": "ValueError"}},
        {**CELL, "error": []},
    ],
)
def test_what_makes_no_sense_is_one_typed_error(answer: dict[str, Any]) -> None:
    with pytest.raises(InterpreterError, match="malformed"):
        parsed(answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CELL, *TEXT, *DEATH]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*CELL, "state", "queued"]), JSON))
def test_anything_is_a_value_or_that_error(said: dict[str, Any]) -> None:
    for convert in (cell_result, interpreter_state):
        try:
            with well_formed():
                assert isinstance(convert({**CELL, **said}), CellResult | InterpreterState)
        except InterpreterError:
            pass


def test_a_long_text_is_cut_where_nothing_else_did() -> None:
    result = parsed({**CELL, "stdout": {"head": "x" * 10_000_000, "tail": "", "omitted": 0}})
    assert len(result.stdout.head) <= 256 * 1024


def test_a_state_is_what_was_said() -> None:
    assert interpreter_state({"state": "busy", "cells": 2, "queued": 1}) == InterpreterState(
        state="busy", cells=2, queued=1
    )


@pytest.mark.parametrize("pieces", [[b'{"a": 1}\n{"b": 2}\n'], [b'{"a"', b': 1}\n{"b": 2', b"}\n"]])
async def test_lines_come_whole_however_they_were_cut(pieces: Sequence[bytes]) -> None:
    answers = Answers(Pieces(*pieces))
    assert await answers.next(5) == {"a": 1}
    assert await answers.next(5) == {"b": 2}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (b"[1]\n", "malformed"),
        (b"null\n", "malformed"),
        (b"[" * 100_000 + b"\n", "malformed"),
        (b"1" * 10_000 + b"\n", "malformed"),
        (b"", "ended without an answer"),
        (b'{"half": ', "ended without an answer"),
        (b'{"failure": "no memory"}\n', "no memory"),
        (b'{"failure": {"a": []}}\n', "failed"),
    ],
)
async def test_a_line_that_is_no_answer_is_a_typed_error(line: bytes, says: str) -> None:
    with pytest.raises(InterpreterError, match=says):
        await Answers(Pieces(line)).next(5)


async def test_a_line_without_an_end_is_given_up_early() -> None:
    stream = Pieces(*[bytes(256 * 1024)] * 400)
    with pytest.raises(InterpreterError, match="larger"):
        await Answers(stream).next(60)
    assert stream.read_bytes < 20 * 1024 * 1024


async def test_silence_is_given_up_in_time_even_when_something_trickles() -> None:
    with pytest.raises(InterpreterError, match="did not answer"):
        await Answers(Pieces(b'{"a":', b" ", b" ", ends=False)).next(0.2)


async def test_an_event_is_the_one_that_belongs_there() -> None:
    await Answers(Pieces(b'{"event": "queued"}\n')).event("queued", 5)
    with pytest.raises(InterpreterError, match="malformed"):
        await Answers(Pieces(b'{"event": "started"}\n')).event("queued", 5)
