"""What is reported while an image is got ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ("BuildProgress",)


@dataclass(frozen=True, kw_only=True)
class BuildProgress:
    """One thing that happened on the way to an image. Nothing is printed; showing it is up to whoever asked."""

    step: Literal["wait", "fetch", "pull", "base", "bootstrap", "build", "finish"]
    """`wait`: for another process that does it · `fetch`: from a git repository · `pull`: from a registry · `base`: the base
    image is chosen, the message says which · `bootstrap`: a base is made from Debian packages · `build`: the image definition
    itself · `finish`: this host's settings are taken out of the image."""
    message: str
    """A line for people, without a line end."""
    current: int | None = None
    """How far it is, in bytes (`pull`) or instructions (`build`), where that is known."""
    total: int | None = None
    """What `current` will be at the end."""
