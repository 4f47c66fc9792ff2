"""Having the daemon build an image: what it says on the way, how it fails, and that nothing is left when it does."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from ....errors import ImageBuildError
from ....runtimes import BuildProgress
from ..errors import docker_errors
from .definitions import DOCKERFILE, Source, write_context
from .pulling import Report

__all__ = ("build_image",)

SILENCE = 300.0
"""Seconds without output after which a build is given up."""

_TAIL_LINES = 100

_INSTRUCTION = re.compile(r"Step (?P<current>\d+)/(?P<total>\d+) : (?P<text>.*)")
_MADE = re.compile(r" ---> (?P<image>[0-9a-f]{12})")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_REUSED = " ---> Using cache"


def build_image(
    api: docker.APIClient,
    name: str,
    source: Source,
    dockerfile: str,
    *,
    arguments: dict[str, str],
    labels: dict[str, str],
    network: str | None,
    report: Report,
) -> str:
    """Build an image without a name and return its id; when that fails or is broken off, nothing of it stays.

    Args:
        api: The daemon.
        name: The runtime's name, for messages.
        source: The build context.
        dockerfile: The Dockerfile to build it by.
        arguments: Values of `ARG`s.
        labels: Labels of the image.
        network: Docker's network mode for the build's commands.
        report: Told what happens.

    Raises:
        ImageBuildError: It could not be built; says at which step and why.
        EngineUnavailableError: The daemon does not answer.
    """
    build = _Build(name, report)
    report(BuildProgress(step="build", message=f"Building the runtime {name}"))
    try:
        with tempfile.TemporaryFile() as context, build.failures():
            write_context(source, dockerfile, context)
            context.seek(0)
            events = api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=DOCKERFILE,
                buildargs=arguments,
                labels=labels,
                network_mode=network,
                rm=True,
                forcerm=True,
                timeout=cast("int", SILENCE),
                decode=True,
            )
            for event in events:
                build.follow(event)
        return build.result()
    except BaseException:
        _remove(api, build.made)
        raise


class _Build:
    """A build as told by its output."""

    def __init__(self, name: str, report: Report) -> None:
        self.made: list[str] = []
        """Images made on the way, oldest first."""
        self._name = name
        self._report = report
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._step = ""
        self._reused = False
        self._image: str | None = None

    def result(self) -> str:
        if self._image is None:
            raise ImageBuildError(f"the runtime {self._name!r} has nothing to build: its Dockerfile has no FROM")
        return self._image

    def follow(self, event: dict[str, Any]) -> None:
        if "error" in event:
            raise self._failure(str(event["error"]))
        self._image = cast("dict[str, str]", event.get("aux") or {}).get("ID", self._image)
        for line in str(event.get("stream") or event.get("status") or "").splitlines():
            # Docker makes everything red that a command writes to standard error.
            if line := _COLOR.sub("", line).rstrip():
                self._line(line)

    def _line(self, line: str) -> None:
        self._tail.append(line)
        instruction = _INSTRUCTION.fullmatch(line)
        if instruction:
            self._step, self._reused = instruction["text"], False
            current, total = int(instruction["current"]), int(instruction["total"])
            self._report(BuildProgress(step="build", message=self._step, current=current, total=total))
            return
        self._notice_image(line)
        self._report(BuildProgress(step="build", message=line))

    def _notice_image(self, line: str) -> None:
        self._reused = self._reused or line == _REUSED
        made = _MADE.fullmatch(line)
        # What a FROM names, or an earlier build made, is not this build's.
        if made and not self._reused and not self._step.upper().startswith("FROM "):
            self.made.append(made["image"])

    @contextmanager
    def failures(self) -> Generator[None]:
        with docker_errors(f"build the runtime {self._name!r}"):
            try:
                yield
            except docker.errors.APIError as error:
                raise self._failure(str(error.explanation)) from error
            except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
                raise self._silence() from error
            except requests.exceptions.ConnectionError as error:
                # The same, in the middle of an answer.
                if isinstance(error.args[0] if error.args else None, urllib3.exceptions.ReadTimeoutError):
                    raise self._silence() from error
                raise

    def _failure(self, reason: str) -> ImageBuildError:
        where = f" at {self._step!r}" if self._step else ""
        return ImageBuildError(
            f"the runtime {self._name!r} could not be built{where}: {reason}; the output is in log_tail",
            log_tail="\n".join(self._tail),
            step=self._step or None,
        )

    def _silence(self) -> ImageBuildError:
        return ImageBuildError(
            f"building the runtime {self._name!r} came to a halt at {self._step!r}: no output for {SILENCE:.0f} s. "
            "Does it wait for a network that a build does not have?",
            log_tail="\n".join(self._tail),
            step=self._step or None,
        )


def _remove(api: docker.APIClient, images: list[str]) -> None:
    for image in reversed(images):
        # Without force, one that something else was made from meanwhile stays.
        with contextlib.suppress(docker.errors.DockerException, requests.exceptions.RequestException):
            api.remove_image(image)
