"""What users said and what their agents did, kept by the backend, never in a user's own workspace."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

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
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.run import AgentRunResultEvent

__all__ = ("Conversations", "Deps", "Event")

Event: TypeAlias = dict[str, Any]
"""What the page is told; `type` says what it is."""

_LONGEST = 8_000
"""Characters of a tool's argument or result that the page gets."""

_SHOWN = 200
"""Messages of an earlier conversation that the page gets; the model gets all."""

_PAUSE = 0.05
"""Seconds between looking whether the user's earlier request is answered."""


@dataclass(frozen=True)
class Deps:
    """What the agent knows about a run: whom it is for."""

    user_id: str


class Conversations:
    """One conversation for every user, which any worker can go on with.

    What is said while a run fails or is hung up is not kept: the next begins where the last whole answer ended.

    Args:
        folder: Where they are kept.
        agent: Who answers.
    """

    def __init__(self, folder: Path, agent: Agent[Deps, str]) -> None:
        self._folder = folder
        self._agent = agent

    async def say(self, user_id: str, text: str) -> AsyncGenerator[Event]:
        """Have the agent answer, and tell what happens meanwhile; one request of a user after the other."""
        with self._lock(user_id) as lock:
            if not _taken(lock):
                yield {"type": "behind"}
                await _take(lock)
            path = self._path(user_id)
            history = await asyncio.to_thread(_read, path)
            run = self._agent.run_stream_events(text, deps=Deps(user_id), message_history=history)
            async with run as events:
                async for event in events:
                    if isinstance(event, AgentRunResultEvent):
                        await asyncio.to_thread(_write, path, event.result.all_messages())
                    elif told := _told(event):
                        yield told

    async def earlier(self, user_id: str) -> list[Event]:
        """What was said and done so far, as it was told then; the latest of it, if it is much."""
        messages = await asyncio.to_thread(_read, self._path(user_id))
        parts = (part for message in messages[-_SHOWN:] for part in message.parts)
        return [told for part in parts if (told := _retold(part))]

    async def forget(self, user_id: str) -> None:
        """Delete a user's conversation, once nobody answers in it any more."""
        with self._lock(user_id) as lock:
            await _take(lock)
            self._path(user_id).unlink(missing_ok=True)

    @contextmanager
    def _lock(self, user_id: str) -> Generator[IO[str]]:
        """What to lock for nobody else, in this worker or another, to answer this user; let go of at the end."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path(user_id).with_suffix(".lock").open("a") as lock:
            yield lock

    def _path(self, user_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(user_id.encode()).hexdigest()}.json"


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _take(lock: IO[str]) -> None:
    while not _taken(lock):  # noqa: ASYNC110 - whoever has it may be another process
        await asyncio.sleep(_PAUSE)


def _read(path: Path) -> list[ModelMessage]:
    try:
        return ModelMessagesTypeAdapter.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []


def _write(path: Path, messages: Sequence[ModelMessage]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_bytes(ModelMessagesTypeAdapter.dump_json(list(messages)))
    draft.replace(path)


# --- as the page gets it


def _told(event: object) -> Event | None:
    match event:
        case PartStartEvent(part=TextPart() as part):
            return _retold(part)
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)) if text:
            return {"type": "text", "text": text}
        case FunctionToolCallEvent(part=part) | FunctionToolResultEvent(part=part):
            return _retold(part)
        case _:
            return None


def _retold(part: object) -> Event | None:
    match part:
        case UserPromptPart(content=str(text)):
            return {"type": "asked", "text": text}
        case TextPart(content=text) if text:
            return {"type": "text", "text": text}
        case ToolCallPart():
            arguments = {name: _bounded(_text(value)) for name, value in part.args_as_dict().items()}
            return {"type": "call", "id": part.tool_call_id, "tool": part.tool_name, "arguments": arguments}
        case ToolReturnPart():
            # What went wrong is for the model to put right; people want to see that it did.
            failed = part.outcome != "success"
            return {
                "type": "result",
                "id": part.tool_call_id,
                "text": _bounded(part.model_response_str()),
                "failed": failed,
            }
        case _:
            return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _bounded(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n… ({len(text) - _LONGEST:,} more characters)"
