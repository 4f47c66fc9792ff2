"""A tenant's directory, handled on the host while hostile code may be changing it: by descriptors, following no link out."""

from __future__ import annotations

from .removal import remove_tree

__all__ = ("remove_tree",)
