"""Which failure ends the run, which one the model may mend, and which one it is only told about.

| what was raised | what becomes of it |
|---|---|
| `WorkspaceUnavailableError`, `EngineError`, `RuntimeNotFoundError`, `CapacityError` | stays: the run ends, no model can mend that |
| `EditError`, `ValueError` | `ModelRetry`: other arguments may work |
| other `WorkspaceError`, `SandboxError`, `OSError` | `ToolFailed`: the model reads why and goes on |
| anything else | stays, so that durable engines can retry it |
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.workspaces import WorkspaceError, WorkspaceUnavailableError

from ..errors import CapacityError, EditError, EngineError, RuntimeNotFoundError, SandboxError
from .text import rendered_path, visible

__all__ = ("describe", "translated")

_LONGEST = 4_000
"""Characters of an error's message that reach the model."""
_USER_INFO = re.compile(r"(?<=://)[^/\s@]{1,500}@")

_WORDS: tuple[tuple[type[OSError], str], ...] = (
    (FileNotFoundError, "No such file or directory"),
    (IsADirectoryError, "Is a directory, not a file"),
    (NotADirectoryError, "Not a directory"),
    (PermissionError, "Permission denied"),
    (FileExistsError, "Exists already"),
)


@contextmanager
def translated() -> Generator[None]:
    """Raise what Pydantic AI acts on rightly instead of what a workspace raised."""
    try:
        yield
    except (WorkspaceUnavailableError, EngineError, RuntimeNotFoundError, CapacityError):
        raise
    except EditError as error:
        raise ModelRetry(bounded(str(error))) from error
    # Before OSError: some of these are both.
    except (WorkspaceError, SandboxError) as error:
        raise ToolFailed(bounded(str(error) or type(error).__name__)) from error
    except OSError as error:
        raise ToolFailed(describe(error)) from error
    except ValueError as error:
        raise ModelRetry(bounded(str(error))) from error


def describe(error: OSError) -> str:
    """`Permission denied: /etc/shadow`."""
    words = next((words for kind, words in _WORDS if isinstance(error, kind)), error.strerror)
    # Pydantic AI's backends raise some of these with nothing but the path.
    path = error.filename or (error.args[0] if len(error.args) == 1 else None)
    if words and isinstance(path, str):
        return bounded(f"{words}: {rendered_path(path)}")
    return bounded(words or str(error) or type(error).__name__)


def bounded(message: str) -> str:
    """A message as the model may read it: visible characters, bounded, no credentials of a URL."""
    message = visible(_USER_INFO.sub("", message[: _LONGEST * 2]))
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
