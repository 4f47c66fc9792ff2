"""From a runtime or an image's name to an image that the daemon has.

A runtime's image is named after the content of everything it is made of, so that asking for one that exists is a single
question to the daemon. Its base is the official image where a registry can be reached, and a Debian bootstrapped on this
machine where not; a label on the image, and the progress report, say which.

Builds use the daemon's own settings for proxies and certificates.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

import docker
import docker.auth
import docker.errors
import docker.utils.build
import docker.utils.json_stream
import requests.exceptions
import urllib3.exceptions

from ...errors import ImageBuildError, RuntimeNotFoundError
from ...runtimes import BuildProgress, base_recipe
from ...spec import RuntimeConfig
from .bootstrap import bootstrap_base, obstacle
from .errors import docker_errors

__all__ = ("BaseKind", "BuildProgress", "base_kind", "ensure_image", "ensure_pulled")

BaseKind: TypeAlias = Literal["official", "bootstrapped"]
"""`"official"`: the image that the definition names. `"bootstrapped"`: a Debian made on this machine in its place."""

Report: TypeAlias = Callable[[BuildProgress], None]

REPOSITORY = "pydantic-ai-sandbox"
"""What the names of all images we build begin with."""

# Containers inherit the labels of their image, so none of these may be one that marks a container as ours.
LABEL_RUNTIME = "pydantic-ai-sandbox.image.runtime"
LABEL_BASE = "pydantic-ai-sandbox.image.base"

BASE_PULL_SILENCE = 10.0
"""Seconds without progress after which a base image is made here instead of pulled."""

PULL_SILENCE = 60.0
"""Seconds without progress after which a pull is given up."""

BUILD_SILENCE = 300.0
"""Seconds without output after which a build is given up."""

LOCK_DEADLINE = 1800.0
"""Seconds that another process may take for the same image."""

_TAIL_LINES = 100

_REFERENCE = re.compile(r"[A-Za-z0-9]+(([._-]+|[:/@])[A-Za-z0-9]+)*", re.ASCII)
"""Wide enough for every image name and id; the daemon is stricter, but must not see one that leads out of its URL's path."""

_MISSING = re.compile(r"manifest unknown|name unknown|not found", re.IGNORECASE)

_BASE_ARGUMENT = re.compile(r"^ARG\s+BASE_IMAGE=(?P<image>\S+)\s*$", re.MULTILINE)
_INSTRUCTION = re.compile(r"Step (?P<current>\d+)/(?P<total>\d+) : (?P<text>.*)")


@dataclass(frozen=True, kw_only=True)
class _Definition:
    """An image definition as it lies on disk."""

    name: str
    directory: Path
    files: tuple[str, ...]
    """Paths of the build context, relative and sorted."""
    official_base: str | None
    """What `ARG BASE_IMAGE` says; `None` where the definition has no such argument and insists on its own `FROM`."""
    tag: str


def ensure_image(api: docker.APIClient, runtime: RuntimeConfig, *, progress: Report | None = None) -> str:
    """The image for a runtime, built unless it exists; one at a time, whatever number of processes ask for it.

    Args:
        api: The daemon.
        runtime: What to build.
        progress: Called with each thing that happens, in this thread.

    Raises:
        ImageBuildError: The definition cannot be read or built, or no base image can be had; says what to do.
        EngineUnavailableError: The daemon does not answer.
    """
    definition = _read_definition(runtime)
    report = progress or _ignore
    if _exists(api, definition.tag):
        return definition.tag
    with _one_at_a_time(definition.tag, report):
        if not _exists(api, definition.tag):
            _build(api, definition, report)
    return definition.tag


def ensure_pulled(api: docker.APIClient, image: str, *, progress: Report | None = None) -> str:
    """An image by its name, pulled unless it is there; it is never looked for anew.

    Raises:
        RuntimeNotFoundError: This cannot be an image's name, or the registry has no such image, or wants a login.
        ImageBuildError: No registry answers, or the pull broke off.
        EngineUnavailableError: The daemon does not answer.
    """
    if not _REFERENCE.fullmatch(image):
        raise RuntimeNotFoundError(f"{image!r} is not a name for an image, such as 'python:3.12-slim'")
    if not _exists(api, image):
        _pull(api, image, PULL_SILENCE, progress or _ignore)
    return image


