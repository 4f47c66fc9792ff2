"""How users' directories are kept: as plain ones, or each in a file system of its own."""

from ...spec import MANAGER_FOLDER
from .base import Level, Storage, StorageUsage
from .choosing import choose_storage
from .loopback import LoopbackStorage
from .plain import PlainStorage

__all__ = ("MANAGER_FOLDER", "Level", "LoopbackStorage", "PlainStorage", "Storage", "StorageUsage", "choose_storage")
