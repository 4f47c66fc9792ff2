"""The tool `python`, as a model meets it: a real agent, a real sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.workspaces import ReadOnlyWorkspace, Workspace, WrapperWorkspace

from pydantic_ai_sandbox import ConsoleToolset, DockerSandbox, PythonToolset, create_console_toolset
from tests.console.scripted import Call, call, offered, play

pytestmark = pytest.mark.docker

TOOLSET: PythonToolset[Any] = PythonToolset()


@pytest.fixture
async def python(make_python: Callable[..., DockerSandbox]) -> AsyncGenerator[DockerSandbox]:
    sandbox = make_python()
    yield sandbox
    await sandbox.aclose()


def cell(code: str, **options: Any) -> Call:
    return call("python", code=code, **options)


async def test_what_one_call_defines_the_next_one_has_in_this_run_and_in_later_ones(python: DockerSandbox) -> None:
    first, second = await play(python, cell("x = 20; print('set')"), cell("x + 1"), toolset=TOOLSET)
    assert first.lines[0] == "set"
    assert first.last.startswith("[ok · ")
    assert first.last.endswith("new interpreter · In [1]]")
    assert second.lines[0] == "21"
    assert second.last.endswith("s · In [2]]")
    (later,) = await play(python, cell("x + 2"), toolset=ConsoleToolset(interpreter=True))
    assert later.lines[0] == "22"


async def test_parallel_calls_of_one_response_run_in_their_order(python: DockerSandbox) -> None:
    calls = [cell("x = ''"), *(cell(f"x += '{number}'") for number in range(5)), cell("x")]
    answers = await play(python, calls, toolset=TOOLSET)
    assert answers[-1].lines[0] == "'01234'"


async def test_figures_come_inside_the_answer(python: DockerSandbox) -> None:
    (answer,) = await play(
        python, cell("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('drawn')"), toolset=TOOLSET
    )
    assert [image.media_type for image in answer.images] == ["image/png"]
    assert answer.lines[0] == "drawn"
    assert " · 1 image · " in answer.last


async def test_mistakes_are_told_and_cost_nothing_but_the_call(python: DockerSandbox) -> None:
    answers = await play(
        python,
        cell("x = 1"),
        cell("1 / 0"),
        cell("while True: pass", timeout=0.5),
        cell(""),
        cell("x", timeout=-1),
        cell("x", timeout=100_000),
        toolset=PythonToolset(max_timeout=60, timeout=30),
    )
    assert [answer.outcome for answer in answers] == ["success"] * 3 + ["retry"] * 2 + ["success"]
    assert answers[1].last.startswith("[error: ZeroDivisionError · ")
    assert answers[2].last.endswith("interrupted; variables kept · In [3]]")
    assert answers[5].lines[0] == "1"
    assert "timeout lowered to 60 s" in answers[5].last


async def test_a_restart_forgets_and_goes_on(python: DockerSandbox) -> None:
    answers = await play(
        python, cell("x = 1"), cell("", restart=True), cell("'x' in globals()", restart=True), toolset=TOOLSET
    )
    assert answers[1].text == "[restarted · new interpreter, nothing is defined]"
    assert answers[2].lines[0] == "False"


async def test_what_cannot_run_cells_says_what_to_use(make_sandbox: Callable[..., DockerSandbox]) -> None:
    (answer,) = await play(make_sandbox(), cell("1"), toolset=TOOLSET)
    assert answer.outcome == "failed"
    assert "python-datascience" in answer.text


async def test_two_toolsets_with_names_of_their_own_have_interpreters_of_their_own(python: DockerSandbox) -> None:
    one, other = PythonToolset[Any](interpreter="one"), PythonToolset[Any](interpreter="other")
    await play(python, cell("x = 1"), toolset=one)
    (answer,) = await play(python, cell("x"), toolset=other)
    assert "NameError" in answer.last


async def test_the_tool_is_offered_where_it_can_be_served_and_was_asked_for(python: DockerSandbox) -> None:
    assert set(await offered(python, TOOLSET)) == {"python"}
    assert "python" not in await offered(python)
    assert "python" in await offered(python, create_console_toolset(interpreter=True))
    assert "python" not in await offered(python, ConsoleToolset(interpreter=True, exclude=["python"]))
    assert "python" not in await offered(python, ConsoleToolset(interpreter=True, read_only=True))
    read_only: Any = ReadOnlyWorkspace(Workspace(python))
    assert not await offered(read_only, TOOLSET)
    wrapped: Any = WrapperWorkspace(Workspace(python))
    assert not await offered(wrapped, TOOLSET)


async def test_its_description_says_what_it_keeps_and_returns(python: DockerSandbox) -> None:
    description = (await offered(python, TOOLSET))["python"].description
    assert description is not None
    for words in ("keeps variables", "last expression", "figures", "30,000", "120 s", "restart", "In [3]"):
        assert words in description


async def test_a_human_approves_first_where_that_was_asked_for(python: DockerSandbox) -> None:
    async def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[ToolCallPart("python", {"code": "1"})])

    for toolset in (
        PythonToolset[Any](requires_approval=True),
        ConsoleToolset[Any](interpreter=True, requires_approval=["python"]),
    ):
        agent = Agent(FunctionModel(respond), toolsets=[toolset], output_type=[str, DeferredToolRequests])
        result = await agent.run("go", workspace=python)
        assert isinstance(result.output, DeferredToolRequests)
        assert [each.tool_name for each in result.output.approvals] == ["python"]
