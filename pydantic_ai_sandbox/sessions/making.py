"""How a user's container comes to be: found, claimed from those that wait, or made, and one request after another."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from ..engines.base import ContainerInfo, Engine
from ..errors import SandboxError, SpecMismatchError
from ..spec import ContainerSpec
from .admission import Admission, Ticket
from .capacity import Capacity, NoRoomError
from .directories import Home, UserDirectories
from .population import Owner, Population
from .warm import WarmPool

__all__ = ("Household", "SessionMaker")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Household:
    """What all sandboxes of a manager share."""

    engine: Engine
    directories: UserDirectories
    population: Population
    capacity: Capacity
    warm: WarmPool
    admission: Admission
    quota: int | None
    """Bytes that a user's directory may hold."""

    def limited(self, spec: ContainerSpec) -> ContainerSpec:
        """A spec whose runner looks after the quota, where nothing better does."""
        watched = self.quota if self.directories.storage.level == "soft" else None
        return spec.model_copy(update={"disk_quota": watched or 0})


class SessionMaker:
    """Makes the containers of one user's sandbox, one after the other as they end."""

    def __init__(self, household: Household, owner: Owner) -> None:
        self._household = household
        self._owner = owner
        self._lock = threading.Lock()
        self._ticket: Ticket | None = None

    # --- what a lifecycle asks for

    def owns(self, info: ContainerInfo) -> bool:
        return self._household.population.owner(info) == self._owner

    async def admit(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await self._household.admission.admit(self._owner, lambda ticket: self._with(ticket, attempt))

    async def _with(self, ticket: Ticket | None, attempt: Callable[[], Awaitable[T]]) -> T:
        self._ticket = ticket
        try:
            return await attempt()
        finally:
            self._ticket = None

    def make(self, spec: ContainerSpec, name: str) -> tuple[ContainerInfo, bool]:
        try:
            return self._made(spec, name)
        except SandboxError:
            raise
        except OSError as error:
            raise SandboxError(f"the sandbox of {self._owner.user_id!r} cannot be made: {error}") from error

    # ---

    def _made(self, spec: ContainerSpec, name: str) -> tuple[ContainerInfo, bool]:
        house = self._household
        with house.directories.hold(self._owner.user_id) as home:
            spec = house.limited(spec).model_copy(update={"workspace": home.path})
            # A user who was never here has no containers: nothing to look up.
            own = [] if home.is_new else house.population.of(self._owner.user_id)
            usable = [info for info in own if info.running or info.status == "created"]
            if (found := next(filter(self.owns, usable), None)) is not None:
                return self._adopted(found, spec), False
            house.capacity.check_user(self._owner.user_id, len(usable))
            info = None if home.exists else house.warm.claim(spec, home, self._owner)
            if info is None:
                info = self._create(spec, home, name)
            return info, True

    def _adopted(self, found: ContainerInfo, spec: ContainerSpec) -> ContainerInfo:
        assert spec.workspace is not None
        # A claimed one was made over a directory of another name, which is the user's now.
        adopted = replace(found, spec=found.spec.model_copy(update={"workspace": spec.workspace}))
        spec = spec.model_copy(
            update={"uid": self._household.engine.prepare_workspace(spec.workspace, is_session=True)}
        )
        if adopted.spec.digest() != spec.digest():
            raise SpecMismatchError(f"the sandbox of {self._owner.user_id!r} was made with other settings")
        if not adopted.running:
            self._household.engine.start(adopted.id)
        return replace(adopted, running=True, status="running")

    def _create(self, spec: ContainerSpec, home: Home, name: str) -> ContainerInfo:
        house, ticket = self._household, self._ticket
        if house.capacity.total is not None and ticket is None:
            raise NoRoomError(house.capacity.total)
        with house.capacity.one_more():
            home.ensure(spec.uid)
            spec = spec.model_copy(update={"uid": house.engine.prepare_workspace(home.path, is_session=True)})
            info, _ = house.engine.create(spec, name, house.population.labels(self._owner))
        if ticket is not None:
            # It counts from now on; the next one need not wait for its start.
            ticket.use()
        house.engine.start(info.id)
        return replace(info, running=True, status="running")
