"""Which images a Dockerfile builds on, and how they are exchanged."""

from __future__ import annotations

import pytest

from pydantic_ai_sandbox.engines.docker.images.dockerfiles import declared_base, images_built_on, with_images

CASES = {
    "FROM debian": ("debian",),
    "from debian:12 as one\nFROM one\nFROM alpine AS two\nCOPY --from=one / /": ("debian:12", "alpine"),
    "ARG BASE_IMAGE=python:3.12-slim\nFROM ${BASE_IMAGE}": ("given",),
    'ARG BASE_IMAGE="python:3.12-slim"\nFROM $BASE_IMAGE': ("given",),
    "ARG V=12\nFROM --platform=linux/amd64 debian:${V}-slim AS base": ("debian:12-slim",),
    "FROM debian:${NONE:-13}": ("debian:13",),
    "FROM scratch\nCOPY . /": (),
    "FROM debian AS a\nARG BASE_IMAGE=x\nFROM A\nRUN echo FROM nowhere": ("debian",),
    "# FROM nowhere\nFROM debian@sha256:abc  ": ("debian@sha256:abc",),
}


@pytest.mark.parametrize("dockerfile", CASES)
def test_the_images_are_those_that_are_no_stages(dockerfile: str) -> None:
    arguments = {"BASE_IMAGE": "given"}
    assert images_built_on(dockerfile, arguments) == CASES[dockerfile]


def test_only_images_are_exchanged() -> None:
    dockerfile = "ARG V=12\nFROM debian:$V AS debian\nRUN echo debian:12\nFROM debian\nFROM alpine"
    assert with_images(dockerfile, {}, {"debian:12": "lent:1", "debian": "never", "alpine": "lent:2"}) == (
        "ARG V=12\nFROM lent:1 AS debian\nRUN echo debian:12\nFROM debian\nFROM lent:2\n"
    )


@pytest.mark.parametrize(
    ("dockerfile", "base"),
    [("ARG BASE_IMAGE=a:1\nFROM ${BASE_IMAGE}", "a:1"), ("FROM a:1", None), ("ARG BASE_IMAGE\nFROM x", None)],
)
def test_a_base_is_declared_with_a_default(dockerfile: str, base: str | None) -> None:
    assert declared_base(dockerfile) == base
