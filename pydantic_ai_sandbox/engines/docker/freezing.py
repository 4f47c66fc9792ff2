"""Freezing and thawing containers, until the daemon itself says that they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import docker
import docker.errors

from ...errors import EngineError
from ..base import UnknownContainerError

__all__ = ("freeze", "thaw")

_PATIENCE = 10.0
"""Seconds to go on trying. By cgroup v1 a process cannot be frozen while it waits for a disk, for instance; runc tries for
a third of a second and then leaves the container running (opencontainers/runc#2791, moby/moby#48205)."""

_POLL = 0.01
"""Seconds between attempts. The daemon learns only some time after it answered that a container is frozen or thawed, and
refuses the other thing until then."""


def freeze(api: docker.APIClient, id: str) -> None:
    """Freeze a container; one that is frozen is fine.

    Raises:
        UnknownContainerError: It has ended.
        docker.errors.APIError: The daemon knows no such container, or refused all the time.
        EngineError: The daemon agreed, but the container is not frozen.
    """
    _bring(api, id, api.pause, frozen=True)


def thaw(api: docker.APIClient, id: str) -> None:
    """Let a container go on; one that is not frozen is fine. Raises as `freeze` does."""
    _bring(api, id, api.unpause, frozen=False)


def _bring(api: docker.APIClient, id: str, change: Callable[[str], object], *, frozen: bool) -> None:
    refusal: Exception | None = None
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        state = cast("dict[str, Any]", api.inspect_container(id))["State"]
        if not state["Running"]:
            raise UnknownContainerError(f"the container {id[:12]} has ended")
        if state["Paused"] is frozen:
            return
        try:
            change(id)
        except docker.errors.NotFound:
            raise
        except docker.errors.APIError as error:
            refusal = error
        time.sleep(_POLL)
    raise refusal or EngineError(f"Docker does not say that the container {id[:12]} is what it was told to be")
