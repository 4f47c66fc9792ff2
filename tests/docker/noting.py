"""A daemon whose containers can be told from those that other tests make meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_ai_sandbox import DockerEngine
from pydantic_ai_sandbox.engines.base import ContainerInfo
from pydantic_ai_sandbox.engines.docker.containers import list_containers, listed_name
from pydantic_ai_sandbox.spec import ContainerSpec

__all__ = ("NotingEngine",)


class NotingEngine(DockerEngine):
    """Notes the names of all containers that it is told to make."""

    def __init__(self) -> None:
        super().__init__()
        self._names: set[str] = set()

    def create(self, spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> tuple[ContainerInfo, bool]:
        # Before it is made, since whoever asked may never hear of it.
        self._names.add(name)
        return super().create(spec, name, labels)

    def containers(self) -> set[str]:
        """Ids of those that are there, running or not."""
        return {found["Id"] for found in list_containers(self.api()) if listed_name(found) in self._names}
