"""`build` and `images`: building with progress, and what there is."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..engines.docker.client import Daemon
from ..engines.docker.images import ensure_image
from ..engines.docker.inventory import list_images, size_together
from ..runtimes import BuildProgress, builtin
from ..spec import RuntimeConfig, readable_size
from .output import new_console, printable

__all__ = ("build_images", "print_images")

_GIT = re.compile(r"\w+://|[\w.-]+@[\w.-]+:")

_SHOWN = frozenset({"base", "wait", "fetch", "finish"})
"""Steps of which each message is for people to see, also in a log."""


def build_images(api: Daemon, names: Sequence[str]) -> None:
    """Build what is missing of built-in runtimes, folders and git addresses, and print how large they are.

    Raises:
        ImageBuildError: A build failed.
        RuntimeNotFoundError: There is no such runtime or folder.
        EngineUnavailableError: The daemon does not answer.
    """
    console = new_console()
    images = [_build(api, console, _runtime(name)) for name in names]
    if len(images) > 1:
        total = readable_size(size_together(api, images))
        console.print(f"{len(images)} images, {total} together", highlight=False)


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


def _build(api: Daemon, console: Console, runtime: RuntimeConfig) -> str:
    started = time.monotonic()
    with _shown(console, runtime.name) as show:
        image = ensure_image(api, runtime, progress=show)
    [info] = list_images(api, image)
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
        message = printable(event.message).strip()
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


def print_images(api: Daemon) -> None:
    """Print a table of the images of runtimes that the daemon has.

    Raises:
        EngineUnavailableError: The daemon does not answer.
    """
    found = list_images(api)
    if not found:
        typer.echo("no images yet; `pydantic-ai-sandbox build` makes those of the built-in runtimes")
        return
    table = Table("runtime", "image", "base", "size", "created", box=None, pad_edge=False)
    for image in found:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(image.created))
        table.add_row(image.runtime, image.name, image.base or "its own", readable_size(image.size), created)
    console = new_console()
    console.print(table)
    total = readable_size(size_together(api, [image.name for image in found]))
    console.print(f"{total} together, what they share counted once", highlight=False)
