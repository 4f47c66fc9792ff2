"""An agent analyses a data set in a sandbox and shows what it drew: `python examples/data_analysis.py`.

It loads the iris data with scikit-learn, looks at it with pandas and plots it with matplotlib, in a Python that keeps its
variables from one call to the next. The figure goes to the model as an image, and into a file here. Without `--model` a
script plays the model, so that it needs no key. Needs `pip install 'pydantic-ai-sandbox[examples]'` and a Docker daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from iris.scripted import scripted_model
from pydantic_ai import Agent, BinaryContent, UsageLimits
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import ModelMessage, ToolReturnPart
from pydantic_ai.models import Model, infer_model
from pydantic_ai.workspaces import WorkspaceError
from terminal.screen import Screen, Watched, timed

from pydantic_ai_sandbox import ConsoleToolset, DockerSandbox, SandboxError

TASK = (
    "Load the iris data set from scikit-learn, analyse with pandas which measurements tell the species apart, and show it "
    "in one plot made with matplotlib. Look at the plot before you answer."
)

SCRIPTED = "none, this is scripted: the cells were written beforehand; what they print and draw is real"


async def main(sandbox: DockerSandbox, model: Model, output: Path, screen: Screen) -> bool:
    """Ask the question and save the last figure; returns whether there is one."""
    async with sandbox:
        with screen.image_progress, timed() as start:
            await sandbox.start()
        screen.note("Sandbox", f"{sandbox.info.name if sandbox.info else ''} is up", seconds=start.seconds)

        screen.chapter("The agent at work")
        messages = await analyse(sandbox, model, screen)

    screen.chapter("What it drew")
    figures = images_in(messages)
    if not figures:
        screen.bad("Figure", "none")
        return False
    await asyncio.to_thread(output.write_bytes, figures[-1].data)
    screen.good("Figure", f"{output}, {len(figures[-1].data):,} bytes of {figures[-1].media_type}")
    return True


async def analyse(sandbox: DockerSandbox, model: Model, screen: Screen) -> Sequence[ModelMessage]:
    """Run the agent; returns everything that was said."""
    agent = Agent(model, toolsets=[Watched(ConsoleToolset(interpreter=True), screen)])
    async with agent.iter(TASK, workspace=sandbox, usage_limits=UsageLimits(request_limit=20)) as run:
        async for node in run:
            if Agent.is_call_tools_node(node):
                screen.model_says(node.model_response)
    assert run.result is not None
    return run.result.all_messages()


def images_in(messages: Sequence[ModelMessage]) -> list[BinaryContent]:
    """Images that tools gave the model, in order."""
    returned = (part for message in messages for part in message.parts if isinstance(part, ToolReturnPart))
    return [item for part in returned for item in part.content_items() if isinstance(item, BinaryContent)]


def command_line() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Watch an agent analyse a data set in a sandbox.")
    parser.add_argument(
        "--model",
        metavar="PROVIDER:NAME",
        help="a model of Pydantic AI, such as openai:gpt-5 (its key comes from the environment); a script without it",
    )
    parser.add_argument("--output", type=Path, default=Path("iris.png"), help="where the figure goes (%(default)s)")
    return parser.parse_args()


def run() -> int:
    """The exit status: 0 if there is a figure, 130 after Ctrl-C."""
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")  # it would land in the middle of what is shown
    options = command_line()
    screen = Screen()
    screen.title("An agent analyses a data set")
    try:
        model = infer_model(options.model) if options.model else scripted_model()
    except Exception as error:  # noqa: BLE001 — a missing key or package: every provider has errors of its own for it
        screen.bad("Model", f"{options.model}: {error}")
        return 2
    screen.note("Model", options.model or SCRIPTED)
    sandbox = DockerSandbox("python-datascience", idle_timeout=300, progress=screen.image_progress.report)
    try:
        return 0 if asyncio.run(main(sandbox, model, options.output, screen)) else 1
    except KeyboardInterrupt:
        screen.bad("Stopped", "by Ctrl-C")
        return 130
    except (SandboxError, WorkspaceError, AgentRunError, OSError) as error:
        screen.bad("Failed", f"{type(error).__name__}: {error}")
        return 1
    finally:
        sandbox.stop()


if __name__ == "__main__":
    sys.exit(run())
