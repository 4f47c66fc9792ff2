"""A tenant's directory, handled on the host while hostile code may be changing it: by descriptors, following no link out."""

from __future__ import annotations

from .archiving import archive
from .copying import TreeCopy, copy_tree
from .measuring import TreeUsage, measure
from .opening import Tree, TreeEntry, TreeListing
from .removal import remove_tree
from .renaming import exchange, rename_new, sync_folder
from .uploading import Upload

__all__ = (
    "Tree",
    "TreeCopy",
    "TreeEntry",
    "TreeListing",
    "TreeUsage",
    "Upload",
    "archive",
    "copy_tree",
    "exchange",
    "measure",
    "remove_tree",
    "rename_new",
    "sync_folder",
)
