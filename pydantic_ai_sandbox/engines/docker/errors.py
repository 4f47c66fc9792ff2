"""One table from what Docker and its client raise to our errors."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import docker.errors
import requests.exceptions
import urllib3.exceptions

from ...errors import EngineError, EngineUnavailableError, SandboxError
from ..base import UnknownContainerError

__all__ = ("docker_errors", "is_conflict")

_REMEDY = "start it (`systemctl start docker`), check that you may use its socket, or point DOCKER_HOST at another"


@contextmanager
def docker_errors(what: str) -> Generator[None]:
    """Translate errors of the Docker client; `what` says what was being done, as in `"create a container"`.

    Raises:
        UnknownContainerError: Docker knows no such container.
        EngineUnavailableError: Docker does not answer, or not in time.
        EngineError: Docker refused.
    """
    try:
        yield
    except SandboxError:
        # Translated already, where more was known.
        raise
    except docker.errors.NotFound as error:
        raise UnknownContainerError(f"cannot {what}: {_reason(error)}") from error
    except docker.errors.APIError as error:
        raise EngineError(f"Docker refused to {what}: {_reason(error)}") from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise EngineUnavailableError(f"Docker did not answer in time when asked to {what}: {_REMEDY}") from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
    ) as error:
        raise EngineUnavailableError(f"Docker does not answer, so it cannot {what}: {_REMEDY} ({error})") from error


def is_conflict(error: BaseException) -> bool:
    """Whether Docker refused because of the state of things: the name is taken, the container has ended."""
    return (
        isinstance(error, docker.errors.APIError) and error.response is not None and error.response.status_code == 409
    )


def _reason(error: docker.errors.APIError) -> str:
    return str(error.explanation or error)[:1000]
