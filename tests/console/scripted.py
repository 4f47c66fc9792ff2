"""A model that plays a script of tool calls, and what the tools answered it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic_ai import Agent
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.workspaces import WorkspaceBackend

from pydantic_ai_sandbox.console import ConsoleToolset

SHARED: ConsoleToolset[Any] = ConsoleToolset()
"""One instance for all tests that want nothing special: it must keep their runs apart."""


@dataclass(frozen=True)
class Call:
    """A tool call in a script."""

    name: str
    arguments: dict[str, Any]


def call(name: str, /, **arguments: Any) -> Call:
    return Call(name, arguments)


Step: TypeAlias = Call | Sequence[Call] | Callable[[], Awaitable[object]]
"""One call, several in one response, or something that happens between two responses."""


@dataclass(frozen=True)
class Answer:
    """What a tool answered."""

    text: str
    outcome: str
    """`"success"`, `"failed"` or `"retry"`."""
    images: Sequence[BinaryContent] = ()

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @property
    def last(self) -> str:
        return self.lines[-1]

    @property
    def body(self) -> str:
        """Everything but the last line."""
        return "\n".join(self.lines[:-1])


@dataclass
class Script:
    """Plays steps through a real agent."""

    steps: Sequence[Step]
    answers: list[Answer] = field(default_factory=list[Answer])
    offered: list[ToolDefinition] = field(default_factory=list[ToolDefinition])
    position: int = 0

    async def respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.offered = info.function_tools
        self.answers.extend(answers_in(messages[-1]))
        while self.position < len(self.steps):
            step = self.steps[self.position]
            self.position += 1
            if callable(step):
                await step()
                continue
            calls = [step] if isinstance(step, Call) else step
            return ModelResponse(parts=[ToolCallPart(each.name, each.arguments) for each in calls])
        return ModelResponse(parts=[TextPart("done")])


def answers_in(message: ModelMessage) -> list[Answer]:
    if not isinstance(message, ModelRequest):
        return []
    # Older versions of Pydantic AI have a part of its own for what is to be retried.
    return [_answer(part) for part in message.parts if part.part_kind in {"tool-return", "retry-prompt"}]


def _answer(part: ModelRequestPart) -> Answer:
    content: object = getattr(part, "content", "")
    items = content if isinstance(content, list) else [content]
    images = [item for item in items if isinstance(item, BinaryContent)]
    text = "\n".join(str(item) for item in items if not isinstance(item, BinaryContent))
    outcome = part.outcome if isinstance(part, ToolReturnPart) else "retry"
    return Answer(text, outcome if outcome in {"success", "failed"} else "retry", images)


async def play(
    backend: WorkspaceBackend | None,
    *steps: Step,
    toolset: AbstractToolset[Any] | None = None,
    **run: Any,
) -> list[Answer]:
    """The answers to all calls of a script, in order."""
    script = Script(steps)
    agent = Agent(FunctionModel(script.respond), toolsets=[toolset or SHARED], deps_type=object)
    await agent.run("go", workspace=backend, **run)
    return script.answers


async def ask(backend: WorkspaceBackend | None, name: str, /, **arguments: Any) -> Answer:
    """The answer to one call."""
    (answer,) = await play(backend, call(name, **arguments))
    return answer


async def offered(
    backend: WorkspaceBackend | None, toolset: AbstractToolset[Any] | None = None, **run: Any
) -> dict[str, ToolDefinition]:
    """The tools that the model is offered."""
    script = Script(())
    agent = Agent(FunctionModel(script.respond), toolsets=[toolset or SHARED], deps_type=object)
    await agent.run("go", workspace=backend, **run)
    return {tool.name: tool for tool in script.offered}
