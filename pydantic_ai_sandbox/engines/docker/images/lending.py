"""Images that builds start from instead of their own: the same, with this host's settings laid over them.

The settings come last in a base and first in what is built on it, as one layer and some lines of its configuration, which
`reclaiming` takes out of the result.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import docker.errors

from ..client import Daemon
from ..errors import docker_errors
from .naming import LABEL_BUILD, REPOSITORY, inspect, short_hash
from .settings import DIRECTORY, BuildSettings

__all__ = ("Loan", "lent", "remove_leftovers")


_REMOVAL = 30.0
"""Seconds after which what cannot be removed is left to the next build."""

_POLL = 0.05
"""Seconds between attempts."""


@dataclass(frozen=True, kw_only=True)
class Loan:
    """What was laid over an image, as the daemon sees it."""

    image: str
    """Name of the image that has it."""
    layers: tuple[str, ...]
    """Digests of all layers of that image; the last of them holds the settings."""
    history: int
    """Entries in the history of that image; the last of them is about the settings."""
    env: tuple[str, ...]
    """Variables of that image, as `NAME=value`."""
    original_env: tuple[str, ...]
    """Variables of the image below it."""


@contextmanager
def lent(api: Daemon, images: tuple[str, ...], settings: BuildSettings, build: str) -> Generator[dict[str, Loan]]:
    """For each of the images one that has the settings too, for as long as this lasts.

    Args:
        api: The daemon, which has the images.
        images: Their names.
        settings: What to lay over them.
        build: Marks what is made here; nobody else has it at the same time.
    """
    remove_leftovers(api, build)
    try:
        yield {image: _lend(api, image, settings, build) for image in images}
    finally:
        remove_leftovers(api, build)


def remove_leftovers(api: Daemon, build: str) -> None:
    """Remove everything that was made on the way to an image, by this build or one that was killed."""
    with docker_errors("remove what a build leaves"):
        give_up = time.monotonic() + _REMOVAL
        # The daemon may still be at work for somebody who has gone.
        while (left := _left(api, build)) and time.monotonic() < give_up:
            for remove in left:
                with contextlib.suppress(docker.errors.APIError):
                    remove()
            time.sleep(_POLL)


def _left(api: Daemon, build: str) -> list[Callable[[], object]]:
    """How to remove each container and each image of a build."""
    ours = {"label": f"{LABEL_BUILD}={build}"}
    containers: list[str] = [container["Id"] for container in api.containers(all=True, filters=ours)]
    images: list[str] = [image["Id"] for image in api.images(filters=ours, all=True)]
    return [
        *(partial(api.remove_container, id, force=True) for id in containers),
        *(partial(api.remove_image, id, force=True) for id in images),
    ]


def _lend(api: Daemon, image: str, settings: BuildSettings, build: str) -> Loan:
    with docker_errors(f"prepare {image} for a build"):
        name = f"{REPOSITORY}/build:{short_hash(build, image)}"
        repository, _, tag = name.partition(":")
        # Docker wants a command, though the container is never started.
        config = {"Image": image, "Cmd": ["/nothing"], "Labels": {LABEL_BUILD: build}, "NetworkDisabled": True}
        container: str = api.create_container_from_config(config)["Id"]
        try:
            api.put_archive(container, "/", _archive(settings))
            variables = [f"{name}={value}" for name, value in settings.env.items()]
            api.commit(container, repository, tag, conf={"Env": variables, "Labels": {LABEL_BUILD: build}})
        finally:
            api.remove_container(container, force=True)
    return _loan(api, name, image)


def _loan(api: Daemon, name: str, image: str) -> Loan:
    made, original = inspect(api, name), inspect(api, image)
    assert made is not None
    assert original is not None
    return Loan(
        image=name,
        layers=tuple(made["RootFS"]["Layers"]),
        history=len(cast("list[Any]", api.history(name))),
        env=tuple(made["Config"].get("Env") or ()),
        original_env=tuple(original["Config"].get("Env") or ()),
    )


def _archive(settings: BuildSettings) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        directory = tarfile.TarInfo(DIRECTORY.lstrip("/"))
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
        for name, content in settings.files.items():
            entry = tarfile.TarInfo(f"{DIRECTORY.lstrip('/')}/{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
