"""Build the images of the built-in runtimes, or remove everything of ours from the daemon: `make images`, `make clean-docker`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, TypeAlias, cast

import docker

from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.engines.docker.errors import docker_errors
from pydantic_ai_sandbox.engines.docker.images import BuildProgress, base_kind, ensure_image
from pydantic_ai_sandbox.errors import ImageBuildError, SandboxError
from pydantic_ai_sandbox.runtimes import builtin, builtin_names

Answer: TypeAlias = list[dict[str, Any]]

PREFIX = "pydantic-ai-sandbox"

TIMEOUT = 60
"""Seconds that any single answer of the daemon may take."""


def main() -> None:
    """Do what the command line says; exits with 1 when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--remove", action="store_true", help="remove our containers, volumes and images")
    arguments = parser.parse_args()
    try:
        with docker_errors("list images"):
            api = connect_daemon(None, TIMEOUT)
        if arguments.remove:
            remove(api)
        else:
            build(api)
    except ImageBuildError as error:
        sys.exit(f"{error}\n{error.log_tail}")
    except SandboxError as error:
        sys.exit(str(error))


def build(api: docker.APIClient) -> None:
    """Build what is missing and say what each image is based on."""
    for name in builtin_names():
        started = time.monotonic()
        steps: list[BuildProgress] = []

        def show(progress: BuildProgress, steps: list[BuildProgress] = steps) -> None:
            # Every line of a build is for its log; people see where it is.
            if progress.step in ("base", "wait") or not steps or steps[-1].step != progress.step:
                print(f"  {progress.message}", flush=True)
            steps.append(progress)

        image = ensure_image(api, builtin(name), progress=show)
        what = f"built in {time.monotonic() - started:.0f} s" if steps else "there already"
        print(f"{name}: {image}, {base_kind(api, image)} base, {what}", flush=True)


def remove(api: docker.APIClient) -> None:
    """Remove containers, volumes and images that this package made."""
    managed = {"label": f"{PREFIX}.managed"}
    for container in cast("Answer", api.containers(all=True, filters=managed)):
        print(f"removing the container {container['Names'][0].lstrip('/')}")
        api.remove_container(container["Id"], force=True)
    for volume in cast("Answer", api.volumes(filters=managed)["Volumes"] or []):
        print(f"removing the volume {volume['Name']}")
        api.remove_volume(volume["Name"])
    for image in cast("Answer", api.images()):
        tags: list[str] = image["RepoTags"] or []
        for tag in tags:
            if tag.startswith(f"{PREFIX}/"):
                print(f"removing the image {tag}")
                api.remove_image(tag)


if __name__ == "__main__":
    main()
