"""Images that a cell displayed: whether they are what they claim.

A model's provider refuses a request with an image that is none, and with it the whole conversation.
"""

from __future__ import annotations

import binascii
import struct
import zlib

from pydantic_ai.messages import BinaryContent

__all__ = ("picture",)

_LARGEST = 3_750_000
"""Bytes of an image; providers refuse larger ones."""
_MOST_PIXELS = 8_000
"""Pixels in either direction that providers take."""
_PNG = b"\x89PNG\r\n\x1a\n"


def picture(media_type: str, encoded: str) -> BinaryContent | None:
    """The image, or `None` if it is none that can be shown."""
    try:
        data = binascii.a2b_base64(encoded)
    except ValueError:
        return None
    sound = _is_png if media_type == "image/png" else _is_jpeg if media_type == "image/jpeg" else None
    if sound is None or len(data) > _LARGEST or not sound(data):
        return None
    return BinaryContent(data, media_type=media_type)


def _is_png(data: bytes) -> bool:
    """Whether every chunk is whole and the size is one that can be shown."""
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 33:
        return False
    if not all(0 < side <= _MOST_PIXELS for side in struct.unpack(">II", data[16:24])):
        return False
    view, at = memoryview(data), len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", view[at : at + 4])
        end = at + 12 + length
        if end > len(data) or zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return False
        if bytes(view[at + 4 : at + 8]) == b"IEND":
            return end == len(data)
        at = end
    return False


def _is_jpeg(data: bytes) -> bool:
    return data.startswith(b"\xff\xd8\xff") and data.rstrip(b"\0").endswith(b"\xff\xd9")
