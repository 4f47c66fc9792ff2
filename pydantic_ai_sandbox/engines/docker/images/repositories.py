"""Image definitions in git repositories, fetched with this machine's own git, its keys and its settings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ....errors import ImageBuildError
from ....runtimes import BuildProgress
from .locks import cache_directory

__all__ = ("Repository",)

DEADLINE = 300.0
"""Seconds that one exchange with a repository may take."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_URL = re.compile(r"(?:https?|ssh|git|file)://\S+|[\w.-]+@[\w.-]+:\S+", re.ASCII)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")

_PROTOCOLS = "https:http:ssh:git:file"
"""None that lets an address run a program."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A folder of a git repository at a branch, a tag or a commit."""

    url: str
    ref: str
    """Empty: the repository's default branch."""
    folder: str
    """Empty: the repository itself."""

    @classmethod
    def parse(cls, address: str) -> Repository:
        """Take `https://host/repository.git#ref:folder` apart; both parts after the `#` may be left out.

        Raises:
            ImageBuildError: It is no such address.
        """
        url, _, rest = address.partition("#")
        ref, _, folder = rest.partition(":")
        if not _URL.fullmatch(url):
            raise ImageBuildError(
                f"{_without_secrets(address)!r} is not the address of a git repository, such as "
                "'https://host/repository.git#branch:folder'"
            )
        if ref.startswith("-") or re.search(r"\s|\.\.|[~^:?*\[\\\x00-\x1f]", ref):
            raise ImageBuildError(f"{ref!r} is not a branch, a tag or a commit")
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts:
            raise ImageBuildError(f"{folder!r} is not a folder inside a repository")
        return cls(url=url, ref=ref, folder=folder)

    def commit(self) -> str:
        """The commit that is meant; asks the repository unless it is named itself.

        Raises:
            ImageBuildError: The repository does not answer, or has no such branch or tag.
        """
        if _COMMIT.fullmatch(self.ref):
            return self.ref
        listing = self._git("ls-remote", "--", self.url, *self._names())
        found = {name: commit for commit, _, name in (line.partition("\t") for line in listing.splitlines())}
        for name in self._names():
            if name in found:
                return found[name]
        raise ImageBuildError(f"{self} has no branch or tag {self.ref!r}" if self.ref else f"{self} is empty")

    def _names(self) -> list[str]:
        if not self.ref:
            return ["HEAD"]
        # A tag with a message of its own is followed to the commit that it names.
        return [f"refs/heads/{self.ref}", f"refs/tags/{self.ref}^{{}}", f"refs/tags/{self.ref}"]

    @contextmanager
    def checked_out(self, commit: str, report: Callable[[BuildProgress], None]) -> Generator[Path]:
        """The folder at a commit, in a place that is gone afterwards.

        Raises:
            ImageBuildError: It cannot be fetched, or has no such folder.
        """
        report(BuildProgress(step="fetch", message=f"Fetching {self} at {commit[:12]}"))
        with tempfile.TemporaryDirectory(prefix="repository-", dir=cache_directory()) as place:
            self._git("init", "--quiet", "--template=", place)
            self._git("-C", place, "fetch", "--quiet", "--depth=1", "--no-tags", "--", self.url, commit)
            self._git("-C", place, "-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD")
            shutil.rmtree(Path(place, ".git"))
            yield self._inside(Path(place).resolve())

    def _inside(self, place: Path) -> Path:
        folder = (place / self.folder).resolve()
        # What lies in a repository can be a link to anywhere.
        if not folder.is_relative_to(place) or not folder.is_dir():
            raise ImageBuildError(f"{self} has no folder {self.folder!r}")
        return folder

    def _git(self, *arguments: str) -> str:
        command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.version=2", *arguments]
        environment = {
            **os.environ,
            "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
            "LC_ALL": "C.UTF-8",
        }
        try:
            result = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=DEADLINE,
                encoding="utf-8",
                errors="replace",
            )
        except FileNotFoundError as error:
            raise ImageBuildError(f"{self} needs the program git: install it") from error
        except subprocess.TimeoutExpired as error:
            raise ImageBuildError(f"{self} did not answer within {DEADLINE:.0f} s") from error
        if result.returncode:
            said = _without_secrets(result.stderr.strip())
            raise ImageBuildError(
                f"{self} cannot be fetched: {said.splitlines()[-1] if said else 'git failed'}", log_tail=said
            )
        return result.stdout

    def __str__(self) -> str:
        return f"the repository {_without_secrets(self.url)}"


def _without_secrets(text: str) -> str:
    return _USER_INFO.sub("", text)
