"""Whether the walls stand: tried from inside a sandbox, and, for a whole installation, by the doctor."""

from .inside import self_check
from .results import Check, SelfCheck, Verdict

__all__ = ("Check", "SelfCheck", "Verdict", "self_check")
