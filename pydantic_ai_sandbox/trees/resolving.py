"""Following a path below a root component by component, as the one who sees the root somewhere else would, never out of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ("components", "resolved")

_MOST_LINKS = 40
"""Links followed for one path, as in the kernel."""

_DEEPEST = 256
"""Components of a path, those of links included; every directory on the way is open while it is followed."""

# Going through a directory needs no permission to read it, where the system makes the difference.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW

Make = Callable[[str, int], None]
"""Makes the missing directory of that name in the open directory."""


@contextmanager
def resolved(root: int, path: str, *, seen_as: str, make: Make | None = None) -> Generator[tuple[int, str]]:
    """The open directory that a path leads to, and the name in it; the name is `.` if it is that directory itself.

    The name was not a link, and must not be followed in case it is one now. With `make`, missing directories on the way are
    made, and the last component is not looked at: it may be missing, or a link.

    Raises:
        FileNotFoundError, NotADirectoryError: Something on the way is not a directory.
        PermissionError: The path leads out, or through a directory that may not be entered.
        OSError: There are too many links (`ELOOP`) or components (`ENAMETOOLONG`).
        ValueError: The path has a NUL.
    """
    if "\0" in path:
        raise ValueError("a path cannot contain a NUL")
    way = _Way(root, seen_as)
    try:
        name = way.follow(path, make)
        yield way.folder, name
    except OSError as error:
        # The component that failed may be one of a link's; who asked knows the path.
        error.filename = path
        raise
    finally:
        way.to_root()


class _Way:
    """How far a path was followed.

    Args:
        root: Descriptor of the directory that nothing may leave.
        seen_as: The absolute path that it has for whoever wrote the path and the links.
    """

    def __init__(self, root: int, seen_as: str) -> None:
        self._folders = [root]
        self._seen_as = components(seen_as)
        # How far above the root: a path may go up through what is seen there, if it comes back down to the root.
        self._above = 0

    @property
    def folder(self) -> int:
        return self._folders[-1]

    def follow(self, path: str, make: Make | None) -> str:
        """Go to where a path leads; returns the name that is left in `folder`."""
        names: list[str] = []
        self._push(names, path)
        links = 0
        while names:
            name = names.pop()
            if name == "..":
                self._up()
            elif self._above:
                self._down(name)
            elif make is not None and not names:
                return name
            elif (target := self._target(name, make)) is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                self._push(names, target)
            elif names:
                self._folders.append(os.open(name, _PASS, dir_fd=self.folder))
            else:
                return name
        if self._above:
            raise _leads_out()
        return "."

    def to_root(self) -> None:
        """Go back to where it began."""
        while len(self._folders) > 1:
            os.close(self._folders.pop())
        self._above = 0

    def _push(self, names: list[str], path: str) -> None:
        """Have the components of a path followed next."""
        if path.startswith("/"):
            self.to_root()
            self._above = len(self._seen_as)
        names.extend(reversed(components(path)))
        if len(names) + len(self._folders) > _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"more than {_DEEPEST} components")

    def _up(self) -> None:
        if len(self._folders) > 1:
            os.close(self._folders.pop())
        else:
            self._above = min(self._above + 1, len(self._seen_as))

    def _down(self, name: str) -> None:
        """Go down above the root, where there is only one way."""
        if name != self._seen_as[-self._above]:
            raise _leads_out()
        self._above -= 1

    def _target(self, name: str, make: Make | None) -> str | None:
        """What a link leads to; None for everything else."""
        try:
            return os.readlink(name, dir_fd=self.folder)
        except FileNotFoundError:
            if make is None:
                raise
            make(name, self.folder)
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None


def components(path: str) -> list[str]:
    """The names that a path leads along, `..` included."""
    return [name for name in path.split("/") if name not in ("", ".")]


def _leads_out() -> PermissionError:
    return PermissionError(errno.EACCES, "leads out of the workspace")
