"""The Dockerfile of a runtime that is put together from packages and commands, as a pure function."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable

from ....spec import DEFAULT_UID, RuntimeConfig

__all__ = ("generated_dockerfile", "minimal_for", "substitute_for")

_OFFICIAL = re.compile(r"(?:docker\.io/)?(?:library/)?(?P<name>python|debian|node)(?::[\w.-]+)?", re.ASCII)
"""Official images that one of our own runtimes can stand in for."""

_PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_USER = f"""\
RUN set -eu; \\
    if command -v useradd >/dev/null && ! getent passwd {DEFAULT_UID} >/dev/null; then \\
        groupadd --gid {DEFAULT_UID} sandbox; \\
        useradd --uid {DEFAULT_UID} --gid {DEFAULT_UID} --home-dir /home/sandbox --shell /bin/sh --no-log-init sandbox; \\
    fi; \\
    find / -xdev -type f -perm /6000 -exec chmod a-s {{}} +; \\
    rm -rf /root/.cache /root/.npm /var/log/* /etc/*-"""
"""Ends every generated definition: a name for the user everything runs as, and no program that changes who it runs as."""


def minimal_for(runtime: RuntimeConfig) -> str:
    """Name of the built-in runtime that its packages are added to by default."""
    return "node-minimal" if runtime.package_manager == "npm" else "python-minimal"


def substitute_for(image: str) -> str | None:
    """Name of the built-in runtime that can take the place of an official image which cannot be had; `None` if none can."""
    official = _OFFICIAL.fullmatch(image)
    if official is None:
        return None
    return "node-minimal" if official["name"] == "node" else "python-minimal"


def generated_dockerfile(runtime: RuntimeConfig, base: str) -> str:
    """What builds a runtime without a Dockerfile of its own; `BASE_IMAGE` can be set to something else than `base`."""
    lines = [
        f"ARG BASE_IMAGE={base}",
        "FROM ${BASE_IMAGE}",
        "USER root",
        *(f"ENV {name}={_quoted(value)}" for name, value in runtime.env.items()),
    ]
    if runtime.packages:
        lines += {"pip": _pip, "npm": _npm, "apt": _apt}[runtime.package_manager](runtime.packages)
    lines += [f"RUN {_exec_form(['/bin/sh', '-ec', command])}" for command in runtime.setup]
    lines += [_USER, f"WORKDIR {_quoted(runtime.workdir)}", f"USER {DEFAULT_UID}:{DEFAULT_UID}", ""]
    return "\n".join(lines)


def _pip(packages: Iterable[str]) -> list[str]:
    # With the packages of the base in sight: it may have been chosen for them.
    return [
        "RUN test -x /opt/venv/bin/pip || python3 -m venv --system-site-packages /opt/venv",
        "ENV PATH=/opt/venv/bin:$PATH",
        f"RUN {_exec_form(['/opt/venv/bin/pip', 'install', '--no-cache-dir', '--', *packages])}",
    ]


def _npm(packages: Iterable[str]) -> list[str]:
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--omit-lockfile-registry-resolved"]
    hidden = ["--cache", "/opt/npm/cache", "--logs-max", "0", "--", *packages]
    # They end at the root, where Node looks last from everywhere, so that a project in the workspace finds them. npm cannot
    # install there, and would try to if no package.json told it where it is.
    steps = [
        "mkdir -p /opt/npm /node_modules && cd /opt/npm && echo '{}' > package.json",
        shlex.join([*install, *hidden]),
        "cp -a node_modules/. /node_modules && rm -rf /opt/npm",
    ]
    return [f"RUN {' && '.join(steps)}", "ENV PATH=/node_modules/.bin:$PATH NODE_PATH=/node_modules"]


def _apt(packages: Iterable[str]) -> list[str]:
    install = shlex.join(["apt-get", "install", "--yes", "--no-install-recommends", "--", *packages])
    # The lists and the caches know the mirror.
    clean = "rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/cache/debconf/*-old"
    return [f"RUN apt-get update && DEBIAN_FRONTEND=noninteractive {install} && {clean}"]


def _exec_form(arguments: list[str]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _quoted(value: str) -> str:
    if _PLAIN_WORD.fullmatch(value):
        return value
    escaped = re.sub(r'([\\"$])', r"\\\1", value)
    return f'"{escaped}"'
