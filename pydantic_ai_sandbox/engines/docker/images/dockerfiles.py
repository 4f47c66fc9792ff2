"""The part of a Dockerfile that matters here: which images it builds on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

__all__ = ("declared_base", "images_built_on", "with_images")

_BASE_ARGUMENT = re.compile(r"^ARG\s+BASE_IMAGE=(?P<image>\S+)\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^\s*ARG\s+(?P<name>\w+)(=(?P<value>\S*))?\s*$", re.IGNORECASE)
_FROM = re.compile(
    r"^(?P<before>\s*FROM\s+(--\S+\s+)*)(?P<image>[^\s#]+)(?P<after>(\s+AS\s+(?P<stage>\S+))?\s*)$", re.IGNORECASE
)
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")


def declared_base(dockerfile: str) -> str | None:
    """What `ARG BASE_IMAGE=` says; `None` where a definition has no such argument and insists on its own `FROM`."""
    argument = _BASE_ARGUMENT.search(dockerfile)
    return argument and argument["image"].strip("\"'")


def images_built_on(dockerfile: str, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """The images that its `FROM`s name, other than its own stages, once `arguments` are filled in."""
    found: dict[str, None] = {}

    def remember(image: str) -> str:
        found[image] = None
        return image

    _map_images(dockerfile, arguments, remember)
    return tuple(found)


def with_images(dockerfile: str, arguments: Mapping[str, str], images: Mapping[str, str]) -> str:
    """The same Dockerfile with other images in its `FROM`s, where `images` has something for them."""
    return _map_images(dockerfile, arguments, lambda image: images.get(image, image))


def _map_images(dockerfile: str, arguments: Mapping[str, str], change: Callable[[str], str]) -> str:
    values: dict[str, str] = {}
    stages = {"scratch"}
    began = False
    lines: list[str] = []
    for line in dockerfile.splitlines():
        if found := _FROM.match(line):
            lines.append(_map_image(found, values, stages, change))
            stages.add((found["stage"] or "").lower())
            began = True
            continue
        lines.append(line)
        # Only arguments before the first FROM can be used in one.
        if not began and (argument := _ARGUMENT.match(line)):
            name = argument["name"]
            values[name] = arguments.get(name, (argument["value"] or "").strip("\"'"))
    return "\n".join([*lines, ""])


def _map_image(found: re.Match[str], values: Mapping[str, str], stages: set[str], change: Callable[[str], str]) -> str:
    def value(variable: re.Match[str]) -> str:
        return values.get(variable["plain"] or variable["name"]) or variable["default"] or ""

    image = _VARIABLE.sub(value, found["image"])
    changed = image if image.lower() in stages else change(image)
    return found[0] if changed == image else f"{found['before']}{changed}{found['after']}"
