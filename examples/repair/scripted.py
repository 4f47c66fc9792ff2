"""A stand-in for a model: it follows a plan, and takes what it does next from what the tools really answered."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from .packages import Package

AROUND = 6
"""Lines to read on each side of what a search found."""


@dataclass(frozen=True)
class Step:
    """What the model says, and the tool it calls."""

    thought: str
    tool: str
    arguments: dict[str, Any]


def scripted_model(package: Package) -> FunctionModel:
    """A model for one run of an agent that repairs `package`."""
    plan = _plan(package)

    async def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        try:
            step = plan.send(_answer(messages))
        except StopIteration as end:
            return ModelResponse(parts=[TextPart(str(end.value))])
        return ModelResponse(parts=[TextPart(step.thought), ToolCallPart(step.tool, step.arguments)])

    return FunctionModel(respond, model_name="scripted")


def _plan(package: Package) -> Generator[Step, str | None, str]:
    """Yield a step, get the tool's answer; the return value is the model's last word."""
    tests = {"command": package.tests}
    red = yield Step("I run the tests first, to see how they fail.", "run", tests)
    if _passed(red):
        return "The tests pass; there is nothing to repair."

    search = {"pattern": package.defect.clue, "output_mode": "content", "glob": "*.py"}
    found = yield Step(f"{_failure(red)} I search for the code behind that.", "grep", search)
    match = _line_with(package.defect.wrong, found)
    if match is None:
        return "I cannot find the line."

    path, line = match
    page = {"path": path, "offset": max(1, line - AROUND), "limit": 2 * AROUND + 1}
    text = yield Step(f"Line {line} of {path} looks wrong. I read what is around it.", "read", page)
    if text is None or package.defect.wrong not in text:
        return f"{path} is not what the search said."

    change = {"path": path, "old_string": package.defect.wrong, "new_string": package.defect.right}
    yield Step(package.defect.insight, "edit", change)
    green = yield Step("I run the tests again.", "run", tests)
    return "The tests pass again." if _passed(green) else "The tests still fail."


def _answer(messages: list[ModelMessage]) -> str | None:
    """What the last tool answered, if one did."""
    last = messages[-1]
    if not isinstance(last, ModelRequest):
        return None
    return next((part.model_response_str() for part in last.parts if isinstance(part, ToolReturnPart)), None)


def _passed(answer: str | None) -> bool:
    """Whether a command succeeded: the last line says how it ended."""
    return answer is not None and answer.rstrip().splitlines()[-1].startswith("[exit 0")


def _failure(answer: str | None) -> str:
    """The failure, in the words of the tests."""
    lines = (answer or "").splitlines()
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    examples = [lines[index + 1].strip() for index, line in enumerate(lines[:-1]) if line == "Failed example:"]
    return next((f"“{line}”" for line in (*errors, *examples)), "They fail.")


def _line_with(text: str, found: str | None) -> tuple[str, int] | None:
    """Path and number of the line that has `text`, among lines such as `path:12:text`."""
    for row in (found or "").splitlines():
        match = re.match(r"(?P<path>[^:]+):(?P<line>\d+):(?P<text>.*)", row)
        if match and text in match["text"]:
            return match["path"], int(match["line"])
    return None
