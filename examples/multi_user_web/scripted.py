"""A script that plays the model, so that the example needs no key: it understands a few requests and really does them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

__all__ = ("scripted_model",)

HELP = (
    "I am a script, not a model, so I understand only this much:\n\n"
    "- `run <command>`\n- `write <file>: <text>`\n- `read <file>`\n- `list`\n- `primes <number>`\n\n"
    "What I do for it is real: it happens in a sandbox of your own. Start with a model to talk about anything else."
)

_PRIMES = """limit = {limit}
sieve = bytearray([1]) * (limit + 1)
for n in range(2, int(limit**0.5) + 1):
    if sieve[n]:
        sieve[n * n :: n] = bytes(len(range(n * n, limit + 1, n)))
primes = [n for n in range(2, limit + 1) if sieve[n]]
print(f"{{len(primes)}} primes up to {{limit}}; the last: {{primes[-3:]}}")
"""

Call = tuple[str, dict[str, object]]


def plan(request: str) -> list[Call]:
    """The tools to call for a request, one after the other; none if it is not understood."""
    text = request.strip()
    if match := re.fullmatch(r"run\s+(?P<command>.+)", text, re.IGNORECASE | re.DOTALL):
        return [("run", {"command": match["command"].strip("` ")})]
    if match := re.fullmatch(r"write\s+(?P<file>[^\s:]+)\s*:\s*(?P<text>.*)", text, re.IGNORECASE | re.DOTALL):
        return [("write", {"path": match["file"], "content": match["text"] + "\n"})]
    if match := re.fullmatch(r"(?:read|show)\s+(?P<file>\S+)", text, re.IGNORECASE):
        return [("read", {"path": match["file"]})]
    if re.fullmatch(r"(?:list|ls|files)\b.*", text, re.IGNORECASE):
        return [("ls", {})]
    if match := re.fullmatch(r"primes\s+(?P<limit>\d{1,7})", text, re.IGNORECASE):
        source = _PRIMES.format(limit=max(5, int(match["limit"])))
        return [("write", {"path": "primes.py", "content": source}), ("run", {"command": "python primes.py"})]
    return []


def scripted_model() -> FunctionModel:
    """A model that streams like a real one."""
    return FunctionModel(stream_function=_answer, model_name="script")


async def _answer(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    request, results = _since_last_request(messages)
    calls = plan(request)
    if len(results) < len(calls):
        name, arguments = calls[len(results)]
        yield {0: DeltaToolCall(name=name, json_args=json.dumps(arguments), tool_call_id=f"call-{len(messages)}")}
        return
    for word in re.split(r"(?<= )", _words(calls, results) if calls else HELP):
        yield word


def _since_last_request(messages: Sequence[ModelMessage]) -> tuple[str, list[str]]:
    """What the user asked for last, and what the tools have answered since."""
    request, results = "", list[str]()
    for message in messages:
        for part in message.parts if isinstance(message, ModelRequest) else ():
            if isinstance(part, UserPromptPart):
                request, results = str(part.content), []
            elif isinstance(part, ToolReturnPart):
                results.append(part.model_response_str())
    return request, results


def _words(calls: Sequence[Call], results: Sequence[str]) -> str:
    done = {"write": "I wrote it.", "run": "It ran:", "read": "It says:", "ls": "There is:"}[calls[-1][0]]
    return f"{done}\n\n```\n{results[-1][:2000]}\n```"
