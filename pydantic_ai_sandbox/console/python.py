"""Running Python in an interpreter that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.messages import BinaryContent

from ..interpreter import Interpreter
from ..protocols import SupportsDial
from . import cells
from .commands import ENVIRONMENT
from .place import Place
from .state import RunState

__all__ = ("run",)


async def run(
    place: Place,
    state: RunState,
    code: str,
    *,
    name: str,
    timeout: float,
    restart: bool,
    limit: int,
    notes: Sequence[str] = (),
) -> str | list[str | BinaryContent]:
    """Run a cell and report it in at most `limit` characters, with the figures it left open; `restart` comes before it."""
    interpreter = _interpreter(place, state, name)
    if restart:
        await interpreter.restart()
        if not code.strip():
            return cells.restarted()
    result = await interpreter.run(code, timeout=timeout)
    # What a cell printed takes some time to clean.
    report = await asyncio.to_thread(cells.cell, result, limit=limit, notes=notes)
    return [report, *result.images] if result.images else report


def _interpreter(place: Place, state: RunState, name: str) -> Interpreter:
    if not isinstance(place.backend, SupportsDial):
        raise ModelRetry("this workspace has no Python interpreter")
    if state.interpreter is None or state.interpreter[0] is not place.backend:
        state.interpreter = (place.backend, Interpreter(place.backend, name=name, env=ENVIRONMENT))
    return state.interpreter[1]
