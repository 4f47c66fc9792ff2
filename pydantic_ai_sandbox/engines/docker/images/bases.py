"""The image that a runtime is built on: the official one, or what can take its place where that cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import docker

from ....errors import ImageBuildError, RuntimeNotFoundError
from ....runtimes import BuildProgress
from ....spec import RuntimeConfig
from .bootstrap import bootstrap_base, obstacle
from .definitions import base_hash
from .locks import cache_directory, one_at_a_time
from .naming import LABEL_BASE, REPOSITORY, exists, inspect
from .pulling import Report, pull

__all__ = ("BaseKind", "base_kind", "choose_base", "kind_in")

BaseKind: TypeAlias = Literal["official", "bootstrapped"]
"""`"official"`: the image that the definition names. `"bootstrapped"`: a Debian made on this machine in its place."""

PULL_SILENCE = 10.0
"""Seconds without progress after which a base image is made here instead of pulled."""


def base_kind(api: docker.APIClient, image: str) -> BaseKind | None:
    """What an image of ours is based on; `None` for any other image, and for definitions that name their base themselves.

    Raises:
        EngineUnavailableError: The daemon does not answer.
    """
    found = inspect(api, image)
    return kind_in((found and found["Config"].get("Labels")) or {})


def kind_in(labels: Mapping[str, str]) -> BaseKind | None:
    """What an image with these labels is based on, as `base_kind` says it."""
    kind = labels.get(LABEL_BASE)
    return kind if kind in ("official", "bootstrapped") else None


def choose_base(
    api: docker.APIClient,
    official: str | None,
    substitute: RuntimeConfig | None,
    make: Callable[[RuntimeConfig], str],
    report: Report,
) -> tuple[str, BaseKind]:
    """Image to build on, and which kind it is, having pulled or made it if need be.

    Args:
        api: The daemon.
        official: The image to prefer; `None`: `substitute` in any case.
        substitute: Runtime that takes its place; `None`: a Debian made on this machine.
        make: Makes a runtime's image.
        report: Told what happens.

    Raises:
        ImageBuildError: There is none; says what to do.
    """
    if official is None:
        assert substitute is not None
        return _substituted(api, make(substitute), report)
    if exists(api, official):
        return _chosen(official, "official", report)
    try:
        pull(api, official, PULL_SILENCE, report)
    except (ImageBuildError, RuntimeNotFoundError) as error:
        report(BuildProgress(step="base", message=f"No registry gives {official} ({_reason(error)})"))
        if substitute is not None:
            return _substituted(api, make(substitute), report)
        return _chosen(_bootstrapped_base(api, error, report), "bootstrapped", report)
    return _chosen(official, "official", report)


def _reason(error: Exception) -> str:
    """The cause without the remedy, which is about to be applied."""
    return str(error).partition(". `docker pull")[0]


def _substituted(api: docker.APIClient, image: str, report: Report) -> tuple[str, BaseKind]:
    return _chosen(image, base_kind(api, image) or "official", report)


def _chosen(base: str, kind: BaseKind, report: Report) -> tuple[str, BaseKind]:
    report(BuildProgress(step="base", message=f"Building on {base} ({kind})"))
    return base, kind


def _bootstrapped_base(api: docker.APIClient, failed_pull: Exception, report: Report) -> str:
    tag = f"{REPOSITORY}/base:{base_hash()}"
    if exists(api, tag):
        return tag
    remedy = obstacle(api)
    if remedy:
        raise ImageBuildError(f"no base image can be had. {failed_pull}. Otherwise: {remedy}") from failed_pull
    with one_at_a_time(tag, report):
        if not exists(api, tag):
            bootstrap_base(api, tag, {LABEL_BASE: "bootstrapped"}, cache_directory(), report)
    return tag
