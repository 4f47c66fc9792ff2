"""Removing everything of ours from a daemon, which must be another than the one that the other tests use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.engines.docker.hardening import LABEL
from pydantic_ai_sandbox.engines.docker.images.naming import REPOSITORY
from pydantic_ai_sandbox.engines.docker.inventory import remove_everything
from pydantic_ai_sandbox.errors import EngineError
from tests.docker.own_daemon import own_daemon

pytestmark = pytest.mark.docker

COMMAND = [sys.executable, "-m", "pydantic_ai_sandbox", "remove", "--yes"]

ROUNDS = 200
"""Of three at once; without a look at what a conflict was about, about one in forty fails."""


def removal(url: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DOCKER_HOST": url}
    return subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def elsewhere(docker_api: Any, busybox: str) -> Generator[Any]:
    """Another daemon's client; it has an image named `theirs:1` that a container of somebody else uses."""
    with own_daemon() as daemon:
        daemon.load(docker_api, busybox)
        with closing(connect_daemon(daemon.url, 60)) as api:
            api.tag(busybox, "theirs", "1")
            api.remove_image(busybox)
            api.create_container("theirs:1", ["true"], name="their-container")
            yield api


def remove_together(api: Any, barrier: threading.Barrier) -> None:
    barrier.wait()
    for _ in remove_everything(api):
        pass


def test_an_image_that_somebody_else_uses_loses_our_name_however_many_remove_it(elsewhere: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        for _ in range(ROUNDS):
            elsewhere.tag("theirs:1", f"{REPOSITORY}/lab", "1")
            barrier = threading.Barrier(3)
            for one in [pool.submit(remove_together, elsewhere, barrier) for _ in range(3)]:
                one.result(60)
            assert [image["RepoTags"] for image in elsewhere.images()] == [["theirs:1"]]


def test_an_image_of_ours_that_somebody_elses_container_uses_is_told(elsewhere: Any) -> None:
    elsewhere.tag("theirs:1", f"{REPOSITORY}/lab", "1")
    elsewhere.remove_image("theirs:1", force=True)
    with pytest.raises(EngineError, match="is using its referenced image"):
        list(remove_everything(elsewhere))


def test_several_may_remove_everything_at_once_and_leave_what_is_not_ours(docker_api: Any, busybox: str) -> None:
    labels = {f"{LABEL}.managed": "true"}
    with own_daemon() as daemon:
        daemon.load(docker_api, busybox)
        api = connect_daemon(daemon.url, 60)
        api.tag(busybox, "theirs", "1")
        api.tag(busybox, f"{REPOSITORY}/lab", "1")
        for number in range(8):
            api.create_volume(f"ours-{number}", labels=labels)
            bind = api.create_host_config(binds=[f"ours-{number}:/v"], network_mode="none")
            made = api.create_container(
                f"{REPOSITORY}/lab:1", ["sleep", "600"], volumes=["/v"], host_config=bind, labels=labels
            )
            api.start(made)
        api.create_volume("theirs")
        theirs = api.create_container("theirs:1", ["true"])["Id"]
        removals = [removal(daemon.url) for _ in range(3)]
        for one in removals:
            out, err = one.communicate(timeout=300)
            assert (one.returncode, err) == (0, ""), out
        assert [container["Id"] for container in api.containers(all=True)] == [theirs]
        assert [volume["Name"] for volume in api.volumes()["Volumes"]] == ["theirs"]
        tags = [tag for image in api.images() for tag in image["RepoTags"]]
        assert "theirs:1" in tags
        assert not [tag for tag in tags if tag.startswith(f"{REPOSITORY}/")]
        api.close()
