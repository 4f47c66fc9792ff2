"""What runs beside a sandbox: so far, containers for one command."""

from __future__ import annotations

from .once import run_once

__all__ = ("run_once",)
