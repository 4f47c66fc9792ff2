"""The command line: `pydantic-ai-sandbox build`, `images`, `remove`, `doctor`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .checks.doctor import Examination, examine
from .checks.results import Check, Verdict, worst
from .engines.docker import DockerEngine
from .engines.docker.inventory import list_images, remove_everything, size_together
from .errors import ImageBuildError, SandboxError
from .runtimes import BuildProgress, builtin, builtin_names
from .spec import RuntimeConfig, readable_size

__all__ = ("app",)

app = typer.Typer(
    name="pydantic-ai-sandbox",
    help="Images and containers of pydantic_ai_sandbox on the Docker daemon that the environment names.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_GIT = re.compile(r"\w+://|[\w.-]+@[\w.-]+:")
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_SHOWN = frozenset({"base", "wait", "fetch", "finish"})
"""Steps of which each message is for people to see, also in a log."""


def _complete_runtime(incomplete: str) -> list[str]:
    return [name for name in builtin_names() if name.startswith(incomplete)]


@app.command()
def build(
    runtimes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Built-in runtimes, folders with a Dockerfile, or git addresses; all built-in runtimes if none is named.",
            autocompletion=_complete_runtime,
        ),
    ] = None,
) -> None:
    """Build the images of runtimes that are not there yet."""
    console = _console()
    with _failures():
        api = DockerEngine.default().api()
        images = [_build(console, _runtime(name)) for name in runtimes or builtin_names()]
        total = size_together(api, images)
    if len(images) > 1:
        console.print(f"{len(images)} images, {readable_size(total)} together", highlight=False)


def _console() -> Console:
    console = Console(soft_wrap=True)
    # A log has no width.
    return console if console.is_terminal else Console(soft_wrap=True, width=200)


def _runtime(name: str) -> RuntimeConfig:
    if _GIT.match(name):
        last = name.partition("#")[0].rstrip("/").rpartition("/")[2].removesuffix(".git")
        return RuntimeConfig(name=_as_name(last), git=name)
    if "/" in name or name == ".":
        folder = Path(name).expanduser().absolute()
        return RuntimeConfig(name=_as_name(folder.name), dockerfile=folder)
    return builtin(name)


def _as_name(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-") or "runtime"


def _build(console: Console, runtime: RuntimeConfig) -> str:
    started = time.monotonic()
    engine = DockerEngine.default()
    with _shown(console, runtime.name) as show:
        image = engine.resolve_image(runtime, show)
    info = next(info for info in list_images(engine.api()) if info.name == image)
    base = "" if info.base is None else f", {info.base} base"
    what = f"ready in {time.monotonic() - started:.1f} s" if show.events else "there already"
    console.print(f"{runtime.name}: {image}{base}, {readable_size(info.size)}, {what}", highlight=False, markup=False)
    return image


class _Show:
    """Shows progress: a bar on a terminal, a line for each thing that matters in a log."""

    def __init__(self, console: Console, name: str, progress: Progress | None) -> None:
        self.events = 0
        self._console = console
        self._progress = progress
        self._task = None if progress is None else progress.add_task(name, total=None, message="")
        self._step = ""

    def __call__(self, event: BuildProgress) -> None:
        self.events += 1
        is_news = event.step in _SHOWN or event.step != self._step
        self._step = event.step
        message = _UNPRINTABLE.sub("", event.message).strip()
        if self._progress is None or self._task is None:
            if is_news:
                self._console.print(Text(f"  {message}"))
            return
        if is_news:
            self._progress.console.print(Text(f"  {message}"))
        self._progress.update(self._task, message=message[:70])
        if event.total:
            self._progress.update(self._task, completed=event.current or 0, total=event.total)


@contextmanager
def _shown(console: Console, name: str) -> Generator[_Show]:
    if not console.is_terminal:
        yield _Show(console, name, None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", markup=False, style="dim"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Show(console, name, progress)


@app.command()
def images() -> None:
    """List the images of runtimes that the daemon has."""
    with _failures():
        api = DockerEngine.default().api()
        found = list_images(api)
        total = size_together(api, [image.name for image in found])
    if not found:
        typer.echo("no images yet; `pydantic-ai-sandbox build` makes those of the built-in runtimes")
        return
    table = Table("runtime", "image", "base", "size", "created", box=None, pad_edge=False)
    for image in found:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(image.created))
        table.add_row(image.runtime, image.name, image.base or "its own", readable_size(image.size), created)
    console = _console()
    console.print(table)
    console.print(f"{readable_size(total)} together, what they share counted once", highlight=False)


@app.command()
def remove(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Remove all containers, volumes and images of this package; running sandboxes too. Workspace directories stay."""
    if not yes:
        typer.confirm("Remove all sandboxes, running ones too, and all images that were built?", abort=True)
    with _failures():
        for name in remove_everything(DockerEngine.default().api()):
            typer.echo(f"removing {name}")


_STYLES: dict[Verdict, str] = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}

_CANNOT_CHECK = 2
"""Exit status of `doctor` where there is no sandbox to examine."""


@app.command()
def doctor(
    workspace_root: Annotated[
        Path | None,
        typer.Option(
            help="Directory of users' workspaces, to find out what holds a quota there.", file_okay=False, exists=True
        ),
    ] = None,
    oci_runtime: Annotated[
        str | None, typer.Option(help="OCI runtime to examine, such as runsc, instead of the daemon's default.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Image to examine instead of the runtime python-minimal.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object instead of a table.")] = False,
) -> None:
    """Try every wall of a sandbox made for the purpose.

    Exit status: 0 if none is missing, 1 if one is, 2 if nothing could be tried.
    """
    with _failures(_CANNOT_CHECK):
        what = Examination(
            engine=DockerEngine.default(), image=image, oci_runtime=oci_runtime, workspace_root=workspace_root
        )
        checks = asyncio.run(_all(what))
    verdict = worst(checks)
    if as_json:
        found = {"verdict": verdict, "checks": [dataclasses.asdict(check) for check in checks]}
        typer.echo(json.dumps(found, indent=2))
    else:
        _console().print(_table(checks))
    raise typer.Exit(1 if verdict == "fail" else 0)


async def _all(what: Examination) -> tuple[Check, ...]:
    return tuple([check async for check in examine(what)])


def _table(checks: tuple[Check, ...]) -> Table:
    table = Table("check", "verdict", "what was seen", "what to do", box=None, pad_edge=False)
    for check in checks:
        verdict = Text(check.verdict, style=_STYLES[check.verdict])
        # As text, which has no markup: a container's words are in there.
        table.add_row(Text(check.name), verdict, Text(check.seen), Text(check.remedy))
    return table


@contextmanager
def _failures(status: int = 1) -> Generator[None]:
    """End with a message, and an exit status, instead of a traceback."""
    try:
        yield
    except SandboxError as error:
        log = error.log_tail if isinstance(error, ImageBuildError) else ""
        message = "\n".join(_UNPRINTABLE.sub("", line) for line in [*log.splitlines(), f"error: {error}"])
        typer.echo(message, err=True)
        raise typer.Exit(status) from None
