"""From user ids, which are anybody's, to names that a file system and an engine can hold.

The mapping is injective, also where case does not count, and its results are bounded: an id that could be a directory's name is
used as it is; every other becomes a readable part, a tilde, which no plain id can contain, and a hash of the whole id.
"""

from __future__ import annotations

import hashlib
import re

from ..errors import InvalidUserIdError

__all__ = ("check_scope", "check_user_id", "container_name", "directory_name")

MAX_LENGTH = 1024
"""Characters of an id: more than any identity provider hands out, little enough to keep beside every container."""

_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

_SLUG_LENGTH = 24
_HASH_LENGTH = 32
"""Hexadecimal digits, 128 bits: nobody finds two ids with the same."""


def check_user_id(user_id: str) -> str:
    """The id itself, if it can be one.

    Raises:
        InvalidUserIdError: It is empty, too long, or not text that can be encoded.
    """
    return _check("user id", user_id)


def check_scope(scope: str) -> str:
    """The scope itself, if it can be one.

    Raises:
        InvalidUserIdError: As for a user id.
    """
    return _check("scope", scope)


def _check(what: str, value: str) -> str:
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - ids come from web requests
        raise InvalidUserIdError(f"a {what} must be a string, got {type(value).__name__}")
    if not value:
        raise InvalidUserIdError(f"a {what} must not be empty")
    if len(value) > MAX_LENGTH:
        raise InvalidUserIdError(f"a {what} has at most {MAX_LENGTH} characters, got {len(value)}")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidUserIdError(f"a {what} must be text that can be stored, without NUL or lone surrogates")
    return value


def directory_name(user_id: str) -> str:
    """The name of the user's directory: 1 to 63 characters of `a-z0-9_-~`, never one that means something else to a path.

    Raises:
        InvalidUserIdError: The id cannot be one.
    """
    check_user_id(user_id)
    return user_id if _PLAIN.fullmatch(user_id) else f"{_slug(user_id)}~{_digest(user_id)}"


def container_name(namespace: str, user_id: str, scope: str) -> str:
    """The name of the user's container; unlike a directory's it belongs to all of the engine, so it holds the namespace.

    Raises:
        InvalidUserIdError: The id or the scope cannot be one.
    """
    check_user_id(user_id)
    check_scope(scope)
    # Lengths first, so that no two triples give the same text.
    whole = "".join(f"{len(part)}:{part}" for part in (namespace, user_id, scope))
    return f"{_slug(user_id)}-{_digest(whole)}"


def _slug(text: str) -> str:
    """A part for people to recognise; what makes a name unique is the hash."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:_SLUG_LENGTH].strip("-") or "user"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
