"""The toolset itself: what it offers where, what it remembers, how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic_ai import Agent, DeferredToolRequests, workspaces
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.workspaces import (
    CommandResult,
    LocalWorkspaceBackend,
    ReadOnlyWorkspace,
    Workspace,
    WorkspaceBackend,
    WorkspaceCommand,
    WorkspaceError,
    WorkspaceRef,
    WorkspaceUnavailableError,
    WrapperWorkspace,
)
from pydantic_ai.workspaces.unavailable import UnavailableWorkspace

from pydantic_ai_sandbox.console import ConsoleToolset, PythonToolset, create_console_toolset
from pydantic_ai_sandbox.console.failures import bounded, describe
from pydantic_ai_sandbox.console.place import Place, find_place
from pydantic_ai_sandbox.errors import EngineUnavailableError, ImageBuildError, RuntimeNotFoundError

from .scripted import Answer, ask, call, offered, play

pytestmark = pytest.mark.anyio

FILE_TOOLS = {"read", "write", "edit", "ls", "glob", "grep"}
JOB_TOOLS = {"job_output", "job_input", "job_stop"}


@dataclass
class Deps:
    backend: object


# What is offered


async def test_all_tools_that_the_workspace_can_serve_are_offered(console_backend: WorkspaceBackend) -> None:
    assert set(await offered(console_backend)) == {"run", *FILE_TOOLS}


async def test_background_is_not_a_parameter_where_there_are_no_jobs(console_backend: WorkspaceBackend) -> None:
    run = (await offered(console_backend))["run"]
    assert set(run.parameters_json_schema["properties"]) == {"command", "timeout"}
    assert run.description
    assert "background" not in run.description


async def test_background_is_refused_where_there_are_no_jobs(console_backend: WorkspaceBackend) -> None:
    answer = await ask(console_backend, "run", command="true", background=True)
    assert answer.outcome == "retry"
    assert "background" in answer.text


async def test_python_is_not_offered_where_nothing_can_be_connected_to(console_backend: WorkspaceBackend) -> None:
    assert not await offered(console_backend, PythonToolset())
    assert "python" not in await offered(console_backend, ConsoleToolset(interpreter=True))


class FilesOnly(WorkspaceBackend):
    """A workspace without commands."""

    def __init__(self, backend: LocalWorkspaceBackend) -> None:
        self._backend = backend
        for name in ("read_bytes", "write_bytes", "stat", "list_dir", "make_dir", "remove", "exists"):
            setattr(self, name, getattr(backend, name))

    async def working_dir(self) -> str:
        return await self._backend.working_dir()

    @property
    def ref(self) -> WorkspaceRef | None:
        return None


async def test_run_is_not_offered_where_there_are_no_commands(tmp_path: Path) -> None:
    backend = FilesOnly(LocalWorkspaceBackend(tmp_path))
    assert set(await offered(backend)) == FILE_TOOLS
    wrote, read = await play(backend, call("write", path="a", content="x\n"), call("read", path="./a"))
    assert wrote.text.endswith("(created)")
    assert read.lines[0] == "1\tx"


async def test_include_and_exclude_choose(console_backend: WorkspaceBackend) -> None:
    toolset = ConsoleToolset[Any](include=["read", "run", "ls"], exclude=["run"])
    assert set(await offered(console_backend, toolset)) == {"read", "ls"}


async def test_read_only_offers_nothing_that_changes(console_backend: WorkspaceBackend) -> None:
    assert set(await offered(console_backend, ConsoleToolset(read_only=True))) == {"read", "ls", "glob", "grep"}


async def test_a_read_only_workspace_offers_nothing_that_changes(console_backend: WorkspaceBackend) -> None:
    workspace = ReadOnlyWorkspace(Workspace(console_backend))
    assert set(await offered(workspace)) == {"read", "ls", "glob", "grep"}


@pytest.mark.parametrize(
    "options",
    [
        {"include": ["bash"]},
        {"include": ["python"]},
        {"interpreter": "no such/name"},
        {"exclude": ["bash"]},
        {"requires_approval": ["bash"]},
        {"include": "run"},
        {"timeout": 0},
        {"timeout": 10, "max_timeout": 5},
        {"max_timeout": float("inf")},
        {"max_output": 10},
    ],
)
async def test_options_that_make_no_sense_are_refused_at_once(options: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(options)):
        ConsoleToolset(**options)


async def test_descriptions_name_no_tool_that_is_not_offered(console_backend: WorkspaceBackend) -> None:
    for names in ({"run"}, {"read"}, FILE_TOOLS, {"run", *FILE_TOOLS}):
        tools = await offered(console_backend, ConsoleToolset(include=names))
        text = " ".join(tool.description or "" for tool in tools.values())
        absent = ({"run", *FILE_TOOLS} | JOB_TOOLS) - set(tools)
        assert not [name for name in absent if f"`{name}`" in text]
        assert not [name for name in JOB_TOOLS if name in text]


async def test_every_parameter_is_explained(console_backend: WorkspaceBackend) -> None:
    for tool in (await offered(console_backend)).values():
        assert tool.description
        for name, schema in tool.parameters_json_schema["properties"].items():
            assert schema.get("description"), f"{tool.name}({name})"


async def test_descriptions_hold_the_configured_numbers(console_backend: WorkspaceBackend) -> None:
    tools = await offered(console_backend, ConsoleToolset(timeout=7, max_timeout=77, max_output=5_000))
    description = tools["run"].description or ""
    assert "(7.0 s by default, 77 s at most)" in description
    assert "5,000 characters" in description


async def test_there_are_no_instructions_unless_given(console_backend: WorkspaceBackend) -> None:
    async def instructions(toolset: ConsoleToolset[Any]) -> str | None:
        seen: list[str | None] = []

        def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            seen.append(info.instructions)
            return ModelResponse(parts=[TextPart("done")])

        await Agent(FunctionModel(respond), toolsets=[toolset]).run("go", workspace=console_backend)
        return seen[0]

    assert not await instructions(ConsoleToolset())
    assert await instructions(create_console_toolset(instructions="Be brief.")) == "Be brief."


async def test_a_smoke_run_of_every_tool_at_once(console_backend: WorkspaceBackend) -> None:
    agent = Agent(TestModel(call_tools=["ls", "glob", "grep", "read"]), toolsets=[create_console_toolset()])
    await agent.run("go", workspace=console_backend)


# Approval


@pytest.mark.parametrize(
    ("requires_approval", "deferred"), [(True, {"run", "ls"}), (["run"], {"run"}), (False, set[str]())]
)
async def test_calls_wait_for_approval(
    console_backend: WorkspaceBackend, requires_approval: bool | list[str], deferred: set[str]
) -> None:
    def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart("run", {"command": "true"}), ToolCallPart("ls", {})])

    agent = Agent(
        FunctionModel(respond),
        output_type=[str, DeferredToolRequests],
        toolsets=[ConsoleToolset(requires_approval=requires_approval)],
    )
    result = await agent.run("go", workspace=console_backend)
    waiting = result.output.approvals if isinstance(result.output, DeferredToolRequests) else []
    assert {part.tool_name for part in waiting} == deferred


# Where it works


async def test_deps_may_hold_the_workspace(console_backend: WorkspaceBackend) -> None:
    (answer,) = await play(None, call("run", command="pwd"), deps=Deps(console_backend))
    assert answer.lines[0] == await console_backend.working_dir()


async def test_a_workspace_of_the_run_comes_first(console_backend: WorkspaceBackend, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = LocalWorkspaceBackend(tmp_path / "other")
    (answer,) = await play(console_backend, call("run", command="pwd"), deps=Deps(other))
    assert answer.lines[0] == await console_backend.working_dir()


async def test_a_wrapper_in_deps_keeps_its_policy(console_backend: WorkspaceBackend) -> None:
    tools = await offered(None, deps=Deps(ReadOnlyWorkspace(Workspace(console_backend))))
    assert "run" not in tools


@pytest.mark.parametrize("deps", [None, Deps(None), object()])
async def test_without_a_workspace_the_error_says_how_to_give_one(deps: object) -> None:
    with pytest.raises(UserError, match=r"agent\.run\(\.\.\., workspace=DockerSandbox\(\)\).*deps=Deps\(backend="):
        await play(None, call("ls"), deps=deps)


async def test_a_backend_that_is_no_workspace_is_named() -> None:
    with pytest.raises(UserError, match=r"`deps\.backend` is a `int`, which is no workspace"):
        await play(None, call("ls"), deps=Deps(3))


async def test_an_unavailable_workspace_ends_the_run_with_its_reason() -> None:
    with pytest.raises(WorkspaceUnavailableError, match="expired yesterday"):
        await play(UnavailableWorkspace("expired yesterday"), call("ls"))


class Recording(WrapperWorkspace):
    """Somebody's policy."""


