"""From Docker's two ways of describing a container, by itself and in a list, to ours."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...spec import ContainerSpec
from ..base import ContainerInfo, UnknownContainerError
from .client import Daemon
from .hardening import LABEL, OWNERS_LABEL

__all__ = ("inspected_info", "is_left_over", "list_containers", "listed_info", "listed_name")

_LABELS = TypeAdapter(dict[str, str])

_STALE = 60.0
"""Seconds after which a container that was never started has lost its maker, and one that ended its remover."""


def list_containers(api: Daemon, labels: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Our containers as a daemon lists them, in whatever state they are; those that have these labels as well.

    Not those that are nowhere but in its list. A daemon that writes down something about a container, such as another name,
    just when it has removed it goes on listing it until it is restarted, and knows nothing of it when asked (seen with
    Docker 20.10). It has no name then: that is the last thing a container loses.
    """
    found: list[dict[str, Any]] = api.containers(all=True, filters={"label": [f"{LABEL}.managed", *labels]})
    return [container for container in found if container["Names"]]


def inspected_info(found: dict[str, Any]) -> ContainerInfo:
    """What an inspected container is.

    Raises:
        UnknownContainerError: It is not one of ours.
    """
    state = found["State"]
    return _info(
        found["Id"],
        found["Name"],
        found["Config"].get("Labels") or {},
        running=bool(state["Running"]) and not state.get("Dead"),
        status=state["Status"],
    )


def listed_info(found: dict[str, Any]) -> ContainerInfo:
    """What a container in a list is.

    Raises:
        UnknownContainerError: It is not one of ours.
    """
    status = found["State"]
    running = status in ("running", "paused", "restarting")
    return _info(found["Id"], listed_name(found), found["Labels"] or {}, running=running, status=status)


def listed_name(found: dict[str, Any]) -> str:
    """What a container in a list is called."""
    # Names of links to other containers come with the own one; it is the one without a further slash.
    names: list[str] = found["Names"]
    return next(name.lstrip("/") for name in names if name.count("/") == 1)


def _info(id: str, name: str, labels: dict[str, str], *, running: bool, status: str) -> ContainerInfo:
    name = name.lstrip("/")
    try:
        spec = ContainerSpec.model_validate_json(labels[f"{LABEL}.spec"])
        owner = _LABELS.validate_json(labels[OWNERS_LABEL])
    except (KeyError, ValidationError) as error:
        raise UnknownContainerError(f"the container {name!r} is not a sandbox of ours") from error
    return ContainerInfo(id=id, name=name, spec=spec, running=running, status=status, labels=owner)


def is_left_over(container: dict[str, Any]) -> bool:
    """Whether a listed container's maker died before starting it, or an engine that was restarted forgot to remove it."""
    if time.time() - container["Created"] <= _STALE:
        return False
    if container["State"] in ("exited", "dead"):
        with contextlib.suppress(UnknownContainerError):
            return not listed_info(container).spec.persistent
    return container["State"] == "created"
