"""Who owns what: users, their directories and their sandboxes."""

from .capability import UserSandbox
from .manager import Session, SessionManager

__all__ = ("Session", "SessionManager", "UserSandbox")
