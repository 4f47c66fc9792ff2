"""What the terminal shows. Nothing that comes out of a sandbox or a model reaches it raw."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.messages import BinaryContent, ModelResponse, TextPart
from pydantic_ai.tools import RunContext
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pydantic_ai_sandbox import RunResult
from pydantic_ai_sandbox.runtimes import BuildProgress

HEAD, TAIL = 12, 10
"""Lines of a tool's answer that are shown; the model sees all of them."""

WIDTH = 110
"""Columns that are used at most."""

LABEL = 11
"""Width of the column on the left."""


def printable(text: str) -> str:
    """`text` with whatever a terminal would act on, or cannot show, written out."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text.expandtabs()
    )


@dataclass
class Stopwatch:
    """How long something took."""

    seconds: float = 0.0


@contextmanager
def timed() -> Generator[Stopwatch]:
    """Measure what is done meanwhile."""
    watch, started = Stopwatch(), time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - started


class Screen:
    """The terminal, or wherever standard output goes."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._console.width = min(self._console.width, WIDTH)
        self.image_progress = ImageProgress(self._console)

    def title(self, text: str) -> None:
        """The beginning."""
        self._console.print(Rule(Text(text, style="bold")))

    def chapter(self, title: str) -> None:
        """The beginning of a part."""
        self._console.print()
        self._console.print(Rule(Text(title, style="bold"), align="left", style="dim"))

    def note(self, label: str, text: str, *, seconds: float | None = None, style: str = "") -> None:
        """A line or more beside their label."""
        self._row(Text(label, style="bold"), Text(printable(text), style=style), seconds)

    def good(self, label: str, text: str) -> None:
        """Something that is as it should be."""
        self.note(label, f"✓ {text}", style="green")

    def bad(self, label: str, text: str) -> None:
        """Something that is not as it should be."""
        self.note(label, f"✗ {text}", style="red")

    def test_run(self, label: str, command: str, result: RunResult) -> None:
        """A run of tests, in one line: green or red, and their own last word."""
        words = [line for line in f"{result.stdout}\n{result.stderr}".splitlines() if line.strip()]
        verdict = Text("green", "bold green") if result.exit_code == 0 else Text("red", "bold red")
        last = f", “{words[-1]}”" if words else ""
        text = Text(f"{printable(command)} → ").append(verdict).append(printable(f" (exit {result.exit_code}{last})"))
        self._row(Text(label, style="bold"), text, result.duration)

    def line_changed(self, label: str, place: str, old: str, new: str) -> None:
        """One line for another."""
        self.note(label, place)
        self._indented(_changed(old, new))

    def model_says(self, response: ModelResponse) -> None:
        """What the model says beside calling tools."""
        for part in response.parts:
            if isinstance(part, TextPart) and part.content.strip():
                self._console.print()
                self._row(Text("Agent", style="bold cyan"), Text(printable(part.content.strip()), style="italic"), None)

    def tool_call(self, name: str, arguments: Mapping[str, Any], answer: str, seconds: float, *, refused: bool) -> None:
        """A tool call of the model and what it was answered."""
        quoted = {"old_string", "new_string", "content", "code"}
        given = {key: value for key, value in arguments.items() if key not in quoted}
        call = Text(" ".join(_argument(key, value) for key, value in given.items()))
        self._row(Text(f"→ {printable(name)}", style="bold magenta"), call, seconds)
        if "old_string" in arguments:
            self._indented(_changed(str(arguments["old_string"]), str(arguments.get("new_string", ""))))
        for name in ("content", "code"):
            if name in arguments:
                self._indented(_quoted(str(arguments[name]), "green"))
        self._indented(_quoted(answer, "red" if refused else "dim"))

    def table(self, rows: Mapping[str, str]) -> None:
        """Facts by name."""
        for label, text in rows.items():
            self.note(label, text)

    def _row(self, label: Text, text: Text, seconds: float | None) -> None:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=LABEL, no_wrap=True)
        grid.add_column(ratio=1, overflow="fold")
        grid.add_column(justify="right", no_wrap=True)
        grid.add_row(label, text, Text("" if seconds is None else _duration(seconds), style="cyan"))
        self._console.print(grid)

    def _indented(self, lines: Iterable[Text]) -> None:
        for line in lines:
            row = Text("│ ", style="dim").append(line)
            row.truncate(max(20, self._console.width - LABEL - 1), overflow="ellipsis")
            self._console.print(Padding(row, (0, 0, 0, LABEL + 1)), no_wrap=True)


def _argument(key: str, value: object) -> str:
    text = printable(str(value))
    return text if key in {"command", "path", "pattern"} else f"{key}={text}"


def _changed(old: str, new: str) -> list[Text]:
    return [
        *(Text(f"- {printable(line)}", "red") for line in old.splitlines()),
        *(Text(f"+ {printable(line)}", "green") for line in new.splitlines()),
    ]


def _quoted(text: str, style: str) -> list[Text]:
    lines = text.rstrip("\n").split("\n")
    if len(lines) > HEAD + TAIL + 1:
        lines = [*lines[:HEAD], f"… {len(lines) - HEAD - TAIL} more lines", *lines[-TAIL:]]
    return [Text(printable(line), style=style) for line in lines]


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


@dataclass
class Watched(WrapperToolset[Any]):
    """A toolset whose calls are shown, each with the time it took."""

    screen: Screen

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Call the tool and show the call, also when the model is told to do better."""
        refusal: Exception | None = None
        answer: Any = None
        with timed() as call:
            try:
                answer = await super().call_tool(name, tool_args, ctx, tool)
            except (ModelRetry, ToolFailed) as error:
                refusal = error
        given = {key: value for key, value in tool_args.items() if value != _default(tool, key)}
        self.screen.tool_call(name, given, str(refusal or _as_text(answer)), call.seconds, refused=refusal is not None)
        if refusal is not None:
            raise refusal
        return answer


def _as_text(answer: Any) -> str:
    parts: list[Any] = cast("list[Any]", answer) if isinstance(answer, list) else [answer]
    return "\n".join(f"[{part.media_type}]" if isinstance(part, BinaryContent) else str(part) for part in parts)


def _default(tool: ToolsetTool[Any], argument: str) -> object:
    return tool.tool_def.parameters_json_schema["properties"].get(argument, {}).get("default")


class ImageProgress:
    """How far pulling or building an image is; nothing is shown where the image is there already."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._step = ""

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, event: BuildProgress) -> None:
        """Show an event; called from a worker thread."""
        line = printable(event.message.partition("\n")[0])
        message = line[: max(20, self._console.width - 60)]
        if event.step != self._step:
            self._step = event.step
            self._console.print(Text(f"  {line}", style="dim"), no_wrap=True, overflow="ellipsis")
        task = self._bar.task_ids[0] if self._bar.task_ids else self._bar.add_task(message, total=None)
        self._bar.update(task, description=message, completed=event.current or 0, total=event.total)
