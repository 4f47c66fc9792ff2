"""An agent repairs a real package in a sandbox: `make demo`, or `python examples/quickstart.py --model provider:name`.

A package of the standard library and its tests are copied into a hardened container, one line is broken, and an agent
with the console tools finds and repairs it. Without `--model` a script plays the model, so that it needs no key. Needs
`pip install 'pydantic-ai-sandbox[examples]'` and a Docker daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from pydantic_ai import Agent, UsageLimits
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.workspaces import WorkspaceError
from repair.packages import NAMES, NoPackageError, Package, break_it, install, run_tests
from repair.report import describe, remains
from repair.scripted import scripted_model
from terminal.screen import Screen, Watched, timed

from pydantic_ai_sandbox import ConsoleToolset, DockerEngine, DockerSandbox, SandboxError

TASK = (
    "The tests of the Python package in the working directory fail since somebody changed one line of it. "
    "Find that line, repair it, and prove that the tests pass again. Do not change the tests. "
    "They are run by: {tests}"
)

SCRIPTED = (
    "none, this is scripted: a plan made beforehand calls the tools; the tools, the sandbox and the test results are "
    "real. With a real model: python examples/quickstart.py --model openai:gpt-5 (its key in OPENAI_API_KEY)"
)


async def main(
    engine: DockerEngine, sandbox: DockerSandbox, model: Model | None, package_name: str | None, screen: Screen
) -> bool:
    """Break a package in the sandbox and let an agent repair it; returns whether the tests pass in the end."""
    async with sandbox:
        with screen.image_progress, timed() as start:
            await sandbox.start()
        screen.note("Sandbox", f"{sandbox.info.name if sandbox.info else ''} is up", seconds=start.seconds)
        package = await install(sandbox, screen, package_name)
        await break_it(sandbox, package, screen)

        screen.chapter("The agent at work")
        await repair(sandbox, package, model or scripted_model(package), screen)

        screen.chapter("Did it work?")
        green = await check(sandbox, package, screen)

        screen.chapter("What it ran in")
        screen.table(await describe(engine, sandbox))
    return green


async def repair(sandbox: DockerSandbox, package: Package, model: Model, screen: Screen) -> None:
    """Run the agent; showing what it does is most of this."""
    agent = Agent(model, toolsets=[Watched(ConsoleToolset(), screen)])
    limits = UsageLimits(request_limit=40)
    async with agent.iter(TASK.format(tests=package.tests), workspace=sandbox, usage_limits=limits) as run:
        async for node in run:
            if Agent.is_call_tools_node(node):
                screen.model_says(node.model_response)


async def check(sandbox: DockerSandbox, package: Package, screen: Screen) -> bool:
    """Run the tests once more, whatever the model said about them."""
    result = await run_tests(sandbox, package)
    screen.test_run("Tests", package.tests, result)
    same = await sandbox.read_bytes(package.defect.path) == package.original
    screen.note("Source", f"{package.defect.path} is {'byte for byte what' if same else 'other than'} it was at first")
    return result.exit_code == 0


def farewell(engine: DockerEngine, sandbox: DockerSandbox, screen: Screen) -> bool:
    """Ask Docker for what is left of the sandbox; returns whether nothing is."""
    if sandbox.info is None:
        return True
    left = remains(engine, sandbox)
    screen.chapter("What is left")
    if left:
        screen.bad("Docker", f"still knows {', '.join(left)}")
    else:
        screen.good("Docker", f"knows no container {sandbox.info.name} any more, and its files were in its memory")
    return not left


def command_line() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Watch an agent repair a Python package in a sandbox.")
    parser.add_argument(
        "--model",
        metavar="PROVIDER:NAME",
        help="a model of Pydantic AI, such as openai:gpt-5 (its key comes from the environment); a script without it",
    )
    parser.add_argument(
        "--package", choices=NAMES, help="what to break; by default the first that is here with its tests"
    )
    return parser.parse_args()


def run() -> int:
    """The exit status: 0 if the agent repaired the package and nothing is left behind, 130 after Ctrl-C."""
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")  # it would land in the middle of what is shown
    options = command_line()
    screen = Screen()
    screen.title("An agent repairs a Python package")
    try:
        model = infer_model(options.model) if options.model else None
    except Exception as error:  # noqa: BLE001 — a missing key or package: every provider has errors of its own for it
        screen.bad("Model", f"{options.model}: {error}")
        return 2
    screen.note("Model", options.model or SCRIPTED)

    engine = DockerEngine()
    sandbox = DockerSandbox(
        engine=engine,
        idle_timeout=300,
        progress=screen.image_progress.report,
    )
    status = 1
    try:
        status = 0 if asyncio.run(main(engine, sandbox, model, options.package, screen)) else 1
    except KeyboardInterrupt:
        status = 130
        screen.bad("Stopped", "by Ctrl-C")
    except (SandboxError, WorkspaceError, AgentRunError, NoPackageError) as error:
        screen.bad("Failed", f"{type(error).__name__}: {error}")
    finally:
        gone = farewell(engine, sandbox, screen)
        engine.close()
    return status if gone else status or 1


if __name__ == "__main__":
    sys.exit(run())
