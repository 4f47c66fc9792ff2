"""A plain script whose dependencies carry the sandbox: the console finds it as `deps.backend`.

Nothing here is asynchronous, and nothing touches Docker before the agent calls its first tool. The model is a stand-in, so
that this needs no key: give `Agent` the name of a real one instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from pydantic_ai_sandbox import DockerSandbox, create_console_toolset


@dataclass
class Deps:
    """What the agent's own tools need, and where its console works."""

    user: str
    backend: DockerSandbox


def stand_in(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """A model that calls `run` once and repeats the answer."""
    answers = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if answers:
        return ModelResponse(parts=[TextPart(answers[-1].model_response_str())])
    return ModelResponse(parts=[ToolCallPart("run", {"command": "python -c 'print(sum(range(101)))'"})])


sandbox = DockerSandbox(runtime="python-minimal")
agent = Agent(FunctionModel(stand_in), deps_type=Deps, toolsets=[create_console_toolset()])
try:
    result = agent.run_sync("What do the numbers from 1 to 100 add up to?", deps=Deps(user="alice", backend=sandbox))
    print(result.output)
finally:
    sandbox.stop()
