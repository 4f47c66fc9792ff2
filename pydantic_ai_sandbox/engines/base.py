"""What a sandbox needs from whatever runs its container."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..spec import ContainerSpec, RuntimeConfig

if TYPE_CHECKING:
    # At run time it would bring in Pydantic AI, which takes longer than most of what the command line does.
    from ..channel.multiplexer import Channel

__all__ = ("Connection", "ContainerInfo", "Engine", "Progress", "UnknownContainerError", "completed")

T = TypeVar("T")

Progress = Callable[[Any], None]
"""Told about long work (pulling, building) as it goes on, from a worker thread."""


class UnknownContainerError(LookupError):
    """There is no such container, or it is not one of ours."""


@dataclass(frozen=True, kw_only=True)
class ContainerInfo:
    """A container as the engine knows it."""

    id: str
    """The engine's identifier, never used for another container."""
    name: str
    spec: ContainerSpec
    """What it was made from."""
    running: bool
    status: str
    """The engine's word for its state, for messages."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Who it belongs to."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A byte stream to a runner, connected but not yet on an event loop."""

    sock: socket.socket
    """Connected stream socket; whoever takes the connection owns it."""
    wrap: Callable[[Channel], asyncio.BaseProtocol]
    """Puts the protocol that the transport needs around ours."""
    transport: str
    """How it was reached, for people (`"socket"`, `"exec"`)."""


class Engine(Protocol):
    """Runs containers.

    The methods block, bounded by the engine's own deadlines; a sandbox has them run by `submit`. All raise
    `EngineUnavailableError` when the engine does not answer and `EngineError` when it refuses.
    """

    @property
    def provider(self) -> str:
        """The `provider` of its containers' `WorkspaceRef`."""
        ...

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run `call` in one of the engine's few worker threads."""
        ...

    def resolve_image(self, runtime: RuntimeConfig | str, progress: Progress | None) -> str:
        """The image for a runtime (built if need be) or an image reference (pulled if need be).

        Raises:
            ImageBuildError: It could not be had.
        """
        ...

    def prepare_workspace(self, workspace: Path, *, is_session: bool = False) -> int:
        """Make the host directory if it is missing, and return the user that a sandbox over it runs as.

        Args:
            workspace: Which.
            is_session: Whether a session manager asks, whose own the directory is.

        Raises:
            ValueError: It must not be mounted.
            EngineError: No user but root may write to it.
        """
        ...

    def create(self, spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> tuple[ContainerInfo, bool]:
        """Create a container, not started, of that name, or find the one of ours that has it.

        Creating a name is atomic, and so is the lock between tasks, workers and restarts.

        Args:
            spec: What to make it from.
            name: Its name; one that has just ended makes room for a new one.
            labels: Who it belongs to; a container of that name must have the same.

        Returns:
            The container, and whether it was created.

        Raises:
            UnknownContainerError: The name belongs to a container that is not ours.
            SpecMismatchError: It belongs to one that was made from another spec.
        """
        ...

    def find(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """All containers of ours that have these labels."""
        ...

    def tidy(self, labels: Mapping[str, str]) -> int:
        """Remove containers with these labels that ended, or were never started, a while ago; returns how many.

        They end and go by themselves; what remains is what an engine that was restarted, or a maker that was killed, left.
        """
        ...

    def start(self, id: str) -> None:
        """Start a container; one that runs is fine.

        Raises:
            UnknownContainerError: It is gone.
        """
        ...

    def inspect(self, id: str) -> ContainerInfo:
        """Look at a container.

        Raises:
            UnknownContainerError: It is gone, or not ours.
        """
        ...

    def connect(self, id: str) -> Connection:
        """Open a byte stream to the runner of a container that was started.

        Raises:
            UnknownContainerError: It is gone.
        """
        ...

    def stop(self, id: str) -> None:
        """End what runs in a container but keep it; one that is gone is fine."""
        ...

    def remove(self, id: str) -> None:
        """Remove a container and what it wrote; one that is gone is fine."""
        ...

    def pause(self, id: str) -> None:
        """Freeze every process of a container; one that is frozen is fine.

        Raises:
            UnknownContainerError: It is gone.
        """
        ...

    def resume(self, id: str) -> None:
        """Thaw a paused container; one that is not paused is fine.

        Raises:
            UnknownContainerError: It is gone.
        """
        ...

    def logs(self, id: str, lines: int) -> str:
        """The last lines that the runner itself wrote.

        Raises:
            UnknownContainerError: It is gone.
        """
        ...


async def completed(future: Future[T], abandoned: Callable[[T], object] | None = None) -> T:
    """The result of work in an engine's thread, which goes on when the caller is cancelled.

    Args:
        future: What `Engine.submit` returned.
        abandoned: Called, in any thread, with a result that nobody waits for any more.
    """
    waited_for = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waited_for)
    except asyncio.CancelledError:
        # Its failure is nobody's any more either, and not to be reported as one that was forgotten.
        waited_for.add_done_callback(lambda done: done.cancelled() or done.exception())
        if abandoned is not None:
            future.add_done_callback(lambda done: _hand_over(done, abandoned))
        raise


def _hand_over(done: Future[T], abandoned: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        abandoned(done.result())
