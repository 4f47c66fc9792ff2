"""What a daemon says of itself and of an image, for people who look after it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from .client import Daemon
from .errors import docker_errors
from .images import BaseKind, base_kind

__all__ = ("DaemonFacts", "ImageFacts", "daemon_facts", "image_facts")


@dataclass(frozen=True, kw_only=True)
class DaemonFacts:
    """A daemon."""

    version: str
    api: str
    """Version of its API that is spoken."""
    kernel: str
    cgroups: str
    """Version of the host's control groups."""
    logging: str
    """Its logging driver, for containers that ask for none."""
    security: tuple[str, ...]
    """Words for what it has: `seccomp`, `rootless`, `userns`, `apparmor`, `selinux`."""
    runtimes: tuple[str, ...]
    """Its OCI runtimes, sorted."""
    gateways: tuple[str, ...]
    """Addresses of the host in the default network of containers."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """An image."""

    id: str
    digests: tuple[str, ...]
    """What a registry calls it; empty for one that was made here."""
    created: float
    """Unix time."""
    base: BaseKind | None
    """What it is based on, if it is the image of a runtime."""


def daemon_facts(api: Daemon) -> DaemonFacts:
    """What the daemon says of itself.

    Raises:
        EngineUnavailableError: It does not answer.
    """
    with docker_errors("describe the daemon"):
        info = cast("dict[str, Any]", api.info())
        networks = cast("list[dict[str, Any]]", api.networks(names=["bridge"]))
    pools = [pool for network in networks for pool in (network["IPAM"].get("Config") or ())]
    return DaemonFacts(
        version=str(info.get("ServerVersion", "unknown")),
        api=str(api.api_version),
        kernel=str(info.get("KernelVersion", "unknown")),
        cgroups=str(info.get("CgroupVersion", "unknown")),
        logging=str(info.get("LoggingDriver", "unknown")),
        security=tuple(_option(option) for option in info.get("SecurityOptions") or ()),
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
        gateways=tuple(pool["Gateway"] for pool in pools if pool.get("Gateway")),
    )


def _option(option: str) -> str:
    """The name in `name=seccomp,profile=default`."""
    return option.partition(",")[0].removeprefix("name=")


def image_facts(api: Daemon, image: str) -> ImageFacts:
    """What the daemon knows of an image.

    Raises:
        UnknownContainerError: It has none of that name.
        EngineUnavailableError: It does not answer.
    """
    with docker_errors(f"inspect the image {image}"):
        found = cast("dict[str, Any]", api.inspect_image(image))
    return ImageFacts(
        id=found["Id"],
        digests=tuple(found.get("RepoDigests") or ()),
        created=_time(found.get("Created") or ""),
        base=base_kind(api, image),
    )


def _time(text: str) -> float:
    """Docker writes up to nine decimals of a second, and nothing for an image without a date."""
    try:
        return datetime.fromisoformat(f"{text[:19]}+00:00").timestamp()
    except ValueError:
        return 0.0
