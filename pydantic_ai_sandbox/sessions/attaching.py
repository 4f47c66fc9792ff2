"""Talking to a container that was found at the engine, for one purpose, and letting go of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from pydantic_ai.messages import WorkspaceRef

from ..engines.base import ContainerInfo, Engine
from ..lifecycle import Blueprint, Lifecycle

__all__ = ("attached",)


@contextmanager
def attached(engine: Engine, info: ContainerInfo) -> Generator[Lifecycle]:
    """The way to a container's runner; the container goes on afterwards."""
    ref = WorkspaceRef(provider=engine.provider, id=info.id)
    lifecycle = Lifecycle(engine, Blueprint(runtime=info.spec.image, spec=info.spec), ref)
    try:
        yield lifecycle
    finally:
        lifecycle.detach()
