"""Answers about files: numbered lines, descriptions of what is not text, what an edit or a write did.

Pure functions. Every line of a file has its number in front, so nothing in a file can pass for our own last line.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence

from ..editing import TextEncoding, detect_encoding
from ..protocols import TextRange
from .text import count, rendered_path, size, status, visible

__all__ = (
    "LINE_LIMIT",
    "binary",
    "edited",
    "empty_file",
    "image",
    "image_type",
    "missing",
    "page",
    "past_the_end",
    "wrote",
)

LINE_LIMIT = 2_000
"""Characters shown of one line of a file."""
_SNIPPET_CONTEXT = 3
"""Lines shown on either side of an edit."""
_SNIPPET_PLACES = 3
"""Places of an edit that are shown; the others are named."""
_SNIPPET_LINES = 30
"""Lines shown of one place."""
_SNIPPET_LINE_LIMIT = 200
_HEX_BYTES = 64
_BINARY_PROBE = 8192
_LISTED_LINES = 20
"""Line numbers named in one sentence."""

_IMAGES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
_KINDS = (
    (b"%PDF-", "PDF document"),
    (b"PK\x03\x04", "ZIP archive (or a format built on it)"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"\x7fELF", "ELF executable or library"),
    (b"SQLite format 3\x00", "SQLite database"),
    (b"PAR1", "Parquet data"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF\r\n", "HDF5 data"),
    (b"\x00asm", "WebAssembly module"),
    (b"\xca\xfe\xba\xbe", "Java class or Mach-O binary"),
)


def page(found: TextRange, *, offset: int, limit: int) -> str:
    """Numbered lines of a file and where it goes on, in `limit` characters.

    `found.first` is `offset`; a caller that gets `found.lines` empty has another answer to give.
    """
    numbered: list[str] = []
    room = limit - 200
    escaped = False
    for number, raw in enumerate(found.lines, offset):
        plain = _plain(number, raw, is_cut=number in found.cut)
        shown = visible(plain)
        line = f"{number}\t{_cut_line(shown, found.cut.get(number), min(LINE_LIMIT, max(room, 100)))}"
        if numbered and len(line) + 1 > room:
            break
        escaped = escaped or shown != plain
        room -= len(line) + 1
        numbered.append(line)
    return "\n".join([*numbered, _page_status(found, offset, len(numbered), escaped=escaped)])


def _page_status(found: TextRange, offset: int, shown: int, *, escaped: bool) -> str:
    end = offset + shown - 1
    at_end = end >= found.total
    lines = f"lines {offset}-{end} of {found.total}"
    notes = [
        "end of file" if at_end else f"continue with offset={end + 1}",
        "no line feed at the end" if at_end and not found.newline else "",
        "starts with a byte order mark" if offset == 1 and found.lines[0].startswith(BOM_UTF8) else "",
        _line_endings(found, offset),
        "control characters shown as \\xNN or \\uNNNN" if escaped else "",
    ]
    return f"[{'; '.join([lines, *filter(None, notes)])}]"


def _line_endings(found: TextRange, offset: int) -> str:
    """What there is to say about line endings, which are not shown."""
    unended = not found.newline and offset + len(found.lines) > found.total
    ended = [line for number, line in enumerate(found.lines, offset) if number not in found.cut]
    ended = ended[:-1] if unended and ended else ended
    crlf = sum(line.endswith(b"\r") for line in ended)
    if not crlf:
        return ""
    return "CRLF line endings" if crlf == len(ended) else "mixed line endings, some CRLF"


def _plain(number: int, raw: bytes, *, is_cut: bool = False) -> str:
    """A line of a file without what is not part of its text."""
    raw = raw.removesuffix(b"\r")
    return _decoded(raw.removeprefix(BOM_UTF8) if number == 1 else raw, is_cut=is_cut)


def _decoded(raw: bytes, *, is_cut: bool) -> str:
    """A line as text; one that is not UTF-8 as windows-1252, which is how edits read such a file too."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        if is_cut and error.reason == "unexpected end of data":
            return raw[: error.start].decode()  # in the middle of a character
        return TextEncoding("windows-1252").decode(raw)


