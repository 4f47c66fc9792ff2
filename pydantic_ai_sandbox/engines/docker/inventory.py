"""What of ours a daemon holds: images with their sizes, and everything there is to remove."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import docker
import docker.errors

from .containers import list_containers, listed_name
from .ending import remove_container
from .errors import docker_errors, is_conflict
from .hardening import LABEL
from .images import BaseKind
from .images.bases import kind_in
from .images.naming import LABEL_RUNTIME, REPOSITORY, exists

__all__ = ("ImageInfo", "list_images", "remove_everything", "size_together")


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """An image that we built."""

    name: str
    """Its name and tag."""
    runtime: str
    """The runtime that it is the image of."""
    base: BaseKind | None
    """What it is based on; `None` when its definition names that itself."""
    size: int
    """Bytes, those of the base included."""
    created: int
    """Unix time."""


def list_images(api: docker.APIClient, name: str | None = None) -> list[ImageInfo]:
    """The images of runtimes, or the one of that name, sorted by runtime, the newest of each first.

    Raises:
        EngineUnavailableError: The daemon does not answer.
    """
    with docker_errors("list images"):
        found = cast("list[dict[str, Any]]", api.images(name, filters={"label": LABEL_RUNTIME}))
    images = [
        ImageInfo(
            name=tag,
            runtime=image["Labels"][LABEL_RUNTIME],
            base=kind_in(image["Labels"]),
            size=image["Size"],
            created=image["Created"],
        )
        for image in found
        for tag in image["RepoTags"] or ()
        if tag.startswith(f"{REPOSITORY}/")
    ]
    return sorted(images, key=lambda image: (image.runtime, -image.created))


def size_together(api: docker.APIClient, images: Sequence[str]) -> int:
    """Bytes that images take on the daemon's disk, what they share counted once.

    Raises:
        EngineUnavailableError: The daemon does not answer.
    """
    layers: dict[tuple[Any, ...], int] = {}
    with docker_errors("measure images"):
        for image in images:
            below: tuple[Any, ...] = ()
            # Oldest first. Two images share a layer when everything up to it is the same.
            for entry in reversed(cast("list[dict[str, Any]]", api.history(image))):
                below = (*below, (entry["Created"], entry["CreatedBy"], entry["Size"]))
                layers[below] = entry["Size"]
    return sum(layers.values())


def remove_everything(api: docker.APIClient) -> Generator[str]:
    """Remove all containers, volumes and images of ours; tells the name of each before it is removed.

    Raises:
        EngineUnavailableError: The daemon does not answer.
    """
    managed = {"label": f"{LABEL}.managed"}
    with docker_errors("remove what is ours"):
        for container in list_containers(api):
            yield f"container {listed_name(container)}"
            _remove_completely(api, container["Id"])
        for volume in cast("list[dict[str, Any]]", api.volumes(filters=managed)["Volumes"] or []):
            yield f"volume {volume['Name']}"
            with suppress(docker.errors.NotFound):
                api.remove_volume(volume["Name"])
        for image in cast("list[dict[str, Any]]", api.images()):
            for tag in cast("list[str]", image["RepoTags"] or []):
                if tag.startswith(f"{REPOSITORY}/"):
                    yield f"image {tag}"
                    _remove_image(api, tag)


def _remove_completely(api: docker.APIClient, id: str) -> None:
    remove_container(api, id)
    # Someone else may be removing it, and what it uses cannot be removed before it is gone.
    with suppress(docker.errors.NotFound):
        api.wait(id, condition="removed")


def _remove_image(api: docker.APIClient, tag: str) -> None:
    try:
        api.remove_image(tag)
    except docker.errors.NotFound:
        pass
    except docker.errors.APIError as error:
        # When someone else takes the name away just then, the daemon takes the one that is left for this one, and
        # refuses because something uses the image.
        if not is_conflict(error) or exists(api, tag):
            raise
