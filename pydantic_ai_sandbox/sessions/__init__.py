"""Who owns what: users, their directories and their sandboxes."""

from .admission import Waiting
from .capability import UserSandbox
from .checkpoints import Checkpoint
from .files import Download
from .manager import Session, SessionManager
from .storage import StorageUsage

__all__ = ("Checkpoint", "Download", "Session", "SessionManager", "StorageUsage", "UserSandbox", "Waiting")
