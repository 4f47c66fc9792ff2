"""The ways in which the design says the package is used, run as written: nothing left behind, nothing complained about."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.docker

SETUP = """
import asyncio
from dataclasses import dataclass

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from pydantic_ai_sandbox import ConsoleToolset, DockerSandbox, create_console_toolset

@dataclass
class Deps:
    backend: DockerSandbox

model = TestModel(call_tools=["ls"])
sandboxes = []
"""

ONE_SANDBOX = """
async def main():
    async with DockerSandbox("python-minimal") as sandbox:
        agent = Agent(model, toolsets=[ConsoleToolset()])
        result = await agent.run("...", workspace=sandbox)
    sandboxes.append(sandbox)
    print(result.output)

asyncio.run(main())
"""

ON_UVLOOP = "import uvloop\n" + ONE_SANDBOX.replace("asyncio.run", "uvloop.run")

DEPS_BACKEND = """
sandbox = DockerSandbox(runtime="python-minimal")
agent = Agent(model, deps_type=Deps, toolsets=[create_console_toolset()])
result = agent.run_sync("...", deps=Deps(backend=sandbox))
sandbox.stop()
sandboxes.append(sandbox)
print(result.output)
"""

STOP_IN_A_LOOP = """
async def main():
    sandbox = DockerSandbox(runtime="python-minimal")
    agent = Agent(model, deps_type=Deps, toolsets=[create_console_toolset()])
    result = await agent.run("...", deps=Deps(backend=sandbox))
    sandbox.stop()
    sandboxes.append(sandbox)
    print(result.output)

asyncio.run(main())
"""

RUN_SYNC_IN_A_THREAD = """
def work(agent, sandbox):
    loop = asyncio.new_event_loop()  # one that `run_sync` makes itself it would never close
    asyncio.set_event_loop(loop)
    try:
        return agent.run_sync("...", deps=Deps(backend=sandbox))
    finally:
        {finish}

async def main():
    sandbox = DockerSandbox(runtime="python-minimal")
    agent = Agent(model, deps_type=Deps, toolsets=[create_console_toolset()])
    result = await asyncio.to_thread(work, agent, sandbox)
    sandbox.stop()
    sandboxes.append(sandbox)
    print(result.output)

loops = []
asyncio.run(main())
for loop in loops:
    loop.close()
"""

RUN_SYNC_IN_A_LOOP = """
async def main():
    sandbox = DockerSandbox(runtime="python-minimal")
    agent = Agent(model, deps_type=Deps, toolsets=[create_console_toolset()])
    try:
        agent.run_sync("...", deps=Deps(backend=sandbox))
    except RuntimeError as error:
        assert "already running" in str(error), error  # Pydantic AI's own answer, before anything of ours is reached
    else:
        raise AssertionError("run_sync works inside a running loop now: test that instead")
    result = await agent.run("...", deps=Deps(backend=sandbox))
    sandbox.stop()
    sandboxes.append(sandbox)
    print(result.output)

asyncio.run(main())
"""

RUN_SYNC_IN_A_NOTEBOOK = """
import nest_asyncio2
nest_asyncio2.apply()

async def cell():
    sandbox = DockerSandbox(runtime="python-minimal")
    agent = Agent(model, deps_type=Deps, toolsets=[create_console_toolset()])
    result = agent.run_sync("...", deps=Deps(backend=sandbox))
    sandbox.stop()
    sandboxes.append(sandbox)
    print(result.output)

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(cell())
"""

RUN_AND_STOP_OUTSIDE = """
sandbox = DockerSandbox(runtime="python-minimal")
agent = Agent(model, deps_type=Deps, toolsets=[create_console_toolset()])
result = asyncio.run(agent.run("...", deps=Deps(backend=sandbox)))
sandbox.stop()
sandboxes.append(sandbox)
print(result.output)
"""

PROOF = """
print(*(sandbox.ref.id for sandbox in sandboxes))
"""

SLOW = re.compile(r"^Executing <.*> took [\d.]+ seconds$")
"""What asyncio's debug mode says of a busy machine."""


STRICT = ("-X", "dev", "-W", "error::ResourceWarning", "-W", "error::RuntimeWarning")
"""Every check that Python has."""


def run(script: str, *options: str) -> tuple[list[str], list[str]]:
    """The lines that a script printed, and its complaints."""
    command = [sys.executable, *options, "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), [line for line in done.stderr.splitlines() if not SLOW.match(line)]


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(ONE_SANDBOX, id="one sandbox"),
        pytest.param(ON_UVLOOP, id="one sandbox on uvloop, which `uvicorn[standard]` brings"),
        pytest.param(DEPS_BACKEND, id="deps.backend"),
        pytest.param(STOP_IN_A_LOOP, id="deps.backend in a coroutine"),
        pytest.param(RUN_SYNC_IN_A_THREAD.format(finish="loops.append(loop)"), id="run_sync in a thread"),
        pytest.param(RUN_SYNC_IN_A_LOOP, id="run_sync in a running loop"),
    ],
)
def test_a_form_runs_as_written_twice_in_a_row(form: str, docker_api: Any) -> None:
    printed, complaints = run(SETUP + form + form + PROOF, *STRICT)
    assert complaints == []
    check(printed, docker_api)


def test_run_sync_inside_a_running_loop_as_notebooks_allow_it(docker_api: Any) -> None:
    # Python forbids it and Pydantic AI says so (above); notebooks make loops re-entrant, and then it runs as written.
    printed, complaints = run(SETUP + RUN_SYNC_IN_A_NOTEBOOK + RUN_SYNC_IN_A_NOTEBOOK + PROOF)
    assert complaints == []
    check(printed, docker_api)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(RUN_AND_STOP_OUTSIDE, id="asyncio.run"),
        pytest.param(RUN_SYNC_IN_A_THREAD.format(finish="loop.close()"), id="run_sync in a thread"),
    ],
)
def test_a_sandbox_can_be_stopped_when_its_event_loop_is_closed(form: str, docker_api: Any) -> None:
    # Not as strict: a transport that outlived its loop cannot be closed any more, only its socket can.
    printed, complaints = run(SETUP + form + form + PROOF)
    assert complaints == []
    check(printed, docker_api)


def check(printed: list[str], docker_api: Any) -> None:
    assert printed[:-1] == ['{"ls":"[empty directory · /workspace]"}'] * 2
    ids = printed[-1].split()
    assert len(set(ids)) == 2
    for id in ids:
        assert docker_api.containers(all=True, filters={"id": id}) == []
