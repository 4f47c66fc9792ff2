"""How many sandboxes there may be, across all processes of a host."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from .directories import UserDirectories
from .locking import locked
from .population import Population

__all__ = ("Capacity", "NoRoomError")


class NoRoomError(Exception):
    """There is no room for another sandbox now, or the request has to queue for it first."""

    def __init__(self, limit: int, user_id: str | None = None) -> None:
        super().__init__(limit, user_id)
        self.limit = limit
        self.user_id = user_id
        """Whose own limit it is; `None` if it is everybody's."""


class Capacity:
    """Counts the containers that there are, at the engine, and makes sure that none is made beyond a limit.

    Args:
        population: Finds them.
        directories: In whose folder the lock on making one is.
        total: How many there may be; `None`: any number.
        per_user: How many of them may be one user's; `None`: any number.
    """

    def __init__(
        self, population: Population, directories: UserDirectories, *, total: int | None, per_user: int | None
    ) -> None:
        self._population = population
        self._directories = directories
        self.total = total
        self.per_user = per_user

    def check_user(self, user_id: str, count: int) -> None:
        """Check, with the user's directory held, that a user who has `count` sandboxes may have one more.

        Raises:
            NoRoomError: Not now.
        """
        if self.per_user is not None and count >= self.per_user:
            raise NoRoomError(self.per_user, user_id)

    @contextmanager
    def one_more(self) -> Generator[None]:
        """Make one more in here: nobody else does meanwhile.

        Raises:
            NoRoomError: There is no room for it.
        """
        if self.total is None:
            yield
            return
        with locked(self._directories.own / "admission.lock"):
            if len(self._population.all()) >= self.total:
                raise NoRoomError(self.total)
            yield