async def place_of(workspace: WorkspaceBackend) -> Place:
    places: list[Place] = []
    agent = Agent(TestModel(call_tools=[]), deps_type=object)

    @agent.instructions
    def look(ctx: Any) -> str:
        places.append(find_place(ctx))
        return ""

    await agent.run("go", workspace=workspace)
    return places[0]


async def test_abilities_are_looked_for_under_plain_layers_only(console_backend: WorkspaceBackend) -> None:
    plain = Workspace(console_backend)
    for workspace in (console_backend, plain, Workspace(plain)):
        assert (await place_of(workspace)).backend is console_backend
    for workspace in (
        ReadOnlyWorkspace(plain),
        Recording(plain),
        Workspace(Recording(plain)),
        Recording(Workspace(Recording(plain))),
    ):
        assert (await place_of(workspace)).backend is None


async def test_a_wrapper_that_only_lowers_authority_counts_as_one(console_backend: WorkspaceBackend) -> None:
    if not hasattr(workspaces, "AuthorityWorkspace"):
        pytest.skip("this version of Pydantic AI has no AuthorityWorkspace")
    workspace = workspaces.AuthorityWorkspace(Workspace(console_backend), authority="none")
    assert (await place_of(workspace)).backend is None


class Refusing(WrapperWorkspace):
    """A policy that allows one directory."""

    async def read_bytes(self, path: str) -> bytes:
        if "secret" in path:
            raise PermissionError(path)
        return await super().read_bytes(path)


