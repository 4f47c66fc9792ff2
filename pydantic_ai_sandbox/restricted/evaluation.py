"""One evaluation: a new interpreter process, its limits, and what comes back from it.

Three decisions, each against something that was seen to happen (docs/restricted.md has the measurements):

- **A value crosses as text, made inside.** Built again as an object here, a dictionary with colliding keys held the event
  loop for seconds, and the `repr` of nested lists that share their parts took all memory.
- **The synchronous client in threads of our own.** Cancelling the asynchronous one let the whole process abort when
  Python exited soon after. Here, exit waits for evaluations, which are short.
- **A process for each evaluation.** It takes milliseconds, and nothing of one evaluation can meet another.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pydantic_monty import Monty, MontyCrashedError, MontyError, MontyRuntimeError, MontySession, MontySyntaxError

from ..errors import ResourceExhaustedError, SandboxError
from .leaving import Leave
from .printing import Printed, cut
from .splitting import split

__all__ = ("MEBIBYTE", "Evaluation", "Limits", "evaluate")

MEBIBYTE = 1 << 20
_LONGEST_CODE = 20_000
"""Characters of code: more is data, which belongs in `inputs` or in a container."""
_LONGEST_ERROR = 1_000
"""Characters of an exception's message, and of the line it came from."""
_GRACE = 0.5
"""Seconds after which an interpreter is killed that did not stop by itself, as within one long operation."""
_AT_ONCE = min(8, max(2, os.cpu_count() or 2))
"""Evaluations at the same time; others wait. More than processors only make each other slower."""
_VALUE = "__value__"
_NOTHING = "\npass\nNone"
"""Behind code, so that nothing is its value; `pass`, because no expression goes on with it, as after a backslash."""
_EVALUATED = "<string>"
"""Where the interpreter says text is from that the code gave to `eval` or `exec`."""
_PARSE_ONLY = "raise KeyboardInterrupt\n"
"""In front of code, which then is parsed and not run."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an evaluation may use.

    Raises:
        ValueError: A number makes no sense.
    """

    timeout: float
    """Seconds."""
    memory: int
    """Bytes."""
    max_output: int
    """Characters of what is printed, and of the value."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise ValueError(f"timeout must be a positive number of seconds, got {self.timeout!r}")
        if self.memory < MEBIBYTE:
            raise ValueError(f"memory must be at least {MEBIBYTE:,} bytes, got {self.memory!r}")
        if self.max_output < 2:
            raise ValueError(f"max_output must be at least 2 characters, got {self.max_output!r}")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came of some code."""

    value: str | None = None
    """`repr` of the expression at the end; `None` if there is none, its value is `None`, or there was an error."""
    printed: str = ""
    """What the code printed; if that was too much, both ends of it around a line that counts what is missing."""
    error: str | None = None
    """The exception that ended the code, with its line, as in `ZeroDivisionError: division by zero (line 2: x / 0)`."""


async def evaluate(
    code: str,
    *,
    inputs: Mapping[str, object] | None = None,
    timeout: float = 2.0,
    memory: int = 64 * MEBIBYTE,
    max_output: int = 10_000,
) -> Evaluation:
    """Run code in a new restricted interpreter and return what it printed and the value of its last expression.

    At most 8 evaluations run at a time in one process (fewer on fewer processors); others wait, which does not count
    towards their time. The process of one that is cancelled is killed.

    Args:
        code: Statements in Monty's subset of Python, at most 20,000 characters.
        inputs: Variables for the code: numbers, text, bytes, `None`, dates, and collections of these.
        timeout: Seconds that the code may run. The process is killed half a second later if it has not stopped.
        memory: Bytes of the interpreter's heap; its whole process can take about twice as much for a moment.
        max_output: Characters of `printed`, and of `value`.

    Raises:
        TimeoutError: The time was up.
        ResourceExhaustedError: The memory was used up (`resource` is `"memory"`).
        SandboxError: The interpreter's process died for a reason it did not give, or this process was forked from
            one that had evaluated something.
        ValueError: The code is too long or no valid Unicode, or a limit makes no sense.
        TypeError: An input is of a kind that cannot be passed.
    """
    limits = Limits(timeout=timeout, memory=memory, max_output=max_output)
    if len(code) > _LONGEST_CODE:
        raise ValueError(f"the code has {len(code):,} characters, {_LONGEST_CODE:,} are allowed")
    code.encode()  # a UnicodeEncodeError says where it is wrong, and is a ValueError
    leave = Leave()
    job = partial(_evaluate, code, dict(inputs or {}), limits, leave)
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads.ready(), job)
    except asyncio.CancelledError:
        leave.take()
        raise


