"""The Dockerfile that packages and commands become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from pydantic_ai_sandbox import RuntimeConfig
from pydantic_ai_sandbox.engines.docker.images.generating import generated_dockerfile, minimal_for, substitute_for


def lines(**parts: Any) -> list[str]:
    return generated_dockerfile(RuntimeConfig(name="lab", **parts), "base:1").splitlines()


def test_it_starts_from_the_base_as_root_and_ends_as_the_sandboxes_user() -> None:
    made = lines()
    assert made[:3] == ["ARG BASE_IMAGE=base:1", "FROM ${BASE_IMAGE}", "USER root"]
    assert made[-2:] == ['WORKDIR "/workspace"', "USER 10001:10001"]


def test_a_requirement_is_no_shell_command() -> None:
    install = 'RUN ["/opt/venv/bin/pip", "install", "--no-cache-dir", "--", "pandas>=2,<3", "a; touch /x"]'
    assert install in lines(packages=["pandas>=2,<3", "a; touch /x"])


def test_debian_and_npm_packages_are_quoted() -> None:
    (apt,) = (line for line in lines(packages=["ffmpeg", "a b"], package_manager="apt") if "apt-get" in line)
    assert "-- ffmpeg 'a b' &&" in apt
    assert apt.endswith("rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/cache/debconf/*-old")
    (npm,) = (line for line in lines(packages=["vite@^7", "$(x)"], package_manager="npm") if "npm install" in line)
    assert "-- 'vite@^7' '$(x)' &&" in npm


def test_commands_and_variables_stay_what_they_are() -> None:
    made = lines(setup=["echo 'a\nb' | sed 's/\"/x/'"], env={"A": 'x "y" $Z \\'})
    assert r"""RUN ["/bin/sh", "-ec", "echo 'a\nb' | sed 's/\"/x/'"]""" in made
    assert r'ENV A="x \"y\" \$Z \\"' in made


def test_each_package_manager_has_a_runtime_to_add_to() -> None:
    assert minimal_for(RuntimeConfig(name="a")) == "python-minimal"
    assert minimal_for(RuntimeConfig(name="a", package_manager="apt")) == "python-minimal"
    assert minimal_for(RuntimeConfig(name="a", package_manager="npm")) == "node-minimal"


@pytest.mark.parametrize(
    ("image", "substitute"),
    [
        ("python:3.12-slim", "python-minimal"),
        ("docker.io/library/debian:12", "python-minimal"),
        ("node", "node-minimal"),
        ("node:20-slim", "node-minimal"),
        ("nvidia/cuda:12", None),
        ("example.com/python:3", None),
        ("python@sha256:0123", None),
    ],
)
def test_only_plain_official_images_can_be_substituted(image: str, substitute: str | None) -> None:
    assert substitute_for(image) == substitute


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"packages": ["--index-url=x"]}, "not a package"),
        ({"packages": [" "]}, "not a package"),
        ({"packages": ["a"], "package_manager": "cargo"}, "Input should be"),
        ({"setup": [""]}, "empty"),
        ({"base_image": "a\nRUN x"}, "not a name for an image"),
        ({"base_image": "-x"}, "not a name for an image"),
        ({"env": {"A B": "x"}}, "environment variable"),
        ({"env": {"A": "x\ny"}}, "one line"),
        ({"env": {"A": "x\0"}}, "NUL"),
        ({"workdir": "app"}, "absolute"),
        ({"workdir": "/a/../b"}, "absolute"),
        ({"workdir": "/usr"}, "system's own files"),
        ({"workdir": "/proc/x"}, "reserved"),
        ({"dockerfile": Path("/x"), "git": "https://example.com/x.git"}, "not both"),
        ({"dockerfile": Path("/x"), "packages": ["a"]}, "packages cannot be added"),
        (
            {"git": "https://example.com/x.git", "base_image": "a", "setup": ["b"]},
            "base_image and setup cannot be added",
        ),
        ({"name": "../x"}, "String should match"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_built_is_refused_at_once(parts: dict[str, Any], complaint: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=complaint):
        RuntimeConfig.model_validate({"name": "lab", **parts})