async def test_a_wrappers_policy_holds_for_every_tool(console_backend: WorkspaceBackend) -> None:
    plain = Workspace(console_backend)
    await plain.write_text("secret.txt", "key\n")
    await plain.write_text("open.txt", "key\n")
    read, edited, found = await play(
        Refusing(plain),
        call("read", path="secret.txt"),
        call("edit", path="secret.txt", old_string="key", new_string="x"),
        call("grep", pattern="key"),
    )
    assert read.text.startswith("Permission denied: /")
    assert edited.outcome == "failed"
    assert found.lines[:-1] == ["open.txt"]


# What it remembers


async def test_one_instance_serves_runs_at_once_and_keeps_them_apart(tmp_path: Path) -> None:
    toolset = ConsoleToolset[Any](id="console")
    backends = [LocalWorkspaceBackend(tmp_path) for _ in range(4)]

    async def one(number: int) -> list[str]:
        path = f"{number}.txt"
        answers = await play(
            backends[number],
            call("write", path=path, content="a\n"),
            call("read", path=path),
            call("edit", path=path, old_string="a", new_string="b"),
            toolset=toolset,
        )
        return [answer.outcome for answer in answers]

    async with toolset:
        results = await asyncio.gather(*(one(number) for number in range(4)))
    assert results == [["success"] * 3] * 4


async def test_for_run_keeps_the_id_the_options_and_the_tools() -> None:
    toolset = ConsoleToolset[Any](id="console", include=["read", "ls"], max_retries=3)

    @toolset.tool_plain
    def extra() -> str:
        """Something of the application's own."""
        return "extra"

    mine = await toolset.for_run(None)  # pyright: ignore[reportArgumentType]
    assert isinstance(mine, ConsoleToolset)
    assert (mine.id, mine.max_retries, set(mine.tools)) == ("console", 3, {"read", "ls", "extra"})
    assert mine is not toolset
    assert mine._state is not None
    assert toolset._state is None


