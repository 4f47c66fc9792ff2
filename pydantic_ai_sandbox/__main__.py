"""`python -m pydantic_ai_sandbox`, and the script `pydantic-ai-sandbox`."""

from __future__ import annotations

import sys

__all__ = ("main",)


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from .cli import app
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit("the command line needs more packages: pip install 'pydantic-ai-sandbox[cli]'")
    app()


if __name__ == "__main__":
    main()
