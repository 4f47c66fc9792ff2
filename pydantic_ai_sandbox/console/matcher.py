"""A program of its own: searches files for a regular expression, so that a hopeless one can be killed.

Python's `re` may take exponential time and holds the interpreter's lock meanwhile; no thread and no event loop could
end it. Run by path, without the package's imports. On standard input: a JSON line with the search, then per file a
JSON line and its bytes. On standard output: one JSON line for the search, then one per file.
"""

from __future__ import annotations

import json
import re
import sys
from collections import deque

_CPU_SECONDS = 60
_MEMORY = 2 << 30
_TEXT_LIMIT = 1_000
"""Characters of a line that are sent back, around the match."""


def main() -> None:
    """Serve one search."""
    _limit_resources()
    search = json.loads(sys.stdin.buffer.readline())
    try:
        pattern = re.compile(search["pattern"], re.IGNORECASE if search["ignore_case"] else 0)
    except (re.error, OverflowError, RecursionError) as error:
        _answer({"error": str(error)})
        return
    _answer({})
    while header := sys.stdin.buffer.readline():
        content = sys.stdin.buffer.read(json.loads(header)["size"])
        _answer(search_file(pattern, content, search["mode"], search["context"], search["limit"]))


def search_file(pattern: re.Pattern[str], content: bytes, mode: str, context: int, limit: int) -> dict[str, object]:
    """What of `content` matches: `{"count", "rows": [[number, text, is match, bytes], …]}`, at most `limit` rows."""
    lines = _lines(content)
    if mode == "content":
        rows = _rows(pattern, lines, context, limit)
        return {"count": sum(bool(row[2]) for row in rows), "rows": rows}
    if mode == "count":
        return {"count": sum(1 for line in lines if pattern.search(line)), "rows": []}
    return {"count": int(any(pattern.search(line) for line in lines)), "rows": []}


def _lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _rows(pattern: re.Pattern[str], lines: list[str], context: int, limit: int) -> list[list[object]]:
    rows: list[list[object]] = []
    before: deque[tuple[int, str]] = deque(maxlen=context)
    after = 0
    for number, line in enumerate(lines, 1):
        found = pattern.search(line)
        if found:
            rows.extend(_row(at, text, None) for at, text in before)
            before.clear()
            after = context
            rows.append(_row(number, line, found))
        elif after:
            after -= 1
            rows.append(_row(number, line, None))
        else:
            before.append((number, line))
        if len(rows) > limit:
            break
    return rows


def _row(number: int, line: str, found: re.Match[str] | None) -> list[object]:
    start = max(0, min(found.start() - _TEXT_LIMIT // 4, len(line) - _TEXT_LIMIT)) if found else 0
    length = len(line.encode("utf-8", "surrogateescape"))
    return [number, line[start : start + _TEXT_LIMIT], found is not None, length]


def _answer(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _limit_resources() -> None:
    """Ends itself should nobody be left to do it."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, ValueError, OSError):  # not everywhere, and the parent has a deadline of its own
        return


if __name__ == "__main__":
    main()
