"""Packages of the standard library that can be broken: where they are, what tests them, which line of them goes wrong."""

from __future__ import annotations

import glob
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from terminal.screen import Screen, timed

from pydantic_ai_sandbox import DockerSandbox, RunResult

LIBRARIES = (
    "/usr/local/lib/python3.*",
    "/usr/lib/python3.*",
    "~/.pyenv/versions/*/lib/python3.*",
    "~/.local/share/uv/python/*/lib/python3.*",
    "/Library/Frameworks/Python.framework/Versions/*/lib/python3.*",
    "/opt/homebrew/opt/python@3*/Frameworks/Python.framework/Versions/*/lib/python3.*",
)
"""Where standard libraries lie, besides that of the Python that runs this: not every one is installed with its tests."""


NAMES = ("tomllib", "statistics")
"""The packages that there are."""


class NoPackageError(Exception):
    """No package is there that is whole to begin with."""


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One line that goes wrong."""

    path: str
    """The file it is in, in the sandbox."""
    right: str
    """What the line says, which no other line of the file does."""
    wrong: str
    """What it says once it is broken."""
    clue: str
    """A regular expression that somebody who has seen the tests fail would search for."""
    insight: str
    """What that somebody sees when reading the lines found."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package, or a module, with tests."""

    name: str
    library: Path
    """The host directory it comes from."""
    copies: Mapping[str, str]
    """What to copy, relative to the library → directory in the sandbox."""
    writes: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further files in the sandbox → their content."""
    tests: str
    """The command that tests it."""
    about: str
    """What the tests are."""
    defect: Defect
    original: bytes = b""
    """The file that gets broken, as it was."""


def candidates() -> Iterator[Package]:
    """The packages of this machine, best first; the last one is always there, its tests being its own documentation."""
    own = Path(sysconfig.get_path("stdlib"))
    others = (Path(path) for pattern in LIBRARIES for path in sorted(glob.glob(str(Path(pattern).expanduser()))))  # noqa: PTH207
    for library in dict.fromkeys((own, *others)):
        if (library / "tomllib").is_dir() and (library / "test/test_tomllib/data").is_dir():
            yield _tomllib(library)
    yield _statistics(own)


def _tomllib(library: Path) -> Package:
    return Package(
        name="tomllib",
        library=library,
        copies={
            "tomllib/*.py": "/workspace/tomllib",
            "test/test_tomllib/test_data.py": "/workspace/tests",
            "test/test_tomllib/test_error.py": "/workspace/tests",
            "test/test_tomllib/burntsushi.py": "/workspace/tests",
            "test/test_tomllib/data": "/workspace/tests",
        },
        # The original imports test helpers that slim images come without.
        writes={"/workspace/tests/__init__.py": "import tomllib\n"},
        tests="python -m unittest",
        about="its tests",
        defect=Defect(
            path="/workspace/tomllib/_parser.py",
            right="return pos + 5, False",
            wrong="return pos + 4, False",
            clue=r"return pos \+ \d+, (True|False)",
            insight="`true` has four letters and `false` five, but the parser skips four for both.",
        ),
    )


def _statistics(library: Path) -> Package:
    return Package(
        name="statistics",
        library=library,
        copies={"statistics.py": "/workspace"},
        tests="python -m doctest statistics.py",
        about="the examples in its documentation, which are its tests",
        defect=Defect(
            path="/workspace/statistics.py",
            right="return (data[i - 1] + data[i]) / 2",
            wrong="return (data[i] + data[i + 1]) / 2",
            clue=r"return .*data\[i\]",
            insight="The middle of an even number of values is between `i - 1` and `i`, not between `i` and `i + 1`.",
        ),
    )


async def install(sandbox: DockerSandbox, screen: Screen, name: str | None = None) -> Package:
    """Copy the first package (of that name) that passes its tests in the sandbox, whose Python may be older than it.

    Raises:
        NoPackageError: None does.
    """
    for package in candidates():
        if name is not None and package.name != name:
            continue
        with timed() as copying:
            files = await _copy(sandbox, package)
        result = await run_tests(sandbox, package)
        original = await sandbox.read_bytes(package.defect.path)
        if result.exit_code == 0 and original.count(package.defect.right.encode()) == 1:
            screen.note(
                "Package",
                f"{package.name} and {package.about}, from {package.library}: {files} files copied",
                seconds=copying.seconds,
            )
            screen.test_run("Tests", package.tests, result)
            return replace(package, original=original)
        screen.note("Passed over", f"{package.name} of {package.library}, which this Python cannot run")
        await sandbox.run("rm -rf /workspace/*", shell=True)
    raise NoPackageError("no Python of this machine has a package with tests that pass in the sandbox")


async def _copy(sandbox: DockerSandbox, package: Package) -> int:
    count = len(package.writes)
    for pattern, directory in package.copies.items():
        # `copy_to` takes a glob: what is special about the library's own path must not be.
        count += len(await sandbox.copy_to(f"{glob.escape(str(package.library))}/{pattern}", directory))
    for path, content in package.writes.items():
        await sandbox.write_text(path, content)
    return count


async def break_it(sandbox: DockerSandbox, package: Package, screen: Screen) -> None:
    """Make one line of the package wrong.

    Raises:
        NoPackageError: The tests pass nevertheless.
    """
    defect = package.defect
    edit = await sandbox.edit(defect.path, defect.right, defect.wrong)
    screen.line_changed("Sabotage", f"{defect.path}, line {edit.lines[0]}", defect.right, defect.wrong)
    result = await run_tests(sandbox, package)
    screen.test_run("Tests", package.tests, result)
    if result.exit_code == 0:
        raise NoPackageError(f"the tests of {package.name} do not notice that it is broken")


async def run_tests(sandbox: DockerSandbox, package: Package) -> RunResult:
    """Run the package's tests, as the agent is told to."""
    return await sandbox.run(package.tests, shell=True, timeout=60)
