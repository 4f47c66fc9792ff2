"""What users said and what their agents did, kept by the backend, never in a user's own workspace."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic_ai import Agent
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.run import AgentRunResultEvent

__all__ = ("Conversations", "Deps", "Event")

Event: TypeAlias = dict[str, Any]
"""What the page is told; `type` says what it is."""

_LONGEST = 8_000
"""Characters of a tool's result that the page gets."""


@dataclass(frozen=True)
class Deps:
    """What the agent knows about a run: whom it is for."""

    user_id: str


class Conversations:
    """One conversation for every user, which any worker can go on with.

    Args:
        folder: Where they are kept.
        agent: Who answers.
    """

    def __init__(self, folder: Path, agent: Agent[Deps, str]) -> None:
        self._folder = folder
        self._agent = agent

    async def say(self, user_id: str, text: str) -> AsyncIterator[Event]:
        """Have the agent answer, and tell what happens meanwhile; one request of a user after the other."""
        async with self._alone(user_id) as path:
            events = self._agent.run_stream_events(text, deps=Deps(user_id), message_history=_read(path))
            async with events as stream:
                async for event in stream:
                    if isinstance(event, AgentRunResultEvent):
                        _write(path, event.result.all_messages())
                    elif told := _told(event):
                        yield told

    def forget(self, user_id: str) -> None:
        """Delete a user's conversation."""
        self._path(user_id).unlink(missing_ok=True)

    @asynccontextmanager
    async def _alone(self, user_id: str) -> AsyncGenerator[Path]:
        """Nobody else, in this worker or another, answers this user in here."""
        path = self._path(user_id)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("a") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.05)
            yield path

    def _path(self, user_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(user_id.encode()).hexdigest()}.json"


def _read(path: Path) -> list[ModelMessage]:
    return ModelMessagesTypeAdapter.validate_json(path.read_bytes()) if path.exists() else []


def _write(path: Path, messages: list[ModelMessage]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_bytes(ModelMessagesTypeAdapter.dump_json(messages))
    draft.replace(path)


def _told(event: object) -> Event | None:
    match event:
        case PartStartEvent(part=TextPart(content=text)) if text:
            return {"type": "text", "text": text}
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return {"type": "text", "text": text}
        case FunctionToolCallEvent(part=part):
            return {"type": "call", "id": part.tool_call_id, "tool": part.tool_name, "arguments": _arguments(part.args)}
        case FunctionToolResultEvent(part=part):
            content = part.model_response_str() if hasattr(part, "model_response_str") else str(part.content)
            cut = len(content) > _LONGEST
            return {"type": "result", "id": part.tool_call_id, "text": content[:_LONGEST], "cut": cut}
        case _:
            return None


def _arguments(args: str | dict[str, Any] | None) -> Any:
    return json.loads(args) if isinstance(args, str) and args else args or {}
