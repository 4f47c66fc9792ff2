"""The runner's binaries, which the wheel carries."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from ..errors import EngineError

__all__ = ("runner_binary", "runner_version")

_BINARIES = Path(__file__).resolve().parents[1] / "_runner"
_ARCHITECTURES = ("amd64", "arm64")


def runner_binary(arch: str) -> Path:
    """The runner for containers of an architecture, in Docker's words (`"amd64"`, `"arm64"`).

    Raises:
        EngineError: It is not built for that architecture, or this installation lacks it.
    """
    if arch not in _ARCHITECTURES:
        raise EngineError(
            f"the sandbox runner is not built for {arch!r}, only for {' and '.join(_ARCHITECTURES)}; "
            "use an image of one of these architectures"
        )
    binary = _BINARIES / f"linux-{arch}"
    if not binary.is_file():
        raise EngineError(f"{binary} is missing; install the package again (in a checkout: `make setup`)")
    return binary


@functools.cache
def runner_version() -> str:
    """Hash of the binaries' content, 16 hexadecimal digits; names the volume that carries them.

    Raises:
        EngineError: This installation lacks one.
    """
    digest = hashlib.sha256()
    for arch in _ARCHITECTURES:
        digest.update(hashlib.sha256(runner_binary(arch).read_bytes()).digest())
    return digest.hexdigest()[:16]
