"""Answers about directories and searches, as pure functions; paths are quoted where they would be ambiguous."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic_ai.workspaces import FileEntry

from ..protocols import GlobResult, GrepLine, GrepResult
from .text import count, rendered_path, size, status, visible

__all__ = ("glob_matches", "grep_matches", "listing", "relative")


def listing(entries: Sequence[FileEntry], path: str, *, limit: int, most: int = 500) -> str:
    """The names in a directory: directories with `/`, files with their size."""
    if not entries:
        return status("empty directory", rendered_path(path))
    rows = [_entry(entry) for entry in sorted(entries, key=lambda entry: entry.name)]
    shown = list(_fitting(rows, most, limit - 300))
    if len(shown) < len(rows):
        shown.append(f"… {len(rows) - len(shown):,} more")
    return "\n".join([*shown, status(count(len(rows), "entry", "entries"), rendered_path(path))])


def _entry(entry: FileEntry) -> str:
    name = rendered_path(entry.name)
    if entry.is_dir:
        return f"{name}/"
    return name if entry.size is None else f"{name}  {size(entry.size)}"


def _fitting(rows: Iterable[str], most: int, characters: int) -> Iterable[str]:
    for number, row in enumerate(rows):
        characters -= len(row) + 1
        if number >= most or (number and characters < 0):
            return
        yield row


def relative(path: str, base: str) -> str:
    """`path` as it is shorter to write: from `base` when it is below it."""
    prefix = base.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) and path != prefix else path


def glob_matches(found: GlobResult, root: str, base: str, *, order: str, limit: int) -> str:
    """Paths that matched, one per line."""
    rows = [rendered_path(relative(match.path, base)) + "/" * match.is_dir for match in found.matches]
    shown = list(_fitting(rows, len(rows), limit - 300))
    partial = f", first {len(shown):,} shown; use a narrower pattern or path" if len(shown) < found.total else ""
    total = count(found.total, "file") if found.total else "no files"
    return "\n".join(
        [
            *shown,
            status(f"{total} matched{partial}", order if shown else "", _stopped(found.timed_out), rendered_path(root)),
        ]
    )


def _stopped(timed_out: bool) -> str:
    return "search stopped at its time limit, results incomplete" if timed_out else ""


def grep_matches(found: GrepResult, mode: str, root: str, base: str, *, limit: int, head_limit: int) -> str:
    """What a search found: paths, `path:count`, or `path:line:text` with `path-line-text` for context."""
    if mode == "content":
        rows = _grep_rows(found.lines, base)
        matches = sum(line.is_match for line in found.lines)
        total = count(matches, "matching line") if matches else "no matches"
    else:
        rows = [_grep_file(path, number, mode, base) for path, number in found.files.items()]
        total = count(len(rows), "file") if rows else "no matches"
    shown = list(_fitting(rows, len(rows), limit - 400))
    cut = f"first {head_limit:,}, there are more" if found.truncated else ""
    if len(shown) < len(rows):
        cut = f"only the first {len(shown):,} of {len(rows):,} rows fit"
    return "\n".join([*shown, status(total, cut, _stopped(found.timed_out), rendered_path(root))])


def _grep_file(path: str, number: int, mode: str, base: str) -> str:
    shown = rendered_path(relative(path, base))
    return f"{shown}:{number}" if mode == "count" else shown


def _grep_rows(lines: Sequence[GrepLine], base: str) -> list[str]:
    rows: list[str] = []
    has_context = any(not line.is_match for line in lines)
    last: GrepLine | None = None
    for line in lines:
        if has_context and last and (last.path != line.path or line.number > last.number + 1):
            rows.append("--")
        rows.append(_grep_row(line, base))
        last = line
    return rows


def _grep_row(line: GrepLine, base: str) -> str:
    mark = ":" if line.is_match else "-"
    text = visible(line.text.removesuffix("\r"))
    cut = (
        f" … [part of a line of {line.length:,} bytes]"
        if line.length > len(line.text.encode("utf-8", "surrogatepass")) + 1
        else ""
    )
    return f"{rendered_path(relative(line.path, base))}{mark}{line.number}{mark}{text}{cut}"
