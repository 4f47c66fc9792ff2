"""The command line: `pydantic-ai-sandbox build`, `images`, `remove`, `doctor`."""

from __future__ import annotations

from .app import app

__all__ = ("app",)
