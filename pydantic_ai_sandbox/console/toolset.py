"""The console as a Pydantic AI toolset."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.tools import AgentDepsT, RunContext, Tool, ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset, ToolsetTool
from pydantic_ai.toolsets.function import FunctionToolsetTool
from pydantic_ai.workspaces import SupportsCommands, SupportsFilesystem

from ..interpreter import DEFAULT_NAME, check_name
from ..protocols import SupportsDial, SupportsJobs
from .descriptions import JOB_TOOLS, PYTHON, TOOL_NAMES, Limits, describe
from .failures import translated
from .place import find_place
from .state import RunState, remembering
from .tools import Tools

__all__ = ("ConsoleToolset", "PythonToolset", "create_console_toolset")

_CHANGING = frozenset({"run", "write", "edit", PYTHON}) | JOB_TOOLS
_SMALLEST_OUTPUT = 2_000


class ConsoleToolset(FunctionToolset[AgentDepsT]):
    """Tools to work in a sandbox: `run`, `read`, `write`, `edit`, `ls`, `glob`, `grep`, and for background jobs
    `job_output`, `job_input`, `job_stop`; with `interpreter` also `python`, which remembers variables.

    It works in the run's workspace (`agent.run(..., workspace=sandbox)`, or what a capability supplies), else in
    `deps.backend`. Any Pydantic AI workspace will do; on ours, the tools use what `pydantic_ai_sandbox.protocols`
    offers. Tools that the workspace cannot serve are not offered: the job tools without `SupportsJobs`, `python` without
    `SupportsDial`, everything that changes something on a read-only workspace.

    What the model has read of which file is remembered per run, so that one instance serves any number of runs, one
    after the other or at once.

    Args:
        include: Names of the tools to offer; all by default.
        exclude: Names of tools to leave out.
        interpreter: Offer `python` too; a string is the name of the workspace's interpreter, where there are to be several.
        read_only: Leave out every tool that changes something: `run`, `write`, `edit`, `python` and the job tools.
        requires_approval: Names of tools whose calls a human approves first, or `True` for every tool.
        timeout: Seconds a command or a cell may run unless the model asks otherwise.
        max_timeout: Seconds a command or a cell may run at most, whatever the model asks for.
        max_output: Characters of one answer, at least 2,000.
        id: The toolset's id, which durable execution needs.
        max_retries: How often in a row the model may give a tool wrong arguments before the run fails.
        instructions: Instructions for the model beside the tools' descriptions; none by default.

    Raises:
        ValueError: A tool name is unknown, or a number makes no sense.
    """  # noqa: D205 — the first sentence is a list of names

    def __init__(
        self,
        *,
        include: Collection[str] | None = None,
        exclude: Collection[str] = (),
        interpreter: bool | str = False,
        read_only: bool = False,
        requires_approval: bool | Collection[str] = False,
        timeout: float = 120.0,
        max_timeout: float = 3600.0,
        max_output: int = 30_000,
        id: str | None = None,
        max_retries: int | None = 10,
        instructions: str | None = None,
    ) -> None:
        super().__init__(id=id, max_retries=max_retries, instructions=instructions)
        offered = _included(include, interpreter=bool(interpreter)) - _known(exclude, "exclude")
        if read_only:
            offered -= _CHANGING
        if isinstance(interpreter, str):
            check_name(interpreter)
        approved = _approved(requires_approval)
        self._offered = offered
        self._limits = _limits(timeout, max_timeout, max_output)
        self._state: RunState | None = None
        functions = Tools(self._limits, offered, interpreter if isinstance(interpreter, str) else DEFAULT_NAME)
        for name in TOOL_NAMES:
            if name in offered:
                self.add_tool(self._tool(name, getattr(functions, name), requires_approval=name in approved))

    def _tool(self, name: str, function: Callable[..., Any], *, requires_approval: bool) -> Tool[AgentDepsT]:
        return Tool(
            function,
            name=name,
            takes_ctx=True,
            description=describe(name, self._offered, self._limits, background=bool(self._offered & JOB_TOOLS)),
            docstring_format="google",
            require_parameter_descriptions=True,
            requires_approval=requires_approval,
            prepare=self._prepare,
        )

    def _prepare(self, ctx: RunContext[AgentDepsT], definition: ToolDefinition) -> ToolDefinition | None:
        """The tool as this run's workspace can serve it, or `None`."""
        offered = self._offered - _not_served(ctx)
        if definition.name not in offered:
            return None
        background = bool(offered & JOB_TOOLS)
        description = describe(definition.name, offered, self._limits, background=background)
        if definition.name == "run" and not background:
            definition = replace(
                definition, parameters_json_schema=_without(definition.parameters_json_schema, "background")
            )
        return replace(definition, description=description)

    async def for_run(self, ctx: RunContext[AgentDepsT]) -> AbstractToolset[AgentDepsT]:
        """A copy for one run that shares everything but what is remembered."""
        mine = copy.copy(self)
        mine._state = RunState()  # noqa: SLF001 — of the same class
        return mine

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[AgentDepsT], tool: ToolsetTool[AgentDepsT]
    ) -> Any:
        """Call a tool; failures of the workspace become what the model can read, or end the run."""
        original = tool.original_name if isinstance(tool, FunctionToolsetTool) else None
        if (original or name) not in self._offered:
            return await super().call_tool(name, tool_args, ctx, tool)
        with translated(), remembering(self._state):
            return await super().call_tool(name, tool_args, ctx, tool)