async def test_parallel_runs_in_one_workspace_do_not_lose_an_edit_silently(console_backend: WorkspaceBackend) -> None:
    workspace = Workspace(console_backend)
    await workspace.write_text("a.txt", "one\ntwo\n")
    both_read, edited_by_first = anyio.Event(), anyio.Event()

    async def first() -> str:
        *_, edited = await play(
            console_backend,
            call("read", path="a.txt"),
            both_read.wait,
            call("edit", path="a.txt", old_string="one", new_string="1"),
        )
        edited_by_first.set()
        return edited.outcome

    async def second() -> str:
        async def read() -> None:
            both_read.set()
            await edited_by_first.wait()

        *_, edited = await play(
            console_backend,
            call("read", path="a.txt"),
            read,
            call("write", path="a.txt", content="lost\n"),
        )
        return edited.outcome

    assert await asyncio.gather(first(), second()) == ["success", "retry"]
    assert await workspace.read_text("a.txt") == "1\ntwo\n"


# How it fails


class Failing(WorkspaceBackend):
    """A workspace in which every operation raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def ref(self) -> WorkspaceRef | None:
        return None

    async def working_dir(self) -> str:
        return "/w"

    async def run(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        raise self._error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (WorkspaceError("no room"), "no room"),
        (WorkspaceError("cannot reach tcp://user:hunter2@docker:2376"), "cannot reach tcp://docker:2376"),
        (WorkspaceError("x" * 100_000), "x" * 4_000 + "…"),
        (OSError(28, "No space left on device", "/w/a"), "No space left on device: /w/a"),
    ],
)
async def test_what_the_model_cannot_mend_it_is_told(error: Exception, message: str) -> None:
    answer = await ask(Failing(error), "run", command="true")
    assert (answer.outcome, answer.text) == ("failed", message)


@pytest.mark.parametrize(
    "error",
    [
        WorkspaceUnavailableError("gone"),
        EngineUnavailableError("gone"),
        ImageBuildError("gone"),
        RuntimeNotFoundError("gone"),
    ],
)
async def test_what_no_model_can_mend_ends_the_run(error: Exception) -> None:
    with pytest.raises(type(error), match="gone"):
        await ask(Failing(error), "run", command="true")


async def test_a_foreign_error_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await ask(Failing(ZeroDivisionError()), "run", command="true")


async def test_a_model_may_be_wrong_many_times(console_backend: WorkspaceBackend) -> None:
    await Workspace(console_backend).write_text("a.txt", "one\n")
    wrong = call("edit", path="a.txt", old_string="absent", new_string="x")
    answers = await play(console_backend, *[wrong] * 10, call("edit", path="a.txt", old_string="one", new_string="1"))
    assert [answer.outcome for answer in answers] == ["retry"] * 10 + ["success"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("/a"), "No such file or directory: /a"),
        (PermissionError(13, "Permission denied", "/a\nb"), "Permission denied: /a\\nb"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("plain words"), "plain words"),
        (OSError(), "OSError"),
    ],
)
def test_errors_of_the_system_are_one_line(error: OSError, message: str) -> None:
    assert describe(error) == message


def test_messages_are_visible_and_bounded() -> None:
    assert bounded("a\x1b[31m\u202e") == "a\\x1b[31m\\u202e"
    assert len(bounded("https://" + "x" * 50_000)) < 4_010


async def test_a_hopeless_expression_is_ended(
    console_backend: WorkspaceBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydantic_ai_sandbox.console.search.TIME_LIMIT", 0.5)
    await Workspace(console_backend).write_text("a.txt", "a" * 60 + "\n")
    beats, answers = 0, list[Answer]()

    async def heart() -> None:
        nonlocal beats
        while True:
            await anyio.sleep(0.02)
            beats += 1

    async with anyio.create_task_group() as group:
        group.start_soon(heart)
        answers = await play(console_backend, call("grep", pattern="(a|aa)+$b"))
        group.cancel_scope.cancel()
    assert "search stopped at its time limit, results incomplete" in answers[0].last
    assert beats > 10


async def test_only_the_youngest_spilled_outputs_are_kept(console_backend: WorkspaceBackend, tmp_path: Path) -> None:
    await play(console_backend, *[call("run", command="seq 1 20000")] * 6)
    spilled = sorted(path.name for path in (tmp_path / ".console").iterdir())
    assert spilled[0] == ".gitignore"
    assert len(spilled) == 5
