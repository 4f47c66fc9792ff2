"""Images by their name, from a registry."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import docker
import docker.auth
import docker.utils
import docker.utils.json_stream
import requests
import requests.exceptions
import urllib3.exceptions

from ....errors import ImageBuildError, RuntimeNotFoundError
from ....runtimes import BuildProgress
from ..errors import docker_errors
from .naming import exists

__all__ = ("PULL_SILENCE", "Report", "check_reference", "ensure_pulled", "ignore", "pull")

Report: TypeAlias = Callable[[BuildProgress], None]

PULL_SILENCE = 60.0
"""Seconds without progress after which a pull is given up."""

_REFERENCE = re.compile(r"[A-Za-z0-9]+(([._-]+|[:/@])[A-Za-z0-9]+)*", re.ASCII)
"""Wide enough for every image name and id; the daemon is stricter, but must not see one that leads out of its URL's path."""

_MISSING = re.compile(r"manifest unknown|name unknown|not found", re.IGNORECASE)


def ensure_pulled(api: docker.APIClient, image: str, *, progress: Report | None = None) -> str:
    """An image by its name, pulled unless it is there; it is never looked for anew.

    Raises:
        RuntimeNotFoundError: This cannot be an image's name, or the registry has no such image, or wants a login.
        ImageBuildError: No registry answers, or the pull broke off.
        EngineUnavailableError: The daemon does not answer.
    """
    check_reference(image)
    if not exists(api, image):
        pull(api, image, PULL_SILENCE, progress or ignore)
    return image


def check_reference(image: str) -> None:
    """Refuse what no image can be called.

    Raises:
        RuntimeNotFoundError: It is no name.
    """
    if not _REFERENCE.fullmatch(image):
        raise RuntimeNotFoundError(f"{image!r} is not a name for an image, such as 'python:3.12-slim'")


def pull(api: docker.APIClient, image: str, silence: float, report: Report) -> None:
    """Pull an image, giving up after `silence` seconds without progress.

    Raises:
        RuntimeNotFoundError: The registry has no such image, or wants a login.
        ImageBuildError: No registry answers, or the pull broke off.
    """
    repository, tag = docker.utils.parse_repository_tag(image)
    registry, _ = docker.auth.resolve_repository_name(repository)
    credentials = docker.auth.get_config_header(api, registry)
    headers = {"X-Registry-Auth": credentials} if credentials else None
    report(BuildProgress(step="pull", message=f"Pulling {image}"))
    with docker_errors(f"pull {image}"):
        try:
            # `api.pull` cannot be given a deadline.
            response = api.post(
                f"{api.base_url}/v{api.api_version}/images/create",
                params={"fromImage": repository, "tag": tag or "latest"},
                headers=headers,
                stream=True,
                timeout=silence,
            )
            with response:
                if response.status_code != requests.codes.ok:
                    raise _refused_pull(image, response.status_code, str(response.json().get("message", "")))
                for event in docker.utils.json_stream.json_stream(response.iter_content(None)):
                    _follow_pull(cast("dict[str, Any]", event), image, report)
        except (
            requests.exceptions.Timeout,
            requests.exceptions.ConnectionError,
            urllib3.exceptions.TimeoutError,
        ) as error:
            if not _is_timeout(error):
                raise
            raise ImageBuildError(
                f"pulling {image} came to a halt: the registry sent nothing for {silence:.0f} s. {_pull_remedy(image)}"
            ) from error


def _follow_pull(event: dict[str, Any], image: str, report: Report) -> None:
    if "error" in event:
        raise ImageBuildError(f"{image} could not be pulled: {event['error']}. {_pull_remedy(image)}")
    detail: dict[str, int] = event.get("progressDetail") or {}
    message = ": ".join(str(event[key]) for key in ("id", "status") if event.get(key))
    report(BuildProgress(step="pull", message=message, current=detail.get("current"), total=detail.get("total")))


def _refused_pull(image: str, status: int, reason: str) -> ImageBuildError | RuntimeNotFoundError:
    # 400: no name for an image. 404: the registry has no such image, or hides it from whoever is not logged in. Some
    # releases of Docker answer 500 and tell the registry's words.
    if status in (400, 404) or _MISSING.search(reason):
        return RuntimeNotFoundError(f"there is no image {image!r}: {reason}. {_pull_remedy(image)}")
    return ImageBuildError(f"{image} could not be pulled: {reason}. {_pull_remedy(image)}")


def _pull_remedy(image: str) -> str:
    return f"`docker pull {image}` must work on the engine's host; or load the image there with `docker load`"


def _is_timeout(error: BaseException) -> bool:
    """Whether an error of requests stands for silence; in the middle of a body it comes as a `ConnectionError`."""
    kinds = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    return isinstance(error, kinds) or any(isinstance(argument, kinds) for argument in error.args)


def ignore(progress: BuildProgress) -> None:
    """Nobody asked how far it is."""