class PythonToolset(ConsoleToolset[AgentDepsT]):
    """One tool, `python`: code in an interpreter that keeps its variables from one call to the next.

    It works where `ConsoleToolset` does, of which it is a part (`ConsoleToolset(interpreter=True)` has the same tool), and is
    offered on workspaces that can be connected to (`SupportsDial`), whose Python has the package `ipykernel`.

    Args:
        interpreter: Name of the workspace's interpreter; every name is one of its own, and whoever uses the same name in
            the same workspace shares it.
        requires_approval: Whether a human approves every call first.
        timeout: Seconds a cell may run unless the model asks otherwise.
        max_timeout: Seconds a cell may run at most, whatever the model asks for.
        max_output: Characters of one answer, at least 2,000.
        id: The toolset's id, which durable execution needs.
        max_retries: How often in a row the model may give wrong arguments before the run fails.
        instructions: Instructions for the model beside the tool's description; none by default.

    Raises:
        ValueError: A number makes no sense, or no interpreter can have that name.
    """

    def __init__(
        self,
        *,
        interpreter: str = DEFAULT_NAME,
        requires_approval: bool = False,
        timeout: float = 120.0,
        max_timeout: float = 3600.0,
        max_output: int = 30_000,
        id: str | None = None,
        max_retries: int | None = 10,
        instructions: str | None = None,
    ) -> None:
        super().__init__(
            include=(PYTHON,),
            interpreter=interpreter,
            requires_approval=requires_approval,
            timeout=timeout,
            max_timeout=max_timeout,
            max_output=max_output,
            id=id,
            max_retries=max_retries,
            instructions=instructions,
        )


def create_console_toolset(
    *,
    include: Collection[str] | None = None,
    exclude: Collection[str] = (),
    interpreter: bool | str = False,
    read_only: bool = False,
    requires_approval: bool | Collection[str] = False,
    timeout: float = 120.0,
    max_timeout: float = 3600.0,
    max_output: int = 30_000,
    id: str | None = None,
    max_retries: int | None = 10,
    instructions: str | None = None,
) -> ConsoleToolset[Any]:
    """A `ConsoleToolset`; the arguments are its own.

    Raises:
        ValueError: A tool name is unknown, or a number makes no sense.
    """
    return ConsoleToolset(
        include=include,
        exclude=exclude,
        interpreter=interpreter,
        read_only=read_only,
        requires_approval=requires_approval,
        timeout=timeout,
        max_timeout=max_timeout,
        max_output=max_output,
        id=id,
        max_retries=max_retries,
        instructions=instructions,
    )


def _included(include: Collection[str] | None, *, interpreter: bool) -> frozenset[str]:
    if include is None:
        return frozenset(TOOL_NAMES) if interpreter else frozenset(TOOL_NAMES) - {PYTHON}
    included = _known(include, "include")
    if PYTHON in included and not interpreter:
        raise ValueError(f"include names {PYTHON}, which takes interpreter=True")
    return included


def _known(names: Collection[str], option: str) -> frozenset[str]:
    if isinstance(names, str):
        raise ValueError(  # noqa: TRY004 — the names in it are what is wrong
            f"{option} must be a collection of tool names, not the string {names!r}"
        )
    if unknown := sorted(set(names) - set(TOOL_NAMES)):
        raise ValueError(f"{option} names unknown tools: {', '.join(unknown)}; there are {', '.join(TOOL_NAMES)}")
    return frozenset(names)


def _approved(requires_approval: bool | Collection[str]) -> frozenset[str]:
    if isinstance(requires_approval, bool):
        return frozenset(TOOL_NAMES) if requires_approval else frozenset()
    return _known(requires_approval, "requires_approval")


def _limits(timeout: float, max_timeout: float, max_output: int) -> Limits:
    if not (math.isfinite(max_timeout) and 0 < timeout <= max_timeout):
        raise ValueError(f"timeout must be positive and at most max_timeout, got {timeout!r} and {max_timeout!r}")
    if max_output < _SMALLEST_OUTPUT:
        raise ValueError(f"max_output must be at least {_SMALLEST_OUTPUT:,} characters, got {max_output!r}")
    return Limits(timeout=timeout, max_timeout=max_timeout, max_output=max_output)


def _not_served(ctx: RunContext[Any]) -> frozenset[str]:
    """Tools that the run's workspace has nothing for; asks it nothing."""
    try:
        place = find_place(ctx)
    except UserError:
        return JOB_TOOLS  # calling any other tool tells what is missing
    if place.workspace.read_only:
        return _CHANGING
    missing = frozenset[str]() if isinstance(place.backend, SupportsJobs) else JOB_TOOLS
    if not isinstance(place.backend, SupportsDial):
        missing |= {PYTHON}
    underneath = place.workspace.backend
    if not isinstance(underneath, SupportsCommands):
        missing |= {"run", PYTHON}
        if not isinstance(underneath, SupportsFilesystem):
            missing |= {"read", "write", "edit", "ls", "glob", "grep"}
    return missing


def _without(schema: dict[str, Any], parameter: str) -> dict[str, Any]:
    properties = {name: value for name, value in schema["properties"].items() if name != parameter}
    return {**schema, "properties": properties}
