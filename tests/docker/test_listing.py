"""What a daemon lists and nobody uses: gone already, or left by a maker that was killed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import docker.errors
import pytest

from pydantic_ai_sandbox import DockerEngine
from pydantic_ai_sandbox.engines.docker import containers
from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.engines.docker.containers import list_containers
from pydantic_ai_sandbox.spec import ContainerSpec
from tests.docker.own_daemon import own_daemon

pytestmark = pytest.mark.docker

RENAMERS = 3

ATTEMPTS = 500
"""Every tenth or so leaves one that has no name any more, every second one that has."""


def rename_while_it_is_removed(apis: list[Any], id: str) -> None:
    """Remove it with the last client, while the others give it one name after another."""
    *renamers, remover = apis

    def rename(api: Any, number: int) -> None:
        with contextlib.suppress(docker.errors.APIError):
            for count in range(20):
                api.rename(id, f"{id[:12]}-{number}-{count}")

    threads = [threading.Thread(target=rename, args=(api, number)) for number, api in enumerate(renamers)]
    for thread in threads:
        thread.start()
    # Its files may come faster than they go.
    with contextlib.suppress(docker.errors.APIError):
        remover.remove_container(id, force=True)
    for thread in threads:
        thread.join()


def nameless(api: Any) -> list[str]:
    return [container["Id"] for container in api.containers(all=True) if not container["Names"]]


def first_nameless(apis: list[Any], make: Callable[[], str]) -> str:
    """A container that is in the list, without a name, although it was removed."""
    for _ in range(ATTEMPTS):
        rename_while_it_is_removed(apis, make())
        if found := nameless(apis[0]):
            return found[0]
    pytest.skip("this daemon forgets what it removed, whatever else is asked for just then")


def test_one_that_is_only_in_the_list_is_not_counted(docker_api: Any, busybox: str) -> None:
    labels = {"namespace": "listing", "user": "alice"}
    with own_daemon() as daemon:
        daemon.load(docker_api, busybox)
        engine = DockerEngine(daemon.url)
        spec = ContainerSpec(image=busybox)
        names = iter(range(ATTEMPTS + 1))

        def make() -> str:
            return engine.create(spec, f"sandbox-{next(names)}", labels)[0].id

        apis = [connect_daemon(daemon.url, 60) for _ in range(RENAMERS + 1)]
        gone, there = first_nameless(apis, make), make()
        found = [info.id for info in engine.find(labels)]
        assert there in found
        assert gone not in found
        assert gone not in [container["Id"] for container in list_containers(apis[0])]
        with pytest.raises(docker.errors.NotFound):
            apis[0].inspect_container(gone)
        engine.close()
        for api in apis:
            api.close()


def test_one_that_was_never_started_is_tidied_up_when_its_maker_must_be_dead(
    engine: DockerEngine, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"namespace": "tidying"}
    spec = ContainerSpec(image=busybox, idle_timeout=60)
    never, running = (engine.create(spec, f"sandbox-tidying-{name}", labels)[0].id for name in ("never", "running"))
    try:
        engine.start(running)
        assert engine.tidy(labels) == 0
        monkeypatch.setattr(containers, "_STALE", 1.0)
        time.sleep(2.5)
        assert engine.tidy({"namespace": "another"}) == 0
        assert engine.tidy(labels) == 1
        assert [info.id for info in engine.find(labels)] == [running]
    finally:
        for id in (never, running):
            engine.remove(id)
