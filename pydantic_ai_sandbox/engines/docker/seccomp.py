"""The seccomp profile of our containers; `runtimes/seccomp/generate.py` says what it denies and why."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

__all__ = ("profile_json",)


@cache
def profile_json() -> str:
    """The profile in Docker's format, on one line."""
    text = Path(__file__).with_name("seccomp.json").read_text("utf-8")
    return json.dumps(json.loads(text), separators=(",", ":"))
