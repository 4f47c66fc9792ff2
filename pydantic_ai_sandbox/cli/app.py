"""The commands, with what each takes and says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..engines.docker.client import connect_daemon
from ..engines.docker.inventory import remove_everything
from ..runtimes import builtin_names
from .images import build_images, print_images
from .output import failures

__all__ = ("app",)

app = typer.Typer(
    name="pydantic-ai-sandbox",
    help="Images and containers of pydantic_ai_sandbox on the Docker daemon that the environment names.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_CANNOT_CHECK = 2
"""Exit status of `doctor` where there is no sandbox to examine."""


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
    with failures():
        build_images(connect_daemon(), runtimes or builtin_names())


@app.command()
def images() -> None:
    """List the images of runtimes that the daemon has."""
    with failures():
        print_images(connect_daemon())


@app.command()
def remove(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Remove all containers, volumes and images of this package; running sandboxes too. Workspace directories stay."""
    if not yes:
        typer.confirm("Remove all sandboxes, running ones too, and all images that were built?", abort=True)
    with failures():
        for name in remove_everything(connect_daemon()):
            typer.echo(f"removing {name}")


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
    # Here, because sandboxes bring in Pydantic AI, whose import takes longer than all that the other commands do.
    from .doctor import print_examination

    with failures(_CANNOT_CHECK):
        verdict = print_examination(
            image=image, oci_runtime=oci_runtime, workspace_root=workspace_root, as_json=as_json
        )
    raise typer.Exit(1 if verdict == "fail" else 0)
