"""Restricted evaluation as a Pydantic AI toolset with one tool."""

from __future__ import annotations

from dataclasses import asdict

from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.tools import AgentDepsT, Tool
from pydantic_ai.toolsets import FunctionToolset

from ..errors import ResourceExhaustedError
from .evaluation import MEBIBYTE, Evaluation, Limits, evaluate

__all__ = ("RestrictedToolset", "answer")

_SMALLEST_OUTPUT = 2_000
_LABELS = 200
"""Characters of an answer that are ours: labels, and what stands in for what is missing."""

_DESCRIPTION = (
    "Calculate with Python in a small interpreter. Returns what the code printed and the value of its last expression, if "
    "that begins a line (after a `[value]` line when both are there), or after `[error]` the exception with its line. "
    "A subset of Python: functions, comprehensions, f-strings, classes without inheritance, no generators. Modules: math, "
    "decimal, datetime, json, re, random, itertools, functools, collections, and few others. No files, network or "
    "packages; nothing is kept between calls. Stopped after {timeout:g} s or at {memory:,} MiB. "
    "Output over {output:,} characters loses its middle."
)


class RestrictedToolset(FunctionToolset[AgentDepsT]):
    """One tool, `evaluate(code)`, for calculations that need no container.

    It is no sandbox for hostile code: see `pydantic_ai_sandbox.restricted`.

    Args:
        timeout: Seconds that one evaluation may run.
        memory: Bytes that one evaluation may use.
        max_output: Characters of one answer, at least 2,000.
        requires_approval: A human approves every call first.
        id: The toolset's id, which durable execution needs.
        max_retries: How often in a row the model may give the tool wrong arguments before the run fails.

    Raises:
        ValueError: A number makes no sense.
    """

    def __init__(
        self,
        *,
        timeout: float = 2.0,
        memory: int = 64 * MEBIBYTE,
        max_output: int = 10_000,
        requires_approval: bool = False,
        id: str | None = None,
        max_retries: int | None = 10,
    ) -> None:
        super().__init__(id=id, max_retries=max_retries)
        if max_output < _SMALLEST_OUTPUT:
            raise ValueError(f"max_output must be at least {_SMALLEST_OUTPUT:,} characters, got {max_output!r}")
        limits = Limits(timeout=timeout, memory=memory, max_output=(max_output - _LABELS) // 2)
        self._limits = asdict(limits)
        description = _DESCRIPTION.format(timeout=timeout, memory=memory // MEBIBYTE, output=limits.max_output)
        self.add_tool(
            Tool(
                self._evaluate,
                name="evaluate",
                takes_ctx=False,
                description=description,
                docstring_format="google",
                require_parameter_descriptions=True,
                requires_approval=requires_approval,
            )
        )

    async def _evaluate(self, code: str) -> str:
        """Evaluate.

        Args:
            code: Python statements; end with the expression whose value is wanted, or print.
        """
        try:
            result = await evaluate(code, **self._limits)
        except ValueError as error:
            raise ModelRetry(str(error)) from error
        except (TimeoutError, ResourceExhaustedError) as error:
            raise ToolFailed(f"Stopped: {error}.") from error
        return answer(result)


def answer(result: Evaluation) -> str:
    """What the model reads about an evaluation."""
    printed = result.printed.rstrip("\n")
    if result.error is not None:
        return "\n".join([*filter(None, [printed]), "[error]", result.error])
    if result.value is None:
        return printed or "(no output)"
    return f"{printed}\n[value]\n{result.value}" if printed else result.value
