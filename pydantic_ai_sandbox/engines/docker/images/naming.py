"""What our images are called and marked with, and how they are looked up."""

from __future__ import annotations

import hashlib
import re
from typing import Any, cast

import docker
import docker.errors

from ..errors import docker_errors

__all__ = ("LABEL_BASE", "LABEL_BUILD", "LABEL_RUNTIME", "REPOSITORY", "exists", "inspect", "repository", "short_hash")

REPOSITORY = "pydantic-ai-sandbox"
"""What the names of all images we build begin with."""

# Containers inherit the labels of their image, so none of these may be one that marks a container as ours.
LABEL_RUNTIME = "pydantic-ai-sandbox.image.runtime"
LABEL_BASE = "pydantic-ai-sandbox.image.base"
LABEL_BUILD = "pydantic-ai-sandbox.image.build"
"""Marks what exists only during a build."""


def repository(name: str) -> str:
    """Name of a runtime's images, with separators that Docker allows; two that become equal still differ in their hash."""
    return f"{REPOSITORY}/{re.sub(r'[._-]+', '-', name).strip('-')}"


def short_hash(*content: str) -> str:
    """16 hexadecimal digits for some texts, in this order."""
    return hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]


def exists(api: docker.APIClient, image: str) -> bool:
    """Whether the daemon has an image of that name or id."""
    return inspect(api, image) is not None


def inspect(api: docker.APIClient, image: str) -> dict[str, Any] | None:
    """What the daemon knows of an image; `None` if it has none of that name or id."""
    with docker_errors(f"inspect the image {image}"):
        try:
            return cast("dict[str, Any]", api.inspect_image(image))
        except docker.errors.NotFound:
            return None
