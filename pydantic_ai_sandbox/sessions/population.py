"""The containers that there are, and whose they are.

A container that was made for a user says so in its labels. One that was started ahead and claimed later cannot, since
labels do not change: its claim, a file in the manager's folder, was written before its user could reach it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..engines.base import ContainerInfo, Engine
from .directories import UserDirectories
from .identity import directory_name

__all__ = ("WARM_LABEL", "Owner", "Population")

NAMESPACE_LABEL, USER_LABEL, SCOPE_LABEL, WARM_LABEL = "namespace", "user", "scope", "warm"


@dataclass(frozen=True)
class Owner:
    """Whose sandbox a container is."""

    user_id: str
    scope: str


class Population:
    """All containers of one namespace; its methods block."""

    def __init__(self, engine: Engine, directories: UserDirectories, namespace: str) -> None:
        self._engine = engine
        self._directories = directories
        self._namespace = namespace

    @property
    def namespace_labels(self) -> dict[str, str]:
        """What every one of them carries."""
        return {NAMESPACE_LABEL: self._namespace}

    def labels(self, owner: Owner) -> dict[str, str]:
        """What a container that is made for this owner carries."""
        return {**self.namespace_labels, USER_LABEL: owner.user_id, SCOPE_LABEL: owner.scope}

    def warm_labels(self, token: str) -> dict[str, str]:
        """What a container that is started ahead carries."""
        return {**self.namespace_labels, WARM_LABEL: token}

    def all(self) -> list[ContainerInfo]:
        """Every container, also those that wait for a user."""
        return self._engine.find(self.namespace_labels)

    def of(self, user_id: str, scope: str | None = None) -> list[ContainerInfo]:
        """The containers of one user, or the one of that scope."""
        labels = {**self.namespace_labels, USER_LABEL: user_id}
        found = self._engine.find(labels if scope is None else {**labels, SCOPE_LABEL: scope})
        claimed = [claim for claim in self._claims_of(user_id) if scope in (None, claim.owner.scope)]
        if claimed:
            tokens = {claim.token for claim in claimed}
            found += [info for info in self.all() if info.labels.get(WARM_LABEL) in tokens]
        return found

    def owner(self, info: ContainerInfo) -> Owner | None:
        """Whose a container is; `None` if it waits for a user."""
        if info.labels.get(NAMESPACE_LABEL) != self._namespace:
            return None
        token = info.labels.get(WARM_LABEL)
        if token is None:
            return Owner(info.labels[USER_LABEL], info.labels[SCOPE_LABEL])
        return next((claim.owner for claim in map(_read, self._folder.glob(f"*.{token}.json")) if claim), None)

    # --- claims

    def claim(self, token: str, owner: Owner) -> None:
        """Record, for good, whose the container that was started ahead under this token is from now on."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        draft = self._directories.own / f"claim.{token}"
        draft.write_text(json.dumps({"token": token, "user_id": owner.user_id, "scope": owner.scope}), encoding="utf-8")
        draft.replace(self._folder / f"{directory_name(owner.user_id)}.{token}.json")

    def tidy(self) -> None:
        """Remove the claims on containers that are gone."""
        # First the claims, then the containers: a claim is there before its container can be reached, never after.
        claims = [(path, claim) for path in self._folder.glob("*.json") if (claim := _read(path))]
        if claims:
            there = {info.labels.get(WARM_LABEL) for info in self.all()}
            for path, claim in claims:
                if claim.token not in there:
                    path.unlink(missing_ok=True)

    @property
    def _folder(self) -> Path:
        return self._directories.own / "claims"

    def _claims_of(self, user_id: str) -> list[_Claim]:
        found = map(_read, self._folder.glob(f"{directory_name(user_id)}.*.json"))
        return [claim for claim in found if claim is not None]


@dataclass(frozen=True)
class _Claim:
    token: str
    owner: Owner


def _read(path: Path) -> _Claim | None:
    """`None` if it was removed just now."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return _Claim(fields["token"], Owner(fields["user_id"], fields["scope"]))
