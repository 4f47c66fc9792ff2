"""Several users chat with their agent, each in a sandbox of their own: `uvicorn examples.multi_user_web.app:app --workers 2`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path as FolderPath
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from pydantic_ai import Agent

from pydantic_ai_sandbox import ConsoleToolset, InvalidUserIdError, SessionManager, UserSandbox, Waiting

from .conversations import Conversations, Deps, Event
from .failures import answer_failures, in_words
from .scripted import scripted_model
from .settings import Settings

PAGE = FolderPath(__file__).parent / "page"

INSTRUCTIONS = "You work in a Linux sandbox that belongs to your user. Use your tools; say briefly what came of it."

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

LARGEST_ARCHIVE = 2**31

settings = Settings.from_environment()
manager = SessionManager(
    workspace_root=settings.root / "workspaces",
    default_runtime="python-minimal",
    max_sessions=settings.max_sessions,
    queue_timeout=settings.queue_timeout,
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
answer_failures(app)


def current_user(x_user: Annotated[str, Header()]) -> str:
    """Who asks. THIS IS WHERE YOUR AUTHENTICATION GOES: here everybody is who they say they are.

    Raises:
        InvalidUserIdError: It is no text; what else cannot be an id, the manager refuses.
    """
    try:
        # Headers hold ASCII; the page sends names percent-encoded, so that everybody can have their own.
        return unquote(x_user, errors="strict")
    except UnicodeDecodeError:
        raise InvalidUserIdError("a user id must be text") from None


User = Annotated[str, Depends(current_user)]

NO_NUL = r"^[^\x00]*$"
Folder = Annotated[str, Query(pattern=NO_NUL)]
File = Annotated[str, Path(pattern=NO_NUL)]


class Message(BaseModel):
    """What a user says."""

    text: str = Field(min_length=1, max_length=20_000)


# --- talking


@app.post("/chat")
async def chat(user: User, message: Message) -> StreamingResponse:
    """Answer with server-sent events; what fails before there is anything to tell has a status of its own."""
    events = _answer(user, message.text)
    first = await anext(events)
    return StreamingResponse(_sent(first, events), media_type="text/event-stream")


@app.get("/chat")
async def earlier(user: User) -> list[Event]:
    """What was said so far."""
    return await conversations.earlier(user)


@app.delete("/chat", status_code=204)
async def begin_anew(user: User) -> None:
    """Forget what was said; the files stay."""
    await conversations.forget(user)


@app.get("/sandbox")
async def sandbox(user: User) -> dict[str, bool]:
    """Whether the user has one now; asking does not start it."""
    return {"running": any(session.running for session in await manager.list() if session.user_id == user)}


async def _answer(user: str, text: str) -> AsyncGenerator[Event]:
    async with aclosing(_ready(user)) as progress:
        async for event in progress:
            yield event
    async with aclosing(conversations.say(user, text)) as told:
        async for event in told:
            yield event
    yield {"type": "done"}


async def _ready(user: str) -> AsyncGenerator[Event]:
    """Get the user's sandbox, telling the place in the queue while there is one."""
    places: asyncio.Queue[Waiting] = asyncio.Queue()
    # Where nobody waits, being refused is all there is to tell.
    on_wait = places.put_nowait if settings.queue_timeout else None
    start = asyncio.ensure_future(manager.get_or_create(user, on_wait=on_wait))
    try:
        while not start.done():
            place = asyncio.ensure_future(places.get())
            await asyncio.wait((start, place), return_when=asyncio.FIRST_COMPLETED)
            if place.done():
                yield {"type": "waiting", "position": place.result().position}
            place.cancel()
        usage = await (await start).usage()
        yield {"type": "ready", "uptime": usage.uptime}
    finally:
        start.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await start


async def _sent(first: Event, events: AsyncGenerator[Event]) -> AsyncGenerator[str]:
    # Closed at once when nobody listens any more: the command that runs is stopped, and the conversation is free.
    async with aclosing(events):
        yield _line(first)
        try:
            async for event in events:
                yield _line(event)
        except Exception as error:  # noqa: BLE001 - the status is sent already, so every failure has to be told here
            yield _line({"type": "error", "text": in_words(error)})


def _line(event: Event) -> str:
    return f"data: {json.dumps(event)}\n\n"


# --- files


@app.get("/files")
async def files(user: User, path: Folder = "") -> dict[str, Any]:
    """What is in a directory of the user's, and how much room there is."""
    try:
        listing = await manager.list_files(user, path)
        usage = await manager.usage(user)
    except FileNotFoundError:
        if path:
            raise
        return {"entries": [], "truncated": False, "used": 0, "limit": None}
    entries = [{"name": _shown(e.name), "kind": e.kind, "size": e.size, "modified": e.mtime} for e in listing.entries]
    return {"entries": entries, "truncated": listing.truncated, "used": usage.used, "limit": usage.limit}


@app.put("/files/{path:path}")
async def upload(user: User, path: File, request: Request) -> dict[str, int]:
    """Take a file: the request's body."""
    return {"size": await manager.upload(user, path, request.stream())}


@app.get("/files/{path:path}")
async def download(user: User, path: File) -> StreamingResponse:
    """Give a file."""
    file = await manager.download(user, path)
    headers = {
        "Content-Length": str(file.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}",
    }
    return StreamingResponse(file.pieces, media_type="application/octet-stream", headers=headers)


@app.get("/archive")
async def archive(user: User) -> StreamingResponse:
    """Give all of them."""
    pieces = await manager.archive(user, format="tar.gz", max_bytes=LARGEST_ARCHIVE)
    headers = {"Content-Disposition": 'attachment; filename="workspace.tar.gz"'}
    return StreamingResponse(pieces, media_type="application/gzip", headers=headers)


@app.get("/checkpoints")
async def checkpoints(user: User) -> list[dict[str, Any]]:
    """What one can go back to, oldest first."""
    found = await manager.checkpoints(user)
    return [{"id": c.id, "created": c.created.isoformat(), "bytes": c.bytes, "files": c.files} for c in found]


@app.post("/checkpoints")
async def checkpoint(user: User) -> dict[str, str]:
    """Remember the files as they are."""
    return {"id": await manager.checkpoint(user)}


@app.post("/checkpoints/{id}/restore", status_code=204)
async def restore(user: User, id: str) -> None:
    """Go back."""
    await manager.restore(user, id)


@app.delete("/everything", status_code=204)
async def delete(user: User) -> None:
    """Delete the user's files, checkpoints, sandbox and conversation."""
    await manager.delete(user, files=True)
    await conversations.forget(user)


def _shown(name: str) -> str:
    """A file's name as text; those of Linux are bytes, and not all bytes are text."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


# --- the page


@app.middleware("http")
async def guarded(request: Request, call_next: Any) -> Response:
    """Refuse what other sites make a browser send, and tell browsers what the page may do."""
    if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return JSONResponse({"detail": "not from this page"}, 403)
    response: Response = await call_next(request)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.get("/")
async def page() -> FileResponse:
    """The page itself."""
    return FileResponse(PAGE / "index.html")


app.mount("/page", StaticFiles(directory=PAGE))