def base_kind(api: docker.APIClient, image: str) -> BaseKind | None:
    """What an image of ours is based on; `None` for any other image, and for definitions that name their base themselves.

    Raises:
        EngineUnavailableError: The daemon does not answer.
    """
    found = _inspect(api, image)
    labels: dict[str, str] = (found and found["Config"].get("Labels")) or {}
    kind = labels.get(LABEL_BASE)
    return kind if kind in ("official", "bootstrapped") else None


# -- The definition on disk --------------------------------------------------------------------------------------------


def _read_definition(runtime: RuntimeConfig) -> _Definition:
    try:
        dockerfile = (runtime.directory / "Dockerfile").read_text()
        files = _context_files(runtime.directory)
        argument = _BASE_ARGUMENT.search(dockerfile)
        content = [runtime.name, _content_hash(runtime.directory, files)]
        if argument:
            content.append(_base_hash())
    except (OSError, UnicodeDecodeError) as error:
        raise ImageBuildError(
            f"the runtime {runtime.name!r} cannot be read: {error}; its directory must hold a Dockerfile"
        ) from error
    return _Definition(
        name=runtime.name,
        directory=runtime.directory,
        files=files,
        official_base=argument and argument["image"],
        tag=f"{REPOSITORY}/{_repository(runtime.name)}:{_short_hash(' '.join(content))}",
    )


def _repository(name: str) -> str:
    """A runtime's name with separators that Docker allows; two names that become equal still differ in their hash."""
    return re.sub(r"[._-]+", "-", name).strip("-")


def _context_files(directory: Path) -> tuple[str, ...]:
    ignore = directory / ".dockerignore"
    lines = ignore.read_text().splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return tuple(sorted(docker.utils.build.exclude_paths(directory, patterns)))


def _base_hash() -> str:
    """Hash of what a bootstrapped base is made by; part of an image's name whichever base it has, to need no network for it."""
    recipe = base_recipe()
    return _content_hash(recipe, _context_files(recipe))


