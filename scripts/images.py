"""Build the images of the built-in runtimes, or remove everything of ours from the daemon: `make images`, `make clean-docker`."""

from __future__ import annotations

import argparse
import sys
import time

import docker

from pydantic_ai_sandbox.engines.docker.images import BuildProgress, base_kind, ensure_image
from pydantic_ai_sandbox.errors import ImageBuildError, SandboxError
from pydantic_ai_sandbox.runtimes import builtin, builtin_names

PREFIX = "pydantic-ai-sandbox"


def main() -> None:
    """Do what the command line says; exits with 1 when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--remove", action="store_true", help="remove our containers, volumes and images")
    arguments = parser.parse_args()
    client = docker.from_env()
    try:
        if arguments.remove:
            remove(client)
        else:
            build(client.api)
    except ImageBuildError as error:
        sys.exit(f"{error}\n{error.log_tail}")
    except SandboxError as error:
        sys.exit(str(error))
    finally:
        client.close()


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


def remove(client: docker.DockerClient) -> None:
    """Remove containers, volumes and images that this package made."""
    managed = {"label": f"{PREFIX}.managed"}
    for container in client.containers.list(all=True, filters=managed):
        print(f"removing the container {container.name}")
        container.remove(force=True)
    for volume in client.volumes.list(filters=managed):
        print(f"removing the volume {volume.name}")
        volume.remove()
    for tag in [tag for image in client.images.list() for tag in image.tags if tag.startswith(f"{PREFIX}/")]:
        print(f"removing the image {tag}")
        client.images.remove(tag)


if __name__ == "__main__":
    main()
