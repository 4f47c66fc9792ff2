"""From a runtime or an image's name to an image that the daemon has.

A runtime's image is named after the content of everything it is made of, so that asking for one that exists is a single
question to the daemon. Its base is the official image where a registry can be reached, and a Debian bootstrapped on this
machine where not; a label on the image, and the progress report, say which.

What this host needs to reach package indexes (certificates, addresses, proxies, credentials) is lent to a build and taken
out of its result again: `settings` reads it, `lending` gives it, `reclaiming` takes it back.
"""

from __future__ import annotations

from .ensuring import BaseKind, base_kind, ensure_image, image_name
from .pulling import ensure_pulled

__all__ = ("BaseKind", "base_kind", "ensure_image", "ensure_pulled", "image_name")