def _content_hash(directory: Path, files: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in files:
        path = directory / name
        if path.is_symlink():
            kind, content = b"l", os.fsencode(path.readlink())
        elif path.is_file():
            kind, content = (b"x" if os.access(path, os.X_OK) else b"f"), path.read_bytes()
        else:
            kind, content = b"d", b""
        digest.update(b"%s %d %s\0" % (kind, len(content), os.fsencode(name)))
        digest.update(content)
    return digest.hexdigest()


def _short_hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _write_context(definition: _Definition, target: IO[bytes]) -> None:
    """The build context as a tar that depends on the files' content alone, as the builder's own cache does."""
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name in definition.files:
            entry = archive.gettarinfo(definition.directory / name, arcname=name)
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            if entry.isreg():
                with (definition.directory / name).open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


# -- The daemon's work -------------------------------------------------------------------------------------------------


def _exists(api: docker.APIClient, image: str) -> bool:
    return _inspect(api, image) is not None


def _inspect(api: docker.APIClient, image: str) -> dict[str, Any] | None:
    with docker_errors(f"inspect the image {image}"):
        try:
            return cast("dict[str, Any]", api.inspect_image(image))
        except docker.errors.NotFound:
            return None


def _build(api: docker.APIClient, definition: _Definition, report: Report) -> None:
    labels = {LABEL_RUNTIME: definition.name}
    arguments: dict[str, str] = {}
    if definition.official_base:
        base, kind = _choose_base(api, definition.official_base, report)
        arguments["BASE_IMAGE"] = base
        labels[LABEL_BASE] = kind
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    report(BuildProgress(step="build", message=f"Building the runtime {definition.name}"))
    with tempfile.TemporaryFile() as context, _build_failures(definition.name, tail):
        _write_context(definition, context)
        context.seek(0)
        events = api.build(
            fileobj=context,
            custom_context=True,
            tag=definition.tag,
            buildargs=arguments,
            labels=labels,
            rm=True,
            forcerm=True,
            timeout=cast("int", BUILD_SILENCE),
            decode=True,
        )
        for event in events:
            _follow_build(event, definition.name, tail, report)


def _follow_build(event: dict[str, Any], name: str, tail: deque[str], report: Report) -> None:
    if "error" in event:
        raise ImageBuildError(
            f"the runtime {name!r} could not be built: {event['error']}; its Dockerfile's output is in log_tail",
            log_tail="\n".join(tail),
        )
    for line in str(event.get("stream") or event.get("status") or "").splitlines():
        if not line.strip():
            continue
        tail.append(line)
        step = _INSTRUCTION.fullmatch(line)
        if step:
            current, total = int(step["current"]), int(step["total"])
            report(BuildProgress(step="build", message=step["text"], current=current, total=total))
        else:
            report(BuildProgress(step="build", message=line))


@contextmanager
def _build_failures(name: str, tail: deque[str]) -> Generator[None]:
    with docker_errors(f"build the runtime {name!r}"):
        try:
            yield
        except docker.errors.APIError as error:
            raise ImageBuildError(
                f"the runtime {name!r} could not be built: {error.explanation}", log_tail="\n".join(tail)
            ) from error
        except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
            raise ImageBuildError(
                f"building the runtime {name!r} came to a halt: no output for {BUILD_SILENCE:.0f} s. "
                "Does an instruction wait for a network that a build does not have?",
                log_tail="\n".join(tail),
            ) from error


def _pull(api: docker.APIClient, image: str, silence: float, report: Report) -> None:
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


# -- The base ----------------------------------------------------------------------------------------------------------


def _choose_base(api: docker.APIClient, official: str, report: Report) -> tuple[str, BaseKind]:
    """Image to build on, and which kind it is, having pulled or made it if need be."""
    if _exists(api, official):
        return _chosen(official, "official", report)
    try:
        _pull(api, official, BASE_PULL_SILENCE, report)
    except (ImageBuildError, RuntimeNotFoundError) as error:
        return _chosen(_bootstrapped_base(api, error, report), "bootstrapped", report)
    return _chosen(official, "official", report)


def _chosen(base: str, kind: BaseKind, report: Report) -> tuple[str, BaseKind]:
    report(BuildProgress(step="base", message=f"Building on {base} ({kind})"))
    return base, kind


def _bootstrapped_base(api: docker.APIClient, failed_pull: Exception, report: Report) -> str:
    tag = f"{REPOSITORY}/base:{_base_hash()[:16]}"
    if _exists(api, tag):
        return tag
    remedy = obstacle(api)
    if remedy:
        raise ImageBuildError(f"no base image can be had. {failed_pull}. Otherwise: {remedy}") from failed_pull
    report(BuildProgress(step="base", message=f"No registry gives a base image ({failed_pull})"))
    with _one_at_a_time(tag, report):
        if not _exists(api, tag):
            bootstrap_base(api, tag, {LABEL_BASE: "bootstrapped"}, _cache_directory(), report)
    return tag


# -- One process at a time ---------------------------------------------------------------------------------------------


@contextmanager
def _one_at_a_time(tag: str, report: Report) -> Generator[None]:
    """Hold the lock for an image among this user's processes; the kernel releases it when a process dies."""
    path = _cache_directory() / f"{tag.replace('/', '-').replace(':', '-')}.lock"
    deadline = time.monotonic() + LOCK_DEADLINE
    waiting = False
    while (lock := _try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise ImageBuildError(
                f"another process has been making {tag} for {LOCK_DEADLINE / 60:.0f} minutes; see what it waits for"
            )
        if not waiting:
            report(BuildProgress(step="wait", message=f"Another process is making {tag}; waiting for it"))
            waiting = True
        time.sleep(0.2)
    with lock:
        try:
            yield
        finally:
            path.unlink()


def _try_lock(path: Path) -> IO[bytes] | None:
    """The lock file, open and locked, or `None` while somebody else has it."""
    lock = path.open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner removes it at the end; whoever locked the removed one has locked nothing.
        if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    lock.close()
    return None


def _cache_directory() -> Path:
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pydantic-ai-sandbox")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ImageBuildError(
            f"{directory} cannot be made: {error}; point XDG_CACHE_HOME at a directory you may write"
        ) from error
    return directory


def _ignore(progress: BuildProgress) -> None:
    """Nobody asked how far it is."""
