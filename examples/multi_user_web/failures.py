"""What went wrong, as an HTTP answer or as words in a stream; nothing in it tells where the host keeps its files."""

from __future__ import annotations

import errno
import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.workspaces import WorkspaceError

from pydantic_ai_sandbox import (
    CapacityError,
    EngineUnavailableError,
    InvalidUserIdError,
    QuotaExceededError,
    SandboxError,
)

__all__ = ("answer_failures", "in_words")

_RETRY_AFTER = "10"
"""Seconds after which there may be room."""

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (InvalidUserIdError, 400),
    (CapacityError, 503),
    (QuotaExceededError, 413),
    (EngineUnavailableError, 503),
    (SandboxError, 500),
    (FileNotFoundError, 404),
    (PermissionError, 403),
)
"""The first that an error is an instance of counts; what is none of them is a file that is not what it should be."""

_STATUS_OF_NUMBER = {errno.ENOSPC: 507, errno.EDQUOT: 507, errno.ENAMETOOLONG: 400, errno.ELOOP: 400}

_log = logging.getLogger("uvicorn.error")


def answer_failures(app: FastAPI) -> None:
    """Have the application answer with a status and words when something fails."""
    app.add_exception_handler(SandboxError, _answer)
    app.add_exception_handler(OSError, _answer)


def in_words(error: Exception) -> str:
    """What to tell the user; what is our mistake goes to the log instead."""
    if isinstance(error, SandboxError | WorkspaceError | AgentRunError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    _log.error("a request failed", exc_info=error)
    return "something went wrong here; the server's log has it"


async def _answer(_: Request, error: Exception) -> JSONResponse:
    headers = {"Retry-After": _RETRY_AFTER} if isinstance(error, CapacityError) else None
    return JSONResponse({"detail": in_words(error)}, _status(error), headers)


def _status(error: Exception) -> int:
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return _STATUS_OF_NUMBER.get(getattr(error, "errno", None) or 0, 409)
