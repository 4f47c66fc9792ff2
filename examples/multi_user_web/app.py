"""Several users chat with their agent, each in a sandbox of their own: `uvicorn examples.multi_user_web.app:app --workers 2`."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.workspaces import WorkspaceError

from pydantic_ai_sandbox import (
    CapacityError,
    ConsoleToolset,
    InvalidUserIdError,
    QuotaExceededError,
    SandboxError,
    SessionManager,
    UserSandbox,
    Waiting,
)

from .conversations import Conversations, Deps, Event
from .scripted import scripted_model
from .settings import Settings

PAGE = Path(__file__).parent / "page"

INSTRUCTIONS = "You work in a Linux sandbox that belongs to your user. Use your tools; say briefly what came of it."

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

settings = Settings.from_environment()
manager = SessionManager(
    workspace_root=settings.root / "workspaces",
    max_sessions=settings.max_sessions,
    warm={"python-minimal": settings.warm},
    disk_quota=settings.disk_quota,
    idle_timeout=settings.idle_timeout,
)
agent = Agent[Deps, str](
    settings.model or scripted_model(),
    deps_type=Deps,
    instructions=INSTRUCTIONS,
    capabilities=[UserSandbox(manager)],
    toolsets=[ConsoleToolset()],
)
conversations = Conversations(settings.root / "conversations", agent)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Let go of the sandboxes at the end; they go on for other workers, or until they are idle."""
    async with manager:
        yield


app = FastAPI(title="A sandbox for every user", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)


def current_user(x_user: Annotated[str, Header()]) -> str:
    """Who asks. THIS IS WHERE YOUR AUTHENTICATION GOES: here everybody is who they say they are."""
    # Headers hold bytes; the page sends names percent-encoded, so that everybody can have their own.
    return (
        re.sub(r"%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), x_user).encode("latin-1").decode("utf-8", "replace")
    )


User = Annotated[str, Depends(current_user)]


class Message(BaseModel):
    """What a user says."""

    text: str = Field(min_length=1, max_length=20_000)


# --- talking


@app.post("/chat")
async def chat(user: User, message: Message) -> StreamingResponse:
    """Answer with server-sent events."""
    return StreamingResponse(_sent(_answer(user, message.text)), media_type="text/event-stream")


async def _answer(user: str, text: str) -> AsyncIterator[Event]:
    try:
        async for event in _ready(user):
            yield event
        async for event in conversations.say(user, text):
            yield event
        yield {"type": "done"}
    except (SandboxError, WorkspaceError, AgentRunError) as error:
        yield {"type": "error", "text": str(error)}


async def _ready(user: str) -> AsyncIterator[Event]:
    """Get the user's sandbox, telling the place in the queue while there is one."""
    places: asyncio.Queue[Waiting] = asyncio.Queue()
    start = asyncio.ensure_future(manager.get_or_create(user, on_wait=places.put_nowait))
    try:
        yield {"type": "starting"}
        while not start.done():
            place = asyncio.ensure_future(places.get())
            await asyncio.wait((start, place), return_when=asyncio.FIRST_COMPLETED)
            if place.done():
                yield {"type": "waiting", "position": place.result().position}
            place.cancel()
        sandbox = await start
        yield {"type": "ready", "sandbox": sandbox.info.name if sandbox.info else ""}
    finally:
        start.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await start


async def _sent(events: AsyncIterator[Event]) -> AsyncIterator[str]:
    async for event in events:
        yield f"data: {json.dumps(event)}\n\n"


# --- files


@app.get("/files")
async def files(user: User, path: str = "") -> dict[str, Any]:
    """What is in a directory of the user's, and how much room there is."""
    try:
        listing = await manager.list_files(user, path)
        usage = await manager.usage(user)
    except FileNotFoundError:
        if path:
            raise
        return {"entries": [], "truncated": False, "used": 0, "limit": None}
    entries = [{"name": e.name, "kind": e.kind, "size": e.size, "modified": e.mtime} for e in listing.entries]
    return {"entries": entries, "truncated": listing.truncated, "used": usage.used, "limit": usage.limit}


@app.put("/files/{path:path}")
async def upload(user: User, path: str, request: Request) -> dict[str, int]:
    """Take a file: the request's body."""
    return {"size": await manager.upload(user, path, request.stream())}


@app.get("/files/{path:path}")
async def download(user: User, path: str) -> StreamingResponse:
    """Give a file."""
    file = await manager.download(user, path)
    headers = {
        "Content-Length": str(file.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name, errors='replace')}",
    }
    return StreamingResponse(file.pieces, media_type="application/octet-stream", headers=headers)


@app.get("/archive")
async def archive(user: User) -> StreamingResponse:
    """Give all of them."""
    pieces = await manager.archive(user, format="tar.gz", max_bytes=2**31)
    headers = {"Content-Disposition": 'attachment; filename="workspace.tar.gz"'}
    return StreamingResponse(pieces, media_type="application/gzip", headers=headers)


@app.get("/checkpoints")
async def checkpoints(user: User) -> list[dict[str, Any]]:
    """What one can go back to."""
    found = await manager.checkpoints(user)
    return [{"id": c.id, "created": c.created.isoformat(), "bytes": c.bytes, "files": c.files} for c in found]


@app.post("/checkpoints")
async def checkpoint(user: User) -> dict[str, str]:
    """Remember the files as they are."""
    return {"id": await manager.checkpoint(user)}


@app.post("/checkpoints/{id}/restore", status_code=204)
async def restore(user: User, id: str) -> Response:
    """Go back."""
    await manager.restore(user, id)
    return Response(status_code=204)


@app.delete("/everything", status_code=204)
async def delete(user: User) -> Response:
    """Delete the user's files, checkpoints, sandbox and conversation."""
    await manager.delete(user, files=True)
    conversations.forget(user)
    return Response(status_code=204)


# --- what went wrong


@app.exception_handler(InvalidUserIdError)
async def nobody(_: Request, error: InvalidUserIdError) -> JSONResponse:
    """An id that nobody can have."""
    return JSONResponse({"detail": str(error)}, 400)


@app.exception_handler(CapacityError)
async def full(_: Request, error: CapacityError) -> JSONResponse:
    """No room, after waiting for it."""
    return JSONResponse({"detail": str(error), "position": error.position}, 503, {"Retry-After": "10"})


@app.exception_handler(QuotaExceededError)
async def too_much(_: Request, error: QuotaExceededError) -> JSONResponse:
    """The user's files are as large as they may be."""
    return JSONResponse({"detail": str(error)}, 413)


@app.exception_handler(FileNotFoundError)
async def missing(_: Request, error: FileNotFoundError) -> JSONResponse:
    """No such file."""
    return JSONResponse({"detail": error.strerror or "not found"}, 404)


@app.exception_handler(OSError)
@app.exception_handler(ValueError)
async def refused(_: Request, error: OSError | ValueError) -> JSONResponse:
    """A path that leads nowhere good, or a file that is none."""
    return JSONResponse({"detail": getattr(error, "strerror", None) or str(error)}, 400)


# --- the page


@app.middleware("http")
async def guarded(request: Request, call_next: Any) -> Response:
    """Refuse what other sites make a browser send, and tell browsers what the page may do."""
    if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return JSONResponse({"detail": "not from this page"}, 403)
    response: Response = await call_next(request)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.get("/")
async def page() -> FileResponse:
    """The page itself."""
    return FileResponse(PAGE / "index.html")


app.mount("/page", StaticFiles(directory=PAGE))
