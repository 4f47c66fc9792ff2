"""An interpreter in a workspace, as its users see it."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from pydantic_ai.workspaces import CommandResult, SupportsCommands, SupportsFilesystem

from ..errors import InterpreterError, InterpreterMissingError
from ..protocols import ByteStream, SupportsDial
from .answers import Answers, cell_result, interpreter_state, well_formed
from .cells import CellResult, InterpreterState

__all__ = ("DEFAULT_NAME", "Interpreter", "check_name")

DEFAULT_NAME = "default"
"""The interpreter of a workspace that has only one."""

_PROTOCOL = 1
"""Part of the socket's name, so that workers of two versions of this package never meet at one."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,47}")

_MISSING = 3
"""Exit status of `inside/serve.py` in a Python without ipykernel."""
_NO_PROGRAM = (126, 127)

_LONGEST_CODE = 1024 * 1024
"""Characters of one cell."""

_START_WITHIN = 60.0
"""Seconds for Python to come up, on a machine that is busy."""
_ANSWER_WITHIN = 30.0
"""Seconds for an answer that takes no work."""
_TURN_WITHIN = 3600.0
"""Seconds that a cell waits for those before it."""
_GRACE = 30.0
"""Seconds from a cell's timeout to the answer: its interruption, or its kernel's end, lies between."""


@runtime_checkable
class _Home(SupportsDial, SupportsCommands, SupportsFilesystem, Protocol):
    """What a workspace has to be for an interpreter to live in it."""


class Interpreter:
    """A Python in a workspace that keeps its variables from one call to the next: a Jupyter kernel.

    Building it does no I/O. The first cell starts the kernel; it belongs to the workspace, outlives whoever started it, and
    every `Interpreter` of the same workspace and name is the same one, from whichever process. An idle kernel is no use
    of a sandbox, a running cell is. Cells of one kernel run one after the other, in the order of their calls.

    Args:
        workspace: A workspace that runs commands, has files and can be connected to (`SupportsDial`), such as a `Sandbox`.
        name: Which of the workspace's interpreters; each name is a kernel of its own.
        python: The Python that runs it, which needs the package `ipykernel`.
        env: Variables laid over the workspace's own, when the kernel is started.

    Raises:
        TypeError: The workspace lacks an ability.
        ValueError: No interpreter can have that name.
    """

    def __init__(
        self,
        workspace: SupportsDial,
        *,
        name: str = DEFAULT_NAME,
        python: str = "python3",
        env: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(workspace, _Home):
            raise TypeError(f"a `{type(workspace).__name__}` cannot be connected to, runs no commands, or has no files")
        check_name(name)
        self.name = name
        self._workspace = workspace
        self._python = python
        self._env = dict(env or {})
        self._address = f"@pydantic-ai-sandbox-interpreter-{_PROTOCOL}-{name}"
        self._orders: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def run(self, code: str, *, timeout: float = 120.0) -> CellResult:
        """Run a cell to its end, whatever that is.

        Being cancelled interrupts the cell.

        Args:
            code: Python, and IPython's magics.
            timeout: Seconds from its start after which it is interrupted; if it does not react to that for some seconds,
                the kernel is killed and replaced by a new one, without what was defined.

        Raises:
            InterpreterMissingError: There is no Python with ipykernel.
            InterpreterError: The kernel could not be started, or was ended from outside.
            ValueError: The timeout or the code cannot be.
            WorkspaceUnavailableError: The sandbox is gone.
        """
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
        if len(code) > _LONGEST_CODE:
            raise ValueError(f"a cell has at most {_LONGEST_CODE:,} characters; write more than that to a file")
        async with AsyncExitStack() as stack:
            async with self._order():
                answers = await stack.enter_async_context(self._asking(op="execute", code=code, timeout=timeout))
                await answers.event("queued", _ANSWER_WITHIN)
            await answers.event("started", _TURN_WITHIN)
            answer = await answers.next(timeout + _GRACE)
        with well_formed():
            return cell_result(answer)

    async def interrupt(self) -> bool:
        """Interrupt the cell that runs, if one does, as Ctrl-C would; returns whether one did."""
        answer = await self._asked("interrupt")
        return bool(answer and answer.get("interrupted"))

    async def restart(self) -> None:
        """Replace the kernel by a new one, in which nothing is defined; a cell that runs is ended."""
        async with self._asking(op="restart") as answers:
            await answers.next(_START_WITHIN + _GRACE)

    async def status(self) -> InterpreterState:
        """How it stands; asking starts nothing."""
        answer = await self._asked("status")
        if answer is None:
            return InterpreterState(state="absent")
        with well_formed():
            return interpreter_state(answer)

    async def shutdown(self) -> None:
        """End the kernel and give its memory back; the next cell starts a new one."""
        await self._asked("shutdown")

    def _order(self) -> asyncio.Lock:
        """Held until a cell has its place in the queue, so that cells keep the order in which they were given."""
        return self._orders.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    async def _asked(self, operation: str) -> dict[str, Any] | None:
        """The answer to a question, or `None` where there is nobody to ask."""
        try:
            async with self._workspace.dial(self._address) as stream:
                return await (await _ask(stream, {"op": operation})).next(_ANSWER_WITHIN)
        except ConnectionRefusedError:
            return None

    @asynccontextmanager
    async def _asking(self, **request: Any) -> AsyncGenerator[Answers]:
        """Ask something that takes a kernel, which is started if there is none."""
        async with AsyncExitStack() as stack:
            try:
                stream = await stack.enter_async_context(self._workspace.dial(self._address))
            except ConnectionRefusedError:
                await self._start()
                stream = await self._dial_started(stack)
            yield await _ask(stream, request)

    async def _dial_started(self, stack: AsyncExitStack) -> ByteStream:
        try:
            return await stack.enter_async_context(self._workspace.dial(self._address))
        except ConnectionRefusedError:
            raise InterpreterError("the interpreter ended as soon as it was started") from None

    async def _start(self) -> None:
        """Start what serves the kernel, unless somebody else just did."""
        program = _program()
        path = f"/tmp/pydantic-ai-sandbox/interpreter-{sha256(program).hexdigest()[:16]}.py"  # noqa: S108 — in the sandbox
        await self._workspace.write_bytes(path, program)
        result = await self._workspace.run([self._python, path, self._address], env=self._env, timeout=_START_WITHIN)
        if result.exit_code:
            raise _start_error(self._python, result)


def check_name(name: str) -> None:
    """Refuse a name that no interpreter can have.

    Raises:
        ValueError: It is one.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"an interpreter's name is up to 48 letters, digits, '_', '.' and '-', got {name!r}")


async def _ask(stream: ByteStream, request: Mapping[str, Any]) -> Answers:
    try:
        await stream.write(json.dumps(request).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        raise InterpreterError("the interpreter hung up before it was asked anything") from None
    return Answers(stream)


def _start_error(python: str, result: CommandResult) -> InterpreterError:
    if result.exit_code in (*_NO_PROGRAM, _MISSING):
        why = f"there is no {python}" if result.exit_code != _MISSING else f"its {python} has no ipykernel"
        return InterpreterMissingError(
            f"the sandbox cannot run Python cells: {why}; use the runtime 'python-datascience', or put 'ipykernel' among the "
            "packages of your RuntimeConfig"
        )
    complaint = result.stderr.strip()[-1000:]
    return InterpreterError(f"the interpreter could not be started (exit {result.exit_code}): {complaint}")


@cache
def _program() -> bytes:
    """What runs in the sandbox."""
    return Path(__file__).with_name("inside").joinpath("serve.py").read_bytes()