def _cut_line(line: str, full_bytes: int | None, limit: int) -> str:
    if len(line) <= limit:
        return line if full_bytes is None else f"{line}… [cut: the line has {full_bytes:,} bytes]"
    whole = f"{full_bytes:,} bytes" if full_bytes is not None else f"{len(line):,} characters"
    return f"{line[:limit]}… [cut: the line has {whole}]"


def empty_file(path: str) -> str:
    """The answer for a file without a byte."""
    return f"[empty file, 0 bytes · {rendered_path(path)}]"


def past_the_end(path: str, offset: int, total: int) -> str:
    """The message for an offset behind the last line."""
    return f"offset={offset} is past the end: {rendered_path(path)} has {count(total, 'line')}"


def image_type(head: bytes) -> str | None:
    """The media type of an image that models can see, by its first bytes."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _IMAGES if head.startswith(magic)), None)


def image(path: str, media_type: str, bytes_: int) -> str:
    """The line beside an image."""
    return status(media_type, size(bytes_), rendered_path(path))


def binary(path: str, head: bytes, bytes_: int, *, remark: str = "") -> str:
    """The answer for a file that is not text: what it is, how large, and its first bytes in hexadecimal."""
    media_type = image_type(head)
    kind = media_type or next((kind for magic, kind in _KINDS if head.startswith(magic)), "binary file")
    rows = [head[at : at + 16] for at in range(0, min(len(head), _HEX_BYTES), 16)]
    dump = [f"{at * 16:08x}  {row.hex(' '):<47}  {_printable(row)}" for at, row in enumerate(rows)]
    return "\n".join([*dump, status(f"{kind}, not shown as text", size(bytes_), remark, rendered_path(path))])


def _printable(row: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)


def missing(path: str, *, ancestor: str | None, near: Sequence[str]) -> str:
    """The answer for a path that is not there, with names that are."""
    known = f" ({rendered_path(ancestor)} exists)" if ancestor else ""
    hint = f"; did you mean {' or '.join(rendered_path(name) for name in near)}?" if near else ""
    return f"No such file or directory: {rendered_path(path)}{known}{hint}"


def wrote(path: str, content: bytes, *, created: bool) -> str:
    """`Wrote 12 lines (340 bytes) to /workspace/a.py (created)`."""
    lines = content.count(b"\n") + (not content.endswith(b"\n") and bool(content))
    verb = "created" if created else "overwrote"
    return f"Wrote {count(lines, 'line')} ({count(len(content), 'byte')}) to {rendered_path(path)} ({verb})"


def edited(path: str, content: bytes, lines: Sequence[int], new: str, *, limit: int) -> str:
    """Where replacements were made, and what the file looks like there now."""
    head = f"Edited {rendered_path(path)}: {count(len(lines), 'replacement')} at {_numbers(lines)}"
    rows = _raw_lines(content)
    height = new.count("\n") + 1
    snippets = [head]
    shown_to = 0
    for line in lines[:_SNIPPET_PLACES]:
        first = max(line - _SNIPPET_CONTEXT, shown_to + 1)
        last = min(line + height - 1 + _SNIPPET_CONTEXT, len(rows) - (not rows[-1]), first + _SNIPPET_LINES - 1)
        if shown_to and first > shown_to + 1:
            snippets.append("…")
        snippets.extend(_snippet_line(number, rows[number - 1]) for number in range(first, last + 1))
        shown_to = max(shown_to, last)
    return _within("\n".join(snippets), limit)


def _raw_lines(content: bytes) -> list[bytes]:
    if b"\0" in content[:_BINARY_PROBE]:
        content = detect_encoding(content).decode(content).encode("utf-8", "surrogatepass")
    return content.split(b"\n")


def _snippet_line(number: int, raw: bytes) -> str:
    return f"{number}\t{_cut_line(visible(_plain(number, raw)), None, _SNIPPET_LINE_LIMIT)}"


def _numbers(lines: Sequence[int]) -> str:
    shown = ", ".join(str(line) for line in lines[:_LISTED_LINES])
    more = f" and {len(lines) - _LISTED_LINES:,} more" if len(lines) > _LISTED_LINES else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {shown}{more}"


def _within(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 2] + "\n…"
