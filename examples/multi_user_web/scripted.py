"""A script that plays the model, so that the example needs no key: it understands a few requests and really does them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

__all__ = ("scripted_model",)

HELP = """I am a script, not a model, so I understand only this much:

```
run <command>
write <file>: <text>
read <file>
list [<folder>]
find <text>
primes <number>
plot
```

What I do for it is real: it happens in a sandbox of your own. Started with a model, I talk about anything else, too."""

_PRIMES = """limit = {limit}
sieve = bytearray([1]) * (limit + 1)
for n in range(2, int(limit**0.5) + 1):
    if sieve[n]:
        sieve[n * n :: n] = bytes(len(range(n * n, limit + 1, n)))
primes = [n for n in range(2, limit + 1) if sieve[n]]
print(f"{{len(primes)}} primes up to {{limit}}; the last: {{primes[-3:]}}")
"""

_PLOT = """import math

for step in range(25):
    x = step / 4
    column = round(30 + 28 * math.sin(x))
    print(f"{x:5.2f} │" + " " * column + "●")
"""

Call = tuple[str, dict[str, object]]


def _program(name: str, source: str) -> list[Call]:
    return [("write", {"path": name, "content": source}), ("run", {"command": f"python {name}"})]


_REQUESTS: tuple[tuple[str, Callable[[re.Match[str]], list[Call]]], ...] = (
    (r"run:?\s+(.+)", lambda found: [("run", {"command": found[1].strip("` ")})]),
    (
        r"write (?:a )?(?:file )?(?:called )?([^\s:]+)(?:\s*:\s*| with )(.+)",
        lambda found: [("write", {"path": found[1], "content": found[2] + "\n"})],
    ),
    (r"(?:read|show) (\S+)", lambda found: [("read", {"path": found[1]})]),
    (r"(?:list|ls)(?: (?:the )?files)?(?: (?:in )?(\S+))?", lambda found: [("ls", {"path": found[1] or "."})]),
    (r"(?:find|grep) (.+)", lambda found: [("grep", {"pattern": found[1], "literal": True, "output_mode": "content"})]),
    (
        r"(?:compute )?(?:the )?primes(?: up to)?(?: (\d{1,7}))?",
        lambda found: _program("primes.py", _PRIMES.format(limit=max(5, int(found[1] or 1000)))),
    ),
    (r"plot\b.*", lambda found: _program("plot.py", _PLOT)),
)


def plan(request: str) -> list[Call]:
    """The tools to call for a request, one after the other; none if it is not understood."""
    for pattern, calls in _REQUESTS:
        if found := re.fullmatch(pattern, request.strip(), re.IGNORECASE | re.DOTALL):
            return calls(found)
    return []


def scripted_model() -> FunctionModel:
    """A model that streams like a real one."""
    return FunctionModel(stream_function=_answer, model_name="script")


async def _answer(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    request, results = _since_last_request(messages)
    calls = plan(request)
    if len(results) < len(calls) and all(result.outcome == "success" for result in results):
        name, arguments = calls[len(results)]
        yield {0: DeltaToolCall(name=name, json_args=json.dumps(arguments), tool_call_id=f"call-{len(messages)}")}
        return
    for word in re.split(r"(?<= )", _words(results[-1]) if results else HELP):
        yield word


def _since_last_request(messages: Sequence[ModelMessage]) -> tuple[str, list[ToolReturnPart]]:
    """What the user asked for last, and what the tools have answered since."""
    request, results = "", list[ToolReturnPart]()
    for message in messages:
        for part in message.parts if isinstance(message, ModelRequest) else ():
            if isinstance(part, UserPromptPart):
                request, results = str(part.content), []
            elif isinstance(part, ToolReturnPart):
                results.append(part)
    return request, results


def _words(result: ToolReturnPart) -> str:
    """What came of it, in a sentence: what the tool said is there for everybody to read."""
    said = result.model_response_str()
    if result.outcome != "success":
        return f"That did not work. {said}"
    if result.tool_name in ("read", "ls", "grep"):
        return "That is what I found."
    ended = re.search(r"^\[exit (\d+)", said, re.MULTILINE)
    return f"It ended with status {ended[1]}; above is what it said." if ended and ended[1] != "0" else "Done."
