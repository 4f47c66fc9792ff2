"""Toolsets of pydantic-ai-harness work in our sandbox as in any other workspace: its `Shell`, `FileSystem` and `Coder`.

Runs in an environment of its own (`make test-interop`), since the harness pins Pydantic AI to its own release.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.workspaces import WorkspaceUnavailableError
from pydantic_ai_harness.coder import Coder
from pydantic_ai_harness.filesystem import FILE_SYSTEM_TOOL_NAMES, FileSystem
from pydantic_ai_harness.shell import Shell

from pydantic_ai_sandbox import DockerSandbox

pytestmark = pytest.mark.docker

Call = tuple[str, dict[str, Any]]
Answers = list[str]
Step = Call | Callable[[Answers], Call]
"""A tool call, or how to make one of what the tools answered so far."""


@pytest.fixture
async def sandbox() -> AsyncGenerator[DockerSandbox]:
    async with DockerSandbox(idle_timeout=90) as sandbox:
        yield sandbox


async def play(sandbox: DockerSandbox, capability: AbstractCapability[Any], *steps: Step) -> Answers:
    """What the tools answered to a model that makes those calls, one after the other."""
    answers: Answers = []

    def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answers[:] = [answer for message in messages for answer in answers_in(message)]
        if len(answers) == len(steps):
            return ModelResponse(parts=[TextPart("done")])
        step = steps[len(answers)]
        name, arguments = step(answers) if callable(step) else step
        assert name in {tool.name for tool in info.function_tools}
        return ModelResponse(parts=[ToolCallPart(name, arguments)])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        # `Coder` has the model's answers streamed.
        for index, part in enumerate(respond(messages, info).parts):
            if isinstance(part, ToolCallPart):
                yield {index: DeltaToolCall(part.tool_name, part.args_as_json_str())}
            elif isinstance(part, TextPart):
                yield part.content

    model = FunctionModel(respond, stream_function=stream)
    await Agent(model, capabilities=[capability]).run("go", workspace=sandbox)
    return answers


def answers_in(message: ModelMessage) -> list[str]:
    if not isinstance(message, ModelRequest):
        return []
    return [str(part.content) for part in message.parts if part.part_kind in {"tool-return", "retry-prompt"}]


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


class TestShell:
    async def test_commands_answer_with_both_streams_and_their_exit_code(self, sandbox: DockerSandbox) -> None:
        ok, failed, missing = await play(
            sandbox,
            Shell(),
            ("run_command", {"command": "echo one; echo two >&2; pwd; id -u"}),
            ("run_command", {"command": "exit 3"}),
            ("run_command", {"command": "no-such-program"}),
        )
        assert "one" in ok
        assert "two" in ok
        assert "/workspace\n10001" in ok
        assert failed.endswith("[exit code: 3]")
        assert missing.endswith("[exit code: 127]")
        assert "not found" in missing

    async def test_a_command_that_takes_too_long_is_killed_and_keeps_its_output(self, sandbox: DockerSandbox) -> None:
        (answer,) = await play(
            sandbox, Shell(), ("run_command", {"command": "echo begun; sleep 987", "timeout_seconds": 0.5})
        )
        assert "begun" in answer
        assert "timed out after 0.5s" in answer
        assert await running(sandbox, "sleep", "987") == 0

    async def test_the_directory_is_kept_between_calls_when_asked_for(self, sandbox: DockerSandbox) -> None:
        _, answer = await play(
            sandbox,
            Shell(persist_cwd=True),
            ("run_command", {"command": "mkdir -p 'a b' && cd 'a b'"}),
            ("run_command", {"command": "pwd"}),
        )
        assert "/workspace/a b" in answer

    async def test_background_commands_are_started_checked_and_stopped(self, sandbox: DockerSandbox) -> None:
        def id(answers: Answers) -> str:
            return found(r"ID: ([0-9a-f]{32})", answers[0])

        _, checked, stopped, again = await play(
            sandbox,
            Shell(),
            ("start_command", {"command": "echo from the background; sleep 987"}),
            lambda answers: ("check_command", {"command_id": id(answers)}),
            lambda answers: ("stop_command", {"command_id": id(answers)}),
            lambda answers: ("check_command", {"command_id": id(answers)}),
        )
        assert "[status: running]" in checked
        assert "from the background" in stopped
        assert "[stopped]" in stopped
        assert "unknown command ID" in again
        assert await running(sandbox, "sleep", "987") == 0


class TestFileSystem:
    async def test_a_file_is_written_read_edited_and_found(self, sandbox: DockerSandbox) -> None:
        made, wrote, read, edited, listed, searched, globbed, info = await play(
            sandbox,
            FileSystem(),
            ("create_directory", {"path": "src/deep"}),
            ("write_file", {"path": "src/deep/a.py", "content": "one = 1\ntwo = 2\n"}),
            ("read_file", {"path": "src/deep/a.py"}),
            ("edit_file", {"path": "src/deep/a.py", "old_text": "two = 2", "new_text": "two = 'zwölf'"}),
            ("list_directory", {"path": "src/deep"}),
            ("search_files", {"pattern": "zw.lf"}),
            ("find_files", {"pattern": "**/*.py"}),
            ("file_info", {"path": "src/deep/a.py"}),
        )
        assert made == "Created directory: src/deep"
        assert "src/deep/a.py" in wrote
        assert "one = 1" in read
        assert "hash" in edited
        assert listed == "src/deep/a.py  (23 bytes)"
        assert searched == "src/deep/a.py:2:two = 'zwölf'"
        assert globbed == "src/deep/a.py"
        assert "lines: 2" in info
        assert await sandbox.read_bytes("/workspace/src/deep/a.py") == "one = 1\ntwo = 'zwölf'\n".encode()

    async def test_listing_and_searching_work_without_ripgrep(self, sandbox: DockerSandbox) -> None:
        await sandbox.write_text("/workspace/src/a.py", "needle = 1\n")
        listed, searched = await play(
            sandbox,
            FileSystem(tools=FILE_SYSTEM_TOOL_NAMES),
            ("list_files", {"glob": "*.py"}),
            ("grep", {"pattern": "n.edle"}),
        )
        assert "src/a.py" in listed
        assert "src/a.py:1:needle = 1" in searched

    async def test_mistakes_are_told_to_the_model(self, sandbox: DockerSandbox) -> None:
        await sandbox.write_text("/workspace/a.txt", "same\nsame\n")
        missing, twice, _, stale, outside, link = await play(
            sandbox,
            FileSystem(max_retries=5),
            ("read_file", {"path": "no-such-file"}),
            ("edit_file", {"path": "a.txt", "old_text": "same", "new_text": "other"}),
            ("write_file", {"path": "b.txt", "content": "b"}),
            ("write_file", {"path": "a.txt", "content": "x", "expected_hash": "0123456789ab"}),
            ("read_file", {"path": "/etc/passwd"}),
            ("file_info", {"path": "no-such-file"}),
        )
        assert "no-such-file" in missing
        assert "2" in twice
        assert "hash" in stale.lower()
        assert "root:" not in outside
        assert link == "Path not found: no-such-file"
        assert await sandbox.read_bytes("/workspace/a.txt") == b"same\nsame\n"

    async def test_a_link_out_of_the_workspace_is_not_followed(self, sandbox: DockerSandbox) -> None:
        await sandbox.run(["ln", "-s", "/etc/passwd", "link"])
        (answer,) = await play(sandbox, FileSystem(), ("read_file", {"path": "link"}))
        assert "root:" not in answer
        assert "link" in answer


class TestCoder:
    async def test_it_repairs_a_script_with_its_six_tools(self, sandbox: DockerSandbox) -> None:
        await sandbox.write_text("/workspace/AGENTS.md", "Be brief.\n")
        _, red, listed, searched, read, edited, green = await play(
            sandbox,
            Coder(sub_agents=False),
            ("write_file", {"path": "main.py", "content": "assert 1 + 1 == 3\nprint('fine')\n"}),
            ("shell", {"command": "python main.py"}),
            ("list_files", {}),
            ("grep", {"pattern": "== 3"}),
            ("read_file", {"path": "main.py"}),
            ("edit_file", {"path": "main.py", "old_text": "== 3", "new_text": "== 2"}),
            ("shell", {"command": "python main.py"}),
        )
        assert "AssertionError" in red
        assert '"exit_code": 1' in red or '"exit_code":1' in red
        assert "main.py" in listed
        assert "main.py:1:assert 1 + 1 == 3" in searched
        assert "print('fine')" in read
        assert "main.py" in edited
        assert green.startswith("fine\n")

    async def test_a_command_outlives_the_run_and_is_stopped_by_another(self, sandbox: DockerSandbox) -> None:
        call = ("shell", {"command": "echo begun; exec sleep 987", "mode": "background"})
        (started,) = await play(sandbox, Coder(sub_agents=False), call)
        status, stop = found(r"Status: (\S+)", started), found(r"use `([^`]+)`", started)
        assert await running(sandbox, "sleep", "987") == 1
        await play(sandbox, Coder(sub_agents=False), ("shell", {"command": stop}))
        assert await running(sandbox, "sleep", "987") == 0
        assert await sandbox.exists(status)


COUNT = """
import glob, sys
command = "\\0".join(sys.argv[1:]) + "\\0"
print(sum(open(path).read() == command for path in glob.glob("/proc/[0-9]*/cmdline")))
"""


async def running(sandbox: DockerSandbox, *command: str) -> int:
    """How many processes of that command line run in the sandbox."""
    return int((await sandbox.run(["python", "-c", COUNT, *command])).stdout)


@pytest.mark.parametrize(
    "capability", [Shell(), FileSystem(), Coder(sub_agents=False)], ids=["shell", "files", "coder"]
)
async def test_a_sandbox_that_is_gone_ends_the_run(capability: AbstractCapability[Any]) -> None:
    sandbox = DockerSandbox(idle_timeout=90)
    await sandbox.run(["true"])
    await sandbox.destroy()
    call = ("run_command", {"command": "true"}) if isinstance(capability, Shell) else ("read_file", {"path": "a"})
    with pytest.raises(WorkspaceUnavailableError):
        await play(sandbox, capability, call)
