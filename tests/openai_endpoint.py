"""An OpenAI-compatible endpoint that plays a script, behind the real HTTP client and model class.

with openai_endpoint([ToolCall("ls", {})], "done") as endpoint:
await Agent(endpoint.model, ...).run("go")
endpoint.tool_results   # what the tools answered, as it crossed the wire
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpcore2
import httpx
import respx
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from respx.mocks import HTTPCoreMocker

BASE_URL = "http://openai.test/v1"


class HTTPCore2Mocker(HTTPCoreMocker):
    """The OpenAI client talks through `httpx2`, which respx does not know by itself; registered by its name."""

    name = "httpcore2"
    targets = [target.replace("httpcore.", "httpcore2.", 1) for target in HTTPCoreMocker.targets]  # noqa: RUF012

    @classmethod
    def from_sync_httpx_response(cls, httpx_response: httpx.Response, target: Any, **_: Any) -> Any:  # noqa: ARG003 — respx calls it so
        return httpcore2.Response(
            status=httpx_response.status_code,
            headers=httpx_response.headers.raw,
            content=httpx_response.stream,
            extensions=httpx_response.extensions,
        )


@dataclass(frozen=True)
class ToolCall:
    """A call the model makes."""

    name: str
    arguments: dict[str, Any]


Turn: TypeAlias = "str | Sequence[ToolCall]"
"""What the model says in one response: text, or tool calls."""


@dataclass
class OpenAIEndpoint:
    """The endpoint, as the test sees it."""

    turns: Sequence[Turn]
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The body of every request."""

    @property
    def model(self) -> OpenAIChatModel:
        return OpenAIChatModel("scripted", provider=OpenAIProvider(base_url=BASE_URL, api_key="not-a-key"))

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """The functions offered in the last request, by name."""
        return {tool["function"]["name"]: tool["function"] for tool in self.requests[-1]["tools"]}

    @property
    def tool_results(self) -> list[str]:
        """The content of every tool message, in order."""
        return [message["content"] for message in self.requests[-1]["messages"] if message["role"] == "tool"]

    @property
    def images(self) -> list[str]:
        """The URL of every image sent, in order."""
        contents = [message.get("content") for message in self.requests[-1]["messages"]]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]

    def respond(self, request: httpx.Request) -> httpx.Response:
        turn = self.turns[len(self.requests)]
        self.requests.append(json.loads(request.content))
        message = {"role": "assistant", "content": turn} if isinstance(turn, str) else self._calling(turn)
        return httpx.Response(
            200,
            json={
                "id": f"completion-{len(self.requests)}",
                "object": "chat.completion",
                "created": 0,
                "model": "scripted",
                "choices": [
                    {"index": 0, "message": message, "finish_reason": "stop" if isinstance(turn, str) else "tool_calls"}
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            },
        )

    def _calling(self, calls: Sequence[ToolCall]) -> dict[str, Any]:
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": f"call-{len(self.requests)}-{number}",
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
                }
                for number, call in enumerate(calls)
            ],
        }


@contextmanager
def openai_endpoint(*turns: Turn) -> Generator[OpenAIEndpoint]:
    """Answer every request to the endpoint from `turns`, one after the other; nothing leaves the process."""
    endpoint = OpenAIEndpoint(turns)
    with respx.mock(using="httpcore2") as router:
        router.post(f"{BASE_URL}/chat/completions").mock(side_effect=endpoint.respond)
        yield endpoint
