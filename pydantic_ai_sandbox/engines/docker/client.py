"""Finding the daemon: the environment first, as every Docker tool does, then the command line's current context."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import docker
import docker.context
import docker.errors
import docker.utils

from .errors import docker_errors

__all__ = ("Daemon", "connect_daemon", "daemon_socket")

Daemon: TypeAlias = Any
"""A `docker.APIClient`, whose stubs leave most of it without types."""


_USUAL_SOCKET = "unix:///var/run/docker.sock"


def connect_daemon(base_url: str | None = None, timeout: int = 60) -> Daemon:
    """A client of the daemon at `base_url`, or of the one that the environment names.

    Args:
        base_url: `"unix:///var/run/docker.sock"`, `"tcp://…"`, `"ssh://…"`; `None` to look for it.
        timeout: Seconds that any single answer of the daemon may take.

    Raises:
        EngineUnavailableError: It does not answer.
    """
    with docker_errors("connect"):
        settings: dict[str, Any] = {"base_url": base_url} if base_url else _from_environment()
        return docker.APIClient(version="auto", timeout=timeout, **settings)


def daemon_socket(base_url: str | None) -> Path | None:
    """The unix socket of the daemon that `connect_daemon` would find; `None` if it is reached otherwise."""
    url: str = base_url or _from_environment().get("base_url") or _USUAL_SOCKET
    scheme, separator, path = url.partition("://")
    if not separator or scheme not in ("unix", "http+unix"):
        return None
    return Path(os.path.realpath("/" + path.lstrip("/")))


def _from_environment() -> dict[str, Any]:
    settings: dict[str, Any] = {**docker.utils.kwargs_from_env()}
    if "base_url" not in settings and (host := _context_host()) is not None:
        settings["base_url"] = host
    return settings


def _context_host() -> str | None:
    """The daemon of the current context (`docker context use`), which Docker Desktop sets."""
    if "DOCKER_CONTEXT" not in os.environ and not _config_path().exists():
        return None
    try:
        context = docker.context.ContextAPI.get_current_context()
    except (docker.errors.DockerException, OSError, ValueError, AttributeError):
        # A broken configuration of another tool is no reason to fail: the default socket may still be there.
        return None
    return context.Host if context.name != "default" else None


def _config_path() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG", "~/.docker")).expanduser() / "config.json"
