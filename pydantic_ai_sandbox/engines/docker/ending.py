"""Ending and removing containers, until the daemon itself has got that done."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import docker
import docker.errors

from .errors import is_conflict

__all__ = ("kill_container", "remove_container")

_PATIENCE = 30.0
"""Seconds to go on trying. Docker kills, waits 10 s for the container to end, and then gives up with an error of its own
(500), for instance when nobody has reaped the first process yet, which it calls a zombie that cannot be killed."""

_POLL = 0.1
"""Seconds between attempts."""


def kill_container(api: docker.APIClient, id: str) -> None:
    """Kill a container; one that has ended or is gone is fine.

    Raises:
        docker.errors.APIError: The daemon refused, or failed all the time.
    """
    _insist(partial(api.kill, id))


def remove_container(api: docker.APIClient, id: str) -> None:
    """Kill and remove a container and its anonymous volumes; one that is gone or being removed is fine.

    Raises:
        docker.errors.APIError: The daemon refused, or failed all the time.
    """
    _insist(partial(api.remove_container, id, v=True, force=True))


def _insist(end: Callable[[], object]) -> None:
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            end()
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            # Not running any more, or being removed already.
            if is_conflict(error):
                return
            if not error.is_server_error() or time.monotonic() > give_up:
                raise
            time.sleep(_POLL)
        else:
            return
