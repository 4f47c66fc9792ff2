"""`doctor`: the walls of a sandbox, and whether they stand."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from ..checks.doctor import Examination, examine
from ..checks.results import Check, Verdict, worst
from ..engines.docker.engine import DockerEngine
from .output import new_console

__all__ = ("print_examination",)

_STYLES: dict[Verdict, str] = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def print_examination(
    *, image: str | None, oci_runtime: str | None, workspace_root: Path | None, as_json: bool
) -> Verdict:
    """Examine a sandbox and print what was seen, as a table or as one JSON object; returns the worst verdict.

    Raises:
        SandboxError: There is no sandbox to examine.
    """
    what = Examination(
        engine=DockerEngine.default(), image=image, oci_runtime=oci_runtime, workspace_root=workspace_root
    )
    checks = asyncio.run(_all(what))
    verdict = worst(checks)
    if as_json:
        found = {"verdict": verdict, "checks": [dataclasses.asdict(check) for check in checks]}
        typer.echo(json.dumps(found, indent=2))
    else:
        new_console().print(_table(checks))
    return verdict


async def _all(what: Examination) -> tuple[Check, ...]:
    return tuple([check async for check in examine(what)])


def _table(checks: tuple[Check, ...]) -> Table:
    table = Table("check", "verdict", "what was seen", "what to do", box=None, pad_edge=False)
    for check in checks:
        verdict = Text(check.verdict, style=_STYLES[check.verdict])
        # As text, which has no markup: a container's words are in there.
        table.add_row(Text(check.name), verdict, Text(check.seen), Text(check.remedy))
    return table
