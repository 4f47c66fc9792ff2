"""Only what is an image is shown as one."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from pydantic_ai_sandbox.interpreter.pictures import picture


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int = 1, height: int = 1, *, content: bytes = b"\0\0") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


JPEG = b"\xff\xd8\xff\xe0" + bytes(20) + b"\xff\xd9"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("media_type", "data"), [("image/png", png()), ("image/jpeg", JPEG), ("image/jpeg", JPEG + b"\0")]
)
def test_an_image_is_shown_as_it_is(media_type: str, data: bytes) -> None:
    shown = picture(media_type, encoded(data))
    assert shown is not None
    assert (shown.data, shown.media_type) == (data, media_type)


def test_line_breaks_in_base64_do_not_matter() -> None:
    shown = picture("image/png", base64.encodebytes(png()).decode())
    assert shown is not None
    assert shown.data == png()


@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        ("image/png", b""),
        ("image/png", b"\x89PNG\r\n\x1a\n"),
        ("image/png", png()[:-1]),
        ("image/png", png()[:-12]),
        ("image/png", png() + b"more"),
        ("image/png", png().replace(b"IDAT", b"IDAX")),
        ("image/png", png(width=0)),
        ("image/png", png(height=8_001)),
        ("image/png", b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b"") + bytes(40)),
        ("image/png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"IHDR" + bytes(40)),
        ("image/png", png() + bytes(4_000_000)),
        ("image/png", JPEG),
        ("image/jpeg", png()),
        ("image/jpeg", JPEG[:-2]),
        ("image/svg+xml", b"<svg/>"),
        ("text/html", b"<p>"),
    ],
)
def test_what_is_none_is_not(media_type: str, data: bytes) -> None:
    assert picture(media_type, encoded(data)) is None


@pytest.mark.parametrize("text", ["é", "AAA", "=====", "\ud800"])
def test_what_is_no_base64_is_not(text: str) -> None:
    assert picture("image/png", text) is None
