"""What sandboxes with an interpreter are made from."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic_ai_sandbox import RuntimeConfig

_DIRECTORY = os.environ.get("SANDBOX_DATASCIENCE")

DATASCIENCE: str | RuntimeConfig = (
    RuntimeConfig(name="datascience", directory=Path(_DIRECTORY)) if _DIRECTORY else "python-datascience"
)
"""A runtime whose Python has ipykernel, matplotlib and pandas."""
