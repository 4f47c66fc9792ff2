"""What sandboxes with an interpreter are made from."""

from __future__ import annotations

import os
from typing import Any

DATASCIENCE: dict[str, Any] = (
    {"image": os.environ["SANDBOX_KERNEL_IMAGE"]}
    if "SANDBOX_KERNEL_IMAGE" in os.environ
    else {"runtime": "python-datascience"}
)
"""Arguments of `DockerSandbox` for one whose Python has ipykernel, matplotlib and pandas."""
