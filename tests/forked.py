"""Processes beside the test's own, as other workers of a backend are: to work at the same time, and to be killed at any moment.

They are forked from one that has imported everything. Importing takes a second of processor time, which a test that
starts dozens of them would mostly be busy with.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.reduction import DupFd
from typing import Any, Self

__all__ = ("Forked",)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "pydantic_ai_sandbox.sessions.manager", "tests.sessions.storage.keeping"])


class Forked:
    """Runs a program, given as source text, with `arguments` in `sys.argv[1:]`; what it prints can be read here.

    As a context manager it ends with the block, if it did not before.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        reading, writing = os.pipe()
        self._printed = os.fdopen(reading, encoding="utf-8")
        self._process = _CONTEXT.Process(target=_run, args=(program, arguments, DupFd(writing)), daemon=True)
        self._process.start()
        os.close(writing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._printed.close()

    def readline(self) -> str:
        """The next line that it prints, as soon as it has; nothing if it ended."""
        return self._printed.readline()

    def rest(self) -> str:
        """Everything that it prints until it has ended."""
        return self._printed.read()

    def wait(self) -> int:
        """Its exit code as soon as it has ended; of one that was killed the negative number of the signal."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def kill(self) -> int:
        """Kill it, unless it has ended; returns its exit code."""
        self._process.kill()
        return self.wait()


def _run(program: str, arguments: tuple[str, ...], printed: Any) -> None:
    os.dup2(printed.detach(), sys.stdout.fileno())
    sys.argv[1:] = arguments
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})  # noqa: S102 — the tests' own text
