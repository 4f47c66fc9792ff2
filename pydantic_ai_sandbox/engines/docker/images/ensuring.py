"""A runtime's image: there already, or built, by one process at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import docker

from ....errors import ImageBuildError
from ....runtimes import BuildProgress
from ....spec import RuntimeConfig
from ..errors import docker_errors
from .bases import BaseKind, base_kind, choose_base
from .bootstrap import SUITE, debian_mirror
from .building import build_image
from .definitions import Definition, Source, read_definition
from .dockerfiles import images_built_on, with_images
from .lending import Loan, lent
from .locks import one_at_a_time
from .naming import LABEL_BASE, LABEL_RUNTIME, exists
from .pulling import PULL_SILENCE, Report, check_reference, ignore, pull
from .reclaiming import reclaim
from .settings import BuildSettings, host_settings

__all__ = ("BaseKind", "base_kind", "ensure_image", "image_name")


def image_name(runtime: RuntimeConfig) -> str:
    """What the image of a runtime is called, whether it exists or not.

    Raises:
        ImageBuildError: The definition cannot be read.
    """
    return read_definition(runtime).tag


def ensure_image(api: docker.APIClient, runtime: RuntimeConfig, *, progress: Report | None = None) -> str:
    """The image for a runtime, built unless it exists; one at a time, whatever number of processes ask for it.

    Args:
        api: The daemon.
        runtime: What to build.
        progress: Called with each thing that happens, in this thread; what it raises breaks the work off.

    Raises:
        ImageBuildError: The definition cannot be read or built, or no base image can be had; says what to do.
        RuntimeNotFoundError: An image that it is built on does not exist.
        EngineUnavailableError: The daemon does not answer.
    """
    report = progress or ignore
    definition = read_definition(runtime)
    if exists(api, definition.tag):
        return definition.tag
    with one_at_a_time(definition.tag, report):
        if not exists(api, definition.tag):
            with definition.source(report) as source:
                _build(api, definition, source, report)
    return definition.tag


def _build(api: docker.APIClient, definition: Definition, source: Source, report: Report) -> None:
    labels = {LABEL_RUNTIME: definition.name}
    arguments: dict[str, str] = {}
    mirror = None
    if source.base is not None or source.substitute is not None:
        make = partial(ensure_image, api, progress=report)
        base, kind = choose_base(api, source.base, source.substitute, make, report)
        arguments["BASE_IMAGE"] = base
        labels[LABEL_BASE] = kind
        mirror = debian_mirror() if kind == "bootstrapped" else None
    settings = host_settings(mirror=mirror, suite=SUITE)
    bases = images_built_on(source.dockerfile, arguments)
    for image in bases:
        _get(api, definition.name, image, report)
    # The build's mark is its image's name, which only one process builds at a time.
    with _lent(api, bases, settings, definition.tag.rpartition(":")[2]) as loans:
        image = build_image(
            api,
            definition.name,
            source,
            with_images(source.dockerfile, arguments, {image: loan.image for image, loan in loans.items()}),
            arguments=arguments,
            labels=labels,
            network="host" if settings.needs_host_network else None,
            report=report,
        )
        _finish(api, definition, image, tuple(loans.values()), settings, report)


def _get(api: docker.APIClient, name: str, image: str, report: Report) -> None:
    check_reference(image)
    if exists(api, image):
        return
    try:
        pull(api, image, PULL_SILENCE, report)
    except ImageBuildError as error:
        raise ImageBuildError(
            f"the runtime {name!r} is built on an image that cannot be had: {error}. Where no registry can be reached, "
            "`ARG BASE_IMAGE=...` and `FROM ${BASE_IMAGE}` let another one take its place"
        ) from error


def _lent(
    api: docker.APIClient, images: tuple[str, ...], settings: BuildSettings, build: str
) -> AbstractContextManager[dict[str, Loan]]:
    return lent(api, images, settings, build) if settings else nullcontext({})


def _finish(
    api: docker.APIClient,
    definition: Definition,
    image: str,
    loans: tuple[Loan, ...],
    settings: BuildSettings,
    report: Report,
) -> None:
    if not loans:
        repository, _, tag = definition.tag.partition(":")
        with docker_errors("name the image that was built"):
            api.tag(image, repository, tag)
        return
    report(BuildProgress(step="finish", message=f"Taking this host's settings out of the runtime {definition.name}"))
    reclaim(api, image, loans, definition.tag, settings.secrets)