class _Threads:
    """The threads that wait for interpreters, started on first use."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0

    def ready(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="restricted-evaluation")
            self._process = os.getpid()
        if self._process != os.getpid():  # the client's own threads are not in this process, and it would wait for ever
            raise SandboxError(
                "this process was forked from one that had evaluated something: evaluate after forking only"
            )
        return self._executor


_threads = _Threads()


def _evaluate(code: str, inputs: dict[str, object], limits: Limits, leave: Leave) -> Evaluation:
    printed = Printed(limits.max_output)
    with _interpreter(limits, leave) as session:
        program = _program(session, code.replace("\r\n", "\n"), limits)
        try:
            value = session.feed_run(program.text, inputs=inputs, print_callback=printed)
        except (MontyRuntimeError, MontySyntaxError) as error:
            if _is_limit(error):
                raise
            return Evaluation(printed=printed.text(), error=program.describe(error))
    shown = cut(value, limits.max_output) if isinstance(value, str) else None
    return Evaluation(printed=printed.text(), value=shown)


@contextmanager
def _interpreter(limits: Limits, leave: Leave) -> Generator[MontySession]:
    """A process of its own; what ended it before its time becomes the errors that `evaluate` documents."""
    try:
        with (
            Monty(
                min_processes=0,
                max_processes=1,
                request_timeout=limits.timeout + _GRACE,
                feed_duration_limit_grace=_GRACE,
            ) as pool,
            pool.checkout(
                limits={"max_feed_duration_secs": limits.timeout, "max_memory": limits.memory},
                os_policy={"sleep": "zero"},  # nobody gains by waiting here, and it would not count as running
            ) as session,
            leave.possible(session.worker_pid),
        ):
            yield session
    except MontyError as error:
        # Without the cause, which can hold megabytes of the code's own text.
        raise _translated(error, limits) from None


def _translated(error: MontyError, limits: Limits) -> Exception:
    inner = error.exception()
    if isinstance(inner, MemoryError):
        message = f"the code used more than {limits.memory // MEBIBYTE:,} MiB of memory"
        return ResourceExhaustedError(message, resource="memory", limit=limits.memory)
    if isinstance(inner, TimeoutError) or (isinstance(error, MontyCrashedError) and error.timed_out):
        return TimeoutError(f"the code ran longer than {limits.timeout:g} s and was stopped")
    if isinstance(error, MontyCrashedError):
        return SandboxError(f"the interpreter's process died: {cut(str(error), _LONGEST_ERROR)}")
    return TypeError(cut(str(error), _LONGEST_ERROR))


def _is_limit(error: MontyError) -> bool:
    return isinstance(error.exception(), (MemoryError, TimeoutError))


@dataclass(frozen=True)
class _Program:
    """What the interpreter is given, and where in it the code's own lines are."""

    text: str
    code: str
    before: int | None = None
    """Lines of the code before its last expression, after which there is one line of ours."""

    def describe(self, error: MontyRuntimeError | MontySyntaxError) -> str:
        message = cut(error.display("type-msg"), _LONGEST_ERROR)
        numbers = [frame.line for frame in error.traceback() if frame.filename != _EVALUATED]
        if not numbers:
            return message
        return f"{message} ({self._place(numbers[-1])})"

    def _place(self, number: int) -> str:
        lines = self.code.split("\n")
        if self.before is not None and number > self.before:
            number -= 1
        number = max(1, min(number, len(lines)))  # where code breaks off, the error is in what we put behind it
        source = cut(lines[number - 1].strip(), _LONGEST_ERROR)
        return f"line {number}: {source}" if source else f"line {number}"


def _program(session: MontySession, code: str, limits: Limits) -> _Program:
    """Code that ends in the text of its last expression's value, or in nothing: no object ever leaves the interpreter."""
    deadline = time.monotonic() + limits.timeout

    def parses(text: str) -> bool:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the code took longer than {limits.timeout:g} s to parse")
        return _parses(session, text)

    parts = split(code, parses)
    if parts is None:
        return _Program(code + _NOTHING, code)
    before, last = parts
    # A conversion in a format string gives real text, whatever the code has made of `repr`.
    shown = f"None if {_VALUE} is None else f'{{{_VALUE}!r:.{limits.max_output + 1}}}'"
    return _Program(f"{before}{_VALUE} = (\n{last}\n)\n{shown}", code, before=before.count("\n"))


def _parses(session: MontySession, text: str) -> bool:
    try:
        session.feed_run(_PARSE_ONLY + text)
    except MontySyntaxError:
        return False
    except MontyRuntimeError as error:
        if _is_limit(error):
            raise
    return True
