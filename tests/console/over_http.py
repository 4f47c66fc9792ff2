"""Every tool through the real OpenAI model class and a mocked HTTP endpoint, on every workspace."""

from __future__ import annotations

import base64

import pytest
from pydantic_ai import Agent
from pydantic_ai.workspaces import Workspace, WorkspaceBackend

from pydantic_ai_sandbox.protocols import SupportsJobs
from tests.openai_endpoint import OpenAIEndpoint, ToolCall, openai_endpoint

from .contract import PNG, STATUS, OnAWorkspace
from .scripted import SHARED


async def converse(backend: WorkspaceBackend, *turns: list[ToolCall]) -> OpenAIEndpoint:
    with openai_endpoint(*turns, "done") as endpoint:
        result = await Agent(endpoint.model, toolsets=[SHARED]).run("go", workspace=backend)
    assert result.output == "done"
    return endpoint


class OverHTTPContract(OnAWorkspace):
    """What crosses the wire; subclass it and supply the fixture `console_backend`."""

    async def test_tools_are_offered_with_the_names_models_know(self, console_backend: WorkspaceBackend) -> None:
        tools = (await converse(console_backend)).tools
        parameters = {name: set(tool["parameters"]["properties"]) for name, tool in tools.items()}
        assert {"command", "timeout"} <= parameters.pop("run")
        expected = {
            "read": {"path", "offset", "limit"},
            "write": {"path", "content"},
            "edit": {"path", "old_string", "new_string", "replace_all"},
            "ls": {"path"},
            "glob": {"pattern", "path"},
            "grep": {
                "pattern",
                "path",
                "glob",
                "output_mode",
                "literal",
                "ignore_case",
                "context",
                "head_limit",
            },
        }
        if isinstance(console_backend, SupportsJobs):
            expected |= {"job_output": {"job_id", "cursor", "wait"}, "job_stop": {"job_id"}}
            expected |= {"job_input": {"job_id", "text", "close"}}
        assert parameters == expected

    async def test_run(self, console_backend: WorkspaceBackend) -> None:
        endpoint = await converse(console_backend, [ToolCall("run", {"command": "echo 'é \U0001f600'; exit 4"})])
        (answer,) = endpoint.tool_results
        assert answer.split("\n")[0] == "é \U0001f600"
        assert STATUS.fullmatch(answer.split("\n")[-1])

    async def test_output_that_is_no_text_can_be_sent(self, console_backend: WorkspaceBackend) -> None:
        endpoint = await converse(console_backend, [ToolCall("run", {"command": r"printf '\355\240\200\377\000x'"})])
        assert endpoint.tool_results[0].split("\n")[0].endswith("x")

    async def test_write_edit_and_read(self, console_backend: WorkspaceBackend, folder: str) -> None:
        path = f"{folder}/a b.py"
        endpoint = await converse(
            console_backend,
            [ToolCall("write", {"path": path, "content": "x = 1\n"})],
            [ToolCall("edit", {"path": path, "old_string": "x = 1", "new_string": "x = 'ü'"})],
            [ToolCall("read", {"path": path})],
        )
        wrote, edited, read = endpoint.tool_results
        assert wrote.endswith("(created)")
        assert edited.endswith("1\tx = 'ü'")
        assert read == "1\tx = 'ü'\n[lines 1-1 of 1; end of file]"

    async def test_several_calls_in_one_response(self, console_backend: WorkspaceBackend, folder: str) -> None:
        path = f"{folder}/s.txt"
        endpoint = await converse(
            console_backend,
            [
                ToolCall("write", {"path": path, "content": "0\n"}),
                ToolCall("edit", {"path": path, "old_string": "0", "new_string": "1"}),
                ToolCall("edit", {"path": f"./{path}", "old_string": "1", "new_string": "2"}),
                ToolCall("read", {"path": path}),
            ],
        )
        assert endpoint.tool_results[-1].startswith("1\t2\n")

    async def test_ls_glob_and_grep(self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str) -> None:
        await workspace.write_text(f"{folder}/src/a.py", "def f(): ...\n")
        endpoint = await converse(
            console_backend,
            [ToolCall("ls", {"path": folder})],
            [ToolCall("glob", {"pattern": "**/*.{py,md}", "path": folder})],
            [ToolCall("grep", {"pattern": r"def \w", "path": folder, "output_mode": "content"})],
        )
        listed, globbed, found = (answer.split("\n")[0] for answer in endpoint.tool_results)
        assert (listed, globbed, found) == ("src/", f"{folder}/src/a.py", f"{folder}/src/a.py:1:def f(): ...")

    async def test_an_image_is_sent_as_one(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_bytes(f"{folder}/plot.png", PNG)
        endpoint = await converse(console_backend, [ToolCall("read", {"path": f"{folder}/plot.png"})])
        assert endpoint.images == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]

    async def test_wrong_arguments_come_back_to_the_model(self, console_backend: WorkspaceBackend) -> None:
        endpoint = await converse(
            console_backend,
            [ToolCall("run", {"cmd": "true"})],
            [ToolCall("edit", {"path": "absent.txt", "old_string": "", "new_string": ""})],
            [ToolCall("no_such_tool", {})],
        )
        invalid, missing, unknown = endpoint.tool_results
        assert "command" in invalid
        assert "No such file" in missing or "old_string is empty" in missing
        assert "no_such_tool" in unknown

    async def test_a_job(self, console_backend: WorkspaceBackend) -> None:
        if not isinstance(console_backend, SupportsJobs):
            pytest.skip("this workspace has no background jobs")
        endpoint = await converse(
            console_backend, [ToolCall("run", {"command": "read x; echo got $x", "background": True})]
        )
        job_id = endpoint.tool_results[0].split("[job ")[1].split(" ·")[0]
        endpoint = await converse(
            console_backend,
            [ToolCall("job_input", {"job_id": job_id, "text": "it\n"})],
            [ToolCall("job_output", {"job_id": job_id, "wait": 5})],
            [ToolCall("job_stop", {"job_id": job_id})],
        )
        assert endpoint.tool_results[1].startswith("got it\n")
