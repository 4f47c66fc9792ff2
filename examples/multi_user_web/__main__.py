"""Starts the application: `python -m examples.multi_user_web --model openai:gpt-5`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import uvicorn
from pydantic_ai.models import infer_model

ROOT = Path(__file__).parents[2]

GOODBYE = 10
"""Seconds that answers still under way have when the application is stopped."""

PATIENCE = 30
"""Seconds that a worker may take to say that it is alive: the host may have much else to do."""


def command_line() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="multi_user_web", description="Several users chat with their agent, each in a sandbox of their own."
    )
    parser.add_argument(
        "--model",
        metavar="PROVIDER:NAME",
        help="a model of Pydantic AI, such as openai:gpt-5 (its key comes from the environment); a script without it",
    )
    parser.add_argument("--root", metavar="DIR", help="where workspaces and conversations are kept")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1 (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Serve until stopped; the exit status is 2 if the model cannot be had."""
    options = command_line()
    if options.model:
        try:
            infer_model(options.model)
        except Exception as error:  # noqa: BLE001 - a missing key or package: every provider has errors of its own for it
            print(f"{options.model}: {error}", file=sys.stderr)
            return 2
    # The workers are processes of their own: what they have to know, they find in the environment.
    for name in ("model", "root"):
        if value := getattr(options, name):
            os.environ[f"MULTI_USER_WEB_{name.upper()}"] = value
    uvicorn.run(
        "examples.multi_user_web.app:app",
        app_dir=str(ROOT),
        port=options.port,
        workers=options.workers,
        timeout_graceful_shutdown=GOODBYE,
        timeout_worker_healthcheck=PATIENCE,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
